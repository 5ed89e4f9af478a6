"""What an operator's command would do, before it is confirmed: how many messages and records, and what is held back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from bridge.connector.callbacks import Channel
from bridge.dryrun.explain import PlannedOutcome, explain
from bridge.events import Event
from bridge.lifecycle import SuppressReason
from bridge.policy import PolicyInputs
from bridge.policy.opt_outs import NOUNS
from bridge.rules.counting import History
from bridge.rules.model import PlannedDelivery, Rules

ALWAYS_NAMED: Final[tuple[Channel, ...]] = ("sms", "email")
"""Kinds of messages whose number is stated even if it is 0, so that nobody wonders."""
_REASONS: Final = {SuppressReason.COOLDOWN.value: "once"}
"""Reason -> the key of the rule that causes it, where people know that better."""


@dataclass(frozen=True)
class Effects:
    """The deliveries that a command would carry out, and those that it would not."""

    sent: Mapping[str, int] = field(default_factory=dict)
    """Channel of the messages, or full name of another action -> number."""
    held_back: Mapping[str, int] = field(default_factory=dict)
    """State or reason -> number of deliveries that would not be carried out."""
    events: int = 0
    """For a replay: the events that lead to any delivery."""
    later: int = 0
    """Those of `sent` that wait for a delay or for quiet hours to end."""

    @property
    def messages(self) -> int:
        """The number of messages to recipients."""
        return sum(count for kind, count in self.sent.items() if kind in NOUNS)

    @property
    def text(self) -> str:
        """One sentence: `7 text messages, 0 emails, 3 hubspot.log_call; 1 expired, 2 suppressed (once)`."""
        kinds = [*ALWAYS_NAMED, *sorted(set(self.sent) - set(ALWAYS_NAMED), key=_messages_first)]
        parts = [_counted(self.sent.get(kind, 0), kind) for kind in kinds]
        later = f" ({self.later:,} of them later)" if self.later else ""
        held_back = [_held_back(reason, count) for reason, count in sorted(self.held_back.items())]
        return ", ".join(parts) + later + (f"; {', '.join(held_back)}" if held_back else "")

    def to_json(self) -> dict[str, Any]:
        """Return the effects as plain data."""
        return {
            "messages": {kind: count for kind, count in self.sent.items() if kind in NOUNS},
            "actions": {kind: count for kind, count in self.sent.items() if kind not in NOUNS},
            "later": self.later,
            "held_back": dict(self.held_back),
        }


def _messages_first(kind: str) -> tuple[bool, str]:
    return kind not in NOUNS, kind


def _counted(count: int, kind: str) -> str:
    noun = {str(channel): noun for channel, noun in NOUNS.items()}.get(kind)
    return f"{count:,} {noun}{'' if count == 1 else 's'}" if noun else f"{count:,} {kind}"


def _held_back(reason: str, count: int) -> str:
    if reason in ("expired", "cancelled"):
        return f"{count:,} {reason}"
    if reason == "render_error":
        return f"{count:,} cannot be rendered"
    return f"{count:,} suppressed ({_REASONS.get(reason, reason)})"


@dataclass
class _Earlier:
    """What the events before one in the same replay have sent: it counts for caps and for `once`."""

    sent: list[tuple[PlannedOutcome, Event]] = field(default_factory=list)

    def add_to(self, inputs: PolicyInputs, planned: PlannedDelivery, event: Event) -> PolicyInputs:
        """Return the inputs of a delivery as they are after the events before it."""
        messages = [
            item.at
            for item, _ in self.sent
            if planned.channel
            and (item.planned.channel, item.planned.recipient) == (planned.channel, planned.recipient)
        ]
        done = [
            item.at for item, earlier in self.sent if _counts_for_once(item.planned, earlier, planned, event)
        ]
        last = max([*done, *filter(None, [inputs.last_done_at])], default=None)
        return replace(inputs, messages_sent_at=[*inputs.messages_sent_at, *messages], last_done_at=last)


def _counts_for_once(first: PlannedDelivery, earlier: Event, planned: PlannedDelivery, event: Event) -> bool:
    if planned.once is None or (first.rule, first.action) != (planned.rule, planned.action):
        return False
    if planned.once.per == "conversation":
        return event.conversation.id is not None and earlier.conversation.id == event.conversation.id
    return event.contact.key is not None and earlier.contact.key == event.contact.key


def effects_of_replay(
    events: Iterable[Event],
    rules: Rules,
    now: datetime,
    *,
    load_inputs: Callable[[PlannedDelivery, Event], PolicyInputs],
    history: History,
    allowlist: Collection[str] = (),
    force: bool = False,
) -> Effects:
    """Return what routing these events once more with `rules` would do, by the policy that the service applies.

    With `force`, completed actions are repeated.
    """
    earlier = _Earlier()
    outcomes: list[PlannedOutcome] = []
    event_count = 0
    for event in events:

        def load(planned: PlannedDelivery, event: Event = event) -> PolicyInputs:
            inputs = earlier.add_to(load_inputs(planned, event), planned, event)
            return replace(inputs, idempotency_record=None) if force else inputs

        explanation = explain(event, rules, now, load_inputs=load, history=history, allowlist=allowlist)
        outcomes += explanation.deliveries
        event_count += bool(explanation.deliveries)
        earlier.sent += [(item, event) for item in explanation.deliveries if item.outcome in ("go", "wait")]
    return _effects(outcomes, event_count, now)


def _effects(outcomes: Iterable[PlannedOutcome], events: int, now: datetime) -> Effects:
    sent: Counter[str] = Counter()
    held_back: Counter[str] = Counter()
    later = 0
    for outcome in outcomes:
        if outcome.outcome in ("go", "wait"):
            sent[outcome.planned.channel or outcome.planned.action] += 1
            later += outcome.outcome == "wait" or outcome.at - now >= timedelta(seconds=1)
        else:
            held_back["cancelled" if outcome.outcome == "cancel" else outcome.reason or outcome.outcome] += 1
    return Effects(sent, held_back, events, later)
