"""Which objects, properties and associations a HubSpot account has, and what a property's value may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import phonenumbers

LONGEST_TEXT = 65_536

DISPOSITIONS = {
    "f240bbac-87c9-4f6e-bf70-924b57d47db7": "Connected",
    "9d9162e7-6cf3-4944-bf63-4dff82258764": "Busy",
    "73a0d17f-1163-4015-bdd5-ec830791da20": "No answer",
    "a4c4c377-d246-4b32-a13b-75a56a4cd0ff": "Left live message",
    "b2cf5968-551e-4856-9783-52b3da59a7d0": "Left voicemail",
    "17b47fee-58de-441e-a44c-c6300d46f273": "Wrong number",
}

_CALL_STATUS = (
    "BUSY",
    "CALLING_CRM_USER",
    "CANCELED",
    "COMPLETED",
    "CONNECTING",
    "FAILED",
    "IN_PROGRESS",
    "NO_ANSWER",
    "QUEUED",
    "RINGING",
)
_LIFECYCLE = (
    "subscriber",
    "lead",
    "marketingqualifiedlead",
    "salesqualifiedlead",
    "opportunity",
    "customer",
    "evangelist",
    "other",
)
_LEAD_STATUS = (
    "NEW",
    "OPEN",
    "IN_PROGRESS",
    "OPEN_DEAL",
    "UNQUALIFIED",
    "ATTEMPTED_TO_CONTACT",
    "CONNECTED",
    "BAD_TIMING",
)


@dataclass(frozen=True)
class Property:
    """One property of an object type, as the properties API describes it."""

    name: str
    type: str = "string"
    options: tuple[str, ...] = ()
    unique: bool = False
    read_only: bool = False
    field_type: str = "text"
    label: str = ""
    group: str = ""
    custom: bool = False
    description: str = ""

    def problem(self, value: str) -> tuple[str, str] | None:
        """HubSpot's code and text for a value that it does not take; an empty value clears and always fits."""
        if self.read_only:
            return "READ_ONLY_VALUE", f"{self.name} is a read only property; its value cannot be set."
        if value == "":
            return None
        if self.options and value not in self.options:
            return (
                "INVALID_OPTION",
                f"{value} was not one of the allowed options: [{', '.join(self.options)}]",
            )
        if self.type == "bool" and value not in ("true", "false"):
            return "INVALID_OPTION", f"{value} was not one of the allowed options: [true, false]"
        if self.type == "number" and not re.fullmatch(r"-?\d+(\.\d+)?", value):
            return "INVALID_NUMBER", f"{value} was not a valid number."
        if self.type == "milliseconds" and not value.isdecimal():
            return "INVALID_LONG", f"{value} was not a valid long."
        if self.type in ("datetime", "date") and instant(value) is None:
            return "INVALID_DATE", f"{value} was not a valid date."
        if self.name == "email" and not re.fullmatch(r"[^@\s,<>]+@[^@\s,<>]+\.[^@\s,<>]+", value):
            return "INVALID_EMAIL", f"Email address {value} is invalid"
        if self.name == "hs_timezone" and not re.fullmatch(r"[a-z]+(_[a-z]+)*", value):
            return "INVALID_OPTION", f"{value} was not one of the allowed options: [us_slash_eastern, ...]"
        if self.name == "hs_call_recording_url" and not value.startswith("https://"):
            return "INVALID_URL", "The recording must be reachable by https."
        if len(value) > LONGEST_TEXT:
            return "EXCEEDED_MAX_LENGTH", f"{self.name} is longer than {LONGEST_TEXT} characters."
        return None

    def normal(self, value: str) -> str:
        """The value as HubSpot keeps it."""
        if self.name == "email":
            return value.strip().lower()
        if self.type == "datetime" and value:
            found = instant(value)
            return iso(found) if found else value
        return value

    def as_json(self) -> dict[str, Any]:
        """As the properties API shows it."""
        return {
            "name": self.name,
            "label": self.label or self.name,
            "description": self.description,
            "type": {"milliseconds": "number"}.get(self.type, self.type),
            "fieldType": self.field_type,
            "groupName": self.group,
            "options": [
                {"label": option, "value": option, "displayOrder": number, "hidden": False}
                for number, option in enumerate(self.options)
            ],
            "hasUniqueValue": self.unique,
            "hubspotDefined": not self.custom,
            "calculated": self.name.startswith("hs_searchable_calculated"),
            "externalOptions": False,
            "hidden": False,
            "formField": False,
            "displayOrder": -1,
            "archived": False,
            "modificationMetadata": {
                "archivable": self.custom,
                "readOnlyDefinition": not self.custom,
                "readOnlyValue": self.read_only,
            },
        }


@dataclass
class ObjectType:
    """One kind of CRM object."""

    name: str
    type_id: str
    singular: str
    group: str
    properties: dict[str, Property] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    """What a read shows when it does not ask for properties."""
    searched: tuple[str, ...] = ()
    """What the `query` of a search looks at."""
    created: str = "hs_createdate"
    modified: str = "hs_lastmodifieddate"
    indexed: frozenset[str] = frozenset()
    """Properties by whose value objects are found without looking at all of them; unique ones are, too."""


def instant(value: str) -> datetime | None:
    """Milliseconds since 1970 or an ISO date with its zone; None for anything else."""
    try:
        if re.fullmatch(r"\d{12,14}", value):
            return datetime.fromtimestamp(int(value) / 1000, UTC)
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    if len(value) == 10:
        return found.replace(tzinfo=UTC)
    return found.astimezone(UTC) if found.tzinfo else None


def iso(at: datetime) -> str:
    """HubSpot's way to write an instant."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def searchable_phone(value: str | None) -> str | None:
    """What `hs_searchable_calculated_phone_number` holds: the national digits without the country code."""
    if not value:
        return None
    try:
        return str(phonenumbers.parse(value, "US").national_number)
    except phonenumbers.NumberParseException:
        return re.sub(r"\D", "", value) or None


_PHONES = frozenset(
    {
        "phone",
        "mobilephone",
        "hs_searchable_calculated_phone_number",
        "hs_searchable_calculated_mobile_number",
    }
)


def account_types() -> dict[str, ObjectType]:
    """The object types of a fresh account."""
    owner = Property("hubspot_owner_id", "number")
    when = Property("hs_timestamp", "datetime")
    files = Property("hs_attachment_ids")
    types = [
        _type(
            "contacts",
            "0-1",
            "contact",
            "contactinformation",
            "firstname lastname phone mobilephone company jobtitle website address city state zip country "
            "hs_language hs_timezone salutation fax industry hs_whatsapp_phone_number message",
            Property("email", unique=True),
            Property("lifecyclestage", "enumeration", _LIFECYCLE, field_type="select"),
            Property("hs_lead_status", "enumeration", _LEAD_STATUS, field_type="select"),
            Property("hs_timezone", "enumeration", field_type="select"),
            Property("hs_email_optout", "bool", read_only=True),
            Property("hs_searchable_calculated_phone_number", read_only=True),
            Property("hs_searchable_calculated_mobile_number", read_only=True),
            Property("notes_last_contacted", "datetime", read_only=True),
            Property("notes_last_updated", "datetime", read_only=True),
            Property("hs_merged_object_ids", read_only=True),
            owner,
            shown="email firstname lastname",
            searched="email phone mobilephone firstname lastname company",
            created="createdate",
            modified="lastmodifieddate",
        ),
        _type(
            "companies",
            "0-2",
            "company",
            "companyinformation",
            "name domain phone website address city state zip country description",
            owner,
            shown="domain name",
            searched="name domain phone website",
            created="createdate",
        ),
        _type(
            "deals",
            "0-3",
            "deal",
            "dealinformation",
            "dealname pipeline dealstage description",
            Property("amount", "number"),
            Property("closedate", "datetime"),
            owner,
            shown="amount closedate dealname dealstage pipeline",
            searched="dealname",
            created="createdate",
        ),
        _type(
            "tickets",
            "0-5",
            "ticket",
            "ticketinformation",
            "subject content hs_pipeline hs_pipeline_stage hs_ticket_category hs_resolution source_type",
            Property(
                "hs_ticket_priority", "enumeration", ("LOW", "MEDIUM", "HIGH", "URGENT"), field_type="select"
            ),
            Property("closed_date", "datetime"),
            owner,
            required="hs_pipeline_stage",
            shown="content hs_pipeline hs_pipeline_stage hs_ticket_category hs_ticket_priority subject",
            searched="subject content",
            created="createdate",
        ),
        _type(
            "calls",
            "0-48",
            "call",
            "call",
            "hs_call_title hs_call_from_number hs_call_to_number hs_call_callee_object_id "
            "hs_call_callee_object_type_id hs_call_callee_object_type hs_call_external_id hs_call_app_id "
            "hs_call_source hs_call_summary hs_activity_type hs_call_recording_url",
            Property("hs_call_body", field_type="textarea"),
            Property("hs_call_duration", "milliseconds", field_type="number"),
            Property("hs_call_direction", "enumeration", ("INBOUND", "OUTBOUND"), field_type="select"),
            Property("hs_call_status", "enumeration", _CALL_STATUS, field_type="select"),
            Property("hs_call_disposition", "enumeration", tuple(DISPOSITIONS), field_type="select"),
            when,
            owner,
            files,
            required="hs_timestamp",
            searched="hs_call_title hs_call_body",
        ),
        _type(
            "notes",
            "0-46",
            "note",
            "note",
            "",
            Property("hs_note_body", field_type="textarea"),
            when,
            owner,
            files,
            required="hs_timestamp",
            searched="hs_note_body",
        ),
        _type(
            "tasks",
            "0-27",
            "task",
            "task",
            "hs_task_subject hs_queue_membership_ids hs_task_reminders",
            Property("hs_task_body", field_type="textarea"),
            Property(
                "hs_task_status",
                "enumeration",
                ("NOT_STARTED", "IN_PROGRESS", "WAITING", "DEFERRED", "COMPLETED"),
                field_type="select",
            ),
            Property(
                "hs_task_priority", "enumeration", ("NONE", "LOW", "MEDIUM", "HIGH"), field_type="select"
            ),
            Property("hs_task_type", "enumeration", ("EMAIL", "CALL", "TODO"), field_type="select"),
            when,
            owner,
            files,
            required="hs_timestamp",
            searched="hs_task_subject hs_task_body",
        ),
        _type(
            "communications",
            "0-18",
            "communication",
            "communication",
            "",
            Property("hs_communication_body", field_type="textarea"),
            Property(
                "hs_communication_channel_type",
                "enumeration",
                ("SMS", "WHATS_APP", "LINKEDIN_MESSAGE"),
                field_type="select",
            ),
            Property("hs_communication_logged_from", "enumeration", ("CRM",), field_type="select"),
            when,
            owner,
            files,
            required="hs_timestamp hs_communication_channel_type hs_communication_logged_from",
        ),
        _type(
            "emails",
            "0-49",
            "email",
            "email",
            "hs_email_subject hs_email_headers",
            Property("hs_email_text", field_type="textarea"),
            Property("hs_email_html", field_type="textarea"),
            Property(
                "hs_email_direction",
                "enumeration",
                ("EMAIL", "INCOMING_EMAIL", "FORWARDED_EMAIL"),
                field_type="select",
            ),
            Property(
                "hs_email_status",
                "enumeration",
                ("BOUNCED", "FAILED", "SCHEDULED", "SENDING", "SENT"),
                field_type="select",
            ),
            when,
            owner,
            files,
            required="hs_timestamp hs_email_direction",
        ),
    ]
    return {kind.name: kind for kind in types}


def _type(
    name: str,
    type_id: str,
    singular: str,
    group: str,
    texts: str,
    *properties: Property,
    required: str = "",
    shown: str = "",
    searched: str = "",
    created: str = "hs_createdate",
    modified: str = "hs_lastmodifieddate",
) -> ObjectType:
    system = (
        Property("hs_object_id", "number", read_only=True),
        Property(created, "datetime", read_only=True),
        Property(modified, "datetime", read_only=True),
    )
    every = [Property(text) for text in texts.split()] + [*properties, *system]
    return ObjectType(
        name,
        type_id,
        singular,
        group,
        {p.name: _in_group(p, group) for p in every},
        tuple(required.split()),
        (created, "hs_object_id", modified, *shown.split()),
        tuple(searched.split()),
        created,
        modified,
        _PHONES if name == "contacts" else frozenset(),
    )


def _in_group(p: Property, group: str) -> Property:
    return Property(p.name, p.type, p.options, p.unique, p.read_only, p.field_type, p.name, group)


ASSOCIATIONS: Mapping[tuple[str, str], int] = {
    ("deals", "contacts"): 3,
    ("contacts", "deals"): 4,
    ("contacts", "tickets"): 15,
    ("tickets", "contacts"): 16,
    ("deals", "tickets"): 27,
    ("tickets", "deals"): 28,
    ("communications", "contacts"): 81,
    ("contacts", "communications"): 82,
    ("companies", "calls"): 181,
    ("calls", "companies"): 182,
    ("companies", "emails"): 185,
    ("emails", "companies"): 186,
    ("companies", "notes"): 189,
    ("notes", "companies"): 190,
    ("companies", "tasks"): 191,
    ("tasks", "companies"): 192,
    ("contacts", "calls"): 193,
    ("calls", "contacts"): 194,
    ("contacts", "emails"): 197,
    ("emails", "contacts"): 198,
    ("contacts", "notes"): 201,
    ("notes", "contacts"): 202,
    ("contacts", "tasks"): 203,
    ("tasks", "contacts"): 204,
    ("deals", "calls"): 205,
    ("calls", "deals"): 206,
    ("deals", "emails"): 209,
    ("emails", "deals"): 210,
    ("deals", "notes"): 213,
    ("notes", "deals"): 214,
    ("deals", "tasks"): 215,
    ("tasks", "deals"): 216,
    ("tickets", "calls"): 219,
    ("calls", "tickets"): 220,
    ("tickets", "emails"): 223,
    ("emails", "tickets"): 224,
    ("tickets", "notes"): 227,
    ("notes", "tickets"): 228,
    ("tickets", "tasks"): 229,
    ("tasks", "tickets"): 230,
    ("contacts", "companies"): 279,
    ("companies", "contacts"): 280,
    ("tickets", "companies"): 339,
    ("companies", "tickets"): 340,
    ("deals", "companies"): 341,
    ("companies", "deals"): 342,
}
"""HubSpot's own association types without a label: (from, to) -> type id; the direction matters."""
