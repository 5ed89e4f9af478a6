"""The rules as data: what a loaded `rules.yaml` is, and what routing an event with it gives.

Loading makes a `Rules`; `bridge.rules.route.route` turns an event and `Rules` into a `Routing`: the deliveries to
make and the trace of every rule. Both are plain data, so the store keeps them and people can be shown them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple

from bridge.connector.api import Action, Channel
from bridge.events import EVENT_NAMES

Truth = Literal["true", "false", "unknown"]
"""Three-valued logic: a field that is missing, null or of another type is unknown, and unknown never matches."""

Trigger = Literal["rule", "on_failure", "alert"]

ALERTS = "alerts"
"""What stands for a rule's name where the file's alerts are meant; no rule can be called so."""


@dataclass(frozen=True)
class Cap:
    """At most `count` messages in any span of `per`."""

    count: int
    per: timedelta


@dataclass(frozen=True)
class QuietHours:
    """From `start` to `end` on the person's own wall clock nothing is sent; `start` may be after `end`.

    `start == end` means: no quiet hours (the file says `quiet_hours: none`).
    """

    start: time
    end: time


@dataclass(frozen=True)
class Messaging:
    """The policy that holds for every text, mail and call; these defaults hold without a `messaging:` at all."""

    quiet_hours: QuietHours = QuietHours(time(20), time(8))
    regions: Mapping[str, QuietHours] = field(default_factory=dict)
    """Stricter hours per region, such as `US-FL`; both have to allow a message."""
    caps: Mapping[Channel, Cap] = field(
        default_factory=lambda: {
            "sms": Cap(2, timedelta(hours=24)),
            "email": Cap(2, timedelta(days=7)),
            "call": Cap(3, timedelta(hours=24)),
        }
    )
    time_zone: str = "America/New_York"
    """Only when not even the country of a person is known."""
    consent: str | None = None
    """A condition (the `if` language) that every message needs, such as a consent field; None: no such condition."""


@dataclass(frozen=True)
class Once:
    """`once: {per: contact, within: 24h}`: no second delivery of this rule and action in that time."""

    per: Literal["contact", "conversation"]
    within: timedelta


@dataclass(frozen=True)
class Retry:
    """How long a failing delivery is tried again; None: the standard schedule's own end (3 days)."""

    limit: timedelta | None = None
    attempts: int | None = None


@dataclass(frozen=True)
class Step:
    """One entry of a `do:`, an `on_failure:` or the `alerts:`."""

    use: str
    action: Action
    connection: str
    line: int
    values: Mapping[str, Any]
    """Every param that the rule or a default sets; strings with `{{` are compiled templates."""
    delay: timedelta = timedelta(0)
    expires: timedelta | None = None
    """From the event's own time; None: 24 hours for messages, else never."""
    cancel_on: tuple[str, ...] = ()
    once: Once | None = None
    retry: Retry = Retry()
    idempotency_key: Any = None
    """A compiled template, or None."""


@dataclass(frozen=True)
class Rule:
    """One rule: `when` + `where` + `if` -> `do`."""

    name: str
    line: int
    when: frozenset[str]
    """The event names it is for; patterns like `call.*` are already spread out."""
    when_text: str
    where: Any
    """The compiled condition, or None."""
    condition: Any
    """The compiled `if`, or None."""
    do: tuple[Step, ...]
    on_failure: tuple[Step, ...] = ()
    enabled: bool = True
    shadow: bool = False
    description: str = ""


@dataclass(frozen=True)
class RehearsedEvent:
    """One event that a test of the file sends."""

    source: str
    """The name of a documented sample (`call.busy`), or the path of a JSON file, relative to the rules file."""
    line: int
    set: Mapping[str, Any] = field(default_factory=dict)
    """What the test changes in it: path below the body (`metadata.contactPhone`) -> JSON value."""
    at: datetime | None = None
    """When it happens and is received; None: when the one before it did, and the first at its own timestamp."""


@dataclass(frozen=True)
class Expectation:
    """One delivery that a test expects; what is None is not compared."""

    use: str
    line: int
    connection: str | None = None
    at: datetime | None = None
    """When it is carried out, to the minute."""
    state: str | None = None
    """How it ends: `sent`, `suppressed`, `cancelled`, `dead`, `review`; None: it must not be held back or cancelled."""
    reason: str | None = None
    """Why it ended so: `opted_out`, `capped`, `rejected`, ..."""
    params: Mapping[str, Any] | None = None
    """Some of its params (`with:`), compared as JSON."""


@dataclass(frozen=True)
class RuleTest:
    """One entry of `tests:`, checked for shape; `bridge.dryrun` runs it.

    For a rule that `expect` names, the deliveries must be exactly those listed, in any order (those of its
    `on_failure` included); a rule that it does not name is not looked at; `expect: {}` expects no delivery of any
    rule. The name `alerts` stands for the file's alerts.
    """

    name: str
    line: int
    events: tuple[RehearsedEvent, ...]
    expect: Mapping[str, tuple[Expectation, ...]]
    path: str = ""
    """The file where it stands: the rules file, or one beside it."""
    fail: Mapping[str, str] = field(default_factory=dict)
    """`connector.action` -> how the partner fails it: a `bridge.errors.Reason`, or `undelivered` (its receipt)."""


@dataclass(frozen=True)
class Rules:
    """A whole file, checked."""

    text: str
    hash: str
    """SHA-256 of the text; deliveries and traces name the rules that made them by it."""
    rules: tuple[Rule, ...] = ()
    messaging: Messaging = field(default_factory=Messaging)
    alerts: tuple[Step, ...] = ()
    tests: tuple[RuleTest, ...] = ()
    path: str = "rules.yaml"

    @cached_property
    def _named(self) -> Mapping[str, Rule]:
        return {rule.name: rule for rule in self.rules}

    @cached_property
    def _by_event(self) -> dict[str, tuple[tuple[Rule, Trace], ...]]:
        return {}

    def named(self, name: str) -> Rule | None:
        """The rule called `name`, if the file still has it."""
        return self._named.get(name)

    def for_event(self, name: str) -> tuple[tuple[Rule, Trace], ...]:
        """Every rule in the file's order, with what its trace begins with; it `fired` when the rule is to be tried.

        Worked out once per documented event, so that a thousand rules for other events cost nothing.
        """
        found = self._by_event.get(name)
        if found is None:
            found = tuple((rule, _first_trace(rule, name)) for rule in self.rules)
            if name in EVENT_NAMES:
                self._by_event[name] = found
        return found


def _first_trace(rule: Rule, event: str) -> Trace:
    """Whether a rule is for this event at all."""
    if not rule.enabled:
        return Trace(rule.name, False, (Check("enabled", "false", "false"),))
    meant = event in rule.when
    return Trace(
        rule.name, meant, (Check(f"when {rule.when_text}", event[:80], "true" if meant else "false"),)
    )


@dataclass(frozen=True)
class Problem:
    """One mistake in a rules file, with its place (counted from 1) and what to do about it."""

    line: int
    column: int
    text: str
    hint: str = ""
    rule: str | None = None
    level: Literal["error", "warning"] = "error"
    connection: str | None = None
    """Set when it is no mistake of the file: this connection's settings are missing, or wrong."""


@dataclass(frozen=True)
class Loaded:
    """What came of a rules file: the rules, unless there are errors, and every problem in the file's order."""

    rules: Rules | None
    problems: tuple[Problem, ...] = ()
    connections: Mapping[str, str] = field(default_factory=dict)
    """Every connection that the file names, and its connector."""


DELIVERY_FIELDS: Mapping[str, str] = {
    "id": "string",
    "rule": "string",
    "action": "string",
    "connection": "string",
    "state": "string",
    "reason": "string",
    "detail": "string",
    "message_status": "string",
    "recipient": "string",
    "attempts": "number",
    "message": "string",
}
"""What `delivery` holds in `on_failure` and `alerts`, all of it optional but `id` and `message`.

`id` makes the follow-up happen once: the delivery's id, or for an alert about a connection one id per pause.
`message` is the whole matter in one sentence, ready to be posted.
"""


class Check(NamedTuple):
    """One condition of a rule against one event. A tuple, because routing makes very many of them."""

    condition: str
    """In the rule's own words: `event.direction eq outbound`."""
    actual: str
    """What the event holds there, shortened: `"inbound"`, `missing`, `null`."""
    result: Truth
    reason: str = ""
    depth: int = 0
    """How deep it stands in groups (`any`, `all`, `not`), for indenting."""


class Trace(NamedTuple):
    """Why one rule did or did not fire for one event."""

    rule: str
    fired: bool
    checks: tuple[Check, ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The trace as plain data, as the store keeps it."""
        return {
            "rule": self.rule,
            "fired": self.fired,
            "checks": [check._asdict() for check in self.checks],
            "error": self.error,
        }


@dataclass(frozen=True)
class Planned:
    """One delivery to be made; the store gives it an id."""

    rule: str
    trigger: Trigger
    step_index: int
    """Place in the rule's `do` (or `on_failure`, or the file's `alerts`), from 0."""
    action: str
    connection: str
    params: Mapping[str, Any]
    """Rendered and checked, as JSON; empty when `problem` is set."""
    run_at: datetime
    idempotency_key: str
    updates_existing: bool
    concurrency_key: str | None
    channel: Channel | None = None
    recipient: str | None = None
    problem: str | None = None
    """Why the params could not be rendered: the delivery is born dead, reason `render`."""
    expires_at: datetime | None = None
    cancel_on: tuple[str, ...] = ()
    once: Once | None = None
    retry: Retry = Retry()
    shadow: bool = False


@dataclass(frozen=True)
class Routing:
    """What an event leads to."""

    planned: tuple[Planned, ...]
    traces: tuple[Trace, ...]


Renderer = Callable[[Mapping[str, Any]], Any]
"""A compiled template or condition: names -> value."""
