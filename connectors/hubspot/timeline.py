"""Records on a contact's timeline: calls, notes and tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bridge.connector import ContactDeleted, ContactRef, Success
from bridge.errors import DeliveryError, PermanentError

from .account import Account, Record
from .errors import body_of, status_of

ORPHANS_SHOWN = ("calls", "tasks")
"""Types that HubSpot lists on a page of their own. A note without a contact is shown nowhere."""

BuildProperties = Callable[[str, ContactRef | None], Mapping[str, str]]
"""Returns the properties of a record by its key and contact."""


def write_records(
    account: Account,
    kind: str,
    build: BuildProperties,
    contacts: Mapping[str, ContactRef | None],
    existing_ids: Mapping[str, str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> dict[str, Success | DeliveryError]:
    """Write the records of contacts. `existing_ids` holds the IDs of records written before, which are updated.

    Without a contact, a record is written if HubSpot shows it and its key is not in `skip`, which has the result's
    detail.
    """
    properties = {key: build(key, contact) for key, contact in contacts.items()}
    results: dict[str, Success | DeliveryError] = {}
    existing = {key: record_id for key, record_id in (existing_ids or {}).items() if key in contacts}
    results |= account.update(
        kind, {record_id: (key, properties[key]) for key, record_id in existing.items()}
    )
    for key, contact in contacts.items():
        if contact is None and key not in results and (kind not in ORPHANS_SHOWN or key in (skip or {})):
            results[key] = Success(detail=(skip or {}).get(key, "not logged"))
    records = {
        key: Record(properties[key], contact.id if contact else None)
        for key, contact in contacts.items()
        if key not in results
    }
    return results | (_upsert(account, kind, records) if records else {})


def _upsert(account: Account, kind: str, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
    results: dict[str, Success | DeliveryError] = {}
    batch_error: Exception | None = None
    try:
        results |= account.upsert(kind, records)
        failed = [key for key in records if isinstance(results[key], PermanentError)]
    except Exception as error:
        batch_error, failed = error, list(records)
        if status_of(error) not in (400, 404) or "propert" in body_of(error).lower():
            raise
    deleted = account.deleted_contacts(
        [contact_id for key in failed if (contact_id := records[key].contact_id) is not None]
    )
    if batch_error is not None and not deleted:
        raise batch_error
    results |= {key: ContactDeleted() for key in failed if records[key].contact_id in deleted}
    remaining = {key: record for key, record in records.items() if record.contact_id not in deleted}
    if (
        batch_error is not None and remaining
    ):  # HubSpot rejected the whole batch because of the deleted contacts
        results |= account.upsert(kind, remaining)
    return results
