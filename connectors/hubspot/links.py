"""Links to HubSpot: the page of a record, and where to look for one that may not exist."""

from __future__ import annotations

import re

from bridge.connector import ProviderRecord, UncertainDelivery, WhereToLook

from .settings import Settings, connector

_RECORD_TYPES = {
    "contact": "0-1", "upsert_contact": "0-1", "update_contact": "0-1", "set_opt_out": "0-1",
    "add_to_list": "0-1", "create_deal": "0-3", "create_meeting": "0-47",
    "create_ticket": "0-5", "close_ticket": "0-5", "create_task": "0-27",
    "log_call": "0-48", "log_chat": "0-18", "log_message": "0-18",
}  # fmt: skip
"""Action -> the type of its record in HubSpot's addresses."""


@connector.record_url
def record_url(settings: Settings, record: ProviderRecord) -> str | None:
    """Return the page of a record. It needs HUBSPOT_PORTAL_ID, because the address contains the account."""
    kind = _RECORD_TYPES.get(record.action)
    if settings.portal_id is None or kind is None or not re.fullmatch(r"\d{1,20}", record.external_id):
        return None
    return f"https://{settings.app_host}/contacts/{settings.portal_id}/record/{kind}/{record.external_id}"


@connector.where_to_look
def where_to_look(settings: Settings, delivery: UncertainDelivery) -> WhereToLook:
    """Return where the record would be."""
    del settings
    of_conversation = f" of conversation {delivery.conversation}" if delivery.conversation else ""
    return WhereToLook(f"Open the contact in HubSpot: the record{of_conversation} is among its activities.")
