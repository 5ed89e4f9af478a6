"""What a change of the rules would have done to events that really came: what it adds, removes and changes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Any, Literal

from bridge.connector import segments
from bridge.dryrun.simulator import Delivery, Simulation
from bridge.events import Event
from bridge.rules.model import Rules

Kind = Literal["added", "removed", "changed"]

_BODIES = ("body", "text")
_Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Difference:
    """One delivery that is not the same under both rules."""

    kind: Kind
    delivery: Delivery
    """As it would be under the new rules; of a removed one, as it was."""
    counterpart: Delivery | None
    """The same one under the other rules, where it may be held back; None when nothing there leads to it."""
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """What is different, old and new: `rule`, `at`, or a param by its name."""

    @property
    def why(self) -> str:
        """Why an added one did not go before, or a removed one no longer goes; empty when no rule leads to it."""
        return self.counterpart.why if self.counterpart is not None and self.kind != "changed" else ""

    def to_json(self) -> dict[str, Any]:
        """The difference as plain data."""
        return {
            "kind": self.kind,
            "event_id": self.delivery.event.id or self.delivery.event.dedupe_key,
            "delivery": self.delivery.to_json(),
            "counterpart": self.counterpart.to_json() if self.counterpart else None,
            "changes": {name: list(pair) for name, pair in self.changes.items()},
            "why": self.why,
        }


@dataclass(frozen=True)
class Load:
    """What a set of deliveries amounts to."""

    deliveries: int = 0
    """Carried out; what is held back, cancelled or cannot be rendered does not count."""
    messages: Mapping[str, int] = field(default_factory=dict)
    """Per channel."""
    segments: int = 0
    """What the texts cost: every segment is billed."""
    requests: Mapping[str, int] = field(default_factory=dict)
    """Deliveries per connection: at most as many requests, for batches and known people save some."""
    held_back: Mapping[str, int] = field(default_factory=dict)
    """Per reason (`cancelled` included): not carried out."""
    broken: int = 0
    """Params that cannot be rendered: these would be dead letters."""

    def to_json(self) -> dict[str, Any]:
        """The load as plain data."""
        return {
            "deliveries": self.deliveries,
            "messages": dict(self.messages),
            "segments": self.segments,
            "requests": dict(self.requests),
            "held_back": dict(self.held_back),
            "broken": self.broken,
        }


@dataclass(frozen=True)
class Plan:
    """The difference between two sets of rules over the same events."""

    events: int
    since: datetime | None
    until: datetime | None
    """When the first and the last of the events came."""
    differences: tuple[Difference, ...]
    old: Load
    new: Load

    def counts(self) -> dict[str, dict[Kind, int]]:
        """Per rule, how many deliveries are added, removed and changed."""
        found: defaultdict[str, Counter[Kind]] = defaultdict(Counter)
        for difference in self.differences:
            found[difference.delivery.planned.rule][difference.kind] += 1
        return {rule: dict(counter) for rule, counter in sorted(found.items())}

    def samples(self, each: int = 3) -> tuple[Difference, ...]:
        """The first few differences of each rule, action and kind."""
        taken: Counter[tuple[str, str, Kind]] = Counter()
        chosen = []
        for difference in self.differences:
            planned = difference.delivery.planned
            group = (planned.rule, planned.action, difference.kind)
            taken[group] += 1
            if taken[group] <= each:
                chosen.append(difference)
        return tuple(chosen)

    def to_json(self, samples: int = 3) -> dict[str, Any]:
        """The plan as plain data, with so many samples of each kind of difference."""
        return {
            "events": self.events,
            "since": self.since.isoformat() if self.since else None,
            "until": self.until.isoformat() if self.until else None,
            "rules": self.counts(),
            "old": self.old.to_json(),
            "new": self.new.to_json(),
            "samples": [difference.to_json() for difference in self.samples(samples)],
        }


def plan(
    old: Rules,
    new: Rules,
    events: Sequence[Event],
    *,
    allowlist: Collection[str] = (),
    on_event: Callable[[], None] = lambda: None,
) -> Plan:
    """Run the events through both rules in memory and compare what would have been carried out.

    Quiet hours, caps, `once`, cancellations and effects count on both sides; partners take everything. Two
    deliveries are the same when one event brings about one effect with one action and connection, whatever the
    rule is called. `on_event` is called twice for each event, to show progress.
    """
    before, after = (_simulate(rules, events, allowlist, on_event) for rules in (old, new))
    received = sorted(event.received_at for event in events)
    return Plan(
        events=before.accepted,
        since=received[0] if received else None,
        until=received[-1] if received else None,
        differences=tuple(_paired(_differences(before.deliveries, after.deliveries))),
        old=load_of(before.deliveries),
        new=load_of(after.deliveries),
    )


def _simulate(
    rules: Rules, events: Iterable[Event], allowlist: Collection[str], on_event: Callable[[], None]
) -> Simulation:
    simulation = Simulation(rules, allowlist=allowlist, keep_traces=False)
    simulation.run(events, on_event)
    return simulation


def _differences(old: Iterable[Delivery], new: Iterable[Delivery]) -> Iterator[Difference]:
    before, after = _by_key(old), _by_key(new)
    for key in dict.fromkeys((*before, *after)):
        for was, will in zip_longest(before.get(key, ()), after.get(key, ())):
            broken = (*key[:3], "")
            was = was or next(iter(before.get(broken, ())), None)
            will = will or next(iter(after.get(broken, ())), None)
            difference = _difference(was, will)
            if difference is not None:
                yield difference


def _paired(differences: Iterable[Difference]) -> Iterator[Difference]:
    """One that goes and one that comes in its place are one that changes.

    Their effects differ where an action tells its effects apart by what they say.
    """
    found = list(differences)
    gone: defaultdict[Hashable, list[Difference]] = defaultdict(list)
    for difference in found:
        if difference.kind == "removed" and difference.counterpart is None:
            gone[_place(difference.delivery)].append(difference)
    changed: dict[int, Difference] = {}
    for difference in found:
        replaced = gone[_place(difference.delivery)]
        if difference.kind == "added" and difference.counterpart is None and replaced:
            was, will = replaced.pop(0), difference.delivery
            changed[id(was)] = Difference("changed", will, was.delivery, _changes(was.delivery, will))
            changed[id(difference)] = changed[id(was)]
    # The one that goes stands for both, where it was.
    for difference in found:
        if id(difference) not in changed:
            yield difference
        elif difference.kind == "removed":
            yield changed[id(difference)]


def _place(delivery: Delivery) -> Hashable:
    planned = delivery.planned
    owner = (planned.trigger, planned.rule, planned.action, planned.connection, planned.recipient)
    return delivery.event.dedupe_key, *owner


def _by_key(deliveries: Iterable[Delivery]) -> dict[_Key, list[Delivery]]:
    """The deliveries of each event, action, connection and effect; those that are carried out come first.

    One that cannot be rendered has no recipient and so no effect to know it by.
    """
    found: defaultdict[_Key, list[Delivery]] = defaultdict(list)
    for delivery in sorted(deliveries, key=lambda delivery: delivery.state != "succeeded"):
        planned = delivery.planned
        idempotency_key = "" if planned.problem else planned.idempotency_key
        found[delivery.event.dedupe_key, planned.action, planned.connection, idempotency_key].append(delivery)
    return found


def _difference(was: Delivery | None, will: Delivery | None) -> Difference | None:
    goes = will is not None and will.state == "succeeded"
    if was is not None and was.state == "succeeded" and not goes:
        return Difference("removed", was, will)
    if will is None or not goes:
        return None
    if was is None or was.state != "succeeded":
        return Difference("added", will, was)
    changes = _changes(was, will)
    return Difference("changed", will, was, changes) if changes else None


def _changes(was: Delivery, will: Delivery) -> dict[str, tuple[Any, Any]]:
    changes: dict[str, tuple[Any, Any]] = {}
    if was.planned.rule != will.planned.rule:
        changes["rule"] = (was.planned.rule, will.planned.rule)
    if was.at != will.at:
        changes["at"] = (was.at.isoformat(), will.at.isoformat())
    old, new = was.planned.params, will.planned.params
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            changes[name] = (old.get(name), new.get(name))
    return changes


def load_of(deliveries: Iterable[Delivery]) -> Load:
    """What these deliveries amount to."""
    messages: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    held_back: Counter[str] = Counter()
    carried_out = billed = broken = 0
    for delivery in deliveries:
        planned = delivery.planned
        if delivery.held_back:
            held_back[delivery.reason or delivery.state] += 1
        elif delivery.state == "failed":
            broken += 1
        elif delivery.state == "succeeded":
            carried_out += 1
            requests[planned.connection] += 1
            if planned.channel:
                messages[planned.channel] += 1
            if planned.channel == "sms":
                billed += segments(text_of(delivery)).count
    return Load(carried_out, messages, billed, requests, held_back, broken)


def text_of(delivery: Delivery) -> str:
    """What a message says: its param `body`, else `text`."""
    params = delivery.planned.params
    return next((str(params[name]) for name in _BODIES if params.get(name)), "")
