"""Actions for members of campaigns. A campaign has each contact or lead once, so a repeated attempt adds nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from bridge.connector import (
    ON_MISSING,
    BatchItem,
    BatchResult,
    ContactDeleted,
    ContactLookupParams,
    ContactRef,
    OnMissing,
    Properties,
    Success,
    fields_to_write,
    param,
    per_event,
    write_for_contacts,
)
from bridge.errors import DeliveryError, PermanentError, TransientError

from . import sdk
from .campaigns import CampaignLookup
from .contact_source import Contacts, object_type_of
from .errors import DELETED_CODES, error_code, record_result
from .field_values import refused_values, writable_fields
from .new_records import NewRecordParams, types_to_create
from .org import BATCH_SIZE, Org, typed
from .permissions import ADD_MEMBERS, EDIT_MEMBERS
from .session import Record
from .settings import connector
from .soql import chunks, select

_CAMPAIGN: Any = param(
    ...,
    "Name or ID of the campaign. Of several campaigns with one name, the active one counts.",
    example="Spring test rides",
    max_length=80,
)
_PROPERTIES: Any = param(
    {}, "Additional fields of the campaign member: `field: value`.", example={"Interest__c": "Cargo bikes"}
)
Results = dict[str, Success | DeliveryError]


class AddToCampaignParams(NewRecordParams):
    """A contact or lead to add to a campaign."""

    campaign: str = _CAMPAIGN
    status: str | None = param(
        None,
        "Status of a new member, one of those that the campaign has. Default: the campaign's default status.",
        example="Responded",
    )
    on_missing: Literal["skip", "lead", "contact"] = param(
        "skip",
        "If Salesforce has no such contact or open lead: `skip` the action; create a `lead`; or create a `contact` if "
        "exactly one account has the phone number or company name, otherwise a lead.",
        example="lead",
    )
    properties: Properties = _PROPERTIES


class UpdateCampaignMemberParams(ContactLookupParams):
    """A member of a campaign, and what to change."""

    campaign: str = _CAMPAIGN
    status: str | None = param(None, "New status, one of those that the campaign has.", example="Responded")
    properties: Properties = _PROPERTIES
    on_missing: OnMissing = ON_MISSING


@connector.action(
    idempotency=per_event,
    dedupe_by="campaign",
    idempotent=True,
    batch=BATCH_SIZE,
    needs=ADD_MEMBERS,
)
def add_to_campaign(org: Org, items: Sequence[BatchItem[AddToCampaignParams]]) -> list[BatchResult]:
    """Add the contact or lead to a campaign. A member already keeps its status."""
    by_key = {item.context.idempotency_token: item for item in items}
    results, by_campaign = _by_campaign(org, by_key)
    for campaign, chosen in by_campaign:
        queries = {key: item.params.new_record_query(org, item.context, None) for key, item in chosen.items()}
        source = Contacts(org, create_as=types_to_create(queries.values()))
        results |= write_for_contacts(source, queries, partial(_add, org, campaign, chosen))
    return [results[key] for key in by_key]


@connector.action(
    idempotency=per_event,
    dedupe_by=("campaign", "status"),
    idempotent=True,
    batch=BATCH_SIZE,
    needs=EDIT_MEMBERS,
)
def update_campaign_member(
    org: Org, items: Sequence[BatchItem[UpdateCampaignMemberParams]]
) -> list[BatchResult]:
    """Change the status of the contact or lead in a campaign. Who is not a member does not become one."""
    by_key = {item.context.idempotency_token: item for item in items}
    results, by_campaign = _by_campaign(org, by_key)
    for campaign, chosen in by_campaign:
        queries = {key: item.params.contact_query(item.context, create=False) for key, item in chosen.items()}
        results |= write_for_contacts(Contacts(org), queries, partial(_change, org, campaign, chosen))
    return [results[key] for key in by_key]


def _by_campaign(
    org: Org, items: Mapping[str, BatchItem[Any]]
) -> tuple[dict[str, BatchResult], list[tuple[CampaignLookup, dict[str, BatchItem[Any]]]]]:
    """Return the items of each campaign, and an error for those whose campaign the org does not have."""
    problems: dict[str, BatchResult] = {}
    by_id: dict[str, tuple[CampaignLookup, dict[str, BatchItem[Any]]]] = {}
    for key, item in items.items():
        campaign = org.campaigns.find(item.params.campaign, item.params.status)
        if campaign.id:
            by_id.setdefault(campaign.id, (campaign, {}))[1][key] = item
        else:
            problems[key] = PermanentError(campaign.problem, code="no_campaign")
    return problems, list(by_id.values())


def _add(
    org: Org,
    campaign: CampaignLookup,
    items: Mapping[str, BatchItem[AddToCampaignParams]],
    contacts: Mapping[str, ContactRef | None],
) -> Results:
    found = {key: contact for key, contact in contacts.items() if contact}
    results: Results = {
        key: Success(detail="not added: Salesforce has no such contact or lead")
        for key in contacts.keys() - found.keys()
    }
    members = _members(org, campaign.id, [contact.id for contact in found.values()])
    rows: dict[str, Record] = {}
    notes: dict[str, list[str]] = {}
    keys: dict[str, str] = {}
    for key, contact in found.items():
        if contact.id in members:
            results[key] = Success(members[contact.id], "was a member already")
        elif contact.id not in keys:
            keys[contact.id] = key
            rows[key], notes[key] = _new_member(org, campaign, items[key], contact)
    results |= _write(org, "POST", rows, notes, "added")
    for key in found.keys() - results.keys():  # a further event of the batch about the same person
        first = results[keys[found[key].id]]
        results[key] = Success(first.id, "was a member already") if isinstance(first, Success) else first
    return results


def _new_member(
    org: Org, campaign: CampaignLookup, item: BatchItem[AddToCampaignParams], contact: ContactRef
) -> tuple[Record, list[str]]:
    params, notes = item.params, []
    status = campaign.status(params.status) if params.status else None
    if params.status and status is None:
        notes.append(f"with the default status: {campaign.status_problem(params.status)}")
    values = fields_to_write(params.properties, None)
    additional, left_out = writable_fields(org, "CampaignMember", values, "createable", item.context)
    person = f"{object_type_of(contact.id)}Id"
    row = {"CampaignId": campaign.id, person: contact.id, **({"Status": status} if status else {})}
    return additional | row, [*notes, *left_out]


def _change(
    org: Org,
    campaign: CampaignLookup,
    items: Mapping[str, BatchItem[UpdateCampaignMemberParams]],
    contacts: Mapping[str, ContactRef | None],
) -> Results:
    members = _members(org, campaign.id, [contact.id for contact in contacts.values() if contact])
    results: Results = {}
    rows: dict[str, Record] = {}
    notes: dict[str, list[str]] = {}
    for key, contact in contacts.items():
        params = items[key].params
        member = members.get(contact.id) if contact else None
        if member is None:
            who = (
                "the contact or lead is not a member" if contact else "Salesforce has no such contact or lead"
            )
            missing = PermanentError(who, code="not_found")
            results[key] = missing if params.on_missing == "error" else Success(detail=f"not updated: {who}")
            continue
        status = campaign.status(params.status) if params.status else None
        if params.status and status is None:
            results[key] = PermanentError(campaign.status_problem(params.status), code="no_status")
            continue
        values = fields_to_write(params.properties, None)
        context = items[key].context
        changes, notes[key] = writable_fields(org, "CampaignMember", values, "updateable", context)
        changes |= {"Status": status} if status else {}
        if changes:
            rows[key] = {"id": member, **changes}
        else:
            results[key] = Success(member, "; ".join(["nothing to update", *notes[key]]))
    return results | _write(org, "PATCH", rows, notes, "updated")


def _members(org: Org, campaign_id: str, record_ids: Sequence[str]) -> dict[str, str]:
    """Return the member of each contact or lead that is in the campaign: ID of the person -> ID of the member."""
    found: dict[str, str] = {}
    for chunk in chunks(list(dict.fromkeys(record_ids))):
        condition = sdk.format_soql(
            "CampaignId = {} AND (ContactId IN {} OR LeadId IN {})", campaign_id, chunk, chunk
        )
        for row in org.query(select(("Id", "ContactId", "LeadId"), "CampaignMember", condition)):
            found |= {str(row[name]): str(row["Id"]) for name in ("ContactId", "LeadId") if row.get(name)}
    return found


def _write(
    org: Org,
    method: Literal["POST", "PATCH"],
    rows: Mapping[str, Record],
    notes: Mapping[str, list[str]],
    detail: str,
) -> Results:
    """Write members with one request, and those of which Salesforce refuses a value once more without it."""
    results: Results = {}
    pending = dict(rows)
    for attempt in range(2):
        if not pending:
            break
        answers = org.collection(method, "", [typed("CampaignMember", row) for row in pending.values()])
        items = dict(zip(pending, answers, strict=True))
        again: dict[str, Record] = {}
        for key, item in items.items():
            refused = refused_values(item, pending[key].keys() - {"CampaignId", "ContactId", "LeadId", "id"})
            if refused and attempt == 0:
                notes[key].extend(f"without `{name}`, which Salesforce refused" for name in sorted(refused))
                again[key] = {name: value for name, value in pending[key].items() if name not in refused}
                continue
            results[key] = _result(record_result(item), [detail, *notes[key]])
        pending = again
    return results


def _result(result: Success | DeliveryError, notes: Sequence[str]) -> Success | DeliveryError:
    if isinstance(result, Success):
        return Success(result.id, "; ".join(notes))
    code = error_code(result)
    if code == "DUPLICATE_VALUE":  # the next attempt finds the member
        return TransientError("another process has just added the same person to the campaign")
    return ContactDeleted() if code in DELETED_CODES else result
