"""Callbacks of a provider: the request, and what a connector reads from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.errors import AccountError

Channel = Literal["sms", "whatsapp", "call", "email"]
"""Channel to a recipient. An action with a channel obeys the messaging policy (quiet hours, opt-outs, caps)."""

MessageStatus = Literal["queued", "sent", "delivered", "undelivered", "failed"]
"""Status of a message: in transit (`queued`, `sent`), delivered (`delivered`), or not delivered (the others)."""


@dataclass(frozen=True)
class CallbackRequest:
    """A provider's request to a callback, unchanged."""

    url: str
    """The full public URL that the provider called, including the query string."""
    headers: Mapping[str, str]
    """Header names are lowercase."""
    form: Sequence[tuple[str, str]]
    """Fields of a form, in their order; empty for another body."""
    query: Mapping[str, str]
    """The query of the URL."""
    body: bytes
    """The body as it was received, over which signatures are computed."""


@dataclass(frozen=True)
class StatusUpdate:
    """The new status of a message that the provider had accepted."""

    state: MessageStatus
    """The new status."""
    id: str | None = None
    """External ID: the provider's ID of the message."""
    delivery: str | None = None
    """The bridge's delivery ID, if the callback includes it."""
    detail: str = ""
    """The provider's explanation, without addresses."""
    undeliverable: bool = False
    """The address cannot get messages on this channel: a dead mailbox, a landline."""


@dataclass(frozen=True)
class OptOut:
    """A recipient asked not to be contacted on this channel."""

    channel: Channel
    """The channel on which the person wants no messages."""
    address: str
    """Phone number or email address."""


@dataclass(frozen=True)
class OptIn:
    """A recipient revoked an opt-out."""

    channel: Channel
    """The channel on which the person wants messages again."""
    address: str
    """Phone number or email address."""


@dataclass(frozen=True)
class InboundMessage:
    """A message that a person sent to one of the account's numbers.

    The bridge stores it as an event `sms.received`, and finds opt-outs and opt-ins in its text itself.
    """

    id: str
    """The provider's ID of the message: a message that is reported again changes nothing."""
    channel: Literal["sms", "whatsapp"]
    """The channel on which it arrived."""
    sender: str
    """Phone number of the person; a short code or a name if a service sent the message."""
    to: str
    """The account's number."""
    text: str
    """What the person wrote."""
    media: Sequence[str] = ()
    """URLs of pictures and other files."""
    sender_name: str | None = None
    """The name in the sender's profile, used if no earlier event says who it is."""
    button: str | None = None
    """The ID of the button that the person tapped; its title is the text."""
    keyword: Literal["stop", "start", "help"] | None = None
    """The keyword that the provider recognized. None: it does not say, so only the text tells."""


@dataclass(frozen=True)
class OptOutFlag:
    """A field of a CRM record that says that the contact wants no messages on these channels."""

    field: str
    """Name of the field, for the explanation of the suppressed message: `DoNotCall`."""
    channels: Collection[Channel]
    """The channels that it covers."""


@dataclass(frozen=True)
class CallbackReply:
    """The response to the provider, and the updates that the request contained."""

    learned: Sequence[StatusUpdate | OptOut | OptIn | InboundMessage] = ()
    """The updates in the request; the bridge stores them before it responds."""
    body: str = ""
    """Body of the response."""
    media_type: str = "text/plain"
    """Media type of the body."""
    problem: str = ""
    """Content of the request that could not be read, for the log. It contains no personal data, or masks it."""
    account_error: AccountError | None = None
    """Set if the request proves that the account, not the recipient, is at fault: the connection is paused, and the
    deliveries of the messages that it reports as undelivered fail. An operator can retry them."""


@dataclass(frozen=True)
class Callback:
    """A URL under `/webhooks/<connection>/<name>` that the provider calls."""

    name: str
    """Last part of the URL."""
    run: Callable[[Any, CallbackRequest], CallbackReply]
    """The decorated function."""
    signature_header: str | None = None
    """Header with the provider's signature. A request without it is rejected before its body is read."""
