"""Links to Twilio's console: the log of a message, and where to look for one that may not exist."""

from __future__ import annotations

import re

from bridge.connector import ProviderRecord, UncertainDelivery, WhereToLook

from .settings import Settings, connector

_LOGS = "https://www.twilio.com/console/sms/logs"


@connector.record_url
def record_url(settings: Settings, record: ProviderRecord) -> str | None:
    """Return the log of a message."""
    if not re.fullmatch(r"(SM|MM)[0-9a-f]{32}", record.external_id):
        return None
    return f"{_LOGS}/{settings.account_sid}/{record.external_id}"


@connector.where_to_look
def where_to_look(settings: Settings, delivery: UncertainDelivery) -> WhereToLook:
    """Return the log of messages."""
    to = delivery.params.get("to")
    return WhereToLook(
        f"Open the message log in Twilio's console and filter it by the recipient{f' {to}' if to else ''}.",
        f"{_LOGS}/{settings.account_sid}",
    )
