"""Links to Pipedrive: the page of a record, and where to look for one that may not exist."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from bridge.connector import ProviderRecord, UncertainDelivery, WhereToLook

from .settings import Settings, connector

_PAGES = {"contact": "person", "upsert_person": "person", "create_deal": "deal"}


@connector.record_url
def record_url(settings: Settings, record: ProviderRecord) -> str | None:
    """Return the page of a person or deal; an activity has none. It needs the company's address in PIPEDRIVE_URL."""
    host, page = urlsplit(settings.url).hostname or "", _PAGES.get(record.action)
    is_company = host.endswith(".pipedrive.com") and host != "api.pipedrive.com"
    if page is None or not is_company or not re.fullmatch(r"\d{1,20}", record.external_id):
        return None
    return f"https://{host}/{page}/{record.external_id}"


@connector.where_to_look
def where_to_look(settings: Settings, delivery: UncertainDelivery) -> WhereToLook:
    """Return where the record would be."""
    del settings
    if delivery.action == "create_deal":
        return WhereToLook("Open the person in Pipedrive: the deal is among its newest deals.")
    return WhereToLook(
        "Open the person in Pipedrive: the note of the activity ends with the reference "
        f"{delivery.idempotency_token}."
    )
