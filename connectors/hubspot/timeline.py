"""Records on a contact's timeline: calls, notes and tasks."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.connector import ContactDeleted, ContactRef, Success
from bridge.errors import DeliveryError, PermanentError

from .account import Account, Record
from .errors import body_of, status_of


def write_records(
    account: Account,
    kind: str,
    properties: Mapping[str, Mapping[str, str]],
    contacts: Mapping[str, ContactRef | None],
) -> dict[str, Success | DeliveryError]:
    """Write the records of contacts. Without a contact nothing is written: HubSpot shows such a record nowhere."""
    results: dict[str, Success | DeliveryError] = {
        key: Success(detail="not logged: HubSpot has no such contact")
        for key, contact in contacts.items()
        if not contact
    }
    contact_ids = {key: contact.id for key, contact in contacts.items() if contact}
    if not contact_ids:
        return results
    records = {key: Record(properties[key], contact_id) for key, contact_id in contact_ids.items()}
    batch_error: Exception | None = None
    try:
        results |= account.upsert(kind, records)
        failed = [key for key in contact_ids if isinstance(results[key], PermanentError)]
    except Exception as error:
        batch_error, failed = error, list(contact_ids)
        if status_of(error) not in (400, 404) or "propert" in body_of(error).lower():
            raise
    deleted = account.deleted_contacts([contact_ids[key] for key in failed])
    if batch_error is not None and not deleted:
        raise batch_error
    results |= {key: ContactDeleted() for key in failed if contact_ids[key] in deleted}
    remaining = {key: record for key, record in records.items() if contact_ids[key] not in deleted}
    if (
        batch_error is not None and remaining
    ):  # HubSpot rejected the whole batch because of the deleted contacts
        results |= account.upsert(kind, remaining)
    return results
