"""Counting: how many events of some types a contact had within a time window, for `where`, `if` and templates.

The window ends with the event itself, which counts if it has one of the types. Events belong to one contact if they
share a phone number or an email address, as for `cancel_on`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from bridge.events import EVENT_TYPES, Event
from bridge.rules.durations import duration_hint
from bridge.rules.fields import PATTERNS, expand_event_pattern
from bridge.rules.lookup import TemplateContext
from bridge.rules.model import Diagnostic, unplaced_error
from bridge.rules.operators import OPERATORS
from bridge.rules.template_filters import MissingValue
from bridge.rules.trace import Check, Truth
from bridge.setting_types import parse_duration
from bridge.spelling import did_you_mean

History = Callable[[Event, Collection[str], datetime], Sequence[datetime]]
"""Returns when the other stored events of the event's contact occurred: of these types, since an instant and not after
the event. Oldest first; at most MAX_COUNTED."""
COUNTER: Final = "events of the contact"
"""Context key of the function that counts. No template can name it, because it contains a space."""
MAX_COUNTED: Final = 1000
MAX_WINDOW: Final = timedelta(days=366)
_SHOWN: Final = 5


@dataclass(frozen=True)
class EventCount:
    """`count(call.no-answer, 7d)`: event types and a window."""

    event_types: tuple[str, ...]
    window: timedelta

    def times(self, context: TemplateContext) -> Sequence[datetime]:
        """Return when the counted events occurred. Raise MissingValue if the event has no contact."""
        counter: Counter | None = context.get(COUNTER)
        if counter is None:
            raise MissingValue("`count` is not available here")
        return counter(self)


Counter = Callable[[EventCount], Sequence[datetime]]


def no_history(_event: Event, _types: Collection[str], _since: datetime) -> Sequence[datetime]:
    """Return no other events: the history of a contact without a database."""
    return ()


def counter_of(event: Event, history: History) -> Counter:
    """Return the function that counts events of the contact of `event`."""

    def count(spec: EventCount) -> Sequence[datetime]:
        if event.contact.phone is None and event.contact.email is None:
            raise MissingValue("the event has neither phone nor email, so its contact has no history")
        earlier = history(event, spec.event_types, event.occurred_at - spec.window)
        return (*earlier, event.occurred_at) if event.type in spec.event_types else earlier

    return count


def parse_count(arguments: Sequence[str]) -> EventCount | Diagnostic:
    """Return the count that event types and a duration stand for, or what is wrong with them."""
    hint = "write count(call.no-answer, 7d)"
    if len(arguments) < 2:
        return unplaced_error("`count` takes event types and a duration", hint)
    *names, duration = (argument.strip().strip("'\"") for argument in arguments)
    event_types: list[str] = []
    for name in names:
        expanded = expand_event_pattern(name)
        if not expanded:
            return unplaced_error(
                f"no event type `{name[:60]}`", did_you_mean(name, (*EVENT_TYPES, *PATTERNS))
            )
        event_types += expanded
    try:
        window = parse_duration(duration)
    except ValueError:
        window = timedelta(0)
    if not timedelta(0) < window <= MAX_WINDOW:
        hint = "write 16h or 7d, at most 366d" if window else duration_hint(duration)
        return unplaced_error(f"invalid duration `{duration[:40]}` of `count`", hint)
    return EventCount(tuple(dict.fromkeys(event_types)), window)


@dataclass(frozen=True)
class CountComparison:
    """A row of `where` that compares a count: `count(call.no-answer, 7d) gte 3`."""

    count: EventCount
    operator: str
    expected: Any
    text: str

    def check(self, context: TemplateContext, checks: list[Check], depth: int = 0) -> Truth:
        """Evaluate the comparison and append its row of the trace, with the events counted."""
        try:
            times = self.count.times(context)
        except MissingValue as error:
            checks.append(Check(self.text, "", "unknown", str(error), depth))
            return "unknown"
        result: Truth = "true" if OPERATORS[self.operator](len(times), self.expected) else "false"
        checks.append(Check(self.text, describe_times(times), result, "", depth))
        return result

    def requirements(self) -> Sequence[Any]:
        """Return nothing: a count does not compare a field."""
        return ()

    def proves(self) -> frozenset[tuple[str, ...]]:
        """Return nothing: either the phone or the email may be missing."""
        return frozenset()


def describe_times(times: Sequence[datetime]) -> str:
    """Return the number of events and when the last ones occurred."""
    if not times:
        return "0"
    shown = [f"{time:%Y-%m-%d %H:%M}" for time in times[-_SHOWN:]]
    return f"{len(times)} ({'... ' if len(times) > _SHOWN else ''}{', '.join(shown)} UTC)"
