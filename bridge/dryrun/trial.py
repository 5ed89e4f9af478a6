"""Trial of changed rules for the dashboard: their errors, their plan over stored events, or the forecast of one event.

A plan here is bounded, because a person waits for the page: the newest events only, within a few seconds. `bridge plan`
has no limits. Nothing is stored and nothing is sent. Every result is plain data, since a trial runs in a process of its
own (`bridge.cli.rules_trial`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from bridge.clock import uptime
from bridge.dryrun.explain import PolicyInputsLoader, explain
from bridge.dryrun.plan import Difference, Plan, plan
from bridge.events import EVENT_TYPES, Event
from bridge.json_values import parse_body, set_field
from bridge.rules.counting import History
from bridge.rules.model import Diagnostic, LoadResult, Rules
from bridge.rules.report import source_line
from bridge.samples import refresh_sample, sample
from bridge.signing import read_event

MAX_EVENTS: Final = 5_000
"""Newest events that a plan compares."""
MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the bodies of these events."""
MAX_SECONDS: Final = 10.0
"""Time for comparing, without reading."""
MAX_SAMPLES: Final = 60
"""Examples of differences in a result."""
_PROBE: Final = 100
"""Events that are compared first, to estimate how many can be compared in time."""
_SAFETY: Final = 0.7
"""Part of the remaining time that the estimate uses up."""


class TooSlow(Exception):
    """The time is over."""


@dataclass(frozen=True)
class PartialPlan:
    """A plan, and on how many events it rests."""

    plan: Plan
    compared: int
    """The newest ones of those that were given."""


def compare(
    old: Rules,
    new: Rules,
    events: Sequence[Event],
    *,
    allowlist: Collection[str] = (),
    seconds: float = MAX_SECONDS,
    clock: Callable[[], float] = uptime,
) -> PartialPlan:
    """Compare two versions of the rules over as many of these events as the time allows. Raise TooSlow if none.

    `events` are in the order in which they were received. If there are too many, the newest are compared.
    """
    deadline = clock() + seconds

    def check_time() -> None:
        if clock() > deadline:
            raise TooSlow

    def run(size: int) -> PartialPlan:
        newest = events[len(events) - size :]
        result = plan(old, new, newest, allowlist=allowlist, on_event=check_time)
        check_time()
        return PartialPlan(result, len(newest))

    started = clock()
    first = run(min(_PROBE, len(events)))
    if first.compared == len(events):
        return first
    per_event = max(1e-6, (clock() - started) / first.compared)
    size = min(len(events), int(_SAFETY * (deadline - clock()) / per_event))
    if size <= first.compared:
        return first
    try:
        return run(size)
    except TooSlow:
        return first


def plan_json(comparison: PartialPlan, stored: int, *, is_capped: bool) -> dict[str, Any]:
    """Return a comparison as plain data. `stored` events are in the period; more, if the number is capped."""
    result = comparison.plan
    return result.to_json() | {
        "differences": result.differences,
        "samples": [sample_json(item) for item in result.samples[:MAX_SAMPLES]],
        "events_compared": comparison.compared,
        "events_stored": stored,
        "events_stored_is_capped": is_capped,
    }


def sample_json(difference: Difference) -> dict[str, Any]:
    """Return one difference with its event and its contact, so that a person recognizes it."""
    event = difference.delivery.event
    return difference.to_json() | {
        "event_type": event.type,
        "event_received_at": event.received_at.isoformat(),
        "contact": event.contact.name or event.contact.phone or event.contact.email,
    }


def diagnostic_json(diagnostic: Diagnostic, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return a diagnostic with the line of the file that it is about, and the column of the caret in it."""
    code, caret = source_line(diagnostic, texts)
    return asdict(diagnostic) | {"code": code, "caret": caret}


def check_json(loaded: LoadResult, rules: Rules | None) -> dict[str, Any]:
    """Return the result of a check as plain data. `rules` can be tried, also if a connection is not set up."""
    return {
        "ok": loaded.rules is not None,
        "diagnostics": [diagnostic_json(item, loaded.texts) for item in loaded.diagnostics],
        "rules": len(rules.rules) if rules else 0,
        "hash": rules.hash if rules else None,
    }


class InvalidEvent(ValueError):
    """The event to try does not exist or has an invalid value; the message says what to enter."""


def sample_event(
    event_type: str, changes: Mapping[str, Any], now: datetime, default_country: str | None
) -> Event:
    """Return the sample of an event type as if it came in now, with these fields of its body. Raise InvalidEvent."""
    if event_type not in EVENT_TYPES:
        raise InvalidEvent(f"`{event_type[:80]}` is not an event type: {', '.join(EVENT_TYPES)}")
    return changed_event(
        json.dumps(refresh_sample(sample(event_type), now)).encode(), changes, now, default_country
    )


def changed_event(
    raw: bytes, changes: Mapping[str, Any], now: datetime, default_country: str | None
) -> Event:
    """Return the event in a body with these fields (`metadata.contactPhone`) changed."""
    body = parse_body(raw)
    for path, value in changes.items():
        set_field(body, path.split("."), value)
    return read_event(json.dumps(body).encode(), now, default_country)


def explain_json(
    event: Event,
    rules: Rules,
    now: datetime,
    *,
    load_inputs: PolicyInputsLoader,
    history: History,
    allowlist: Collection[str] = (),
) -> dict[str, Any]:
    """Return what the rules would do with an event at an instant, as plain data."""
    explanation = explain(event, rules, now, load_inputs=load_inputs, history=history, allowlist=allowlist)
    return explanation.to_json() | {"at": now.isoformat()}
