"""The connector author's API: a connector is data and a few decorated functions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from pydantic.fields import FieldInfo

from bridge.connector.action_name import ActionName
from bridge.connector.context import Context
from bridge.contacts.email import normalize_email
from bridge.contacts.phone import is_withheld, normalize_phone, phone_problem
from bridge.errors import DeliveryError
from bridge.lazy import lazy
from bridge.settings import EnvironmentModel

Channel = Literal["sms", "whatsapp", "call", "email"]
"""Channel to a recipient. An action with a channel obeys the messaging policy (quiet hours, opt-outs, caps)."""

MessageStatus = Literal["queued", "sent", "delivered", "undelivered", "failed"]

DEFAULT_COUNTRY = "default_country"
"""Key of the validation context of Params: the country whose national phone numbers are understood."""

P = TypeVar("P", bound="Params")
F = TypeVar("F", bound=Callable[..., Any])


def _phone(value: str, info: ValidationInfo) -> str:
    country = info.context.get(DEFAULT_COUNTRY) if info.context else None
    number = normalize_phone(value, country)
    if number is None:
        raise ValueError(
            phone_problem(value, country)
            if info.context or is_withheld(value)
            else "is not a phone number with + and the country code, like +14155550123"
        )
    return number


def _email(value: str) -> str:
    address = normalize_email(value)
    if address is None:
        raise ValueError("is not one valid email address: write the address alone, like ines@okafor.example")
    return address


PhoneNumber = Annotated[str, AfterValidator(_phone)]
"""A phone number in any spelling, which becomes E.164; not checked against numbering plans.

National numbers are understood in what a rule renders for an event, if BRIDGE_DEFAULT_COUNTRY is set.
"""
Email = Annotated[str, AfterValidator(_email)]
"""Exactly one email address, which becomes its canonical form: the domain in ASCII by IDNA 2008."""


class ConnectorSettings(EnvironmentModel):
    """A connection's settings, read from variables prefixed with the connection's name in capitals.

    `bridge connectors show` prints a field's docstring as the description of its variable.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def prefix(cls, connection: str) -> str:
        """Return the prefix of the connection's variables: `twilio_eu` -> `TWILIO_EU_`."""
        return connection.upper().replace("-", "_") + "_"


class Params(BaseModel):
    """The parameters that a rule sets under `with:`.

    Unknown names are errors. Values are validated when the rules are loaded and again when they are rendered.
    A number for a string param is converted to a string, as in `subject: "{{ event.messageCount }}"`. Whitespace around
    a string is removed, because a template with `{% if %}` on lines of its own begins and ends with some.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        coerce_numbers_to_str=True,
        str_strip_whitespace=True,
    )


def param(
    default: Any,
    description: str,
    *,
    example: Any = None,
    html: bool = False,
    must_be: str | None = None,
    **constraints: Any,
) -> Any:
    """Return a field of a Params model.

    `default` is a value, `...` for a required param, or a template of the event (`"{{ contact.phone }}"`). A rule
    may omit a param with a template; if the event lacks the value, the param is None, or an error if its type
    forbids None. In an `html` param, values of the event are escaped. `must_be` describes what `pattern` accepts, for
    error messages: "a HubSpot ticket ID (digits only)". `constraints` are pydantic's (`max_length=1600`, `ge=0`).
    """
    extra: dict[str, Any] = {"example": example}
    if must_be is not None:
        extra["must_be"] = must_be
    if html:
        extra["html"] = True
    if isinstance(default, str) and "{{" in default:
        extra["template"] = default
        default = None
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def template_of(info: FieldInfo) -> str | None:
    """Return the default template of a param, if it has one."""
    extra = info.json_schema_extra
    source = extra.get("template") if isinstance(extra, dict) else None
    return source if isinstance(source, str) else None


def is_html(info: FieldInfo) -> bool:
    """Return whether template values are escaped in this param."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and extra.get("html") is True


def example_of(info: FieldInfo) -> Any:
    """Return the example of a param."""
    extra = info.json_schema_extra
    return extra.get("example") if isinstance(extra, dict) else None


def form_of(info: FieldInfo) -> str:
    """Return a description of the values that the pattern of a param accepts."""
    extra = info.json_schema_extra
    form = extra.get("must_be") if isinstance(extra, dict) else None
    return form if isinstance(form, str) else "of another form"


def allows_none(info: FieldInfo) -> bool:
    """Return whether a param may be None."""
    return type(None) in get_args(info.annotation)


@dataclass(frozen=True)
class IdempotencyInput:
    """The parts of a delivery from which its idempotency key is computed."""

    connection: str
    action: str
    """`connector.action`."""
    event: str
    """The event's dedupe key."""
    conversation: str
    recipient: str | None
    key: str
    """The rule author's `idempotency_key:`, empty if not set."""
    dedupe_value: str = ""
    """The value of the action's `dedupe_by` param, empty if the action has none."""


@dataclass(frozen=True)
class IdempotencyScope:
    """Scope of an action's idempotency key: deliveries with the same key take effect once."""

    key: Callable[[IdempotencyInput], str]
    updates: bool = False
    """A later event with the same key updates the existing record instead of being suppressed as a duplicate."""


def _conversation_key(source: IdempotencyInput) -> str:
    return "|".join(("conversation", source.connection, source.action, source.conversation, source.key))


def _message_key(source: IdempotencyInput) -> str:
    return "|".join(("message", source.action, source.event, source.recipient or "", source.key))


def _event_key(source: IdempotencyInput) -> str:
    parts = ("event", source.connection, source.action, source.event, source.key)
    return "|".join((*parts, source.dedupe_value) if source.dedupe_value else parts)


per_conversation = IdempotencyScope(_conversation_key, updates=True)
"""One record per conversation: a CRM log. Later events of the conversation update it."""
per_message = IdempotencyScope(_message_key)
"""One message per event, action and recipient (and `idempotency_key:`): text messages, emails, calls."""
per_event = IdempotencyScope(_event_key)
"""Once per event (and `idempotency_key:`, and the value of `dedupe_by`): tasks, posts, field updates."""


class SerializeBy(StrEnum):
    """The concurrency key of an action: deliveries of a connection that share it never run at the same time."""

    CONTACT = "contact"
    CONVERSATION = "conversation"
    NONE = "none"


@dataclass(frozen=True)
class Limits:
    """The load that a connection may put on its provider."""

    per_second: float | None = None
    """Requests per second, shared by all workers. None: no known limit."""
    concurrency: int = 4
    """Concurrent attempts in one worker."""
    timeout: float = 20.0
    """Seconds that one attempt may take in total; must be shorter than the lease (30 s)."""


@dataclass(frozen=True)
class Success:
    """An action took effect."""

    id: str | None = None
    """External ID: the provider's ID of the created record or message."""
    detail: str = ""
    """A short note for the dashboard: `2 segments`, `updated`, `2 contacts matched, newest used`."""
    message_status: MessageStatus | None = None


@dataclass(frozen=True)
class BatchItem(Generic[P]):
    """One delivery in a batch."""

    params: P
    context: Context


@dataclass(frozen=True)
class CallbackRequest:
    """A provider's request to a callback, unchanged."""

    url: str
    """The full public URL that the provider called, including the query string."""
    headers: Mapping[str, str]
    """Header names are lowercase."""
    form: Sequence[tuple[str, str]]
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class StatusUpdate:
    """The new status of a message that the provider had accepted."""

    state: MessageStatus
    id: str | None = None
    """External ID: the provider's ID of the message."""
    delivery: str | None = None
    """The bridge's delivery ID, if the callback includes it."""
    detail: str = ""
    undeliverable: bool = False
    """The address cannot get messages on this channel: a dead mailbox, a landline."""


@dataclass(frozen=True)
class OptOut:
    """A recipient asked not to be contacted on this channel."""

    channel: Channel
    address: str


@dataclass(frozen=True)
class OptIn:
    """A recipient revoked an opt-out."""

    channel: Channel
    address: str


@dataclass(frozen=True)
class InboundMessage:
    """A message that a person sent to one of the account's numbers.

    The bridge stores it as an event `sms.received`, and finds opt-outs and opt-ins in its text itself.
    """

    id: str
    """The provider's ID of the message: a message that is reported again changes nothing."""
    channel: Literal["sms", "whatsapp"]
    sender: str
    """Phone number of the person; a short code or a name if a service sent the message."""
    to: str
    """The account's number."""
    text: str
    media: Sequence[str] = ()
    """URLs of pictures and other files."""
    sender_name: str | None = None
    """The name in the sender's profile, used if no earlier event says who it is."""
    keyword: Literal["stop", "start", "help"] | None = None
    """The keyword that the provider recognized. None: it does not say, so only the text tells."""


@dataclass(frozen=True)
class OptOutFlag:
    """A field of a CRM record that says that the contact wants no messages on these channels."""

    field: str
    """Name of the field, for the explanation of the suppressed message: `DoNotCall`."""
    channels: Collection[Channel]


@dataclass(frozen=True)
class CallbackReply:
    """The response to the provider, and the updates that the request contained."""

    learned: Sequence[StatusUpdate | OptOut | OptIn | InboundMessage] = ()
    body: str = ""
    media_type: str = "text/plain"
    problem: str = ""
    """What the request contained that could not be read, for the log: without personal data, or masked."""


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
    """The param that contains the address, for actions with a channel."""
    dedupe_by: str | None
    """The param whose value distinguishes two deliveries of one event, such as the text of a post."""
    idempotent: bool
    """The provider deduplicates by our idempotency token: the action may be repeated after an unknown outcome."""
    batch: int
    """Maximum number of deliveries per call of `run`; above 1, it takes a list of BatchItem and returns a list."""
    lookup_delay: timedelta
    """Time that the provider may need until a lookup can find the result of an attempt."""
    run_lookup: Callable[..., Success | None] | None = None
    run_check_params: Callable[..., str | None] | None = None

    @lazy
    def full_name(self) -> str:
        """`connector.action`."""
        return str(ActionName(self.connector, self.name))

    def lookup(self, function: F) -> F:
        """Decorator: `(client, params, context) -> Success | None` finds the result of an attempt.

        None is proof that the attempt did not take effect. Raise LookupInconclusive if the provider cannot say.
        """
        self.run_lookup = function
        return function

    def check_params(self, function: F) -> F:
        """Decorator: `(settings, params) -> str | None` returns what is wrong with params that a rules file sets.

        It runs when the file is loaded, with those values that contain no template, by name; it must not send requests.
        """
        self.run_check_params = function
        return function


@dataclass(frozen=True)
class Callback:
    """A URL under `/webhooks/<connection>/<name>` that the provider calls."""

    name: str
    run: Callable[[Any, CallbackRequest], CallbackReply]


_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(eq=False)
class Connector:
    """The code for one provider: settings, client, actions, callbacks and error classification."""

    name: str
    settings: type[ConnectorSettings]
    limits: Limits = field(default_factory=Limits)
    description: str = ""
    actions: dict[str, Action] = field(default_factory=dict, init=False)
    callbacks: dict[str, Callback] = field(default_factory=dict, init=False)
    build_client: Callable[[Any], Any] | None = field(default=None, init=False)
    run_check: Callable[..., str] | None = field(default=None, init=False)
    run_setup: Callable[..., str] | None = field(default=None, init=False)
    read_opt_out_flags: Callable[..., Mapping[str, Sequence[OptOutFlag]]] | None = field(
        default=None, init=False
    )
    classify: Callable[[Exception], DeliveryError | None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"connector name {self.name!r}: lowercase letters, digits and _ only")
        if self.limits.timeout >= 30:
            raise ValueError(f"connector {self.name}: the timeout must be shorter than the lease (30 s)")

    def find_action(self, full_name: str) -> Action | None:
        """Return the action named `connector.action`; None if this version of the connector lacks it."""
        return self.actions.get(ActionName.parse(full_name).action)

    def client(self, function: F) -> F:
        """Decorator: `(settings) -> client`, called once per connection. Every call of the client needs a timeout.

        If the client has a `close()`, it is called when the service stops.
        """
        self.build_client = function
        return function

    def check(self, function: F) -> F:
        """Decorator: `(client) -> str` authenticates and verifies what the actions need. It writes nothing.

        The function returns one line that confirms the account, or raises a DeliveryError or ConfigError that
        says what to fix.
        """
        self.run_check = function
        return function

    def setup(self, function: F) -> F:
        """Decorator: `(client) -> str` creates what the account needs once (a unique property). It is idempotent."""
        self.run_setup = function
        return function

    def classify_error(self, function: F) -> F:
        """Decorator: `(error) -> DeliveryError | None` classifies an SDK's exception. None: reported as a bug."""
        self.classify = function
        return function

    def opt_out_flags(self, function: F) -> F:
        """Decorator: `(client, emails, phones) -> {address: [OptOutFlag]}` reads the flags of a CRM's contacts.

        With `messaging.crm_opt_outs`, the bridge calls it before messages, with up to 100 addresses of each kind, and
        caches the result for an hour. The flags of all records with an address count. An address that is missing from
        the result has none, so raise an error if that cannot be told, for example because a field is hidden.
        """
        self.read_opt_out_flags = function
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
        """Decorator: register a function as an action.

        The function's name is the action's name, the first line of its docstring the description. Its signature is
        `def name(client, params: SomeParams, context: Context) -> Success`, or with `batch=N`
        `def name(client, items: Sequence[BatchItem[SomeParams]]) -> Sequence[Success | DeliveryError]`, which
        returns one result per item, in their order.

        With `dedupe_by="text"`, two rules may post different texts about one event; without it, `per_event`
        suppresses the second as a duplicate. An action that is not `idempotent` needs a lookup, otherwise
        deliveries with an unknown outcome need review.
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
            _validate_action(action)
            self.actions[action.name] = action
            return action

        return register

    def callback(self, name: str) -> Callable[[F], F]:
        """Decorator: `(settings, request) -> CallbackReply`. Raise Refused(status=403) for an invalid signature."""

        def register(function: F) -> F:
            self.callbacks[name] = Callback(name, function)
            return function

        return register


def _validate_action(action: Action) -> None:
    """Raise TypeError for an error that would only show at the first delivery.

    A misspelled `dedupe_by` would never show: the second of two deliveries would be suppressed as a duplicate.
    """
    for argument, name in (("dedupe_by", action.dedupe_by), ("recipient", action.recipient)):
        if name is not None and name not in action.params.model_fields:
            raise TypeError(f"{action.name}: {argument}={name!r} is not a param of {action.params.__name__}")
    expected = "(client, items)" if action.batch > 1 else "(client, params, context)"
    try:
        inspect.signature(action.run).bind(*expected.split(", "))
    except TypeError:
        raise TypeError(f"{action.name}: the function of an action takes {expected}") from None


def _params_of(function: Callable[..., Any]) -> type[Params]:
    """Return the Params model that the function is annotated with.

    The annotation is the model itself, `Sms`, or `Sequence[BatchItem[Sms]]` for a batch.
    """
    hints = [hint for name, hint in get_type_hints(function, include_extras=True).items() if name != "return"]
    for hint in hints:
        for candidate in (hint, *get_args(hint), *(arg for part in get_args(hint) for arg in get_args(part))):
            if isinstance(candidate, type) and issubclass(candidate, Params):
                return candidate
    raise TypeError(f"{function.__name__}: annotate its params with a Params model")
