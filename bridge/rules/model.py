"""Data model of the rules: the loaded `rules.yaml`, and the result of routing an event.

Loading builds a `Rules`. `bridge.rules.route.route` turns an event and `Rules` into a `Routing`: the deliveries to
create and the trace of every rule. Both are plain data, so the store can save them and the dashboard can show them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

from bridge.connector.action import Action
from bridge.connector.callbacks import Channel
from bridge.connector.rule_checks import Location, Place
from bridge.events import EVENT_TYPES
from bridge.rules.alert_settings import AlertSettings
from bridge.rules.quiet_hours import NIGHT, QuietHours, every_day
from bridge.rules.trace import Check, RuleOutline, Trace, Truth, complete

Trigger = Literal["rule", "on_success", "on_failure", "alert"]

OptOutScope = Literal["channel", "phone", "all"]
"""How far an opt-out reaches: only its channel; all channels of a phone number (`sms`, `whatsapp`, `call`); all."""

ALERTS = "alerts"
"""Takes the place of a rule's name for the file's alerts. No rule can have this name."""


@dataclass(frozen=True)
class Cap:
    """At most `count` messages in any period of length `per`."""

    count: int
    per: timedelta


@dataclass(frozen=True)
class MessagingPolicy:
    """The policy for every text message, email and call. These defaults apply if the file has no `messaging:`."""

    quiet_hours: Mapping[Channel, QuietHours] = field(default_factory=lambda: every_day(NIGHT))
    regions: Mapping[str, Mapping[Channel, QuietHours]] = field(default_factory=dict)
    """Stricter quiet hours per region, such as `US-FL`. A message needs the permission of both."""
    caps: Mapping[Channel, Cap] = field(
        default_factory=lambda: {
            "sms": Cap(2, timedelta(hours=24)),
            "whatsapp": Cap(2, timedelta(hours=24)),
            "email": Cap(2, timedelta(days=7)),
            "call": Cap(3, timedelta(hours=24)),
        }
    )
    total_caps: Mapping[Channel, Cap] = field(
        default_factory=lambda: {
            "sms": Cap(500, timedelta(hours=1)),
            "whatsapp": Cap(500, timedelta(hours=1)),
            "email": Cap(500, timedelta(hours=1)),
            "call": Cap(200, timedelta(hours=1)),
        }
    )
    """`caps.total`: how many messages a connection may send to all recipients together before it is paused."""
    countries: frozenset[str] = frozenset()
    """The ISO 3166 codes of the countries that may be texted and called; empty: all."""
    time_zone: str = "America/New_York"
    """The fallback if not even the recipient's country is known."""
    opt_out_scope: OptOutScope = "phone"
    crm_opt_outs: Mapping[str, str] = field(default_factory=dict)
    """Connections of CRMs that are asked for opt-out flags before a message -> their connector."""
    consent: str | None = None
    """A condition (the `if` language) that every message must meet, such as a consent field. None: no condition."""


@dataclass(frozen=True)
class OncePer:
    """`once: {per: contact, within: 24h}`: no second delivery of this rule and action within that time."""

    per: Literal["contact", "conversation"]
    within: timedelta


@dataclass(frozen=True)
class Retry:
    """How long and how often a failing delivery is retried. None: until the standard schedule ends (3 days)."""

    limit: timedelta | None = None
    attempts: int | None = None


@dataclass(frozen=True)
class ConnectionChoice:
    """A connection that depends on a field of the event: `connection: {by: ..., table: ..., default: ...}`."""

    by: tuple[str, ...]
    """The field whose value is looked up."""
    table: Mapping[str, str]
    """Value -> connection."""
    default: str | None = None
    """The connection for a value that the table does not have, or for an event without the field."""


@dataclass(frozen=True)
class Step:
    """One entry of `do:`, `on_success:`, `on_failure:` or `alerts:`."""

    use: str
    action: Action
    connection: str | ConnectionChoice
    line: int
    values: Mapping[str, Any]
    """Every param that the rule or a default sets. Strings with `{{` are compiled templates."""
    late: Mapping[str, Any] = field(default_factory=dict)
    """The values that use `details` or `results`, with the sources of their templates (`bridge.rules.late`)."""
    places: Mapping[Location, Place] = field(default_factory=dict)
    """Where each value under `with` stands; the place of the step itself at `()`."""
    delay: timedelta = timedelta(0)
    expires: timedelta | None = None
    """Counted from the event's own time. None: 24 hours for messages, otherwise never."""
    cancel_on: tuple[str, ...] = ()
    once: OncePer | None = None
    retry: Retry = Retry()
    idempotency_key: Any = None
    """A compiled template, or None."""
    internal: bool = False
    """The recipient is a literal of the file: a message to the team, to which the messaging policy does not apply."""
    path: str = ""
    """The file that contains it."""

    @property
    def connections(self) -> tuple[str, ...]:
        """Every connection that the step can use."""
        if isinstance(self.connection, str):
            return (self.connection,)
        default = (self.connection.default,) if self.connection.default else ()
        return tuple(dict.fromkeys((*self.connection.table.values(), *default)))


class Condition(Protocol):
    """A compiled condition of a rule."""

    def check(self, context: Mapping[str, Any], checks: list[Check], depth: int = 0) -> Truth:
        """Evaluate the condition for the event in `context` and append its rows of the trace."""
        ...

    def requirements(self) -> Sequence[Any]:
        """Return the comparisons that must all be true for the condition to be true (`contradictions.Requirement`)."""
        ...

    def proves(self) -> frozenset[tuple[str, ...]]:
        """Return the dotted names that have a value whenever the condition is true."""
        ...


@dataclass(frozen=True)
class Rule:
    """A rule: `when` + `where` + `if` -> `do`."""

    name: str
    line: int
    when: frozenset[str]
    """The event types that the rule applies to. Patterns such as `call.*` are already expanded."""
    when_text: str
    """`when` as the file spells it."""
    conditions: tuple[Condition, ...] = ()
    """The entries of `where` and the `if`. All must be true; all are evaluated, so that the trace is complete."""
    do: tuple[Step, ...] = ()
    on_success: tuple[Step, ...] = ()
    on_failure: tuple[Step, ...] = ()
    enabled: bool = True
    shadow: bool = False
    description: str = ""
    path: str = ""
    """The file that contains the rule."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step of the rule."""
        return self.do + self.on_success + self.on_failure


@dataclass(frozen=True)
class RuleTestEvent:
    """An event that a rule test sends."""

    source: str
    """The event type of a documented sample (`call.busy`), or the path of a JSON file, relative to the test's file."""
    line: int
    set: Mapping[str, Any] = field(default_factory=dict)
    """The fields that the test overrides: path within the body (`metadata.contactPhone`) -> JSON value."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """The details of the conversation that Heppu returns."""
    at: datetime | None = None
    """When the event happens and is received. None: the time of the event before it; for the first, its timestamp."""


@dataclass(frozen=True)
class Expectation:
    """A delivery that a rule test expects. Attributes that are None are not compared."""

    use: str
    line: int
    connection: str | None = None
    at: datetime | None = None
    """When the delivery runs, to the minute."""
    state: str | None = None
    """The final state: `succeeded`, `suppressed`, `cancelled`, `failed` or `needs_review`.

    None: `succeeded`, or any state after an attempt if the test makes the action fail.
    """
    reason: str | None = None
    """The reason of the final state: `opted_out`, `frequency_capped`, `rejected`, ..."""
    params: Mapping[str, Any] | None = None
    """Some of the delivery's params (`with:`), compared as JSON."""


@dataclass(frozen=True)
class RuleTest:
    """One entry of `tests:` with a valid shape. `bridge.dryrun` runs it.

    For each rule in `expect`, the deliveries must be exactly the listed ones, in any order and including those of
    `on_success` and `on_failure`. Rules that `expect` does not name are not compared. `expect: {}` expects no delivery
    of any rule. The name `alerts` refers to the file's alerts.
    """

    name: str
    line: int
    events: tuple[RuleTestEvent, ...]
    expect: Mapping[str, tuple[Expectation, ...]]
    path: str = ""
    """The file that contains the test: the rules file or a test file next to it."""
    fail: Mapping[str, str] = field(default_factory=dict)
    """`connector.action` -> its simulated failure: a `bridge.errors.Reason`, or `undelivered` (message status)."""


@dataclass(frozen=True)
class Rules:
    """A valid set of rules files."""

    text: str
    """The text of the file, or of all files as `bridge.rules.sources` joins them."""
    hash: str
    """SHA-256 of the text. Deliveries and traces use it to identify the rules that created them."""
    rules: tuple[Rule, ...] = ()
    messaging: MessagingPolicy = field(default_factory=MessagingPolicy)
    alerts: tuple[Step, ...] = ()
    alert_settings: AlertSettings = field(default_factory=AlertSettings)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`tables:`: name -> key -> value, for the filter `table`."""
    tests: tuple[RuleTest, ...] = ()
    path: str = "rules.yaml"
    """The file or folder that was loaded."""

    @cached_property
    def _by_name(self) -> Mapping[str, Rule]:
        return {rule.name: rule for rule in self.rules}

    @cached_property
    def outlines(self) -> tuple[RuleOutline, ...]:
        """The outline of each rule, in file order."""
        return tuple(
            RuleOutline(rule.name, sorted(rule.when), rule.when_text, rule.enabled) for rule in self.rules
        )

    @cached_property
    def _by_event(self) -> dict[str, EventRules]:
        return {}

    def named(self, name: str) -> Rule | None:
        """Return the rule called `name`, or None if the file does not have it."""
        return self._by_name.get(name)

    def for_event(self, event_type: str) -> EventRules:
        """Return the rules for this type of event.

        They are cached per documented event type, so that a thousand rules for other events cost nothing.
        """
        selected = self._by_event.get(event_type)
        if selected is None:
            started = tuple(outline.start(event_type) for outline in self.outlines)
            pairs = zip(self.rules, started, strict=True)
            selected = EventRules(tuple((rule, trace) for rule, trace in pairs if trace.fired), started)
            if event_type in EVENT_TYPES:
                self._by_event[event_type] = selected
        return selected


class EventRules(NamedTuple):
    """The rules for one type of event."""

    evaluated: tuple[tuple[Rule, Trace], ...]
    """The enabled rules whose `when` matches, in file order, with the start of their traces."""
    started: tuple[Trace, ...]
    """The start of the trace of every rule, in file order."""


@dataclass(frozen=True)
class Diagnostic:
    """An error or warning in a rules file: its place (counted from 1), what is wrong, and what to do about it."""

    line: int
    """0 while only the value is known and not its place; `ParseContext.report` fills the place in."""
    column: int
    text: str
    hint: str = ""
    rule: str | None = None
    level: Literal["error", "warning"] = "error"
    connection: str | None = None
    """Set if the file is right but the settings of this connection are missing or invalid."""
    path: str = ""
    """The file, if its place is known."""


def unplaced_error(text: str, hint: str = "") -> Diagnostic:
    """Return an error whose place in the file is not known yet."""
    return Diagnostic(0, 0, text, hint)


def unplaced_warning(text: str, hint: str = "") -> Diagnostic:
    """Return a warning whose place in the file is not known yet."""
    return Diagnostic(0, 0, text, hint, level="warning")


@dataclass(frozen=True)
class LoadResult:
    """The result of loading rules files: the rules, unless there are errors, and all diagnostics in file order."""

    rules: Rules | None
    diagnostics: tuple[Diagnostic, ...] = ()
    connections: Mapping[str, str] = field(default_factory=dict)
    """Every connection in the files -> its connector."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Path -> text of each file, for the report."""


DELIVERY_FIELDS: Mapping[str, str] = {
    "id": "string",
    "rule": "string",
    "action": "string",
    "connection": "string",
    "state": "string",
    "reason": "string",
    "detail": "string",
    "message_status": "string",
    "channel": "string",
    "recipient": "string",
    "text": "string",
    "subject": "string",
    "external_id": "string",
    "sent_at": "timestamp",
    "attempts": "number",
    "count": "number",
    "message": "string",
}
"""Fields of `delivery` in `on_success`, `on_failure` and `alerts`. All but `id` and `message` are optional.

`id` makes the follow-up run once: it is the delivery's ID, or one ID per pause for an alert about a connection, or one
per problem of the service.
`message` describes what happened in one sentence, ready to be posted. `channel`, `recipient`, `text` and `subject`
are those of a message as it was sent.
"""

MESSAGE_FIELDS = frozenset({"channel", "recipient", "text", "subject"})
"""Fields of `delivery` that only messages have."""


@dataclass(slots=True)
class PlannedDelivery:
    """A delivery to create. The store assigns its ID.

    It is never changed. It is not frozen, because a frozen dataclass of this size takes three times as long to create.
    """

    rule: str
    trigger: Trigger
    step_index: int
    """Index in the rule's `do` (or `on_success`, `on_failure`, or the file's `alerts`), from 0."""
    action: str
    connection: str
    params: Mapping[str, Any]
    """Rendered and validated, as JSON. Empty if `render_error` is set."""
    run_at: datetime
    idempotency_key: str
    updates_existing: bool
    concurrency_key: str | None
    channel: Channel | None = None
    recipient: str | None = None
    render_error: str | None = None
    """Why the params could not be rendered. The delivery is then created as failed, with reason `render_error`."""
    expires_at: datetime | None = None
    cancel_on: tuple[str, ...] = ()
    once: OncePer | None = None
    retry: Retry = Retry()
    shadow: bool = False
    internal: bool = False
    """A message to the team (`Step.internal`)."""
    more_recipients: tuple[str, ...] = ()
    """The other addresses of a message to several colleagues."""
    late: Mapping[str, Any] = field(default_factory=dict)
    """Params that are rendered once the details of the conversation, or the results of earlier actions, are known: the
    sources of their templates."""
    on_success: bool = False
    """The rule follows up on the delivery's success."""
    notes: tuple[str, ...] = ()
    """What it has to do without: fields of the event that cannot be read, and params whose default cannot be
    evaluated. They contain no values."""


@dataclass(frozen=True)
class Routing:
    """The result of routing an event: the deliveries to create, and the trace of every rule."""

    planned: tuple[PlannedDelivery, ...]
    evaluated: tuple[Trace, ...]
    """The traces of the rules for the event's type, in file order."""
    started: tuple[Trace, ...] = ()
    """The start of the trace of every rule, in file order."""

    @property
    def traces(self) -> tuple[Trace, ...]:
        """The trace of every rule, in file order."""
        return complete(self.started, self.evaluated)
