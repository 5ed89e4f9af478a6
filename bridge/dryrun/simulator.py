"""The bridge in memory: runs many events through rules and returns the result of every delivery.

`bridge plan` compares thousands of events, and the engine on its temporary database takes about forty times as long
(docs/decisions/0025-dry-runs-on-the-engine.md). Routing and every decision are the service's own code here too. A few
dictionaries replace the storage, and every provider accepts everything. After `messaging.caps.total` has paused a
connection, its deliveries wait until the end; the alert about it is left out. A test compares the results with the
engine's.
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
from bridge.rules.model import MessagingPolicy, PlannedDelivery, Rules
from bridge.rules.route import after_delivery, alerts, route


@dataclass
class InMemoryStore:
    """The data that the service keeps in its tables."""

    events_by_key: dict[tuple[str, str], list[EventRef]] = field(default_factory=lambda: defaultdict(list))
    """Accepted events by conversation, phone and email."""
    occurred_at: dict[str, datetime] = field(default_factory=dict)
    """When each accepted event occurred, by dedupe key."""
    messages_sent_at: dict[tuple[str | None, str], list[datetime]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """When messages were sent, by channel and address."""
    last_done_at: dict[tuple[str, str, str, str | None], datetime] = field(default_factory=dict)
    """When rule and action last took effect for a contact or a conversation, for `once`."""
    message_counts: dict[str, MessageCounts] = field(default_factory=lambda: defaultdict(MessageCounts))
    """The messages that count toward `caps.total`, by connection."""
    paused: dict[str, str] = field(default_factory=dict)
    """Connections that `caps.total` paused, each with the reason; only alerts still leave."""
    idempotency_keys: dict[str, IdempotencyRecord] = field(default_factory=dict)
    dedupe_keys: set[str] = field(default_factory=set)
    """Both dedupe keys of every accepted event; an event with one of them is a duplicate."""

    def accept(self, event: Event) -> bool:
        """Store an event; return False if it is a duplicate."""
        dedupe_keys = {event.dedupe_key, event.fallback_dedupe_key} - {None}
        if dedupe_keys & self.dedupe_keys:
            return False
        self.dedupe_keys |= {key for key in dedupe_keys if key}
        self.occurred_at[event.dedupe_key] = event.occurred_at
        event_ref = EventRef.of(event)
        for kind, value in _match_keys(event_ref):
            self.events_by_key[kind, value].append(event_ref)
        return True

    def history(self, event: Event, event_types: Collection[str], since: datetime) -> Sequence[datetime]:
        """Return when the other events of the contact occurred, as the service's `History`."""
        keys = [key for key in _match_keys(EventRef.of(event)) if key[0] != "conversation"]
        others = {other.dedupe_key: other for key in keys for other in self.events_by_key[key]}
        times = sorted(
            self.occurred_at[other.dedupe_key]
            for other in others.values()
            if other.type in event_types and other.dedupe_key != event.dedupe_key
        )
        return [time for time in times if since < time <= event.occurred_at][-MAX_COUNTED:]

    def policy_inputs(
        self, delivery: DryRunDelivery, messaging: MessagingPolicy, now: datetime
    ) -> PolicyInputs:
        """Return the inputs of the decision about a delivery."""
        planned, trigger = delivery.planned, EventRef.of(delivery.event)
        once = planned.once
        related = (
            {event.dedupe_key: event for key in _match_keys(trigger) for event in self.events_by_key[key]}
            if planned.cancel_on
            else {}
        )
        return PolicyInputs(
            cancelled_by=find_cancelling_event(planned.cancel_on, trigger, related.values()),
            last_done_at=self.last_done_at.get(_once_key(delivery, once.per)) if once else None,
            messages_sent_at=self.messages_sent_at.get(_message_key(planned), ()),
            messages_of_connection=self._messages_of_connection(planned, messaging, now),
            idempotency_record=self.idempotency_keys.get(planned.idempotency_key),
        )

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
        self.idempotency_keys[planned.idempotency_key] = IdempotencyRecord(
            delivery.id, True, event_precedence(event.type), event.occurred_at
        )
        if planned.channel:
            self.messages_sent_at[_message_key(planned)].append(now)
            if planned.channel in messaging.total_caps and not planned.internal:
                cap = messaging.total_caps[planned.channel]
                self.message_counts[planned.connection].add(planned.channel, cap, now)
        for per in ("contact", "conversation"):
            key = _once_key(delivery, per)
            if key[3] is not None:
                self.last_done_at[key] = now


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


class Simulation:
    """Runs events through rules. After `run`, `deliveries` holds the results, in the order of their planning."""

    def __init__(self, rules: Rules, *, allowlist: Collection[str] = ()) -> None:
        self.rules = rules
        self.allowlist = allowlist
        self.accepted = 0
        self.deliveries: list[DryRunDelivery] = []
        self._store = InMemoryStore()
        self._queue: list[tuple[datetime, int, DryRunDelivery | AlertGroup]] = []
        self._alert_groups: dict[tuple[str, str], AlertGroup] = {}
        self._latest_failures: dict[tuple[str, str], DryRunDelivery] = {}
        """The last counted failure of each group, by connection and cause."""
        self._sequence = count(1)
        self._id_counts: Counter[str] = Counter()

    def run(self, events: Iterable[Event], on_event: Callable[[], None] = lambda: None) -> None:
        """Accept each event at the time it was received, then advance the clock until nothing is due."""
        for event in sorted(events, key=lambda event: event.received_at):
            self._run_until(event.received_at)
            self._accept(event)
            on_event()
        self._run_until(NEVER)

    def _accept(self, event: Event) -> None:
        if not self._store.accept(event):
            return
        self.accepted += 1
        for planned in route(event, self.rules, event.received_at, self._store.history).planned:
            self._add_delivery(event, planned, event.received_at)

    def _add_delivery(self, event: Event, planned: PlannedDelivery, now: datetime) -> None:
        planned = with_templates(planned)
        delivery = DryRunDelivery(self._delivery_id(event, planned), event, planned, max(planned.run_at, now))
        self.deliveries.append(delivery)
        if planned.render_error is not None:
            self._finish(delivery, now, "failed", "render_error", planned.render_error)
            self._follow_up(delivery, now)
        else:
            heapq.heappush(self._queue, (delivery.at, next(self._sequence), delivery))

    def _follow_up(self, delivery: DryRunDelivery, now: datetime) -> None:
        """Add the follow-ups of a delivery that ended, unless it is one itself."""
        if delivery.planned.trigger != "rule":
            return
        template_vars = _template_vars(delivery)
        planned = after_delivery(delivery.event, self.rules, template_vars, now)
        if any(item.trigger == "alert" for item in planned) and not self._admit(delivery, template_vars, now):
            planned = tuple(item for item in planned if item.trigger != "alert")
        for item in planned:
            self._add_delivery(delivery.event, item, now)

    def _admit(self, delivery: DryRunDelivery, template_vars: Mapping[str, Any], now: datetime) -> bool:
        """Return True if the failure of a delivery is alerted now; otherwise count it for the next alert."""
        key = delivery.planned.connection, cause_of(template_vars)
        group = self._alert_groups.setdefault(key, AlertGroup(*key))
        if group.admit(delivery.planned.rule, delivery.id, now):
            return True
        if group.waiting.total() == 1 and group.due_at is not None:
            heapq.heappush(self._queue, (group.due_at, next(self._sequence), group))
        self._latest_failures[key] = delivery
        return False

    def _alert(self, group: AlertGroup, now: datetime) -> None:
        """Add the alerts about the counted failures of a group."""
        latest = self._latest_failures.pop((group.connection, group.cause))
        for planned in alerts(latest.event, self.rules, group.summarize(_template_vars(latest), now), now):
            self._add_delivery(latest.event, planned, now)

    def _delivery_id(self, event: Event, planned: PlannedDelivery) -> str:
        """Return an ID that the same delivery has in every simulation of these events; follow-ups may contain it."""
        name = f"dlv_{event.dedupe_key}_{planned.trigger}_{planned.action}"
        self._id_counts[name] += 1
        return f"{name}_{self._id_counts[name]}"

    def _run_until(self, until: datetime) -> None:
        """Process the deliveries due before `until`. Events received at an instant precede deliveries due then."""
        while self._queue and self._queue[0][0] < until:
            now, number, delivery = heapq.heappop(self._queue)
            if isinstance(delivery, AlertGroup):
                self._alert(delivery, now)
                continue
            connection = delivery.planned.connection
            if connection in self._store.paused and delivery.planned.trigger != "alert":
                self._hold(delivery)
                continue
            inputs = self._store.policy_inputs(delivery, self.rules.messaging, now)
            due = build_due_delivery(delivery.id, delivery.planned, delivery.event, self.rules, now)
            match decide(due, inputs, self.rules.messaging, now, self.allowlist):
                case Defer(later, detail):
                    delivery.at, delivery.detail = later, detail
                    heapq.heappush(self._queue, (later, number, delivery))
                case Suppress(reason, detail):
                    self._finish(delivery, now, "suppressed", reason, detail)
                case Cancel(_, detail):
                    self._finish(delivery, now, "cancelled", None, detail)
                case Hold(detail):
                    self._store.paused[connection] = detail
                    self._hold(delivery)
                case Allow():
                    delivery.attempted = True
                    self._store.record_sent(delivery, self.rules.messaging, now)
                    self._finish(delivery, now, "succeeded", None, "")
                    if delivery.planned.on_success:
                        self._follow_up(delivery, now)

    def _hold(self, delivery: DryRunDelivery) -> None:
        """Leave a delivery pending, because its connection is paused."""
        connection = delivery.planned.connection
        delivery.detail = f"connection {connection} is paused: {self._store.paused[connection]}"

    def _finish(
        self, delivery: DryRunDelivery, now: datetime, state: State, reason: str | None, detail: str
    ) -> None:
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
