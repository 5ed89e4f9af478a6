"""Which objects and fields an org has, and what a field's value may be."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import phonenumbers

from bridge.sandbox.salesforce.errors import RecordRefusal

_ID = re.compile(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?")
_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


@dataclass(frozen=True)
class Field:
    """One field of an object, as describe shows it."""

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
        """Whether it is the org's own."""
        return self.name.endswith("__c")

    @property
    def indexed(self) -> bool:
        """Whether records are found by this field's value without looking at all of them."""
        return self.external_id or self.type in ("email", "phone")

    @property
    def filterable(self) -> bool:
        """Long texts cannot stand in a WHERE."""
        return not (self.type == "textarea" and self.length > 255)

    def checked(self, value: Any) -> Any:
        """The value as it will be kept; raises RecordRefusal."""
        if value is None or value == "":
            if self.required:
                raise RecordRefusal(
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
                raise RecordRefusal(
                    "MALFORMED_ID", f"{self.name}: id value of incorrect type: {text}", [self.name]
                )
            return long_id(text)
        if self.type == "email" and not re.fullmatch(r"[^@\s,<>]+@[^@\s,<>]+\.[^@\s,<>]+", text):
            raise RecordRefusal(
                "INVALID_EMAIL_ADDRESS", f"{self.name}: invalid email address: {text}", [self.name]
            )
        if self.restricted and text not in self.values:
            raise RecordRefusal(
                "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                f"{self.name}: bad value for restricted picklist field: {text}",
                [self.name],
            )
        if len(text) > self.length:
            raise RecordRefusal(
                "STRING_TOO_LONG",
                f"{self.name}: data value too large: {text[:80]} (max length={self.length})",
                [self.name],
            )
        return text

    def _typed(self, value: Any, kinds: Any) -> Any:
        fits = isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))
        if not fits:
            kind = {
                str: "VALUE_STRING",
                bool: "VALUE_TRUE",
                int: "VALUE_NUMBER_INT",
                float: "VALUE_NUMBER_FLOAT",
            }
            raise RecordRefusal(
                "JSON_PARSER_ERROR",
                f"Cannot deserialize instance of {self.type} from {kind.get(type(value), 'START_OBJECT')} "
                f"value {str(value)[:40]} or request may be missing a required field: {self.name}",
            )
        return value

    def _date(self, text: str) -> str:
        try:
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
                raise ValueError
            return date.fromisoformat(text).isoformat()
        except ValueError:
            raise RecordRefusal(
                "JSON_PARSER_ERROR",
                f"Cannot deserialize instance of date from VALUE_STRING value {text[:40]}: {self.name}",
            ) from None

    def _datetime(self, text: str) -> str:
        try:
            found = datetime.fromisoformat(text)
            if len(text) == 10 or found.tzinfo is None:
                raise ValueError
        except ValueError:
            raise RecordRefusal(
                "JSON_PARSER_ERROR",
                f"Cannot deserialize instance of datetime from VALUE_STRING value {text[:40]}: {self.name}",
            ) from None
        return timestamp(found)

    def as_json(self) -> dict[str, Any]:
        """As describe shows it."""
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


@dataclass
class SObjectType:
    """One kind of record."""

    name: str
    prefix: str
    fields: dict[str, Field] = field(default_factory=dict)

    def field(self, name: str) -> Field | None:
        """A field by its name, whose case does not matter."""
        return self.fields.get(name) or next(
            (known for known in self.fields.values() if known.name.lower() == name.lower()), None
        )


def long_id(value: str) -> str:
    """The 18 characters of an id that may have been given as 15."""
    if len(value) != 15:
        return value
    suffix = ""
    for start in (0, 5, 10):
        bits = sum(1 << place for place in range(5) if value[start + place].isupper())
        suffix += _SUFFIX[bits]
    return value + suffix


def phone_words(value: str) -> list[str]:
    """What a phone number is found by: its groups of digits, and all of them with and without the country code."""
    found = [*re.findall(r"\d+", value), re.sub(r"\D", "", value)]
    with contextlib.suppress(phonenumbers.NumberParseException):
        found.append(str(phonenumbers.parse(value, "US").national_number))
    return [word for word in dict.fromkeys(found) if word]


def timestamp(at: datetime) -> str:
    """Salesforce's way to write an instant."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def org_types(statuses: Mapping[str, Mapping[str, bool]]) -> dict[str, SObjectType]:
    """The objects of a fresh org; `statuses` are the values of Task.Status and Case.Status."""
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
            _made("AccountId", "reference", references=("Account",)),
            _made("IsClosed", "boolean"),
            _made("IsHighPriority", "boolean"),
            _made("CompletedDateTime", "datetime"),
            Field("Conversation_Id__c", unique=True, external_id=True),
        ),
        _type(
            "Contact",
            "003",
            "Title Department MailingStreet MailingCity MailingState MailingPostalCode MailingCountry",
            *_person(phones),
            Field("AccountId", "reference", references=("Account",)),
            Field("Birthdate", "date"),
            _made("MasterRecordId", "reference", references=("Contact",)),
            _made("LastActivityDate", "date"),
        ),
        _type(
            "Lead",
            "00Q",
            "Title Industry Street City State PostalCode Country Website",
            *_person("Phone MobilePhone"),
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
            _made("IsConverted", "boolean"),
            _made("ConvertedDate", "date"),
            _made("ConvertedContactId", "reference", references=("Contact",)),
            _made("ConvertedAccountId", "reference", references=("Account",)),
            _made("MasterRecordId", "reference", references=("Lead",)),
            _made("LastActivityDate", "date"),
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
            _made("CaseNumber"),
            _made("IsClosed", "boolean"),
            _made("ClosedDate", "datetime"),
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
        ),
        _read_only("User", "005", "Name Username Email TimeZoneSidKey", _made("IsActive", "boolean")),
        _read_only("Organization", "00D", "Name TimeZoneSidKey InstanceName", _made("IsSandbox", "boolean")),
        *(
            _read_only(
                f"{name}Status",
                "01J",
                "MasterLabel ApiName",
                _made("IsClosed", "boolean"),
                _made("IsDefault", "boolean"),
                _made("SortOrder", "int"),
            )
            for name in ("Task", "Case")
        ),
    ]
    return {kind.name: kind for kind in types}


def _made(name: str, kind: str = "string", references: tuple[str, ...] = ()) -> Field:
    """A field that only Salesforce writes."""
    return Field(name, kind, createable=False, updateable=False, references=references)


def _person(phones: str) -> list[Field]:
    return [
        Field("FirstName", length=40),
        Field("LastName", length=80, required=True),
        _made("Name"),
        Field("Salutation", "picklist", 40, ("Mr.", "Ms.", "Mrs.", "Dr.", "Prof.", "Mx.")),
        Field("Email", "email", 80),
        *(Field(name, "phone", 40) for name in phones.split()),
        Field("Description", "textarea", 32_000),
        Field("LeadSource", "picklist", 40, ("Web", "Phone Inquiry", "Partner Referral", "Other")),
        Field("DoNotCall", "boolean"),
        Field("HasOptedOutOfEmail", "boolean"),
    ]


def _type(name: str, prefix: str, texts: str, *fields: Field) -> SObjectType:
    system = [
        _made("Id", "id"),
        _made("IsDeleted", "boolean"),
        Field("OwnerId", "reference", references=("User",)),
        _made("CreatedById", "reference", references=("User",)),
        _made("CreatedDate", "datetime"),
        _made("LastModifiedDate", "datetime"),
        _made("SystemModstamp", "datetime"),
    ]
    every = [*system, *(Field(text) for text in texts.split()), *fields]
    return SObjectType(name, prefix, {one.name: one for one in every})


def _read_only(name: str, prefix: str, texts: str, *fields: Field) -> SObjectType:
    every = [_made("Id", "id"), *(_made(text) for text in texts.split()), *fields]
    return SObjectType(name, prefix, {one.name: replace(one, createable=False) for one in every})
