"""The bridge in memory, with a clock of its own: runs events through the rules and returns every delivery's result.

Routing and every decision are the service's own code; only storage, time and providers are replaced. A provider accepts
everything, except where `fail` names a failure: then the delivery fails permanently, and the retries in between are not
simulated.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from types import MappingProxyType
from typing import Any, Final, Literal

from bridge.connector.api import Action
from bridge.events import Event
from bridge.policy import (
    NEVER,
    Allow,
    Cancel,
    Defer,
    DueDelivery,
    EventRef,
    IdempotencyRecord,
    PolicyInputs,
    Suppress,
    decide,
    event_precedence,
    find_cancelling_event,
)
from bridge.rules.model import PlannedDelivery, Rules, Trace
from bridge.rules.route import after_failure, alerts, consent, route

State = Literal["pending", "succeeded", "needs_review", "failed", "cancelled", "suppressed"]

UNDELIVERED: Final = "undelivered"
"""The provider accepts the message, and its status callback reports that it was not delivered."""
_PAUSING_FAILURES: Final = frozenset({"auth", "quota"})
_UNKNOWN_OUTCOME_FAILURES: Final = frozenset({"server_error", "timeout", "internal_error"})


@dataclass(eq=False)
class Delivery:
    """One delivery of a simulation, and its state."""

    id: str
    event: Event
    planned: PlannedDelivery
    at: datetime
    """When it was carried out, suppressed or cancelled. While it is pending: when it is decided next."""
    state: State = "pending"
    reason: str | None = None
    detail: str = ""
    """The setting of the rules file that decided. For a pending delivery: what it waits for."""
    message_status: str | None = None
    attempted: bool = False

    @property
    def held_back(self) -> bool:
        """True if the delivery is suppressed or cancelled."""
        return self.state in ("suppressed", "cancelled")

    def to_json(self) -> dict[str, Any]:
        """Return the delivery as plain data."""
        return {
            "rule": self.planned.rule,
            "trigger": self.planned.trigger,
            "action": self.planned.action,
            "connection": self.planned.connection,
            "event": self.event.type,
            "at": self.at.isoformat(),
            "state": self.state,
            "reason": self.reason,
            "detail": self.detail,
            "params": dict(self.planned.params),
        }


@dataclass
class InMemoryStore:
    """The data that the service keeps in its tables."""

    events_by_key: dict[tuple[str, str], list[EventRef]] = field(default_factory=lambda: defaultdict(list))
    """Accepted events by conversation, phone and email."""
    messages_sent_at: dict[tuple[str | None, str], list[datetime]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """When messages were sent, or may have been, by channel and address."""
    last_done_at: dict[tuple[str, str, str, str | None], datetime] = field(default_factory=dict)
    """When rule and action last took effect for a contact or a conversation, for `once`."""
    idempotency_keys: dict[str, IdempotencyRecord] = field(default_factory=dict)
    dedupe_keys: set[str] = field(default_factory=set)
    """Both dedupe keys of every accepted event; an event with one of them is a duplicate."""

    def accept(self, event: Event) -> bool:
        """Store an event; return False if it is a duplicate."""
        dedupe_keys = {event.dedupe_key, event.fallback_dedupe_key} - {None}
        if dedupe_keys & self.dedupe_keys:
            return False
        self.dedupe_keys |= {key for key in dedupe_keys if key}
        event_ref = EventRef.of(event)
        for kind, value in _match_keys(event_ref):
            self.events_by_key[kind, value].append(event_ref)
        return True

    def policy_inputs(self, delivery: Delivery) -> PolicyInputs:
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
            messages_sent_at=self.messages_sent_at.get(_address_key(planned), ()),
            idempotency_record=self.idempotency_keys.get(planned.idempotency_key),
        )

    def record_sent(self, delivery: Delivery, now: datetime, *, completed: bool) -> None:
        """Record that a delivery took effect, or may have (not `completed`)."""
        planned, event = delivery.planned, delivery.event
        self.idempotency_keys[planned.idempotency_key] = IdempotencyRecord(
            delivery.id, completed, event_precedence(event.type), event.occurred_at
        )
        if planned.channel:
            self.messages_sent_at[_address_key(planned)].append(now)
        for per in ("contact", "conversation"):
            key = _once_key(delivery, per)
            if key[3] is not None:
                self.last_done_at[key] = now


def _match_keys(event: EventRef) -> Iterator[tuple[str, str]]:
    yield "conversation", event.conversation_id
    if event.phone:
        yield "phone", event.phone
    if event.email:
        yield "email", event.email.casefold()


def _address_key(planned: PlannedDelivery) -> tuple[str | None, str]:
    return planned.channel, (planned.recipient or "").casefold()


def _once_key(delivery: Delivery, per: str) -> tuple[str, str, str, str | None]:
    event = delivery.event
    subject = event.contact.key if per == "contact" else event.conversation.id
    return delivery.planned.rule, delivery.planned.action, per, subject


class Simulation:
    """Runs events through rules. After `run`, `deliveries` and `traces` hold the results, in their order."""

    def __init__(
        self,
        rules: Rules,
        *,
        fail: Mapping[str, str] = MappingProxyType({}),
        allowlist: Collection[str] = (),
        keep_traces: bool = True,
    ) -> None:
        self.rules = rules
        self.fail = fail
        self.allowlist = allowlist
        self.keep_traces = keep_traces
        self.accepted = 0
        self.deliveries: list[Delivery] = []
        self.traces: list[tuple[Event, tuple[Trace, ...]]] = []
        self._store = InMemoryStore()
        self._queue: list[tuple[datetime, int, Delivery]] = []
        self._sequence = count(1)
        self._id_counts: Counter[str] = Counter()
        self._pauses: dict[str, str] = {}
        """Paused connections, with the detail of the pause."""
        self._actions = _actions(rules)

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
        routing = route(event, self.rules, event.received_at)
        self.accepted += 1
        if self.keep_traces:
            self.traces.append((event, routing.traces))
        for planned in routing.planned:
            self._add_delivery(event, planned, event.received_at)

    def _add_delivery(self, event: Event, planned: PlannedDelivery, now: datetime) -> None:
        number = next(self._sequence)
        delivery = Delivery(self._delivery_id(event, planned), event, planned, max(planned.run_at, now))
        self.deliveries.append(delivery)
        if planned.render_error is not None:
            self._finish(delivery, now, "failed", "render_error", planned.render_error)
        else:
            heapq.heappush(self._queue, (delivery.at, number, delivery))

    def _delivery_id(self, event: Event, planned: PlannedDelivery) -> str:
        """Return an ID that the same delivery has in every simulation of these events; follow-ups may contain it."""
        name = f"dlv_{event.dedupe_key}_{planned.trigger}_{planned.action}"
        self._id_counts[name] += 1
        return f"{name}_{self._id_counts[name]}"

    def _run_until(self, until: datetime) -> None:
        """Process the deliveries due before `until`. Events received at an instant precede deliveries due then."""
        while self._queue and self._queue[0][0] < until:
            now, number, delivery = heapq.heappop(self._queue)
            if delivery.planned.connection in self._pauses:
                delivery.detail = self._pauses[delivery.planned.connection]
                continue
            inputs = self._store.policy_inputs(delivery)
            due = build_due_delivery(delivery.id, delivery.planned, delivery.event, self.rules, now)
            match decide(due, inputs, self.rules.messaging, now, self.allowlist):
                case Defer(later, detail):
                    delivery.detail = detail
                    # A reserved key belongs to a delivery that needs review: rechecking it would never end.
                    if inputs.idempotency_record is None or inputs.idempotency_record.completed:
                        delivery.at = later
                        heapq.heappush(self._queue, (later, number, delivery))
                case Suppress(reason, detail):
                    self._finish(delivery, now, "suppressed", reason, detail)
                case Cancel(_, detail):
                    self._finish(delivery, now, "cancelled", None, detail)
                case Allow():
                    self._attempt(delivery, now)

    def _attempt(self, delivery: Delivery, now: datetime) -> None:
        delivery.attempted = True
        planned = delivery.planned
        failure = self.fail.get(planned.action)
        if failure is None or failure == UNDELIVERED:
            self._store.record_sent(delivery, now, completed=True)
            delivery.message_status = failure
            self._finish(delivery, now, "succeeded", None, "")
        elif failure in _PAUSING_FAILURES:
            self._pause(planned.connection, failure, now)
            delivery.reason, delivery.detail = failure, self._pauses[planned.connection]
        elif failure in _UNKNOWN_OUTCOME_FAILURES and not self._is_recoverable(planned.action):
            self._store.record_sent(delivery, now, completed=False)
            detail = f"the provider fails with {failure}; it may have taken effect, and this provider has no lookup"
            self._finish(delivery, now, "needs_review", failure, detail)
        else:
            self._finish(delivery, now, "failed", failure, f"the provider fails with {failure}")

    def _is_recoverable(self, name: str) -> bool:
        """Return True if an unknown outcome of the action can be resolved: by repeating it, or by a lookup."""
        action = self._actions[name]
        return action.idempotent or action.run_lookup is not None

    def _finish(
        self, delivery: Delivery, now: datetime, state: State, reason: str | None, detail: str
    ) -> None:
        delivery.state, delivery.reason, delivery.detail, delivery.at = state, reason, detail, now
        failed = state in ("failed", "needs_review") or delivery.message_status == UNDELIVERED
        if failed and delivery.planned.trigger == "rule":
            self._follow_up(delivery, now)

    def _follow_up(self, delivery: Delivery, now: datetime) -> None:
        for planned in after_failure(delivery.event, self.rules, _failure_template_vars(delivery), now):
            self._add_delivery(delivery.event, planned, now)

    def _pause(self, connection: str, failure: str, now: datetime) -> None:
        detail = f"connection {connection} is paused: the provider fails with {failure}"
        self._pauses[connection] = detail
        template_vars = {
            "id": f"pau_{connection}",
            "connection": connection,
            "state": "paused",
            "reason": failure,
            "message": detail,
        }
        event = Event({}, template_vars["id"], now)
        for planned in alerts(event, self.rules, template_vars, now):
            self._add_delivery(event, planned, now)


def build_due_delivery(
    delivery_id: str, planned: PlannedDelivery, event: Event, rules: Rules, now: datetime
) -> DueDelivery:
    """Build the input of the decision about a planned delivery."""
    check = consent(event, rules.messaging, now) if planned.channel else None
    return DueDelivery(
        id=delivery_id,
        occurred_at=event.occurred_at,
        precedence=event_precedence(event.type),
        contact=event.contact,
        channel=planned.channel,
        recipient=planned.recipient,
        expires_at=planned.expires_at,
        once=planned.once,
        consent=check.result if check else None,
        updates=planned.updates_existing,
        shadow=planned.shadow,
        alert=planned.trigger == "alert",
    )


def _actions(rules: Rules) -> dict[str, Action]:
    steps = [step for rule in rules.rules for step in (*rule.do, *rule.on_failure)]
    return {step.use: step.action for step in (*steps, *rules.alerts)}


def _failure_template_vars(delivery: Delivery) -> dict[str, Any]:
    """Return the fields of a delivery that templates of `on_failure` and `alerts` can use."""
    planned = delivery.planned
    status = delivery.message_status or delivery.state
    template_vars = {
        "id": delivery.id,
        "rule": planned.rule,
        "action": planned.action,
        "connection": planned.connection,
        "state": delivery.state,
        "reason": delivery.reason,
        "detail": delivery.detail,
        "message_status": delivery.message_status,
        "recipient": planned.recipient,
        "attempts": 1 if delivery.attempted else 0,
        "message": f"{planned.action} of rule {planned.rule} for {delivery.event.type}: "
        f"{status} {delivery.detail}".strip(),
    }
    return {name: value for name, value in template_vars.items() if value is not None}
