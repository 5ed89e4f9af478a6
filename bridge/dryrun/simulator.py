"""The bridge in memory, with a clock of its own: events go in, and what became of every delivery comes out.

Routing and every decision are the service's own code; only storage, time and partners are replaced. A partner
takes everything, except where `fail` says otherwise: then it fails for good, and the attempts in between are not
played.
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
    Cancel,
    Due,
    EventRef,
    Facts,
    Go,
    Held,
    Suppress,
    Wait,
    decide,
    event_precedence,
    find_cancelling_event,
)
from bridge.rules.model import Planned, Rules, Trace
from bridge.rules.route import after_failure, alerts, consent, route

State = Literal["pending", "succeeded", "needs_review", "failed", "cancelled", "suppressed"]

UNDELIVERED: Final = "undelivered"
"""The partner takes the message, and its receipt says that it did not arrive."""
_PAUSING: Final = frozenset({"auth", "quota"})
_UNKNOWN: Final = frozenset({"server_error", "timeout", "internal_error"})


@dataclass(eq=False)
class Delivery:
    """One delivery of a simulation, and what became of it."""

    id: str
    event: Event
    planned: Planned
    at: datetime
    """When it was carried out, held back or cancelled; while it is pending, when it is looked at next."""
    state: State = "pending"
    reason: str | None = None
    why: str = ""
    """The line of a rule or of the policy that decided, in words; of a pending one, what it waits for."""
    message_status: str | None = None
    attempted: bool = False

    @property
    def held_back(self) -> bool:
        """It was decided that it is not carried out."""
        return self.state in ("suppressed", "cancelled")

    def to_json(self) -> dict[str, Any]:
        """The delivery as plain data."""
        return {
            "rule": self.planned.rule,
            "trigger": self.planned.trigger,
            "action": self.planned.action,
            "connection": self.planned.connection,
            "event": self.event.type,
            "at": self.at.isoformat(),
            "state": self.state,
            "reason": self.reason,
            "why": self.why,
            "params": dict(self.planned.params),
        }


@dataclass
class Memory:
    """What the service would have in its tables."""

    seen: dict[tuple[str, str], list[EventRef]] = field(default_factory=lambda: defaultdict(list))
    """Accepted events by conversation, phone and e-mail."""
    reached: dict[tuple[str | None, str], list[datetime]] = field(default_factory=lambda: defaultdict(list))
    """Messages that went out or may have, by channel and address."""
    last: dict[tuple[str, str, str, str | None], datetime] = field(default_factory=dict)
    """When rule and action last reached a contact or a conversation, for `once`."""
    idempotency_keys: dict[str, Held] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    """Identities and occurrences of accepted events: what comes again is a duplicate."""

    def accept(self, event: Event) -> bool:
        """Keep an event; False when it is a duplicate."""
        keys = {event.dedupe_key, event.fallback_dedupe_key} - {None}
        if keys & self.known:
            return False
        self.known |= {key for key in keys if key}
        seen = EventRef.of(event)
        for kind, value in _handles(seen):
            self.seen[kind, value].append(seen)
        return True

    def facts(self, delivery: Delivery) -> Facts:
        """What bears on a delivery now."""
        planned, cause = delivery.planned, EventRef.of(delivery.event)
        once = planned.once
        accepted = (
            {seen.dedupe_key: seen for key in _handles(cause) for seen in self.seen[key]}
            if planned.cancel_on
            else {}
        )
        return Facts(
            cancelled_by=find_cancelling_event(planned.cancel_on, cause, accepted.values()),
            once_at=self.last.get(_once_key(delivery, once.per)) if once else None,
            sent=self.reached.get(_address(planned), ()),
            held=self.idempotency_keys.get(planned.idempotency_key),
        )

    def reach(self, delivery: Delivery, now: datetime, *, done: bool) -> None:
        """It took effect, or may have."""
        planned, event = delivery.planned, delivery.event
        self.idempotency_keys[planned.idempotency_key] = Held(
            delivery.id, done, event_precedence(event.type), event.occurred_at
        )
        if planned.channel:
            self.reached[_address(planned)].append(now)
        for per in ("contact", "conversation"):
            key = _once_key(delivery, per)
            if key[3] is not None:
                self.last[key] = now


def _handles(seen: EventRef) -> Iterator[tuple[str, str]]:
    yield "conversation", seen.conversation
    if seen.phone:
        yield "phone", seen.phone
    if seen.email:
        yield "email", seen.email.casefold()


def _address(planned: Planned) -> tuple[str | None, str]:
    return planned.channel, (planned.recipient or "").casefold()


def _once_key(delivery: Delivery, per: str) -> tuple[str, str, str, str | None]:
    event = delivery.event
    whom = event.contact.key if per == "contact" else event.conversation.id
    return delivery.planned.rule, delivery.planned.action, per, whom


class Simulation:
    """Runs events through rules. After `run`, `deliveries` and `traces` hold what happened, in its order."""

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
        self._memory = Memory()
        self._due: list[tuple[datetime, int, Delivery]] = []
        self._numbers = count(1)
        self._same: Counter[str] = Counter()
        self._paused: dict[str, str] = {}
        self._actions = _actions(rules)

    def run(self, events: Iterable[Event], on_event: Callable[[], None] = lambda: None) -> None:
        """Let the events come in when they were received, then let the clock run until nothing is due."""
        for event in sorted(events, key=lambda event: event.received_at):
            self._work(event.received_at)
            self._accept(event)
            on_event()
        self._work(NEVER)

    def _accept(self, event: Event) -> None:
        if not self._memory.accept(event):
            return
        routing = route(event, self.rules, event.received_at)
        self.accepted += 1
        if self.keep_traces:
            self.traces.append((event, routing.traces))
        for planned in routing.planned:
            self._make(event, planned, event.received_at)

    def _make(self, event: Event, planned: Planned, now: datetime) -> None:
        number = next(self._numbers)
        delivery = Delivery(self._id(event, planned), event, planned, max(planned.run_at, now))
        self.deliveries.append(delivery)
        if planned.problem is not None:
            self._end(delivery, now, "failed", "render_error", planned.problem)
        else:
            heapq.heappush(self._due, (delivery.at, number, delivery))

    def _id(self, event: Event, planned: Planned) -> str:
        """An id that another simulation of the same events gives to the same delivery: follow-ups carry it on."""
        name = f"dlv_{event.dedupe_key}_{planned.trigger}_{planned.action}"
        self._same[name] += 1
        return f"{name}_{self._same[name]}"

    def _work(self, until: datetime) -> None:
        """Everything that is due before `until`; what comes in at an instant is there before what is due then."""
        while self._due and self._due[0][0] < until:
            now, number, delivery = heapq.heappop(self._due)
            if delivery.planned.connection in self._paused:
                delivery.why = self._paused[delivery.planned.connection]
                continue
            facts = self._memory.facts(delivery)
            due = due_of(delivery.id, delivery.planned, delivery.event, self.rules, now)
            match decide(due, facts, self.rules.messaging, now, self.allowlist):
                case Wait(later, why):
                    delivery.why = why
                    # What holds its effect waits for a person here: it would be asked for ever.
                    if facts.held is None or facts.held.done:
                        delivery.at = later
                        heapq.heappush(self._due, (later, number, delivery))
                case Suppress(reason, why):
                    self._end(delivery, now, "suppressed", reason, why)
                case Cancel(_, why):
                    self._end(delivery, now, "cancelled", None, why)
                case Go():
                    self._attempt(delivery, now)

    def _attempt(self, delivery: Delivery, now: datetime) -> None:
        delivery.attempted = True
        planned = delivery.planned
        failure = self.fail.get(planned.action)
        if failure is None or failure == UNDELIVERED:
            self._memory.reach(delivery, now, done=True)
            delivery.message_status = failure
            self._end(delivery, now, "succeeded", None, "")
        elif failure in _PAUSING:
            self._pause(planned.connection, failure, now)
            delivery.reason, delivery.why = failure, self._paused[planned.connection]
        elif failure in _UNKNOWN and not self._can_tell(planned.action):
            self._memory.reach(delivery, now, done=False)
            why = f"its partner fails with {failure}; it may have gone out, and the partner cannot be asked"
            self._end(delivery, now, "needs_review", failure, why)
        else:
            self._end(delivery, now, "failed", failure, f"its partner fails with {failure}")

    def _can_tell(self, name: str) -> bool:
        action = self._actions[name]
        return action.idempotent or action.finder is not None

    def _end(self, delivery: Delivery, now: datetime, state: State, reason: str | None, why: str) -> None:
        delivery.state, delivery.reason, delivery.why, delivery.at = state, reason, why, now
        given_up = state in ("failed", "needs_review") or delivery.message_status == UNDELIVERED
        if given_up and delivery.planned.trigger == "rule":
            self._follow_up(delivery, now)

    def _follow_up(self, delivery: Delivery, now: datetime) -> None:
        for item in after_failure(delivery.event, self.rules, _told(delivery), now):
            self._make(delivery.event, item, now)

    def _pause(self, connection: str, failure: str, now: datetime) -> None:
        why = f"connection {connection} is paused: its partner fails with {failure}"
        self._paused[connection] = why
        told = {
            "id": f"pau_{connection}",
            "connection": connection,
            "state": "paused",
            "reason": failure,
            "message": why,
        }
        event = Event({}, told["id"], now)
        for planned in alerts(event, self.rules, told, now):
            self._make(event, planned, now)


def due_of(ident: str, planned: Planned, event: Event, rules: Rules, now: datetime) -> Due:
    """What the decision about a planned delivery needs to know of it."""
    agreed = consent(event, rules.messaging, now) if planned.channel else None
    return Due(
        id=ident,
        occurred_at=event.occurred_at,
        precedence=event_precedence(event.type),
        contact=event.contact,
        channel=planned.channel,
        recipient=planned.recipient,
        expires_at=planned.expires_at,
        once=planned.once,
        consent=agreed.result if agreed else None,
        updates=planned.updates_existing,
        shadow=planned.shadow,
        alert=planned.trigger == "alert",
    )


def _actions(rules: Rules) -> dict[str, Action]:
    steps = [step for rule in rules.rules for step in (*rule.do, *rule.on_failure)]
    return {step.use: step.action for step in (*steps, *rules.alerts)}


def _told(delivery: Delivery) -> dict[str, Any]:
    """What an `on_failure` or an alert can say about a delivery."""
    planned = delivery.planned
    ended = delivery.message_status or delivery.state
    told = {
        "id": delivery.id,
        "rule": planned.rule,
        "action": planned.action,
        "connection": planned.connection,
        "state": delivery.state,
        "reason": delivery.reason,
        "detail": delivery.why,
        "message_status": delivery.message_status,
        "recipient": planned.recipient,
        "attempts": 1 if delivery.attempted else 0,
        "message": f"{planned.action} of rule {planned.rule} for {delivery.event.type}: {ended} {delivery.why}".strip(),
    }
    return {name: value for name, value in told.items() if value is not None}
