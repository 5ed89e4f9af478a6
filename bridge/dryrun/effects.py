"""What a replay would do, before it is confirmed: how many messages and records, and what is held back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from bridge.dryrun.explain import PlannedOutcome, explain
from bridge.events import Event
from bridge.policy import PolicyInputs
from bridge.policy.effects import Effects
from bridge.rules.counting import History
from bridge.rules.model import PlannedDelivery, Routing, Rules
from bridge.rules.route import route

_BATCH: Final = 50
"""Events whose policy inputs are loaded together."""


@dataclass
class _Earlier:
    """What the events before one in the same replay have sent: it counts for caps and for `once`."""

    messages: dict[tuple[str | None, str | None], list[datetime]] = field(default_factory=dict)
    """Channel and recipient -> when."""
    steps: dict[tuple[str, str], list[tuple[PlannedOutcome, Event]]] = field(default_factory=dict)
    """Rule and action -> their deliveries."""

    def add(self, item: PlannedOutcome, event: Event) -> None:
        """Add what the replay of an event sends."""
        planned = item.planned
        if planned.channel:
            self.messages.setdefault((planned.channel, planned.recipient), []).append(item.at)
        self.steps.setdefault((planned.rule, planned.action), []).append((item, event))

    def add_to(self, inputs: PolicyInputs, planned: PlannedDelivery, event: Event) -> PolicyInputs:
        """Return the inputs of a delivery as they are after the events before it."""
        messages = self.messages.get((planned.channel, planned.recipient), []) if planned.channel else []
        same_step = self.steps.get((planned.rule, planned.action), []) if planned.once else []
        done = [item.at for item, earlier in same_step if _counts_for_once(earlier, planned, event)]
        last = max([*done, *filter(None, [inputs.last_done_at])], default=None)
        return replace(inputs, messages_sent_at=[*inputs.messages_sent_at, *messages], last_done_at=last)


def _counts_for_once(earlier: Event, planned: PlannedDelivery, event: Event) -> bool:
    if planned.once is not None and planned.once.per == "conversation":
        return event.conversation.id is not None and earlier.conversation.id == event.conversation.id
    return event.contact.key is not None and earlier.contact.key == event.contact.key


def effects_of_replay(
    events: Iterable[Event],
    rules: Rules,
    now: datetime,
    *,
    load_inputs: Callable[[Sequence[tuple[PlannedDelivery, Event]]], Iterable[PolicyInputs]],
    history: History,
    allowlist: Collection[str] = (),
    force: bool = False,
) -> Effects:
    """Return what routing these events once more with `rules` would do, by the policy that the service applies.

    With `force`, completed actions are repeated. `load_inputs` is called for the deliveries of `_BATCH` events at once.
    """
    earlier = _Earlier()
    outcomes: list[PlannedOutcome] = []
    repeated: set[str] = set()
    event_count = 0

    def routed() -> Iterator[tuple[Event, Routing, Iterator[PolicyInputs]]]:
        remaining = iter(events)
        while batch := [(event, route(event, rules, now, history)) for event in islice(remaining, _BATCH)]:
            inputs = iter(
                load_inputs([(item, event) for event, routing in batch for item in routing.planned])
            )
            for event, routing in batch:
                yield event, routing, islice(inputs, len(routing.planned))

    for event, routing, loaded in routed():

        def load(
            planned: PlannedDelivery, event: Event = event, loaded: Iterator[PolicyInputs] = loaded
        ) -> PolicyInputs:
            inputs = earlier.add_to(next(loaded), planned, event)
            if force and inputs.idempotency_record is not None:
                repeated.add(planned.idempotency_key)
            return replace(inputs, idempotency_record=None) if force else inputs

        explanation = explain(
            event, rules, now, load_inputs=load, history=history, allowlist=allowlist, routing=routing
        )
        outcomes += explanation.deliveries
        event_count += bool(explanation.deliveries)
        for item in explanation.deliveries:
            if item.outcome in ("go", "wait"):
                earlier.add(item, event)
    return _effects(outcomes, event_count, now, repeated)


def _effects(
    outcomes: Iterable[PlannedOutcome], events: int, now: datetime, repeated: Collection[str]
) -> Effects:
    sent: Counter[str] = Counter()
    held_back: Counter[str] = Counter()
    people, again = set[str](), set[str]()
    later = 0
    for outcome in outcomes:
        planned = outcome.planned
        if outcome.outcome not in ("go", "wait"):
            held_back["cancelled" if outcome.outcome == "cancel" else outcome.reason or outcome.outcome] += 1
            continue
        to_person = planned.channel if not planned.internal else None
        sent[to_person or planned.action] += 1
        later += outcome.outcome == "wait" or outcome.at - now >= timedelta(seconds=1)
        if to_person and planned.recipient:
            people.add(planned.recipient)
            if planned.idempotency_key in repeated:
                again.add(planned.recipient)
    return Effects(sent, held_back, events, later, len(people), len(again))
