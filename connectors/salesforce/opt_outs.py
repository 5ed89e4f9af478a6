"""Opt-outs in Salesforce: reads the flags of contacts and leads, and the action that sets them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bridge.connector import (
    EMAIL_CHANNELS,
    PHONE_CHANNELS,
    Channel,
    ContactMatch,
    Context,
    OptOutFlag,
    SetOptOutParams,
    Success,
    addresses_of,
    find_all_contacts,
    flags_by_address,
    per_event,
)
from bridge.errors import AccountError, ConfigError

from . import sdk
from .contact_source import Contacts, object_type_of
from .errors import DELETED_CODES, error_code, record_result
from .org import BATCH_SIZE, CALL_FLAG, EMAIL_FLAG, Org, typed
from .permissions import SET_FLAGS
from .person_accounts import refusal
from .settings import connector
from .soql import require_id, select

_CHANNELS: dict[str, Sequence[Channel]] = {EMAIL_FLAG: EMAIL_CHANNELS, CALL_FLAG: PHONE_CHANNELS}
_OBJECT_TYPES = ("Contact", "Lead")


@connector.opt_out_flags
def opt_out_flags(org: Org, emails: Sequence[str], phones: Sequence[str]) -> dict[str, list[OptOutFlag]]:
    """Read the flags of all contacts and open leads with these addresses.

    Raise AccountError if field-level security hides a flag: the integration user then cannot tell who opted out.
    """
    try:
        for object_type in _OBJECT_TYPES:
            org.require_fields(object_type, [*_CHANNELS], "readable")
    except ConfigError as error:
        raise AccountError(str(error)) from error
    matches = _find(org, emails, phones)
    flags: dict[str, list[OptOutFlag]] = {}
    for object_type in _OBJECT_TYPES:
        ids = [record_id for record_id in matches if object_type_of(record_id) == object_type]
        for start in range(0, len(ids), BATCH_SIZE):
            condition = sdk.format_soql("Id IN {}", ids[start : start + BATCH_SIZE])
            for row in org.query(select(("Id", *_CHANNELS), object_type, condition)):
                flags[str(row["Id"])] = [
                    OptOutFlag(f"{object_type}.{name}", channels)
                    for name, channels in _CHANNELS.items()
                    if row[name]
                ]
    return flags_by_address(matches, flags, emails, phones)


@connector.action(idempotency=per_event, idempotent=True, needs=SET_FLAGS)
def set_opt_out(org: Org, params: SetOptOutParams, context: Context) -> Success:
    """Record in Salesforce that the contact opted out, on every contact and open lead with the email or phone."""
    del context
    name = EMAIL_FLAG if params.channel == "email" else CALL_FLAG
    emails, phones = [params.email] if params.email else [], [params.phone] if params.phone else []
    found = _find(org, emails, phones).values()
    ids = [match.id for match in found if addresses_of(match, emails, phones)]
    if not ids:
        return params.no_contact("Salesforce has no such contact or lead")
    for object_type in {object_type_of(record_id) for record_id in ids}:
        try:
            org.require_fields(object_type, [name], "updateable")
        except ConfigError as error:
            raise AccountError(str(error)) from error
    ids = ids[:BATCH_SIZE]
    rows = [typed(object_type_of(record_id), {"id": require_id(record_id), name: True}) for record_id in ids]
    results = [record_result(item) for item in org.collection("PATCH", "", rows)]
    updated = [result for result in results if isinstance(result, Success)]
    errors = {
        record_id: result
        for record_id, result in zip(ids, results, strict=True)
        if not isinstance(result, Success) and error_code(result) not in DELETED_CODES
    }
    for failure in (errors | refusal(org, errors)).values():
        raise failure
    if not updated:
        return params.no_contact("the record was deleted a moment ago")
    records = "1 record" if len(updated) == 1 else f"{len(updated)} records"
    return Success(id=updated[0].id, detail=f"{name} set on {records}")


def _find(org: Org, emails: Sequence[str], phones: Sequence[str]) -> dict[str, ContactMatch]:
    sources: Iterable[Contacts] = (
        Contacts(org, object_types=(object_type,)) for object_type in _OBJECT_TYPES
    )
    return find_all_contacts(sources, emails, phones)
