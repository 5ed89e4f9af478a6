"""The connector author's API: a connector is data and a few decorated functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any

from bridge.connector.action import Action, F, params_model_of, validate_action
from bridge.connector.action_name import ActionName
from bridge.connector.callbacks import Callback, Channel, OptOutFlag
from bridge.connector.idempotency import IdempotencyScope, SerializeBy
from bridge.connector.params import ConnectorSettings
from bridge.connector.provider_records import ProviderRecord, UncertainDelivery, WhereToLook
from bridge.connector.tokens import Token, TokenSource, TokenStore
from bridge.connector.transport import failure_from_exception
from bridge.errors import DeliveryError


class ConnectorGroup(StrEnum):
    """What a connector is for. `bridge connectors` lists connectors by group, in this order."""

    CRM = "CRM"
    CUSTOMER_MESSAGES = "Messages to customers"
    TEAM_MESSAGES = "Messages to the team"
    HELP_DESK = "Help desk"
    OTHER = "Other"


@dataclass(frozen=True)
class Limits:
    """The load that a connection may put on its provider."""

    per_second: float | None = None
    """Requests per second, shared by all workers. None: no known limit."""
    concurrency: int = 4
    """Concurrent attempts in one worker."""
    timeout: float = 20.0
    """Seconds that one attempt may take in total; must be shorter than the lease (30 s)."""


_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(eq=False)
class Connector:
    """The code for one provider: settings, client, actions, callbacks and error classification."""

    name: str
    """Lowercase letters, digits and `_`; actions are `name.action`, settings `NAME_...`."""
    settings: type[ConnectorSettings]
    """The class of its settings."""
    limits: Limits = field(default_factory=Limits)
    """Pace, concurrency and timeout of a connection, unless its settings say otherwise."""
    description: str = ""
    """One sentence that says what the connector does."""
    group: ConnectorGroup = ConnectorGroup.OTHER
    """The group under which `bridge connectors` lists it."""
    build_client: Callable[..., Any] | None = None
    """The function that `@connector.client` decorates. If it is None, actions get the settings instead of a client."""
    first_refresh_token: str | None = None
    """The setting with the first refresh token, if the provider exchanges the refresh token with every use. The later
    ones exist only in the database, so such a connector needs BRIDGE_SECRET_KEY."""
    actions: dict[str, Action] = field(default_factory=dict, init=False)
    callbacks: dict[str, Callback] = field(default_factory=dict, init=False)
    obtain_token: Callable[[Any, Token | None], Token] | None = field(default=None, init=False)
    run_check: Callable[..., str] | None = field(default=None, init=False)
    run_check_rules: Callable[..., Sequence[Any]] | None = field(default=None, init=False)
    run_setup: Callable[..., str] | None = field(default=None, init=False)
    read_opt_out_flags: Callable[..., Mapping[str, Sequence[OptOutFlag]]] | None = field(
        default=None, init=False
    )
    read_details: Callable[..., Mapping[str, Any] | None] | None = field(default=None, init=False)
    classify: Callable[[Exception], DeliveryError | None] = field(
        default_factory=lambda: failure_from_exception, init=False
    )
    build_record_url: Callable[[Any, ProviderRecord], str | None] | None = field(default=None, init=False)
    describe_where_to_look: Callable[[Any, UncertainDelivery], WhereToLook | None] | None = field(
        default=None, init=False
    )

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"connector name {self.name!r}: lowercase letters, digits and _ only")
        if self.limits.timeout >= 30:
            raise ValueError(f"connector {self.name}: the timeout must be shorter than the lease (30 s)")
        if self.first_refresh_token not in (None, *self.settings.model_fields):
            raise TypeError(f"connector {self.name}: {self.first_refresh_token!r} is not one of its settings")

    def find_action(self, full_name: str) -> Action | None:
        """Return the action named `connector.action`; None if this version of the connector lacks it."""
        return self.actions.get(ActionName.parse(full_name).action)

    def limits_of(self, settings: ConnectorSettings) -> Limits:
        """Return the limits of one connection: the connector's own, unless its settings say otherwise."""
        return replace(
            self.limits,
            per_second=settings.per_second or self.limits.per_second,
            concurrency=settings.concurrency or self.limits.concurrency,
        )

    def open_client(self, settings: Any, store: TokenStore | None = None) -> Any:
        """Return a client for these settings; processes that share a `store` share the connection's token."""
        if self.build_client is None:
            return settings
        if self.obtain_token is None:
            return self.build_client(settings)
        obtain = partial(self.obtain_token, settings)
        return self.build_client(settings, TokenSource(obtain, store, lambda error: self.classify(error)))

    def token(self, function: F) -> F:
        """Decorator: `(settings, previous: Token | None) -> Token` logs in, or refreshes the previous token.

        The client is then built with `(settings, tokens)`, for `JsonApi(..., token=tokens)`. The bridge stores the
        token sealed. It calls the function when there is none, shortly before it expires, and once after a 401: in
        one thread of one process, while the others wait. `request_token` sends the request of OAuth 2.0. Nothing has
        been written yet, so of what the function raises, a 5xx or a lost response becomes TransientError, and a
        refusal AuthenticationError.
        """
        self.obtain_token = function
        return function

    def client(self, function: F) -> F:
        """Decorator of a function or a class: `(settings) -> client`, called once per connection.

        Threads share the client, and every call of it needs a timeout. If it has a `close()`, that is called when the
        service stops. A client of one line, such as a JsonApi, can be passed to Connector as `build_client` instead.
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

    def check_rules(self, function: F) -> F:
        """Decorator: `(client, uses: Sequence[ActionUse]) -> Sequence[RuleProblem]` checks rules against the account.

        `bridge check --online` calls it after `check`, with every step that uses the connection. It finds what only
        the provider knows (names of fields, options, owners, permissions) and writes nothing.
        """
        self.run_check_rules = function
        return function

    def setup(self, function: F) -> F:
        """Decorator: `(client) -> str` creates what the account needs once (a unique property). It is idempotent."""
        self.run_setup = function
        return function

    def classify_error(self, function: F) -> F:
        """Decorator: `(error) -> DeliveryError | None` classifies an SDK's exception. None: reported as a bug.

        Without it, `failure_from_exception` does: JsonApi raises no other exceptions than DeliveryErrors.
        """
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

    def conversation_details(self, function: F) -> F:
        """Decorator: `(client, event) -> dict | None` reads the details of the event's conversation.

        It returns None if there are none. Only the connector of Heppu has them. Params of rules use them as `details`.
        """
        self.read_details = function
        return function

    def record_url(self, function: F) -> F:
        """Decorator: `(settings, record: ProviderRecord) -> str | None` returns the page of a record at the provider.

        The dashboard links to it. The URL must be https, and is built from the settings; None if there is no such page.
        """
        self.build_record_url = function
        return function

    def where_to_look(self, function: F) -> F:
        """Decorator: `(settings, delivery: UncertainDelivery) -> WhereToLook | None`, for the review of a delivery.

        It says where an operator sees whether the delivery took effect, and by what to search there.
        """
        self.describe_where_to_look = function
        return function

    def action(
        self,
        *,
        idempotency: IdempotencyScope,
        serialize_by: SerializeBy | str = SerializeBy.CONTACT,
        channel: Channel | None = None,
        recipient: str = "to",
        text: str | None = None,
        dedupe_by: str | Sequence[str] = (),
        idempotent: bool | timedelta = False,
        batch: int = 1,
        lookup_delay: timedelta = timedelta(seconds=5),
        needs: Sequence[str] = (),
    ) -> Callable[[Callable[..., Any]], Action]:
        """Decorator: register a function as an action.

        The function's name is the action's name, the first line of its docstring the description. Its signature is
        `def name(client, params: SomeParams, context: Context) -> Success`, or with `batch=N`
        `def name(client, items: Sequence[BatchItem[SomeParams]]) -> Sequence[Success | DeliveryError]`, which
        returns one result per item, in their order.

        The follow-ups of a message read what was sent from the param named by `text`.

        With `dedupe_by="text"`, two rules may post different texts about one event; without it, `per_event`
        suppresses the second as a duplicate; several params are a tuple. With `serialize_by="ticket"`, deliveries with
        the same value of that param run one after the other. An action that is not `idempotent` needs a lookup,
        otherwise deliveries with an unknown outcome need review. With `idempotent=timedelta(hours=2)`, the provider
        forgets the token two hours after the first attempt: until then the action is repeated, later it is looked up.

        `needs` names the permissions (scopes) that the action takes; `bridge connectors show` lists them, and
        `check_rules` may test them.
        """

        def register(function: Callable[..., Any]) -> Action:
            action = Action(
                connector=self.name,
                name=function.__name__,
                run=function,
                params=params_model_of(function),
                description=(function.__doc__ or "").strip().split("\n")[0],
                idempotency=idempotency,
                serialize_by=serialize_by,
                channel=channel,
                recipient=recipient if channel else None,
                text=text if channel else None,
                dedupe_by=(dedupe_by,) if isinstance(dedupe_by, str) else tuple(dedupe_by),
                idempotent=idempotent,
                batch=batch,
                lookup_delay=lookup_delay,
                needs=needs,
            )
            validate_action(action)
            self.actions[action.name] = action
            return action

        return register

    def callback(self, name: str, *, signature_header: str | None = None) -> Callable[[F], F]:
        """Decorator: `(settings, request) -> CallbackReply`. Raise Refused(status=403) for an invalid signature.

        A request without `signature_header` is rejected before its body is read.
        """

        def register(function: F) -> F:
            self.callbacks[name] = Callback(name, function, signature_header)
            return function

        return register
