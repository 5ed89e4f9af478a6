"""Plan: compares two versions of the rules over stored events, and lists the deliveries that differ."""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from operator import itemgetter
from typing import Any, Literal

from bridge.connector import segments
from bridge.dryrun.delivery import DryRunDelivery, text_in
from bridge.dryrun.shared_rules import SharedRules
from bridge.dryrun.simulator import AcceptedEvents, Case, Simulation, simulate
from bridge.events import Event
from bridge.rules.event_uses import related_event_types
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


@dataclass
class Totals:
    """The totals of a set of deliveries."""

    deliveries: int = 0
    """Deliveries carried out, without those that are suppressed, cancelled or cannot be rendered."""
    messages: Counter[str] = field(default_factory=Counter)
    """Messages per channel."""
    segments: int = 0
    """Segments of all text messages; every segment is billed."""
    requests: Counter[str] = field(default_factory=Counter)
    """Deliveries per connection: an upper limit of the requests, since batches and cached contacts save some."""
    held_back: Counter[str] = field(default_factory=Counter)
    """Suppressed and cancelled deliveries, by reason or `cancelled`."""
    stopped: Counter[str] = field(default_factory=Counter)
    """Deliveries per connection that wait because `messaging.caps.total` paused it."""
    broken: int = 0
    """Deliveries whose params cannot be rendered: these would be dead letters."""

    def add(self, delivery: DryRunDelivery) -> None:
        """Count a delivery."""
        planned = delivery.planned
        if delivery.held_back:
            self.held_back[delivery.reason or delivery.state] += 1
        elif delivery.state == "failed":
            self.broken += 1
        elif delivery.state == "pending":
            self.stopped[planned.connection] += 1
        elif delivery.state == "succeeded":
            self.deliveries += 1
            self.requests[planned.connection] += 1
            if planned.channel:
                self.messages[planned.channel] += 1
            if planned.channel == "sms":
                self.segments += segments(text_in(planned.params)).count

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    def to_json(self) -> dict[str, Any]:
        """Return the totals as plain data."""
        return {
            name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class Plan:
    """The differences between two versions of the rules over the same events."""

    events: int
    since: datetime | None
    until: datetime | None
    """When the first and the last event were received."""
    differences: int
    rules: Mapping[str, Mapping[Kind, int]]
    """The number of added, removed and changed deliveries by rule."""
    samples: tuple[Difference, ...]
    """The first differences of each rule, action and kind, by the order of their events."""
    old: Totals
    new: Totals

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {
            "events": self.events,
            "since": self.since.isoformat() if self.since else None,
            "until": self.until.isoformat() if self.until else None,
            "rules": {rule: dict(kinds) for rule, kinds in self.rules.items()},
            "old": self.old.to_json(),
            "new": self.new.to_json(),
            "samples": [difference.to_json() for difference in self.samples],
        }


def plan(
    old: Rules,
    new: Rules,
    events: Iterable[Event],
    *,
    allowlist: Collection[str] = (),
    samples: int = 3,
    on_event: Callable[[], None] = lambda: None,
) -> Plan:
    """Run the events through both versions of the rules in memory and compare the deliveries carried out.

    `events` are in the order in which they were received and without duplicates; each is read when it is needed and
    forgotten once its deliveries have ended under both versions. Quiet hours, caps, `once`, cancellations and
    idempotency keys apply on both sides; providers accept everything. Two deliveries are the same if event, action,
    connection and idempotency key are equal; the rule may have another name. `samples` differences of each rule, action
    and kind are kept.
    `on_event` is called for each event, to show progress.
    """
    comparison = _Comparison(samples)
    accepted = AcceptedEvents(related_event_types(old) | related_event_types(new))
    shared = SharedRules(old, new)
    simulations = [
        Simulation(rules, allowlist=allowlist, events=accepted, on_complete=on_complete)
        for rules, on_complete in (
            (old, comparison.add_old),
            (new, comparison.add_new),
            (old, comparison.add_shared),  # for these deliveries, both versions decide alike
        )
    ]
    since = until = None

    def watched() -> Iterator[Event]:
        nonlocal since, until
        for event in events:
            since, until = since or event.received_at, event.received_at
            on_event()
            yield event

    simulate(simulations, lambda event: shared.plan(event, accepted.history), watched())
    return Plan(
        accepted.count,
        since,
        until,
        comparison.differences,
        {rule: dict(kinds) for rule, kinds in sorted(comparison.rules.items())},
        comparison.samples(),
        comparison.shared + comparison.old,
        comparison.shared + comparison.new,
    )


_Group = tuple[str, str, Kind]


class _Comparison:
    """Compares the deliveries of one event after the other; two deliveries of different events are never the same."""

    def __init__(self, samples: int) -> None:
        self.old, self.new, self.shared = Totals(), Totals(), Totals()
        self.differences = 0
        self.rules: defaultdict[str, Counter[Kind]] = defaultdict(Counter)
        self._samples_per_group = samples
        self._samples: defaultdict[_Group, list[tuple[int, int, Difference]]] = defaultdict(list)
        """By rule, action and kind, with the numbers of the event and of the difference in it, which order them."""
        self._complete_old: dict[int, Case] = {}
        self._complete_new: dict[int, Case] = {}
        """Events that are complete on one side only."""

    def add_old(self, case: Case) -> None:
        """Take an event that is complete under the old rules."""
        self._add(case, self._complete_old, self._complete_new)

    def add_new(self, case: Case) -> None:
        """Take an event that is complete under the new rules."""
        self._add(case, self._complete_new, self._complete_old)

    def add_shared(self, case: Case) -> None:
        """Take the deliveries of an event that are the same under both versions."""
        for delivery in case.deliveries:
            self.shared.add(delivery)

    def samples(self) -> tuple[Difference, ...]:
        """Return the samples in the order of their events."""
        found = [item for items in self._samples.values() for item in items]
        return tuple(difference for *_, difference in sorted(found, key=itemgetter(0, 1)))

    def _add(self, case: Case, side: dict[int, Case], other: dict[int, Case]) -> None:
        side[case.number] = case
        if case.number in other:
            self._compare(self._complete_old.pop(case.number), self._complete_new.pop(case.number))

    def _compare(self, old: Case, new: Case) -> None:
        for case, totals in ((old, self.old), (new, self.new)):
            for delivery in case.deliveries:
                totals.add(delivery)
        for index, difference in enumerate(_pair_replacements(_differences(old.deliveries, new.deliveries))):
            planned = difference.delivery.planned
            self.differences += 1
            self.rules[planned.rule][difference.kind] += 1
            group = self._samples[planned.rule, planned.action, difference.kind]
            insort(group, (old.number, index, difference), key=itemgetter(0, 1))
            del group[self._samples_per_group :]


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
