"""Action that creates cases: one per conversation, which later events of the conversation update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bridge.connector import (
    ContactDeleted,
    ContactQuery,
    ContactRef,
    Context,
    NewTicketParams,
    Properties,
    Success,
    fields_to_write,
    forget_related_records,
    param,
    per_conversation,
    remember_own_ticket,
    write_for_contact,
)
from bridge.errors import DeliveryError, TransientError

from . import sdk
from .contact_source import Contacts
from .errors import DELETED_CODES, error_code, record_result, refused_fields
from .external_ids import require_external_id
from .field_values import find_field, refused_values, typed_properties
from .lenient_writes import LEAD_PREFIX
from .org import Org, typed
from .permissions import CREATE_CASES
from .session import Record
from .settings import connector
from .soql import select

_MAX_LENGTH = {
    "Subject": 255,
    "Description": 32_000,
    "SuppliedName": 80,
    "SuppliedEmail": 80,
    "SuppliedPhone": 40,
    "SuppliedCompany": 80,
}
_ORIGINS = {"phone": ("Phone",), "chat": ("Chat", "Web")}
"""Case origins by kind of conversation; the first that the org has is used."""
_OPTIONAL_FIELDS = {
    "SuppliedName",
    "SuppliedEmail",
    "SuppliedPhone",
    "SuppliedCompany",
    "Origin",
    "OwnerId",
}
"""Fields that the case can do without if Salesforce refuses one: the owner, and what is derived from the event."""
_UPDATED_FIELDS = {"Description", "ContactId"}
"""Fields that later events of the conversation update. The others may have been changed by a colleague since."""
_ASSIGN = {"Sforce-Auto-Assign": "TRUE"}
"""Header for the org's assignment rules, which choose the owner of a new case."""


class CreateCaseParams(NewTicketParams):
    """A case to create. It belongs to the contact; a stranger's name, email and phone are written to the case."""

    origin: str | None = param(
        None, "Case origin. Default: `Phone`, or `Chat` or `Web`, if the org has it.", example="Phone"
    )
    priority: str | None = param(None, "Priority. Default: the org's.", example="High")
    status: str | None = param(None, "Status of a new case. Default: the org's.", example="New")
    owner: str | None = param(
        None,
        "Owner of a new case: a user's email address, username or ID, or a queue's ID. Default: the org's assignment "
        "rules choose the owner.",
        example="ana@example.com",
    )
    properties: Properties = param(
        {},
        "Additional fields of the case: `field: value`, or `field: {value: ..., mode: fill}` for a new case only.",
        example={"Type": "Question"},
    )


@connector.action(idempotency=per_conversation, idempotent=True, needs=CREATE_CASES)
def create_case(org: Org, params: CreateCaseParams, context: Context) -> Success:
    """Create a case of the contact, once per conversation. A later event of the conversation updates the case."""
    key, query = context.conversation_key, params.contact_query(context, create=False, scope="contact:")

    def write(contacts: Mapping[str, ContactRef | None]) -> dict[str, Success | DeliveryError]:
        contact = contacts[key]
        result = _write(org, params, query, contact)
        if isinstance(result, Success) and result.id:
            remember_own_ticket(context, result.id)
            forget_related_records(context.contact_cache, [contact.id] if contact else [])
        is_stale = contact is not None and error_code(result) in DELETED_CODES
        return {key: ContactDeleted() if is_stale else result}

    return write_for_contact(Contacts(org, object_types=("Contact",)), key, query, write)


def _write(
    org: Org, params: CreateCaseParams, query: ContactQuery, contact: ContactRef | None
) -> Success | DeliveryError:
    context = query.context
    properties, notes = typed_properties(org, "Case", params.properties, "createable", context)
    record = _standard_fields(org, params, query, contact)
    existing, task = context.existing_id, None
    if existing is None:
        existing, task = _find(org, context.conversation_key)
    result = None
    if existing:
        overwrites = {name: item for name, item in properties.items() if item.mode == "overwrite"}
        changes = {name: value for name, value in record.items() if name in _UPDATED_FIELDS}
        result = _update(org, existing, changes | fields_to_write(overwrites, None))
    if result is None:
        result = _create(org, params, context, record, fields_to_write(properties, None))
    if task and isinstance(result, Success) and result.id:
        _relate(org, task, result.id)
    if isinstance(result, Success):
        return replace(result, detail="; ".join(filter(None, [result.detail, *notes])))
    return result


def _standard_fields(
    org: Org, params: CreateCaseParams, query: ContactQuery, contact: ContactRef | None
) -> Record:
    values = {
        "Subject": params.display_subject(query),
        "Description": params.body(query.context, contact, _MAX_LENGTH["Description"]),
        "Origin": params.origin or _origin(org, query.context),
        "Priority": params.priority,
        "Status": params.status,
        "ContactId": contact.id if contact else None,
    }
    if contact is None:
        # An event without email and phone still has a name.
        person = query.person if query.addresses else query.context.contact
        values |= {
            "SuppliedName": person.name,
            "SuppliedEmail": query.email,
            "SuppliedPhone": query.phone,
            "SuppliedCompany": person.company,
        }
    return {name: value[: _MAX_LENGTH.get(name)] for name, value in values.items() if value}


def _origin(org: Org, context: Context) -> str | None:
    """Return the first origin of this kind of conversation that the org's picklist has."""
    field = find_field(org.fields("Case"), "Origin")
    values = field.options if field is not None else ()
    return next(
        (origin for origin in _ORIGINS.get(context.event.conversation.type, ()) if origin in values), None
    )


def _find(org: Org, key: str) -> tuple[str | None, Record | None]:
    """Return the ID of the conversation's case, which an attempt with a lost response may have created, and its Task.

    The Task is that of `log_call` or `log_chat`, if it is logged already.
    """
    field, of_task = (
        org.settings.case_field,
        sdk.format_soql(f"{org.settings.task_field} = {{}} LIMIT 1", key),
    )
    query = select(("Id",), "Case", sdk.format_soql(f"{field} = {{}} LIMIT 1", key))
    found = org.query_together({"Case": query, "Task": select(("Id", "WhoId", "WhatId"), "Task", of_task)})
    if "Case" not in found:
        with require_external_id("Case", field):
            found["Case"] = org.query(query)
    cases, tasks = found["Case"], found.get("Task")
    return str(cases[0]["Id"]) if cases else None, tasks[0] if tasks else None


def _relate(org: Org, task: Record, case_id: str) -> None:
    """Relate the conversation's Task to its new case, unless it is related to something else or of a lead."""
    if not task["WhatId"] and not str(task["WhoId"] or "").startswith(LEAD_PREFIX):
        org.collection("PATCH", "", [typed("Task", {"id": task["Id"], "WhatId": case_id})])


def _update(org: Org, case_id: str, changes: Record) -> Success | DeliveryError | None:
    """Update the case. Return None if it was deleted. Assignment rules do not run: the case keeps its owner."""
    [item] = org.collection("PATCH", "", [typed("Case", {"id": case_id, **changes})])
    result = record_result(item, "updated")
    return None if error_code(result) in DELETED_CODES else result


def _create(
    org: Org, params: CreateCaseParams, context: Context, record: Record, of_rule: Record
) -> Success | DeliveryError:
    """Create the case, without the owner, the derived values and those of the rule that Salesforce refuses.

    The org's assignment rules choose the owner unless the rule names one.
    """
    field, notes, record = org.settings.case_field, [], record | of_rule
    if params.owner:
        owner = org.owners.find(params.owner)
        if owner.id:
            record = record | {"OwnerId": owner.id}
        else:
            notes.append(f"not for the owner that the rule names: {owner.problem}")
    optional = _OPTIONAL_FIELDS - ({"Origin"} if params.origin else set())
    for _ in range(3):
        row = typed("Case", {**record, field: context.conversation_key})
        with require_external_id("Case", field):
            [item] = org.collection("PATCH", f"/Case/{field}", [row], {} if "OwnerId" in record else _ASSIGN)
        refused = refused_fields(item)
        left_out = refused & record.keys() & (optional | refused_values(item, of_rule))
        if not left_out or refused - left_out:
            break
        record = {name: value for name, value in record.items() if name not in left_out}
        notes.append(f"without {', '.join(sorted(left_out))}, which Salesforce refused")
    result = record_result(item)
    if isinstance(result, Success):
        return replace(result, detail="; ".join([result.detail or "created", *notes]))
    if error_code(result) == "DUPLICATE_VALUE":  # the next attempt finds and updates it
        return TransientError("another process has just created the conversation's case")
    return result
