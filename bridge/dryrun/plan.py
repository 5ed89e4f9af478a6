"""Plan: compares two versions of the rules over stored events, and lists the deliveries that differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Any, Literal

from bridge.connector import segments
from bridge.dryrun.delivery import DryRunDelivery, text_in
from bridge.dryrun.simulator import Simulation
from bridge.events import Event
from bridge.rules.model import Rules

Kind = Literal["added", "removed", "changed"]

_Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Difference:
    """One delivery that is not the same under both versions of the rules."""

    kind: Kind
    delivery: DryRunDelivery
    """The delivery under the new rules; for a removed one, under the old rules."""
    counterpart: DryRunDelivery | None
    """The same delivery under the other rules, where it may be held back; None if those do not create it."""
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Old and new value of everything that differs: `rule`, `at`, or a param by its name."""

    @property
    def detail(self) -> str:
        """Why an added one was not sent before, or a removed one no longer is; empty if no rule creates it."""
        return self.counterpart.detail if self.counterpart is not None and self.kind != "changed" else ""

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain data."""
        return {
            "kind": self.kind,
            "event_id": self.delivery.event.id or self.delivery.event.dedupe_key,
            "delivery": self.delivery.to_json(),
            "counterpart": self.counterpart.to_json() if self.counterpart else None,
            "changes": {name: list(pair) for name, pair in self.changes.items()},
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Totals:
    """The totals of a set of deliveries."""

    deliveries: int = 0
    """Deliveries carried out, without those that are suppressed, cancelled or cannot be rendered."""
    messages: Mapping[str, int] = field(default_factory=dict)
    """Messages per channel."""
    segments: int = 0
    """Segments of all text messages; every segment is billed."""
    requests: Mapping[str, int] = field(default_factory=dict)
    """Deliveries per connection: an upper limit of the requests, since batches and cached contacts save some."""
    held_back: Mapping[str, int] = field(default_factory=dict)
    """Suppressed and cancelled deliveries, by reason or `cancelled`."""
    stopped: Mapping[str, int] = field(default_factory=dict)
    """Deliveries per connection that wait because `messaging.caps.total` paused it."""
    broken: int = 0
    """Deliveries whose params cannot be rendered: these would be dead letters."""

    def to_json(self) -> dict[str, Any]:
        """Return the totals as plain data."""
        return {
            "deliveries": self.deliveries,
            "messages": dict(self.messages),
            "segments": self.segments,
            "requests": dict(self.requests),
            "held_back": dict(self.held_back),
            "stopped": dict(self.stopped),
            "broken": self.broken,
        }


@dataclass(frozen=True)
class Plan:
    """The differences between two versions of the rules over the same events."""

    events: int
    since: datetime | None
    until: datetime | None
    """When the first and the last event were received."""
    differences: tuple[Difference, ...]
    old: Totals
    new: Totals

    def counts(self) -> dict[str, dict[Kind, int]]:
        """Return the number of added, removed and changed deliveries by rule."""
        counts: defaultdict[str, Counter[Kind]] = defaultdict(Counter)
        for difference in self.differences:
            counts[difference.delivery.planned.rule][difference.kind] += 1
        return {rule: dict(counter) for rule, counter in sorted(counts.items())}

    def samples(self, each: int = 3) -> tuple[Difference, ...]:
        """Return the first `each` differences of each rule, action and kind."""
        group_sizes: Counter[tuple[str, str, Kind]] = Counter()
        samples = []
        for difference in self.differences:
            planned = difference.delivery.planned
            group = (planned.rule, planned.action, difference.kind)
            group_sizes[group] += 1
            if group_sizes[group] <= each:
                samples.append(difference)
        return tuple(samples)

    def to_json(self, samples: int = 3) -> dict[str, Any]:
        """Return the plan as plain data, with `samples` differences of each kind."""
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
    """Run the events through both versions of the rules in memory and compare the deliveries carried out.

    Quiet hours, caps, `once`, cancellations and idempotency keys apply on both sides; providers accept everything. Two
    deliveries are the same if event, action, connection and idempotency key are equal; the rule may have another name.
    `on_event` is called twice for each event, to show progress.
    """
    before, after = Simulation(old, allowlist=allowlist), Simulation(new, allowlist=allowlist)
    for simulation in (before, after):
        simulation.run(events, on_event)
    received = sorted(event.received_at for event in events)
    return Plan(
        events=before.accepted,
        since=received[0] if received else None,
        until=received[-1] if received else None,
        differences=tuple(_pair_replacements(_differences(before.deliveries, after.deliveries))),
        old=totals_of(before.deliveries),
        new=totals_of(after.deliveries),
    )


def _differences(old: Iterable[DryRunDelivery], new: Iterable[DryRunDelivery]) -> Iterator[Difference]:
    before, after = _by_key(old), _by_key(new)
    for key in dict.fromkeys((*before, *after)):
        for old_delivery, new_delivery in zip_longest(before.get(key, ()), after.get(key, ())):
            unrendered = (*key[:3], "")
            old_delivery = old_delivery or next(iter(before.get(unrendered, ())), None)
            new_delivery = new_delivery or next(iter(after.get(unrendered, ())), None)
            difference = _difference(old_delivery, new_delivery)
            if difference is not None:
                yield difference


def _pair_replacements(differences: Iterable[Difference]) -> Iterator[Difference]:
    """Turn a removed delivery and the one added in its place into one that changed.

    Their idempotency keys differ if the action derives the key from its params (`dedupe_by`).
    """
    all_differences = list(differences)
    removed: defaultdict[Hashable, list[Difference]] = defaultdict(list)
    for difference in all_differences:
        if difference.kind == "removed" and difference.counterpart is None:
            removed[_slot_key(difference.delivery)].append(difference)
    changed: dict[int, Difference] = {}
    for difference in all_differences:
        candidates = removed[_slot_key(difference.delivery)]
        if difference.kind == "added" and difference.counterpart is None and candidates:
            replaced, replacement = candidates.pop(0), difference.delivery
            change = Difference(
                "changed", replacement, replaced.delivery, _changes(replaced.delivery, replacement)
            )
            changed[id(replaced)] = changed[id(difference)] = change
    # The change takes the position of the removed delivery.
    for difference in all_differences:
        if id(difference) not in changed:
            yield difference
        elif difference.kind == "removed":
            yield changed[id(difference)]


def _slot_key(delivery: DryRunDelivery) -> Hashable:
    planned = delivery.planned
    owner = (planned.trigger, planned.rule, planned.action, planned.connection, planned.recipient)
    return delivery.event.dedupe_key, *owner


def _by_key(deliveries: Iterable[DryRunDelivery]) -> dict[_Key, list[DryRunDelivery]]:
    """Group deliveries by event, action, connection and idempotency key; those carried out come first.

    A delivery that cannot be rendered has no recipient, and so no idempotency key.
    """
    by_key: defaultdict[_Key, list[DryRunDelivery]] = defaultdict(list)
    for delivery in sorted(deliveries, key=lambda delivery: delivery.state != "succeeded"):
        planned = delivery.planned
        idempotency_key = "" if planned.render_error else planned.idempotency_key
        by_key[delivery.event.dedupe_key, planned.action, planned.connection, idempotency_key].append(
            delivery
        )
    return by_key


def _difference(old: DryRunDelivery | None, new: DryRunDelivery | None) -> Difference | None:
    sent_by_new = new is not None and new.state == "succeeded"
    if old is not None and old.state == "succeeded" and not sent_by_new:
        return Difference("removed", old, new)
    if new is None or not sent_by_new:
        return None
    if old is None or old.state != "succeeded":
        return Difference("added", new, old)
    changes = _changes(old, new)
    return Difference("changed", new, old, changes) if changes else None


def _changes(old: DryRunDelivery, new: DryRunDelivery) -> dict[str, tuple[Any, Any]]:
    changes: dict[str, tuple[Any, Any]] = {}
    if old.planned.rule != new.planned.rule:
        changes["rule"] = (old.planned.rule, new.planned.rule)
    if old.at != new.at:
        changes["at"] = (old.at.isoformat(), new.at.isoformat())
    old_params, new_params = old.planned.params, new.planned.params
    for name in dict.fromkeys((*old_params, *new_params)):
        if old_params.get(name) != new_params.get(name):
            changes[name] = (old_params.get(name), new_params.get(name))
    return changes


def totals_of(deliveries: Iterable[DryRunDelivery]) -> Totals:
    """Return the totals of these deliveries."""
    messages: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    held_back: Counter[str] = Counter()
    stopped: Counter[str] = Counter()
    carried_out = segment_count = broken = 0
    for delivery in deliveries:
        planned = delivery.planned
        if delivery.held_back:
            held_back[delivery.reason or delivery.state] += 1
        elif delivery.state == "failed":
            broken += 1
        elif delivery.state == "pending":
            stopped[planned.connection] += 1
        elif delivery.state == "succeeded":
            carried_out += 1
            requests[planned.connection] += 1
            if planned.channel:
                messages[planned.channel] += 1
            if planned.channel == "sms":
                segment_count += segments(text_in(planned.params)).count
    return Totals(carried_out, messages, segment_count, requests, held_back, stopped, broken)
