"""One action of a connector: what it is declared with, and what the function that carries it out takes and returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from bridge.connector.action_name import ActionName
from bridge.connector.callbacks import Channel, MessageStatus
from bridge.connector.context import Context
from bridge.connector.idempotency import IdempotencyScope, SerializeBy
from bridge.connector.params import Params
from bridge.lazy import lazy
from bridge.spelling import did_you_mean

P = TypeVar("P", bound="Params")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Success:
    """An action took effect."""

    id: str | None = None
    """External ID: the provider's ID of the created record or message."""
    detail: str = ""
    """A short note for the dashboard: `2 segments`, `updated`, `2 contacts matched, newest used`."""
    message_status: MessageStatus | None = None
    """The provider's latest status of the message; a callback may change it."""

    def __post_init__(self) -> None:
        """Raise TypeError for what could not be stored after the action took effect."""
        if not isinstance(self.id, str | None):
            raise TypeError(f"Success: id must be a str or None, not {type(self.id).__name__}")
        if not isinstance(self.detail, str):
            raise TypeError(f"Success: detail must be a str, not {type(self.detail).__name__}")
        if not isinstance(self.message_status, str | None):
            raise TypeError(
                f"Success: message_status must be a str or None, not {type(self.message_status).__name__}"
            )


@dataclass(frozen=True)
class BatchItem(Generic[P]):
    """One delivery in a batch."""

    params: P
    """Its params."""
    context: Context
    """Its context."""


@dataclass(eq=False)
class Action:
    """One thing a connector does: `connector.action` in rules.yaml."""

    connector: str
    """Name of the connector."""
    name: str
    """Name of the function: `send_sms` of `twilio.send_sms`."""
    run: Callable[..., Any]
    """The decorated function."""
    params: type[Params]
    """The class of its params."""
    description: str
    """First line of the function's docstring."""
    idempotency: IdempotencyScope
    """How often it takes effect: `per_event`, `per_message`, `per_conversation`, or a scope of the connector's own."""
    serialize_by: SerializeBy | str
    """The concurrency key; any other string is the param whose value is part of it."""
    channel: Channel | None
    """The channel on which it reaches a recipient; None for an action that reaches nobody."""
    recipient: str | None
    """The param that contains the address, for actions with a channel."""
    text: str | None
    """The param that contains the text of a message: `delivery.text` of follow-ups."""
    dedupe_by: Sequence[str]
    """The params whose values distinguish two deliveries of one event, such as the text of a post."""
    idempotent: bool | timedelta
    """The provider deduplicates by our idempotency token: the action may be repeated after an unknown outcome. A
    timedelta is how long the provider remembers the token; after that, the lookup decides."""
    batch: int
    """Maximum number of deliveries per call of `run`; above 1, it takes a list of BatchItem and returns a list."""
    lookup_delay: timedelta
    """Time that the provider may need until a lookup can find the result of an attempt."""
    needs: Sequence[str]
    """Permissions at the provider without which the action fails, under the provider's names for them."""
    run_lookup: Callable[..., Success | None] | None = None
    """The function that `@action.lookup` decorates."""
    run_check_params: Callable[..., str | None] | None = None
    """The function that `@action.check_params` decorates."""

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

        It runs when the file is loaded, with those values that contain no template, by name, and None for params that
        the file does not set. It must not send requests.
        """
        self.run_check_params = function
        return function


def validate_action(action: Action) -> None:
    """Raise TypeError for an error that would only show at the first delivery.

    A misspelled `dedupe_by` would never show: the second of two deliveries would be suppressed as a duplicate.
    """
    serialize_by = None if isinstance(action.serialize_by, SerializeBy) else action.serialize_by
    fields = action.params.model_fields
    for argument, name in (
        *(("dedupe_by", name) for name in action.dedupe_by),
        ("serialize_by", serialize_by),
        ("recipient", action.recipient),
        ("text", action.text),
    ):
        if name is not None and name not in fields:
            raise TypeError(
                f"{action.name}: {argument}={name!r} is not a param of {action.params.__name__}; "
                f"{did_you_mean(name, fields)}"
            )
    if serialize_by and action.channel:
        raise TypeError(
            f"{action.name}: a message is always serialized by its recipient; leave out serialize_by"
        )
    if isinstance(action.idempotent, timedelta) and (action.channel or action.idempotent <= timedelta(0)):
        raise TypeError(
            f"{action.name}: idempotent={action.idempotent!r} must be positive and of an action without a channel; a "
            "message is looked up, because the recipient may have opted out meanwhile"
        )
    expected = "(client, items)" if action.batch > 1 else "(client, params, context)"
    try:
        inspect.signature(action.run).bind(*expected.split(", "))
    except TypeError:
        raise TypeError(f"{action.name}: the function of an action takes {expected}") from None


def params_model_of(function: Callable[..., Any]) -> type[Params]:
    """Return the Params model that the function is annotated with.

    The annotation is the model itself, `Sms`, or `Sequence[BatchItem[Sms]]` for a batch.
    """
    hints = [hint for name, hint in get_type_hints(function, include_extras=True).items() if name != "return"]
    for hint in hints:
        for candidate in (hint, *get_args(hint), *(arg for part in get_args(hint) for arg in get_args(part))):
            if isinstance(candidate, type) and issubclass(candidate, Params):
                return candidate
    raise TypeError(f"{function.__name__}: annotate its params with a Params model")
