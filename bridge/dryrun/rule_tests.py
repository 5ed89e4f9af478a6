"""The `tests:` of a rules file: what they expect, against what a simulation does. Sends nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bridge.dryrun.coverage import Coverage, coverage_of
from bridge.dryrun.explain import unmet
from bridge.dryrun.simulator import Delivery, Simulation, State
from bridge.errors import ConfigError
from bridge.events import EVENT_NAMES, Event, dedupe_key_of, parse_body, parse_instant
from bridge.rules.model import Expectation, RehearsedEvent, Rules, RuleTest, Trace
from bridge.samples import iso, sample

ALERTS: Final = "alerts"
"""The name under which a test expects the file's alerts."""

_MINUTE = timedelta(minutes=1)
_ENDS: Final[Mapping[State, str]] = {
    "pending": "was still waiting",
    "succeeded": "was sent",
    "needs_review": "was left to a person",
    "failed": "was given up on",
    "cancelled": "was cancelled",
    "suppressed": "was suppressed",
}


@dataclass(frozen=True)
class Mismatch:
    """One thing that a test expects otherwise."""

    rule: str
    line: int
    """Of the expectation, or of the test when something happened that nobody expects."""
    text: str
    why: tuple[str, ...] = ()
    """What explains it: the conditions that were not met, the line of the policy that decided."""

    def to_json(self) -> dict[str, Any]:
        """The mismatch as plain data."""
        return {"rule": self.rule, "line": self.line, "text": self.text, "why": list(self.why)}


@dataclass(frozen=True)
class Result:
    """How one test ended."""

    name: str
    path: str
    """The file where it stands."""
    line: int
    mismatches: tuple[Mismatch, ...]
    deliveries: tuple[Delivery, ...]
    """Everything that happened, in the order in which it was made."""

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return not self.mismatches

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "name": self.name,
            "path": self.path,
            "line": self.line,
            "passed": self.passed,
            "mismatches": [mismatch.to_json() for mismatch in self.mismatches],
            "deliveries": [delivery.to_json() for delivery in self.deliveries],
        }


@dataclass(frozen=True)
class Report:
    """How all tests of some rules ended, and what none of them tried."""

    results: tuple[Result, ...]
    coverage: Coverage

    @property
    def passed(self) -> bool:
        """Whether every test passed; gaps in the coverage fail nobody."""
        return all(result.passed for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "passed": self.passed,
            "tests": [result.to_json() for result in self.results],
            "coverage": self.coverage.to_json(),
        }


def run_tests(
    rules: Rules,
    tests: Iterable[RuleTest] | None = None,
    *,
    folder: Path | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> Report:
    """Run `tests` (default: the file's own) against the rules; `on_result` hears of each as it ends.

    Event files are looked for in `folder` (default: where the file of the test is).
    """
    results, simulations = [], []
    for test in rules.tests if tests is None else tests:
        try:
            simulation = Simulation(rules, fail=test.fail)
            simulation.run(events_of(test, folder or Path(test.path or rules.path).parent))
        except ConfigError as error:
            result = Result(test.name, test.path, test.line, (Mismatch("", test.line, str(error)),), ())
        else:
            simulations.append(simulation)
            mismatches = tuple(_compare(test, simulation))
            result = Result(test.name, test.path, test.line, mismatches, tuple(simulation.deliveries))
        results.append(result)
        if on_result is not None:
            on_result(result)
    return Report(tuple(results), coverage_of(rules, simulations))


# ---------------------------------------------------------------- events


def events_of(test: RuleTest, folder: Path) -> list[Event]:
    """The events that a test sends; raises ConfigError that says which file cannot be used."""
    events: list[Event] = []
    at: datetime | None = None
    for number, rehearsed in enumerate(test.events, start=1):
        event = _event(rehearsed, rehearsed.at or at, number, folder)
        at = event.received_at
        events.append(event)
    return events


def _event(rehearsed: RehearsedEvent, at: datetime | None, number: int, folder: Path) -> Event:
    body = _body(rehearsed.source, folder)
    body["webhookId"] = f"whd_test_{number}"
    if at is None:
        at = parse_instant(body.get("timestamp"))
    else:
        body["timestamp"] = iso(at)
    if at is None:
        raise ConfigError(f"event {number}, {rehearsed.source}: it has no timestamp; say when with `at:`")
    for path, value in rehearsed.set.items():
        _put(body, path.split("."), copy.deepcopy(value))
    raw = json.dumps(body).encode()
    return Event(body, dedupe_key_of(body, raw), at, f"evt_test_{number}")


def _body(source: str, folder: Path) -> dict[str, Any]:
    if source in EVENT_NAMES:
        return sample(source)
    try:
        return parse_body((folder / source).read_bytes())
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError as error:
        raise ConfigError(f"{source} is not an event: {error}") from None


def _put(body: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = body.get(key)
        if not isinstance(inner, dict):
            inner = body[key] = {}
        body = inner
    body[path[-1]] = value


# ---------------------------------------------------------------- comparing


def _compare(test: RuleTest, simulation: Simulation) -> Iterable[Mismatch]:
    happened: dict[str, list[Delivery]] = {}
    for delivery in simulation.deliveries:
        happened.setdefault(_owner(delivery), []).append(delivery)
    names = test.expect or dict.fromkeys(happened, ())
    for rule, expected in names.items():
        yield from _compare_rule(test, rule, expected, happened.get(rule, []), simulation.traces)


def _owner(delivery: Delivery) -> str:
    return ALERTS if delivery.planned.trigger == "alert" else delivery.planned.rule


def _compare_rule(
    test: RuleTest,
    rule: str,
    expected: Sequence[Expectation],
    happened: Sequence[Delivery],
    traces: Sequence[tuple[Event, Sequence[Trace]]],
) -> Iterable[Mismatch]:
    pairs = _pair(expected, happened, test.fail)
    left = [delivery for place, delivery in enumerate(happened) if place not in pairs.values()]
    for place, expectation in enumerate(expected):
        if place in pairs:
            continue
        near = min(
            (delivery for delivery in left if delivery.planned.action == expectation.use),
            key=lambda delivery: len(_differences(expectation, delivery, test.fail)),
            default=None,
        )
        if near is None:
            yield Mismatch(
                rule, expectation.line, f"{_wanted(expectation)}: nothing of the kind", _silence(rule, traces)
            )
        else:
            left.remove(near)
            found = "; ".join(_differences(expectation, near, test.fail))
            yield Mismatch(rule, expectation.line, f"{_wanted(expectation)}: {found}", _lines(near))
    for delivery in left:
        # What was held back needs no mention: nothing was done.
        if not delivery.held_back:
            text = f"not expected: {delivery.planned.action} {_end_of(delivery, delivery.event.received_at)}"
            yield Mismatch(rule, test.line, text, _lines(delivery))


def _pair(
    expected: Sequence[Expectation], happened: Sequence[Delivery], fail: Mapping[str, str]
) -> dict[int, int]:
    """Expectations with the deliveries that meet them, as many as possible (augmenting paths)."""
    taken: dict[int, int] = {}

    def find(place: int, tried: set[int]) -> bool:
        for candidate, delivery in enumerate(happened):
            if candidate not in tried and not _differences(expected[place], delivery, fail):
                tried.add(candidate)
                if candidate not in taken or find(taken[candidate], tried):
                    taken[candidate] = place
                    return True
        return False

    for place in range(len(expected)):
        find(place, set())
    return {place: candidate for candidate, place in taken.items()}


def _differences(expectation: Expectation, delivery: Delivery, fail: Mapping[str, str]) -> list[str]:
    """In which ways a delivery is not what is expected; empty when it is."""
    planned = delivery.planned
    if planned.action != expectation.use:
        return [f"it is {planned.action}"]
    found = []
    if not _state_fits(expectation, delivery, fail):
        found.append(f"it {_end_of(delivery, expectation.at)}")
    elif expectation.at is not None and abs(delivery.at - expectation.at) >= _MINUTE:
        found.append(f"it was at {_time(delivery.at, expectation.at)}")
    if expectation.reason is not None and delivery.reason != expectation.reason:
        found.append(f"its reason is {delivery.reason or 'none'}")
    if expectation.connection is not None and planned.connection != expectation.connection:
        found.append(f"it is for connection {planned.connection}")
    for name, value in (expectation.params or {}).items():
        if planned.params.get(name) != value:
            shown = _json(planned.params[name]) if name in planned.params else "not there"
            found.append(f"{name} is {shown}, not {_json(value)}")
    return found


def _state_fits(expectation: Expectation, delivery: Delivery, fail: Mapping[str, str]) -> bool:
    """Without a `state`, it has to go out; or be tried, where the test makes its partner fail."""
    if expectation.state is not None:
        return delivery.state == expectation.state
    return delivery.state == "succeeded" or (delivery.attempted and delivery.planned.action in fail)


def _wanted(expectation: Expectation) -> str:
    words = [f"expected {expectation.use}"]
    if expectation.state:
        words.append(expectation.state)
    if expectation.reason:
        words.append(f"({expectation.reason})")
    if expectation.at:
        words.append(f"at {_time(expectation.at, expectation.at)}")
    return " ".join(words)


def _end_of(delivery: Delivery, like: datetime | None) -> str:
    reason = f" ({delivery.reason})" if delivery.reason else ""
    return f"{_ENDS[delivery.state]}{reason} at {_time(delivery.at, like or delivery.event.received_at)}"


def _time(instant: datetime, like: datetime) -> str:
    """On the clock that the test itself writes."""
    return instant.astimezone(like.tzinfo).isoformat(timespec="minutes")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(delivery: Delivery) -> tuple[str, ...]:
    return (delivery.why,) if delivery.why else ()


def _silence(rule: str, traces: Sequence[tuple[Event, Sequence[Trace]]]) -> tuple[str, ...]:
    """Why a rule did not fire, for each event that it is for."""
    lines = []
    for event, found in traces:
        for trace in found:
            if trace.rule != rule or trace.fired:
                continue
            if trace.error:
                lines.append(f"{event.type}: {trace.error}")
            lines += [f"{event.type}: {sentence}" for sentence in unmet(trace)]
    return tuple(lines)
