"""The words that pages show for states, reasons and actions, with the color that each state has.

Red and amber mean that an operator has to act. What was stopped on purpose is gray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from markupsafe import Markup, escape

from bridge.connector.action_name import ActionName
from bridge.connector.provider_records import provider_label


class Label(NamedTuple):
    """A word and the CSS class of its badge: `good`, `wait`, `hold`, `warn` or `bad`."""

    text: str
    css_class: str


STATES: Final[Mapping[str, Label]] = {
    "pending": Label("Pending", "wait"),
    "running": Label("Running", "wait"),
    "succeeded": Label("Succeeded", "good"),
    "retrying": Label("Retrying", "wait"),
    "needs_review": Label("Needs review", "warn"),
    "failed": Label("Failed", "bad"),
    "cancelled": Label("Cancelled", "hold"),
    "suppressed": Label("Suppressed", "hold"),
}
"""Labels of the states of deliveries."""

MESSAGE_STATUSES: Final[Mapping[str, Label]] = {
    "queued": Label("Queued", "hold"),
    "sent": Label("Sent", "good"),
    "delivered": Label("Delivered", "good"),
    "undelivered": Label("Undelivered", "bad"),
    "failed": Label("Failed", "bad"),
}
"""Labels of what the provider reported about a message."""

CONNECTION_STATES: Final[Mapping[str, Label]] = {
    "active": Label("Active", "good"),
    "operator": Label("Paused", "warn"),
    "auth": Label("Credentials rejected", "bad"),
    "account": Label("Account problem", "bad"),
    "rate_limit": Label("Rate limited", "wait"),
    "quota": Label("Quota used up", "warn"),
    "circuit_open": Label("Not responding", "warn"),
    "total_cap": Label("Cap reached", "bad"),
}
"""Labels of the causes of pauses, and of a connection without a pause."""

CHANNELS: Final[Mapping[str, str]] = {
    "sms": "Text message", "whatsapp": "WhatsApp message", "call": "Call", "email": "Email",
}  # fmt: skip
"""Labels of the channels of messages."""

_WORDS: Final = {"sms": "SMS", "id": "ID", "url": "URL", "http": "HTTP", "mms": "MMS"}


def state_label(state: str, message_status: str | None = None) -> Label:
    """Return the label of a delivery: of what the provider reported about the message, or else of the state."""
    if message_status is not None and state == "succeeded":
        return _label(MESSAGE_STATUSES, message_status)
    return _label(STATES, state)


def connection_label(pause_cause: str | None) -> Label:
    """Return the label of a connection by the cause of its pause, None if it is not paused."""
    return _label(CONNECTION_STATES, pause_cause or "active")


def reason_label(reason: str | None) -> str:
    """Return a reason in words: `opted_out` is `opted out`."""
    return (reason or "").replace("_", " ")


def action_label(action: str, connection: str | None = None) -> str:
    """Return an action in words: `hubspot.log_call` is `HubSpot: log call`, with a connection of another name."""
    provider, name = ActionName.parse(action)
    words = " ".join(_WORDS.get(word, word) for word in name.split("_"))
    text = f"{provider_label(provider)}: {words}" if words else provider_label(provider)
    return text if connection in (None, provider) else f"{text} ({connection})"


def use_label(use: str) -> str:
    """Return an action as reports about rules name it, `twilio.send_sms (twilio_eu)`, in words."""
    action, _, connection = use.partition(" ")
    return action_label(action, connection.strip("()") or None)


def inline_code(text: str) -> Markup:
    """Return a text of the command line, where names stand between backticks, as HTML."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


def file_name(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def _label(labels: Mapping[str, Label], value: str) -> Label:
    """Return the label of a value; a value of a newer version is shown as it is."""
    return labels.get(value) or Label(reason_label(value).capitalize(), "hold")
