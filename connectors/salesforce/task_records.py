"""Tasks of a contact or lead: logged calls and chats, and tasks for a colleague."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from bridge.connector import ContactDeleted, ContactRef, Context, Success, param
from bridge.errors import DeliveryError

from .errors import DELETED_CODES, error_code
from .lenient_writes import LEAD_PREFIX
from .org import Org
from .session import Record
from .settings import ID_PATTERN
from .task_upserts import upsert_tasks

MAX_LENGTH = {"Subject": 255, "Description": 32_000, "CallDisposition": 255, "CallObject": 255}
OWNER = param(
    None,
    "Salesforce ID of the owner.",
    example="0055g00000AbCdE",
    pattern=ID_PATTERN,
    must_be="a Salesforce user ID (15 or 18 letters and digits)",
)


BuildTask = Callable[[str, ContactRef | None], Record]
"""Returns the fields of a Task by its key and contact."""


def write_tasks(
    org: Org,
    build: BuildTask,
    existing_ids: Mapping[str, str],
    contacts: Mapping[str, ContactRef | None],
) -> dict[str, Success | DeliveryError]:
    """Write Tasks of contacts or leads. A lead's Task must have no `WhatId`."""
    records: dict[str, Record] = {}
    for key, contact in contacts.items():
        records[key] = dict(build(key, contact))
        if contact is not None:
            records[key]["WhoId"] = contact.id
            if contact.id.startswith(LEAD_PREFIX):
                records[key].pop("WhatId", None)
    return {
        key: ContactDeleted() if contacts[key] is not None and error_code(result) in DELETED_CODES else result
        for key, result in upsert_tasks(org, records, existing_ids).items()
    }


def local_date(org: Org, context: Context, instant: datetime) -> str:
    """Return the date in the contact's time zone. Salesforce stores dates without a zone and must not shift them."""
    zone = ZoneInfo(context.contact.time_zone or org.settings.time_zone)
    return instant.astimezone(zone).date().isoformat()


def truncate(record: Mapping[str, Any]) -> Record:
    """Truncate long strings, for which Salesforce rejects the whole record, and omit None."""
    return {
        name: value[: MAX_LENGTH.get(name)] if isinstance(value, str) else value
        for name, value in record.items()
        if value is not None
    }
