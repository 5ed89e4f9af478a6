"""The author's API: a connector is data and a few decorated functions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from bridge.connector.context import Context
from bridge.errors import DeliveryError
from bridge.events import PHONE_PATTERN, normalize_email
from bridge.settings import EnvironmentModel

Channel = Literal["sms", "email", "call"]
"""How an action reaches a person; such an action obeys the policy (quiet hours, opt-outs, caps)."""

MessageStatus = Literal["queued", "sent", "delivered", "undelivered", "failed"]

P = TypeVar("P", bound="Params")
F = TypeVar("F", bound=Callable[..., Any])


def _phone(value: str) -> str:
    if not PHONE_PATTERN.fullmatch(value):
        raise ValueError("is no E.164 number: write + and the country code, like +14155550123")
    return value


def _email(value: str) -> str:
    found = normalize_email(value)
    if found is None:
        raise ValueError("is no single e-mail address")
    return found


PhoneNumber = Annotated[str, AfterValidator(_phone)]
"""E.164 by Heppu's own pattern; no number plan is consulted."""
Email = Annotated[str, AfterValidator(_email)]
"""Exactly one address."""


class ConnectorSettings(EnvironmentModel):
    """A connection's settings, read from variables that begin with the connection's name in capitals.

    What stands in quotes below a field is what `bridge connectors show` says about its variable.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def prefix(cls, connection: str) -> str:
        """`twilio_eu` -> `TWILIO_EU_`."""
        return connection.upper().replace("-", "_") + "_"


class Params(BaseModel):
    """What a rule writes under `with:`. Unknown names are errors; values are checked when loaded and when rendered.

    A number where a text is wanted is that number's text: `subject: "{{ event.messageCount }}"` means it so.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, coerce_numbers_to_str=True
    )


def param(
    default: Any, description: str, *, example: Any = None, html: bool = False, **constraints: Any
) -> Any:
    """A field of a Params model.

    `default` is a value, `...` for required, or a template of the event (`"{{ contact.phone }}"`): then the
    rule may leave the param out, and what the template finds missing is None, or an error where the type
    forbids None. Into an `html` param, values of the event are put escaped. `constraints` are pydantic's
    (`max_length=1600`, `ge=0`).
    """
    extra: dict[str, Any] = {"example": example}
    if html:
        extra["html"] = True
    if isinstance(default, str) and "{{" in default:
        extra["template"] = default
        default = None
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def template_of(info: FieldInfo) -> str | None:
    """The default template of a param, if it has one."""
    extra = info.json_schema_extra
    found = extra.get("template") if isinstance(extra, dict) else None
    return found if isinstance(found, str) else None


def is_html(info: FieldInfo) -> bool:
    """Whether what a template puts into this param must be escaped."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and extra.get("html") is True


def example_of(info: FieldInfo) -> Any:
    """The example of a param."""
    extra = info.json_schema_extra
    return extra.get("example") if isinstance(extra, dict) else None


def allows_none(info: FieldInfo) -> bool:
    """Whether a param may be None."""
    return type(None) in get_args(info.annotation)


@dataclass(frozen=True)
class Cause:
    """What a delivery comes from, for computing its effect key."""

    connection: str
    action: str
    """`connector.action`."""
    event: str
    """The event's identity."""
    conversation: str
    recipient: str | None
    key: str
    """The rule author's `key:`, empty when there is none."""
    apart: str = ""
    """What the action's `dedupe_by` param holds, empty when it has none."""


@dataclass(frozen=True)
class IdempotencyScope:
    """How often an action may take effect. Two deliveries of one key are one effect."""

    key: Callable[[Cause], str]
    updates: bool = False
    """A later event of the same key updates what the first one made, instead of ending `already_done`."""


def _conversation_key(cause: Cause) -> str:
    return "|".join(("conversation", cause.connection, cause.action, cause.conversation, cause.key))


def _message_key(cause: Cause) -> str:
    return "|".join(("message", cause.action, cause.event, cause.recipient or "", cause.key))


def _event_key(cause: Cause) -> str:
    parts = ("event", cause.connection, cause.action, cause.event, cause.key)
    return "|".join((*parts, cause.apart) if cause.apart else parts)


per_conversation = IdempotencyScope(_conversation_key, updates=True)
"""One record per conversation: a CRM log. Later events of the conversation update it."""
per_message = IdempotencyScope(_message_key)
"""One message per event, action and recipient (and `key:`): texts, mails, calls."""
per_event = IdempotencyScope(_event_key)
"""Once per event (and `key:`, and what the action's `dedupe_by` holds): tasks, posts, field updates."""


class SerializeBy(StrEnum):
    """What must not run twice at once on a connection."""

    CONTACT = "contact"
    CONVERSATION = "conversation"
    NONE = "none"


@dataclass(frozen=True)
class Limits:
    """How hard a connection may press its partner."""

    per_second: float | None = None
    """Requests per second, shared by all replicas; None: no limit known."""
    concurrency: int = 4
    """Attempts at once in one process."""
    timeout: float = 20.0
    """Seconds that one attempt may take in all; must be below the lease (30 s)."""


@dataclass(frozen=True)
class Success:
    """An action took effect."""

    id: str | None = None
    """The partner's id of what was made."""
    detail: str = ""
    """A few words for the log page: `2 segments`, `updated`, `two contacts matched, newest taken`."""
    message_status: MessageStatus | None = None


@dataclass(frozen=True)
class BatchItem(Generic[P]):
    """One delivery in a batch."""

    params: P
    context: Context


@dataclass(frozen=True)
class CallbackRequest:
    """A partner's request to a callback, as it came."""

    url: str
    """The full public URL that the partner called, query included."""
    headers: Mapping[str, str]
    """Names in lower case."""
    form: Sequence[tuple[str, str]]
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class StatusUpdate:
    """What became of a message after it was accepted."""

    state: MessageStatus
    id: str | None = None
    """The partner's id of the message."""
    delivery: str | None = None
    """Our id of the delivery, when the callback carries it."""
    detail: str = ""


@dataclass(frozen=True)
class OptOut:
    """A person asked not to be written to on this channel."""

    channel: Channel
    address: str


@dataclass(frozen=True)
class OptIn:
    """A person took an opt-out back."""

    channel: Channel
    address: str


@dataclass(frozen=True)
class CallbackReply:
    """What to answer the partner, and what was learned."""

    learned: Sequence[StatusUpdate | OptOut | OptIn] = ()
    body: str = ""
    media_type: str = "text/plain"


@dataclass(eq=False)
class Action:
    """One thing a connector does: `connector.action` in rules.yaml."""

    connector: str
    name: str
    run: Callable[..., Any]
    params: type[Params]
    description: str
    idempotency: IdempotencyScope
    serialize_by: SerializeBy
    channel: Channel | None
    recipient: str | None
    """The param that holds the address, for actions with a channel."""
    dedupe_by: str | None
    """The param by which two effects of one event are two, such as the text of a post."""
    idempotent: bool
    """The partner makes it idempotent by our key: it may be repeated after an unknown outcome."""
    batch: int
    """How many deliveries `run` takes in one call; above 1 it gets a list of BatchItem and answers a list."""
    lookup_delay: timedelta
    """How long the partner may need until a lookup finds what an attempt did."""
    finder: Callable[..., Success | None] | None = None

    @property
    def full_name(self) -> str:
        """`connector.action`."""
        return f"{self.connector}.{self.name}"

    def lookup(self, function: F) -> F:
        """Decorator: `(client, params, context) -> Success | None` says whether an attempt took effect.

        None is proof that it did not; raise LookupInconclusive when the partner does not know.
        """
        self.finder = function
        return function


@dataclass(frozen=True)
class Callback:
    """A URL under `/webhooks/<connection>/<name>` that the partner calls."""

    name: str
    run: Callable[[Any, CallbackRequest], CallbackReply]


_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(eq=False)
class Connector:
    """The code for one partner: its settings, client, actions, callbacks and the meaning of its errors."""

    name: str
    settings: type[ConnectorSettings]
    limits: Limits = field(default_factory=Limits)
    description: str = ""
    actions: dict[str, Action] = field(default_factory=dict, init=False)
    callbacks: dict[str, Callback] = field(default_factory=dict, init=False)
    build_client: Callable[[Any], Any] | None = field(default=None, init=False)
    run_check: Callable[..., str] | None = field(default=None, init=False)
    run_setup: Callable[..., str] | None = field(default=None, init=False)
    classify: Callable[[Exception], DeliveryError | None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"connector name {self.name!r}: small letters, digits and _ only")
        if self.limits.timeout >= 30:
            raise ValueError(f"connector {self.name}: an attempt's timeout must be below the lease of 30 s")

    def client(self, function: F) -> F:
        """Decorator: `(settings) -> client`, called once per connection; every call the client makes has a timeout.

        A client with a `close()` is closed when the service stops.
        """
        self.build_client = function
        return function

    def check(self, function: F) -> F:
        """Decorator: `(client) -> str` logs in, verifies what the actions need and writes nothing.

        Returns one line on what is right; raises a DeliveryError or ConfigError that says what to mend.
        """
        self.run_check = function
        return function

    def setup(self, function: F) -> F:
        """Decorator: `(client) -> str` makes what the account needs once (a unique property); idempotent."""
        self.run_setup = function
        return function

    def classify_error(self, function: F) -> F:
        """Decorator: `(error) -> DeliveryError | None` says what an SDK's exception means; None: a bug."""
        self.classify = function
        return function

    def action(
        self,
        *,
        idempotency: IdempotencyScope,
        serialize_by: SerializeBy = SerializeBy.CONTACT,
        channel: Channel | None = None,
        recipient: str = "to",
        dedupe_by: str | None = None,
        idempotent: bool = False,
        batch: int = 1,
        lookup_delay: timedelta = timedelta(seconds=5),
    ) -> Callable[[Callable[..., Any]], Action]:
        """Decorator: the function's name is the action's, its first line of docstring the description.

        `def name(client, params: SomeParams, context: Context) -> Success`, or with `batch=N`
        `def name(client, jobs: Sequence[BatchItem[SomeParams]]) -> Sequence[Success | DeliveryError]`, one answer per job in
        their order. Two rules may post different texts about one event: `dedupe_by="text"` makes them two effects
        of `per_event`; without it the second is taken for a repetition. An action that is not `idempotent` needs a
        lookup, or its unknown outcomes go to review.
        """

        def register(function: Callable[..., Any]) -> Action:
            action = Action(
                connector=self.name,
                name=function.__name__,
                run=function,
                params=_params_of(function),
                description=(function.__doc__ or "").strip().split("\n")[0],
                idempotency=idempotency,
                serialize_by=serialize_by,
                channel=channel,
                recipient=recipient if channel else None,
                dedupe_by=dedupe_by,
                idempotent=idempotent,
                batch=batch,
                lookup_delay=lookup_delay,
            )
            _refuse_mistakes(action)
            self.actions[action.name] = action
            return action

        return register

    def callback(self, name: str) -> Callable[[F], F]:
        """Decorator: `(settings, request) -> CallbackReply`; raises Refused(status=403) on a wrong signature."""

        def register(function: F) -> F:
            self.callbacks[name] = Callback(name, function)
            return function

        return register


def _refuse_mistakes(action: Action) -> None:
    """Raise TypeError for what would else show at the first delivery, or never: a misspelt `dedupe_by` drops effects."""
    for word, name in (("dedupe_by", action.dedupe_by), ("recipient", action.recipient)):
        if name is not None and name not in action.params.model_fields:
            raise TypeError(f"{action.name}: {word}={name!r} is no param of {action.params.__name__}")
    wanted = "(client, jobs)" if action.batch > 1 else "(client, params, context)"
    try:
        inspect.signature(action.run).bind(*wanted.split(", "))
    except TypeError:
        raise TypeError(f"{action.name}: an action takes {wanted}") from None


def _params_of(function: Callable[..., Any]) -> type[Params]:
    """The Params model in the function's second annotation: `Sms`, or `Sequence[BatchItem[Sms]]` for a batch."""
    hints = [hint for name, hint in get_type_hints(function, include_extras=True).items() if name != "return"]
    for hint in hints:
        for candidate in (hint, *get_args(hint), *(arg for part in get_args(hint) for arg in get_args(part))):
            if isinstance(candidate, type) and issubclass(candidate, Params):
                return candidate
    raise TypeError(f"{function.__name__}: annotate its params with a Params model")
