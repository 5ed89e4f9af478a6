"""The bridge in memory: runs many events through rules and returns the result of every delivery.

`bridge plan` compares thousands of events, and the engine on its temporary database takes about forty times as long
(docs/decisions/0025-dry-runs-on-the-engine.md). Routing and every decision are the service's own code here too. A few
dictionaries replace the storage, and every provider accepts everything. After `messaging.caps.total` has paused a
connection, its deliveries wait until the end; the alert about it is left out. A test compares the results with the
engine's.

Events come one by one, in the order in which they were received and without duplicates, and several simulations of the
same events advance together. What is kept of an event whose deliveries have ended is its part in decisions about
others, and what was not used lately is in a temporary file: memory stays flat.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

from bridge.contacts.address import address_key
from bridge.dryrun.delivery import EXTERNAL_ID, DryRunDelivery, State, build_due_delivery
from bridge.dryrun.details import with_templates
from bridge.dryrun.spilling_map import SpillingMap
from bridge.events import Event
from bridge.policy import (
    NEVER,
    Allow,
    Cancel,
    Defer,
    EventRef,
    Hold,
    IdempotencyRecord,
    MessageCounts,
    PolicyInputs,
    Suppress,
    decide,
    event_precedence,
    find_cancelling_event,
)
from bridge.policy.alert_groups import AlertGroup, cause_of
from bridge.rules.counting import MAX_COUNTED
from bridge.rules.event_uses import related_event_types
from bridge.rules.model import Cap, MessagingPolicy, PlannedDelivery, Rules
from bridge.rules.route import after_delivery, alerts, route

_Related = tuple[datetime, EventRef]
"""An event, and when it occurred as templates know it: never later than it was received."""


class AcceptedEvents:
    """The events that simulations have accepted, as far as decisions about other events need them."""

    def __init__(self, related_types: Collection[str]) -> None:
        """`related_types` are those of the events that rules count, or cancel deliveries on."""
        self.count = 0
        self._related_types = related_types
        self._by_key = SpillingMap[list[_Related]]()
        """Events of these types by conversation, phone and email."""

    def add(self, event: Event) -> None:
        """Add an event."""
        self.count += 1
        if event.type in self._related_types:
            reference = EventRef.of(event)
            related = event.occurred_at, reference
            for match in _match_keys(reference):
                self._by_key.set(match, [*(self._by_key.get(match) or ()), related])

    def history(self, event: Event, event_types: Collection[str], since: datetime) -> Sequence[datetime]:
        """Return when the other events of the contact occurred, as the service's `History`."""
        keys = [key for key in _match_keys(EventRef.of(event)) if key[0] != "conversation"]
        times = sorted(
            occurred_at
            for occurred_at, other in self._find(keys)
            if other.type in event_types and other.dedupe_key != event.dedupe_key
        )
        return [time for time in times if since < time <= event.occurred_at][-MAX_COUNTED:]

    def related_to(self, event: EventRef) -> Collection[EventRef]:
        """Return the events of the same conversation, phone or email."""
        return [reference for _, reference in self._find(_match_keys(event))]

    def _find(self, keys: Iterable[tuple[str, str]]) -> Collection[_Related]:
        return {item[1].dedupe_key: item for key in keys for item in self._by_key.get(key) or ()}.values()


@dataclass
class InMemoryStore:
    """The data that the service keeps in its tables about the deliveries of one set of rules."""

    events: AcceptedEvents
    rules_with_once: Collection[str]
    """The names of the rules with a step that has `once`."""
    messages_sent_at: SpillingMap[list[datetime]] = field(default_factory=SpillingMap)
    """Send times of the messages that a cap still counts, by channel and address."""
    last_done_at: SpillingMap[datetime] = field(default_factory=SpillingMap)
    """When rule and action last took effect for a contact or a conversation, for `once`."""
    message_counts: dict[str, MessageCounts] = field(default_factory=lambda: defaultdict(MessageCounts))
    """The messages that count toward `caps.total`, by connection."""
    paused: dict[str, str] = field(default_factory=dict)
    """Connections that `caps.total` paused, each with the reason; only alerts still leave."""
    idempotency_keys: SpillingMap[tuple[str, bool, int, datetime]] = field(default_factory=SpillingMap)
    """The fields of the `IdempotencyRecord` of each key."""

    def policy_inputs(
        self, delivery: DryRunDelivery, messaging: MessagingPolicy, now: datetime
    ) -> PolicyInputs:
        """Return the inputs of the decision about a delivery."""
        planned = delivery.planned
        once = planned.once
        record = self.idempotency_keys.get(planned.idempotency_key)
        sent_at = self.messages_sent_at.get(_message_key(planned)) if planned.channel else None
        return PolicyInputs(
            cancelled_by=self._cancelled_by(delivery) if planned.cancel_on else None,
            last_done_at=self.last_done_at.get(_once_key(delivery, once.per)) if once else None,
            messages_sent_at=sent_at or (),
            messages_of_connection=self._messages_of_connection(planned, messaging, now),
            idempotency_record=IdempotencyRecord(*record) if record else None,
        )

    def _cancelled_by(self, delivery: DryRunDelivery) -> EventRef | None:
        trigger = EventRef.of(delivery.event)
        return find_cancelling_event(delivery.planned.cancel_on, trigger, self.events.related_to(trigger))

    def _messages_of_connection(
        self, planned: PlannedDelivery, messaging: MessagingPolicy, now: datetime
    ) -> int:
        cap = messaging.total_caps.get(planned.channel) if planned.channel else None
        if planned.channel is None or cap is None:
            return 0
        return self.message_counts[planned.connection].within(planned.channel, cap, now)

    def record_sent(self, delivery: DryRunDelivery, messaging: MessagingPolicy, now: datetime) -> None:
        """Record that a delivery took effect."""
        planned, event = delivery.planned, delivery.event
        record = (delivery.id, True, event_precedence(event.type), event.occurred_at)
        self.idempotency_keys.set(planned.idempotency_key, record)
        if planned.channel:
            self._add_message(_message_key(planned), messaging.caps.get(planned.channel), now)
            if planned.channel in messaging.total_caps and not planned.internal:
                cap = messaging.total_caps[planned.channel]
                self.message_counts[planned.connection].add(planned.channel, cap, now)
        for per in ("contact", "conversation") if planned.rule in self.rules_with_once else ():
            key = _once_key(delivery, per)
            if key[3] is not None:
                self.last_done_at.set(key, now)

    def _add_message(self, key: tuple[str | None, str], cap: Cap | None, now: datetime) -> None:
        """Record a message, and forget those to the address that its cap no longer counts."""
        if cap is not None:
            counted = [sent_at for sent_at in self.messages_sent_at.get(key) or () if now - sent_at < cap.per]
            self.messages_sent_at.set(key, [*counted, now])


def _match_keys(event: EventRef) -> Iterator[tuple[str, str]]:
    yield "conversation", event.conversation_id
    if event.phone:
        yield "phone", event.phone
    if event.email:
        yield "email", address_key(event.email)


def _message_key(planned: PlannedDelivery) -> tuple[str | None, str]:
    return planned.channel, address_key(planned.recipient or "")


def _once_key(delivery: DryRunDelivery, per: str) -> tuple[str, str, str, str | None]:
    event = delivery.event
    subject = event.contact.key if per == "contact" else event.conversation.id
    return delivery.planned.rule, delivery.planned.action, per, subject


@dataclass(eq=False)
class Case:
    """An event and its deliveries in one simulation."""

    number: int
    """The position of the event among the accepted ones, from 1."""
    event: Event
    deliveries: list[DryRunDelivery] = field(default_factory=list)
    """In the order of their planning."""
    open: int = 0
    """Deliveries that have not ended, and alerts that may follow."""
    id_counts: Counter[str] = field(default_factory=Counter)


class Simulation:
    """Runs events through rules. `on_complete` gets each accepted event once all of its deliveries have ended.

    Without `on_complete`, `deliveries` has all of them after `run`, in the order of their planning.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        allowlist: Collection[str] = (),
        events: AcceptedEvents | None = None,
        on_complete: Callable[[Case], None] | None = None,
    ) -> None:
        """`events` are those that several simulations share: `simulate` adds to them."""
        self.rules = rules
        self.allowlist = allowlist
        self.events = events or AcceptedEvents(related_event_types(rules))
        self.deliveries: list[DryRunDelivery] = []
        rules_with_once = {rule.name for rule in rules.rules if any(step.once for step in rule.steps)}
        self._store = InMemoryStore(self.events, rules_with_once)
        self._on_complete = on_complete
        self._queue: list[tuple[datetime, int, DryRunDelivery | AlertGroup]] = []
        self._cases: dict[DryRunDelivery, Case] = {}
        """The event of each delivery that has not ended."""
        self._alert_groups: dict[tuple[str, str], AlertGroup] = {}
        self._latest_failures: dict[tuple[str, str], tuple[Case, DryRunDelivery]] = {}
        """The last counted failure of each group, by connection and cause."""
        self._sequence = count(1)

    @property
    def accepted(self) -> int:
        """The number of events without duplicates."""
        return self.events.count

    def run(self, events: Iterable[Event]) -> None:
        """Accept each event at the time it was received, then advance the clock until nothing is due."""
        simulate(
            [self],
            lambda event: [route(event, self.rules, event.received_at, self.events.history).planned],
            without_duplicates(sorted(events, key=lambda event: event.received_at)),
        )

    def add(self, event: Event, deliveries: Iterable[PlannedDelivery]) -> None:
        """Add the planned deliveries of an accepted event."""
        case = Case(self.accepted, event, open=1)  # open until all of them are planned
        for planned in deliveries:
            self._add_delivery(case, planned, event.received_at)
        self._close(case)

    def _add_delivery(self, case: Case, planned: PlannedDelivery, now: datetime) -> None:
        planned = with_templates(planned)
        delivery = DryRunDelivery(_delivery_id(case, planned), case.event, planned, max(planned.run_at, now))
        case.deliveries.append(delivery)
        if self._on_complete is None:
            self.deliveries.append(delivery)
        if planned.render_error is not None:
            _finish(delivery, now, "failed", "render_error", planned.render_error)
            self._follow_up(case, delivery, now)
        else:
            case.open += 1
            self._cases[delivery] = case
            heapq.heappush(self._queue, (delivery.at, next(self._sequence), delivery))

    def _close(self, case: Case) -> None:
        """Note that one of what keeps an event open has ended; complete the event with the last one."""
        case.open -= 1
        if not case.open and self._on_complete is not None:
            self._on_complete(case)

    def _follow_up(self, case: Case, delivery: DryRunDelivery, now: datetime) -> None:
        """Add the follow-ups of a delivery that ended, unless it is one itself."""
        if delivery.planned.trigger != "rule":
            return
        template_vars = _template_vars(delivery)
        planned = after_delivery(delivery.event, self.rules, template_vars, now)
        if any(item.trigger == "alert" for item in planned) and not self._admit(
            case, delivery, template_vars, now
        ):
            planned = tuple(item for item in planned if item.trigger != "alert")
        for item in planned:
            self._add_delivery(case, item, now)

    def _admit(
        self, case: Case, delivery: DryRunDelivery, template_vars: Mapping[str, Any], now: datetime
    ) -> bool:
        """Return True if the failure of a delivery is alerted now; otherwise count it for the next alert."""
        key = delivery.planned.connection, cause_of(template_vars)
        group = self._alert_groups.setdefault(key, AlertGroup(*key))
        if group.admit(delivery.planned.rule, delivery.id, now):
            return True
        if group.waiting.total() == 1 and group.due_at is not None:
            heapq.heappush(self._queue, (group.due_at, next(self._sequence), group))
        case.open += 1
        replaced = self._latest_failures.get(key)
        self._latest_failures[key] = case, delivery
        if replaced is not None:
            self._close(replaced[0])
        return False

    def _alert(self, group: AlertGroup, now: datetime) -> None:
        """Add the alerts about the counted failures of a group."""
        case, latest = self._latest_failures.pop((group.connection, group.cause))
        for planned in alerts(case.event, self.rules, group.summarize(_template_vars(latest), now), now):
            self._add_delivery(case, planned, now)
        self._close(case)

    def run_until(self, until: datetime) -> None:
        """Process the deliveries due before `until`. Events received at an instant precede deliveries due then."""
        while self._queue and self._queue[0][0] < until:
            now, number, delivery = heapq.heappop(self._queue)
            if isinstance(delivery, AlertGroup):
                self._alert(delivery, now)
                continue
            connection = delivery.planned.connection
            case = self._cases[delivery]
            if connection in self._store.paused and delivery.planned.trigger != "alert":
                self._hold(delivery)
                self._end(delivery)
                continue
            inputs = self._store.policy_inputs(delivery, self.rules.messaging, now)
            due = build_due_delivery(delivery.id, delivery.planned, delivery.event, self.rules, now)
            match decide(due, inputs, self.rules.messaging, now, self.allowlist):
                case Defer(later, detail):
                    delivery.at, delivery.detail = later, detail
                    heapq.heappush(self._queue, (later, number, delivery))
                    continue
                case Suppress(reason, detail):
                    _finish(delivery, now, "suppressed", reason, detail)
                case Cancel(_, detail):
                    _finish(delivery, now, "cancelled", None, detail)
                case Hold(detail):
                    self._store.paused[connection] = detail
                    self._hold(delivery)
                case Allow():
                    delivery.attempted = True
                    self._store.record_sent(delivery, self.rules.messaging, now)
                    _finish(delivery, now, "succeeded", None, "")
                    if delivery.planned.on_success:
                        self._follow_up(case, delivery, now)
            self._end(delivery)

    def _hold(self, delivery: DryRunDelivery) -> None:
        """Leave a delivery pending, because its connection is paused."""
        connection = delivery.planned.connection
        delivery.detail = f"connection {connection} is paused: {self._store.paused[connection]}"

    def _end(self, delivery: DryRunDelivery) -> None:
        self._close(self._cases.pop(delivery))


def simulate(
    simulations: Sequence[Simulation],
    plan_event: Callable[[Event], Iterable[Iterable[PlannedDelivery]]],
    events: Iterable[Event],
) -> None:
    """Run events through simulations that share their accepted events.

    `plan_event` returns the deliveries of an event for each simulation.
    """
    for event in events:
        for simulation in simulations:
            simulation.run_until(event.received_at)
        simulations[0].events.add(event)
        for simulation, planned in zip(simulations, plan_event(event), strict=True):
            simulation.add(event, planned)
    for simulation in simulations:
        simulation.run_until(NEVER)


def without_duplicates(events: Iterable[Event]) -> Iterator[Event]:
    """Leave out what the service would not store: an event with a dedupe key of one before it."""
    known: set[str] = set()
    for event in events:
        keys = {key for key in (event.dedupe_key, event.fallback_dedupe_key) if key}
        if known.isdisjoint(keys):
            yield event
            known |= keys


def _delivery_id(case: Case, planned: PlannedDelivery) -> str:
    """Return an ID that the same delivery has in every simulation of these events; follow-ups may contain it."""
    name = f"dlv_{case.event.dedupe_key}_{planned.trigger}_{planned.action}"
    case.id_counts[name] += 1
    return f"{name}_{case.id_counts[name]}"


def _finish(delivery: DryRunDelivery, now: datetime, state: State, reason: str | None, detail: str) -> None:
    delivery.state, delivery.reason, delivery.detail, delivery.at = state, reason, detail, now


def _template_vars(delivery: DryRunDelivery) -> dict[str, Any]:
    """Return `delivery` for the templates of follow-ups: see `DELIVERY_FIELDS`."""
    planned, succeeded = delivery.planned, delivery.state == "succeeded"
    outcome = "succeeded" if succeeded else f"failed: {delivery.detail}"
    return {
        "id": delivery.id,
        "rule": planned.rule,
        "action": planned.action,
        "connection": planned.connection,
        "state": delivery.state,
        "reason": delivery.reason,
        "detail": delivery.detail,
        "channel": planned.channel,
        "recipient": planned.recipient,
        "params": planned.params,
        "external_id": EXTERNAL_ID if succeeded else None,
        "sent_at": delivery.at.isoformat() if succeeded else None,
        "attempts": int(delivery.attempted),
        "count": 1,
        "message": f"{planned.action} of rule {planned.rule} {outcome} ({delivery.id})",
    }
