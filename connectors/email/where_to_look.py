"""Where to look for an email of which it is unknown whether the server has accepted it."""

from __future__ import annotations

from email.utils import parseaddr

from bridge.connector import UncertainDelivery, WhereToLook

from .settings import Settings, connector


@connector.where_to_look
def where_to_look(settings: Settings, delivery: UncertainDelivery) -> WhereToLook:
    """Return the Message-ID, which is known before the first attempt."""
    address = parseaddr(settings.sender)[1]
    message_id = f"<{delivery.idempotency_token}@{address.rpartition('@')[2]}>"
    text = f"Search the mail server's log, or the Sent folder of {address}, for the Message-ID {message_id}."
    return WhereToLook(text)
