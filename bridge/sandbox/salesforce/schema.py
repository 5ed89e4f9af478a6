"""The schema of an org: object types, fields and their valid values."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import phonenumbers

from bridge.sandbox.salesforce.errors import RecordError

_ID = re.compile(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?")
_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


@dataclass(frozen=True)
class Field:
    """A field of an object type, as the describe API shows it."""

    name: str
    type: str = "string"
    length: int = 255
    values: tuple[str, ...] = ()
    restricted: bool = False
    required: bool = False
    createable: bool = True
    updateable: bool = True
    references: tuple[str, ...] = ()
    unique: bool = False
    external_id: bool = False

    @property
    def custom(self) -> bool:
        """True if the field is a custom field."""
        return self.name.endswith("__c")

    @property
    def indexed(self) -> bool:
        """True if the field has an index."""
        return self.external_id or self.type in ("email", "phone")

    @property
    def filterable(self) -> bool:
        """True if a WHERE clause may use the field. Long text areas cannot be filtered."""
        return not (self.type == "textarea" and self.length > 255)

    def validate(self, value: Any) -> Any:
        """Return the value as it will be stored. Raise RecordError if it is invalid."""
        if value is None or value == "":
            if self.required:
                raise RecordError(
                    "REQUIRED_FIELD_MISSING", f"Required fields are missing: [{self.name}]", [self.name]
                )
            return False if self.type == "boolean" else None
        if self.type == "boolean":
            return self._typed(value, bool)
        if self.type == "int":
            return self._typed(value, int)
        if self.type in ("double", "currency"):
            return self._typed(value, (int, float))
        text: str = self._typed(value, str)
        if self.type == "date":
            return self._date(text)
        if self.type == "datetime":
            return self._datetime(text)
        if self.type == "reference":
            if not _ID.fullmatch(text):
                raise RecordError(
                    "MALFORMED_ID", f"{self.name}: id value of incorrect type: {text}", [self.name]
                )
            return long_id(text)
        if self.type == "email" and not re.fullmatch(r"[^@\s,<>]+@[^@\s,<>]+\.[^@\s,<>]+", text):
            raise RecordError(
                "INVALID_EMAIL_ADDRESS", f"{self.name}: invalid email address: {text}", [self.name]
            )
        chosen = text.split(";") if self.type == "multipicklist" else [text]
        if self.restricted and not set(chosen) <= set(self.values):
            raise RecordError(
                "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                f"{self.name}: bad value for restricted picklist field: {text}",
                [self.name],
            )
        if len(text) > self.length:
            raise RecordError(
                "STRING_TOO_LONG",
                f"{self.name}: data value too large: {text[:80]} (max length={self.length})",
                [self.name],
            )
        return text

    def _typed(self, value: Any, python_type: Any) -> Any:
        fits = isinstance(value, python_type) and (python_type is bool or not isinstance(value, bool))
        if not fits:
            json_types = {
                str: "VALUE_STRING",
                bool: "VALUE_TRUE",
                int: "VALUE_NUMBER_INT",
                float: "VALUE_NUMBER_FLOAT",
            }
            raise RecordError(
                "JSON_PARSER_ERROR",
                f"Cannot deserialize instance of {self.type} from {json_types.get(type(value), 'START_OBJECT')} "
                f"value {str(value)[:40]} or request may be missing a required field: {self.name}",
            )
        return value

    def _date(self, text: str) -> str:
        try:
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
                raise ValueError
            return date.fromisoformat(text).isoformat()
        except ValueError:
            raise RecordError(
                "JSON_PARSER_ERROR",
                f"Cannot deserialize instance of date from VALUE_STRING value {text[:40]}: {self.name}",
            ) from None

    def _datetime(self, text: str) -> str:
        try:
            parsed = datetime.fromisoformat(text)
            if len(text) == 10 or parsed.tzinfo is None:
                raise ValueError
        except ValueError:
            raise RecordError(
                "JSON_PARSER_ERROR",
                f"Cannot deserialize instance of datetime from VALUE_STRING value {text[:40]}: {self.name}",
            ) from None
        return format_timestamp(parsed)

    def as_json(self) -> dict[str, Any]:
        """Return the field as the describe API shows it."""
        return {
            "name": self.name,
            "label": self.name.removesuffix("__c").replace("_", " "),
            "type": self.type,
            "length": self.length if self.type in ("string", "textarea", "phone", "email", "picklist") else 0,
            "custom": self.custom,
            "createable": self.createable,
            "updateable": self.updateable,
            "nillable": not self.required,
            "defaultedOnCreate": False,
            "filterable": self.filterable,
            "externalId": self.external_id,
            "idLookup": self.external_id or self.name in ("Id", "Email"),
            "unique": self.unique,
            "caseSensitive": False,
            "restrictedPicklist": self.restricted,
            "referenceTo": list(self.references),
            "relationshipName": self.name.removesuffix("Id") if self.references else None,
            "picklistValues": [
                {"value": value, "label": value, "active": True, "defaultValue": False}
                for value in self.values
            ],
        }


@dataclass(frozen=True)
class RecordType:
    """A record type of an object type."""

    id: str
    name: str
    available: bool
    """Whether it is assigned to the integration user."""


@dataclass
class SObjectType:
    """A type of record."""

    name: str
    prefix: str
    fields: dict[str, Field] = field(default_factory=dict)
    hidden_fields: dict[str, Field] = field(default_factory=dict)
    """Fields that field-level security hides from the integration user."""
    record_types: dict[str, RecordType] = field(default_factory=dict)
    """Record types by ID, besides the master record type."""

    def record_type_infos(self) -> list[dict[str, Any]]:
        """Return the record types as the describe API shows them."""
        master = RecordType("012000000000000AAA", "Master", True)
        return [
            {
                "recordTypeId": item.id,
                "name": item.name,
                "available": item.available,
                "active": True,
                "master": item is master,
            }
            for item in (*self.record_types.values(), master)
        ]

    def field(self, name: str) -> Field | None:
        """Return a field by its case-insensitive name."""
        return self.fields.get(name) or next(
            (definition for definition in self.fields.values() if definition.name.lower() == name.lower()),
            None,
        )


def long_id(value: str) -> str:
    """Return the 18-character form of an ID that may have 15 characters."""
    if len(value) != 15:
        return value
    suffix = ""
    for start in (0, 5, 10):
        bits = sum(1 << position for position in range(5) if value[start + position].isupper())
        suffix += _SUFFIX[bits]
    return value + suffix


def phone_words(value: str) -> list[str]:
    """Return the search words of a phone number: its groups of digits, all digits, and the national number."""
    words = [*re.findall(r"\d+", value), re.sub(r"\D", "", value)]
    with contextlib.suppress(phonenumbers.NumberParseException):
        words.append(str(phonenumbers.parse(value, "US").national_number))
    return [word for word in dict.fromkeys(words) if word]


def format_timestamp(at: datetime) -> str:
    """Format a timestamp as Salesforce does."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def default_object_types(statuses: Mapping[str, Mapping[str, bool]]) -> dict[str, SObjectType]:
    """Return the object types of a new org. `statuses` are the values of Task.Status and Case.Status."""
    phones = "Phone MobilePhone HomePhone OtherPhone AssistantPhone"
    types = [
        _type(
            "Task",
            "00T",
            "Subject CallDisposition CallObject",
            Field("Description", "textarea", 32_000),
            Field("ActivityDate", "date"),
            Field("Status", "picklist", 40, tuple(statuses["Task"]), restricted=True, required=True),
            Field("Priority", "picklist", 40, ("High", "Normal", "Low"), restricted=True, required=True),
            Field("Type", "picklist", 40, ("Call", "Email", "Meeting", "Other")),
            Field("CallType", "picklist", 40, ("Internal", "Inbound", "Outbound"), restricted=True),
            Field("CallDurationInSeconds", "int"),
            Field(
                "TaskSubtype",
                "picklist",
                40,
                ("Task", "Email", "ListEmail", "Cadence", "Call", "LinkedIn"),
                restricted=True,
                updateable=False,
            ),
            Field("WhoId", "reference", references=("Contact", "Lead")),
            Field("WhatId", "reference", references=("Account", "Opportunity", "Case")),
            Field("ReminderDateTime", "datetime"),
            Field("IsReminderSet", "boolean"),
            _system_field("AccountId", "reference", references=("Account",)),
            _system_field("IsClosed", "boolean"),
            _system_field("IsHighPriority", "boolean"),
            _system_field("CompletedDateTime", "datetime"),
            Field("Conversation_Id__c", unique=True, external_id=True),
        ),
        _type(
            "Contact",
            "003",
            "Title Department MailingStreet MailingCity MailingState MailingPostalCode MailingCountry",
            *_person_fields(phones),
            Field("AccountId", "reference", references=("Account",)),
            Field("Birthdate", "date"),
            _system_field("MasterRecordId", "reference", references=("Contact",)),
            _system_field("LastActivityDate", "date"),
        ),
        _type(
            "Lead",
            "00Q",
            "Title Industry Street City State PostalCode Country Website",
            *_person_fields("Phone MobilePhone"),
            Field("Company", required=True),
            Field(
                "Status",
                "picklist",
                40,
                (
                    "Open - Not Contacted",
                    "Working - Contacted",
                    "Closed - Converted",
                    "Closed - Not Converted",
                ),
                restricted=True,
                required=True,
            ),
            Field("Rating", "picklist", 40, ("Hot", "Warm", "Cold")),
            _system_field("IsConverted", "boolean"),
            _system_field("ConvertedDate", "date"),
            _system_field("ConvertedContactId", "reference", references=("Contact",)),
            _system_field("ConvertedAccountId", "reference", references=("Account",)),
            _system_field("MasterRecordId", "reference", references=("Lead",)),
            _system_field("LastActivityDate", "date"),
        ),
        _type(
            "Case",
            "500",
            "Subject Reason Type SuppliedName SuppliedCompany",
            Field("Description", "textarea", 32_000),
            Field("SuppliedEmail", "email", 80),
            Field("SuppliedPhone", "phone", 40),
            Field("Status", "picklist", 40, tuple(statuses["Case"]), restricted=True, required=True),
            Field("Priority", "picklist", 40, ("High", "Medium", "Low"), restricted=True),
            Field("Origin", "picklist", 40, ("Phone", "Email", "Web")),
            Field("ContactId", "reference", references=("Contact",)),
            Field("AccountId", "reference", references=("Account",)),
            Field("Conversation_Id__c", unique=True, external_id=True),
            _system_field("CaseNumber"),
            _system_field("IsClosed", "boolean"),
            _system_field("ClosedDate", "datetime"),
        ),
        _type(
            "Account", "001", "Website Industry", Field("Name", required=True), Field("Phone", "phone", 40)
        ),
        _type(
            "Opportunity",
            "006",
            "",
            Field("Name", length=120, required=True),
            Field("StageName", "picklist", 40, ("Prospecting", "Closed Won", "Closed Lost"), required=True),
            Field("CloseDate", "date", required=True),
            Field("Amount", "currency"),
            Field("AccountId", "reference", references=("Account",)),
            _system_field("IsClosed", "boolean"),
        ),
        _type(
            "OpportunityContactRole",
            "00K",
            "Role",
            Field("OpportunityId", "reference", required=True, references=("Opportunity",)),
            Field("ContactId", "reference", required=True, references=("Contact",)),
            Field("IsPrimary", "boolean"),
        ),
        _read_only("User", "005", "Name Username Email TimeZoneSidKey", _system_field("IsActive", "boolean")),
        _read_only("Group", "00G", "Name DeveloperName Type"),
        _read_only(
            "Organization", "00D", "Name TimeZoneSidKey InstanceName", _system_field("IsSandbox", "boolean")
        ),
        *(
            _read_only(
                f"{name}Status",
                "01J",
                "MasterLabel ApiName",
                _system_field("IsClosed", "boolean"),
                _system_field("IsDefault", "boolean"),
                _system_field("SortOrder", "int"),
            )
            for name in ("Task", "Case")
        ),
    ]
    return {object_type.name: object_type for object_type in types}


def _system_field(name: str, kind: str = "string", references: tuple[str, ...] = ()) -> Field:
    """Return a field that only Salesforce writes."""
    return Field(name, kind, createable=False, updateable=False, references=references)


def _person_fields(phones: str) -> list[Field]:
    return [
        Field("FirstName", length=40),
        Field("LastName", length=80, required=True),
        _system_field("Name"),
        Field("Salutation", "picklist", 40, ("Mr.", "Ms.", "Mrs.", "Dr.", "Prof.", "Mx.")),
        Field("Email", "email", 80),
        *(Field(name, "phone", 40) for name in phones.split()),
        Field("Description", "textarea", 32_000),
        Field("LeadSource", "picklist", 40, ("Web", "Phone Inquiry", "Referral", "Other")),
        Field("DoNotCall", "boolean"),
        Field("HasOptedOutOfEmail", "boolean"),
    ]


def _type(name: str, prefix: str, string_fields: str, *fields: Field) -> SObjectType:
    system = [
        _system_field("Id", "id"),
        _system_field("IsDeleted", "boolean"),
        Field(
            "OwnerId", "reference", references=("User", "Group") if name in ("Lead", "Case") else ("User",)
        ),
        _system_field("CreatedById", "reference", references=("User",)),
        _system_field("CreatedDate", "datetime"),
        _system_field("LastModifiedDate", "datetime"),
        _system_field("SystemModstamp", "datetime"),
    ]
    all_fields = [*system, *(Field(field_name) for field_name in string_fields.split()), *fields]
    return SObjectType(name, prefix, {definition.name: definition for definition in all_fields})


def _read_only(name: str, prefix: str, string_fields: str, *fields: Field) -> SObjectType:
    all_fields = [
        _system_field("Id", "id"),
        *map(_system_field, string_fields.split()),
        *fields,
    ]
    return SObjectType(
        name, prefix, {definition.name: replace(definition, createable=False) for definition in all_fields}
    )
