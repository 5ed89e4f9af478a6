"""Idempotency and order: which deliveries of an action take effect once, and which never run at the same time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class IdempotencyInput(NamedTuple):
    """The parts of a delivery from which its idempotency key is computed."""

    connection: str
    """Name of the connection."""
    action: str
    """`connector.action`."""
    event: str
    """The event's dedupe key."""
    conversation: str
    """ID of the conversation."""
    recipient: str | None
    """The address that a message goes to; None for an action without a channel."""
    key: str
    """The rule author's `idempotency_key:`, empty if not set."""
    dedupe_value: str = ""
    """The values of the action's `dedupe_by` params, empty if the action has none."""


@dataclass(frozen=True)
class IdempotencyScope:
    """Scope of an action's idempotency key: deliveries with the same key take effect once."""

    key: Callable[[IdempotencyInput], str]
    """Returns the idempotency key of a delivery."""
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
    """The concurrency key of an action: deliveries of a connection that share it never run at the same time.

    An action that changes an existing record names the param with its ID instead: `serialize_by="ticket"`.
    """

    CONTACT = "contact"
    """One delivery per contact at a time. The default, because two could both create the contact."""
    CONVERSATION = "conversation"
    """One delivery per conversation at a time."""
    NONE = "none"
    """Any number at a time."""
