"""What a Task refers to besides its contact or lead: an owner, and the case, opportunity or other related record."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge.connector import CONTACT_OWNER, RelatedRecords, param

from . import sdk
from .lenient_writes import CONTACT_PREFIX, LEAD_PREFIX
from .new_records import NewRecordParams
from .org import Org
from .owners import OWNER, USER_PREFIX
from .session import Record
from .settings import ID_PATTERN, Settings
from .soql import select

_PREFIXES = {"case": "500", "opportunity": "006"}


class TaskReferenceParams(NewRecordParams):
    """Params of an action that writes a Task: its contact or lead, its owner, and what it is related to.

    By default, the Task is related to the only open case or opportunity of the contact.
    """

    owner: str | None = OWNER
    case: str | None = param(
        "{{ event.metadata.caseId }}",
        "ID of the case that the Task is related to.",
        example="5005g00000AbCdE",
    )
    opportunity: str | None = param(
        "{{ event.metadata.opportunityId }}",
        "ID of the opportunity that the Task is related to, if there is no case.",
        example="0065g00000AbCdE",
    )
    what: str | None = param(
        None,
        "ID of another record that the Task is related to, instead of a case or opportunity. Like these, it is not "
        "used for leads.",
        example="0015g00000AbCdE",
        pattern=ID_PATTERN,
        must_be="a Salesforce ID (15 or 18 letters and digits)",
    )


def check_ids(_settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an ID that a rule itself contains. One of the event is only noted."""
    for kind, prefix in _PREFIXES.items():
        if (record_id := params.get(kind)) and not _is_id(kind, record_id):
            return f"`{kind}` needs the ID of a Salesforce {kind}: 15 or 18 letters and digits that start with {prefix}"
    return None


def _is_id(kind: str, record_id: str) -> bool:
    return re.fullmatch(ID_PATTERN, record_id) is not None and record_id.startswith(_PREFIXES[kind])


@dataclass
class References:
    """The references of one Task."""

    fields: Record = field(default_factory=dict)
    derived: set[str] = field(default_factory=set)
    """Fields that neither the rule nor the event sets. An update of the Task leaves them as a colleague set them."""
    notes: list[str] = field(default_factory=list)


def references(
    org: Org, params: TaskReferenceParams, records: RelatedRecords, record_id: str | None
) -> References:
    """Return owner and related record of a Task of this contact or lead."""
    found = References()
    _set_owner(org, params.owner, records, found)
    if record_id is None or not record_id.startswith(LEAD_PREFIX):  # Salesforce refuses both for a lead
        _set_related(params, records, found)
    return found


def _set_owner(org: Org, name: str | None, records: RelatedRecords, found: References) -> None:
    if name and name != CONTACT_OWNER:
        owner = org.owners.find(name)
        if owner.is_user:
            found.fields["OwnerId"] = owner.id
            return
        problem = owner.problem or "a queue cannot own a Task"
        found.notes.append(f"not for the owner that the rule names: {problem}")
    found.derived.add("OwnerId")
    fallback = org.owners.find(org.settings.owner) if org.settings.owner and not records.owner else None
    if owner_id := records.owner or (fallback.id if fallback and fallback.is_user else ""):
        found.fields["OwnerId"] = owner_id


def _set_related(params: TaskReferenceParams, records: RelatedRecords, found: References) -> None:
    named: Mapping[Literal["case", "opportunity"], str | None] = {
        "case": params.case,
        "opportunity": params.opportunity,
    }
    if params.what:
        found.fields["WhatId"] = params.what
        return
    for kind, record_id in named.items():
        if record_id and _is_id(kind, record_id):
            found.fields["WhatId"] = record_id
            return
        if record_id:
            found.notes.append(f"without the {kind}: its ID is not one of Salesforce")
    if not any(named.values()) and (related := records.ticket or records.deal):
        found.fields["WhatId"] = related
        found.derived.add("WhatId")


def read_related(org: Org, ids: Sequence[str]) -> dict[str, RelatedRecords]:
    """Return owner, account and the one open case or opportunity of contacts and leads, with one request.

    With more than one open case or opportunity in all, there is none. What the integration user may not read is empty.
    """
    contacts = [record_id for record_id in ids if record_id.startswith(CONTACT_PREFIX)]
    leads = [record_id for record_id in ids if record_id.startswith(LEAD_PREFIX)]
    owner = ("Id", "OwnerId", "Owner.IsActive")
    queries: dict[str, str] = {}
    if leads:
        queries["Lead"] = select(owner, "Lead", sdk.format_soql("Id IN {}", leads))
    if contacts:
        queries |= {
            "Contact": select((*owner, "AccountId"), "Contact", sdk.format_soql("Id IN {}", contacts)),
            "Case": select(
                ("Id", "ContactId"), "Case", sdk.format_soql("ContactId IN {} AND IsClosed = false", contacts)
            ),
            "OpportunityContactRole": select(
                ("OpportunityId", "ContactId"),
                "OpportunityContactRole",
                sdk.format_soql("ContactId IN {} AND Opportunity.IsClosed = false", contacts),
            ),
        }
    rows = org.query_together(queries)
    related: dict[str, set[str]] = defaultdict(set)
    for row in rows.get("Case", ()):
        related[str(row["ContactId"])].add(str(row["Id"]))
    for row in rows.get("OpportunityContactRole", ()):
        related[str(row["ContactId"])].add(str(row["OpportunityId"]))
    return {
        str(row["Id"]): _related_records(row, related[str(row["Id"])])
        for row in (*rows.get("Contact", ()), *rows.get("Lead", ()))
    }


def _related_records(row: Record, related: set[str]) -> RelatedRecords:
    owner_id = str(row.get("OwnerId") or "")
    is_active = bool((row.get("Owner") or {}).get("IsActive")) and owner_id.startswith(USER_PREFIX)
    only = next(iter(related)) if len(related) == 1 else ""
    return RelatedRecords(
        owner=owner_id if is_active else "",
        company=str(row.get("AccountId") or ""),
        deal=only if only.startswith(_PREFIXES["opportunity"]) else "",
        ticket=only if only.startswith(_PREFIXES["case"]) else "",
    )
