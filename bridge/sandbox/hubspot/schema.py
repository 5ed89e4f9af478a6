"""The schema of a HubSpot account: object types, properties and their valid values, association types."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from typing import Any

import phonenumbers

MAX_TEXT_LENGTH = 65_536

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
_CALL_TYPES = ("Sales call", "Support call")
_MEETING_TYPES = ("Test ride", "Workshop visit")
"""Call and meeting types, which each account has its own of."""
_LIFECYCLE_STAGES = (
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
class PropertyDefinition:
    """A property of an object type, as the properties API describes it."""

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

    def validation_error(self, value: str) -> tuple[str, str] | None:
        """Return HubSpot's error code and message for an invalid value. An empty value clears the property."""
        if self.read_only:
            return "READ_ONLY_VALUE", f"{self.name} is a read only property; its value cannot be set."
        if value == "":
            return None
        chosen = value.split(";") if self.field_type == "checkbox" else [value]
        if self.options and not set(chosen).issubset(self.options):
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
        timestamp = parse_timestamp(value) if self.type in ("datetime", "date") else None
        if self.type == "date" and timestamp is not None and timestamp.time() != time():
            return "INVALID_DATE", f"{value} is at {timestamp.time()} UTC, not at midnight."
        if self.type in ("datetime", "date") and timestamp is None:
            return "INVALID_DATE", f"{value} was not a valid date."
        if self.name == "email" and not re.fullmatch(r"[^@\s,<>]+@[^@\s,<>]+\.[^@\s,<>]+", value):
            return "INVALID_EMAIL", f"Email address {value} is invalid"
        if self.name == "hs_timezone" and not re.fullmatch(r"[a-z]+(_[a-z]+)*", value):
            return "INVALID_OPTION", f"{value} was not one of the allowed options: [us_slash_eastern, ...]"
        if self.name == "hs_call_recording_url" and not value.startswith("https://"):
            return "INVALID_URL", "The recording must be reachable by https."
        if len(value) > MAX_TEXT_LENGTH:
            return "EXCEEDED_MAX_LENGTH", f"{self.name} is longer than {MAX_TEXT_LENGTH} characters."
        return None

    def normalize(self, value: str) -> str:
        """Return the value as HubSpot stores it."""
        if self.name == "email":
            return value.strip().lower()
        if self.type == "datetime" and value:
            timestamp = parse_timestamp(value)
            return format_timestamp(timestamp) if timestamp else value
        return value

    def as_json(self) -> dict[str, Any]:
        """Return the property as the properties API shows it."""
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
    """A type of CRM object."""

    name: str
    type_id: str
    singular: str
    group: str
    properties: dict[str, PropertyDefinition] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    default_properties: tuple[str, ...] = ()
    """Properties that a read returns if the request names none."""
    searchable: tuple[str, ...] = ()
    """Properties that the `query` of a search covers."""
    created_property: str = "hs_createdate"
    modified_property: str = "hs_lastmodifieddate"
    indexed: frozenset[str] = frozenset()
    """Properties with an index, besides the unique ones."""


def parse_timestamp(value: str) -> datetime | None:
    """Parse milliseconds since 1970 or an ISO date with its time zone. Return None for anything else."""
    try:
        if re.fullmatch(r"\d{12,14}", value):
            return datetime.fromtimestamp(int(value) / 1000, UTC)
        timestamp = datetime.fromisoformat(value)
    except ValueError:
        return None
    if len(value) == 10:
        return timestamp.replace(tzinfo=UTC)
    return timestamp.astimezone(UTC) if timestamp.tzinfo else None


def format_timestamp(at: datetime) -> str:
    """Format a timestamp as HubSpot does."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def searchable_phone(value: str | None) -> str | None:
    """Return the value of `hs_searchable_calculated_phone_number`: the national number without the country code."""
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


def default_object_types() -> dict[str, ObjectType]:
    """Return the object types of a new account."""
    owner = PropertyDefinition("hubspot_owner_id", "number")
    timestamp = PropertyDefinition("hs_timestamp", "datetime")
    attachments = PropertyDefinition("hs_attachment_ids")
    types = [
        _type(
            "contacts",
            "0-1",
            "contact",
            "contactinformation",
            "firstname lastname phone mobilephone company jobtitle website address city state zip country "
            "hs_language hs_timezone salutation fax industry hs_whatsapp_phone_number message",
            PropertyDefinition("email", unique=True),
            PropertyDefinition("lifecyclestage", "enumeration", _LIFECYCLE_STAGES, field_type="select"),
            PropertyDefinition("hs_lead_status", "enumeration", _LEAD_STATUS, field_type="select"),
            PropertyDefinition("hs_timezone", "enumeration", field_type="select"),
            PropertyDefinition("hs_additional_emails", "enumeration", field_type="checkbox"),
            PropertyDefinition("hs_email_optout", "bool", read_only=True),
            PropertyDefinition("hs_searchable_calculated_phone_number", read_only=True),
            PropertyDefinition("hs_searchable_calculated_mobile_number", read_only=True),
            PropertyDefinition("notes_last_contacted", "datetime", read_only=True),
            PropertyDefinition("notes_last_updated", "datetime", read_only=True),
            PropertyDefinition("hs_merged_object_ids", read_only=True),
            PropertyDefinition("associatedcompanyid", "number", read_only=True),
            owner,
            default_properties="email firstname lastname",
            searchable="email hs_additional_emails phone mobilephone firstname lastname company",
            created_property="createdate",
            modified_property="lastmodifieddate",
        ),
        _type(
            "companies",
            "0-2",
            "company",
            "companyinformation",
            "name domain phone website address city state zip country description",
            owner,
            default_properties="domain name",
            searchable="name domain phone website",
            created_property="createdate",
        ),
        _type(
            "deals",
            "0-3",
            "deal",
            "dealinformation",
            "dealname pipeline dealstage description deal_currency_code",
            PropertyDefinition("amount", "number"),
            PropertyDefinition("closedate", "datetime"),
            PropertyDefinition(
                "dealtype", "enumeration", ("newbusiness", "existingbusiness"), field_type="select"
            ),
            PropertyDefinition("hs_is_closed", "bool", read_only=True),
            owner,
            required="dealname dealstage",
            default_properties="amount closedate dealname dealstage pipeline",
            searchable="dealname",
            created_property="createdate",
        ),
        _type(
            "tickets",
            "0-5",
            "ticket",
            "ticketinformation",
            "subject content hs_pipeline hs_pipeline_stage hs_ticket_category hs_resolution",
            PropertyDefinition(
                "source_type", "enumeration", ("CHAT", "EMAIL", "FORM", "PHONE"), field_type="select"
            ),
            PropertyDefinition(
                "hs_ticket_priority", "enumeration", ("LOW", "MEDIUM", "HIGH", "URGENT"), field_type="select"
            ),
            PropertyDefinition("closed_date", "datetime"),
            owner,
            required="hs_pipeline_stage",
            default_properties="content hs_pipeline hs_pipeline_stage hs_ticket_category hs_ticket_priority subject",
            searchable="subject content",
            created_property="createdate",
        ),
        _type(
            "calls",
            "0-48",
            "call",
            "call",
            "hs_call_title hs_call_from_number hs_call_to_number hs_call_callee_object_id "
            "hs_call_callee_object_type_id hs_call_callee_object_type hs_call_external_id hs_call_app_id "
            "hs_call_source hs_call_summary hs_call_recording_url",
            PropertyDefinition("hs_call_body", field_type="textarea"),
            PropertyDefinition("hs_call_duration", "milliseconds", field_type="number"),
            PropertyDefinition("hs_activity_type", "enumeration", _CALL_TYPES, field_type="select"),
            PropertyDefinition(
                "hs_call_direction", "enumeration", ("INBOUND", "OUTBOUND"), field_type="select"
            ),
            PropertyDefinition("hs_call_status", "enumeration", _CALL_STATUS, field_type="select"),
            PropertyDefinition(
                "hs_call_disposition", "enumeration", tuple(DISPOSITIONS), field_type="select"
            ),
            timestamp,
            owner,
            attachments,
            required="hs_timestamp",
            searchable="hs_call_title hs_call_body",
        ),
        _type(
            "notes",
            "0-46",
            "note",
            "note",
            "",
            PropertyDefinition("hs_note_body", field_type="textarea"),
            timestamp,
            owner,
            attachments,
            required="hs_timestamp",
            searchable="hs_note_body",
        ),
        _type(
            "tasks",
            "0-27",
            "task",
            "task",
            "hs_task_subject hs_queue_membership_ids hs_task_reminders",
            PropertyDefinition("hs_task_body", field_type="textarea"),
            PropertyDefinition(
                "hs_task_status",
                "enumeration",
                ("NOT_STARTED", "IN_PROGRESS", "WAITING", "DEFERRED", "COMPLETED"),
                field_type="select",
            ),
            PropertyDefinition(
                "hs_task_priority", "enumeration", ("NONE", "LOW", "MEDIUM", "HIGH"), field_type="select"
            ),
            PropertyDefinition("hs_task_type", "enumeration", ("EMAIL", "CALL", "TODO"), field_type="select"),
            timestamp,
            owner,
            attachments,
            required="hs_timestamp",
            searchable="hs_task_subject hs_task_body",
        ),
        _type(
            "meetings",
            "0-47",
            "meeting",
            "meeting",
            "hs_meeting_title hs_meeting_location hs_meeting_external_url",
            PropertyDefinition("hs_meeting_body", field_type="textarea"),
            PropertyDefinition("hs_internal_meeting_notes", field_type="textarea"),
            PropertyDefinition("hs_meeting_start_time", "datetime"),
            PropertyDefinition("hs_meeting_end_time", "datetime"),
            PropertyDefinition("hs_activity_type", "enumeration", _MEETING_TYPES, field_type="select"),
            PropertyDefinition(
                "hs_meeting_outcome",
                "enumeration",
                ("SCHEDULED", "COMPLETED", "RESCHEDULED", "NO_SHOW", "CANCELED"),
                field_type="select",
            ),
            timestamp,
            owner,
            attachments,
            required="hs_timestamp",
            searchable="hs_meeting_title hs_meeting_body",
        ),
        _type(
            "communications",
            "0-18",
            "communication",
            "communication",
            "",
            PropertyDefinition("hs_communication_body", field_type="textarea"),
            PropertyDefinition(
                "hs_communication_channel_type",
                "enumeration",
                ("SMS", "WHATS_APP", "LINKEDIN_MESSAGE"),
                field_type="select",
            ),
            PropertyDefinition("hs_communication_logged_from", "enumeration", ("CRM",), field_type="select"),
            timestamp,
            owner,
            attachments,
            required="hs_timestamp hs_communication_channel_type hs_communication_logged_from",
        ),
        _type(
            "emails",
            "0-49",
            "email",
            "email",
            "hs_email_subject hs_email_headers",
            PropertyDefinition("hs_email_text", field_type="textarea"),
            PropertyDefinition("hs_email_html", field_type="textarea"),
            PropertyDefinition(
                "hs_email_direction",
                "enumeration",
                ("EMAIL", "INCOMING_EMAIL", "FORWARDED_EMAIL"),
                field_type="select",
            ),
            PropertyDefinition(
                "hs_email_status",
                "enumeration",
                ("BOUNCED", "FAILED", "SCHEDULED", "SENDING", "SENT"),
                field_type="select",
            ),
            timestamp,
            owner,
            attachments,
            required="hs_timestamp hs_email_direction",
        ),
    ]
    return {object_type.name: object_type for object_type in types}


def _type(
    name: str,
    type_id: str,
    singular: str,
    group: str,
    string_properties: str,
    *properties: PropertyDefinition,
    required: str = "",
    default_properties: str = "",
    searchable: str = "",
    created_property: str = "hs_createdate",
    modified_property: str = "hs_lastmodifieddate",
) -> ObjectType:
    system = (
        PropertyDefinition("hs_object_id", "number", read_only=True),
        PropertyDefinition(created_property, "datetime", read_only=True),
        PropertyDefinition(modified_property, "datetime", read_only=True),
    )
    all_properties = [PropertyDefinition(property_name) for property_name in string_properties.split()] + [
        *properties,
        *system,
    ]
    return ObjectType(
        name,
        type_id,
        singular,
        group,
        {definition.name: _in_group(definition, group) for definition in all_properties},
        tuple(required.split()),
        (created_property, "hs_object_id", modified_property, *default_properties.split()),
        tuple(searchable.split()),
        created_property,
        modified_property,
        _PHONES if name == "contacts" else frozenset(),
    )


def _in_group(definition: PropertyDefinition, group: str) -> PropertyDefinition:
    return replace(definition, label=definition.name, group=group)
