"""The records of an org, and the constraints on them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bridge.sandbox.index import ValueIndex
from bridge.sandbox.provider import MAX_RECORDS
from bridge.sandbox.salesforce import campaigns
from bridge.sandbox.salesforce.access import Access
from bridge.sandbox.salesforce.errors import RecordError
from bridge.sandbox.salesforce.events import check_times
from bridge.sandbox.salesforce.schema import (
    Field,
    SObjectType,
    format_timestamp,
    long_id,
    phone_words,
)
from bridge.sandbox.salesforce.standard_objects import default_object_types

USER_ID = long_id("0055g00000AbCdE")
SALES_USER_ID = long_id("0055g00000AbCdF")
QUEUE_ID = long_id("00G5g000001QuEu")
ORG_ID = long_id("00D5g000004XyZa")
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

ValidationRule = Callable[[Mapping[str, Any]], str | tuple[str, str] | None]
"""A validation rule: returns the error message for an invalid record, or None.

With the name of a field, the message is displayed next to that field, and the error names it."""


@dataclass
class SObject:
    """A record. Fields that were never set are absent from `fields`."""

    id: str
    type: str
    fields: dict[str, Any]
    created_at: datetime
    deleted: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.fields.get(name)


@dataclass
class Records:
    """All records of one org."""

    statuses: dict[str, dict[str, bool]]
    """Each status of Task and Case, in the org's order, and whether it is closed."""
    types: dict[str, SObjectType] = field(init=False)
    tables: dict[str, dict[str, SObject]] = field(init=False)
    rules: dict[str, list[ValidationRule]] = field(default_factory=dict)
    locks: dict[str, int] = field(default_factory=dict)
    """Records locked by another process, and the number of writes that will still be rejected."""
    duplicate_rule: str | None = None
    """Handling of a second Contact or Lead with the same email, new or changed: None, `alert` or `block`."""
    access: Access = field(default_factory=Access)
    assignment_rules: dict[str, str] = field(default_factory=dict)
    """Object types with an active assignment rule, and the owner that it gives to every record."""
    _values_index: dict[tuple[str, str], ValueIndex] = field(default_factory=lambda: defaultdict(ValueIndex))
    _phone_index: dict[str, ValueIndex] = field(default_factory=lambda: defaultdict(ValueIndex))
    _next_id: int = 1
    _next_case_number: int = 1000

    def __post_init__(self) -> None:
        self.types = default_object_types(self.statuses)
        self.tables = {name: {} for name in self.types}

    def visible_type(self, name: str) -> SObjectType | None:
        """Return an object type that the integration user can read, by its case-insensitive name."""
        kind = next((kind for kind in self.types.values() if kind.name.lower() == name.lower()), None)
        return kind if kind is not None and self.access.allows(kind.name, "read") else None

    def active_records(self, kind: SObjectType) -> list[SObject]:
        """Return the records that were not deleted, oldest first."""
        return [record for record in self.tables[kind.name].values() if not record.deleted]

    def find_indexed(self, kind: SObjectType, name: str, values: Iterable[str]) -> list[SObject]:
        """Return the records that have one of `values` in an indexed field. The comparison ignores case."""
        ids = self._values_index[kind.name, name].ids_for_any(value.lower() for value in values)
        return [self.tables[kind.name][record_id] for record_id in ids]

    def find_by_phone(self, kind: SObjectType, digits: str) -> list[SObject]:
        """Return the records with a phone number that a search for `digits` finds."""
        return [self.tables[kind.name][record_id] for record_id in self._phone_index[kind.name].ids(digits)]

    def snapshot(self) -> tuple[Any, ...]:
        """Return the state that `restore` needs to undo later changes."""
        state = (
            self.tables,
            self._values_index,
            self._phone_index,
            self.locks,
            self._next_id,
            self._next_case_number,
        )
        return copy.deepcopy(state)

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """Undo all changes since `snapshot`."""
        (
            self.tables,
            self._values_index,
            self._phone_index,
            self.locks,
            self._next_id,
            self._next_case_number,
        ) = snapshot

    def create(
        self,
        kind: SObjectType,
        fields: Mapping[str, Any],
        now: datetime,
        *,
        allow_duplicates: bool = False,
        assign: bool = False,
    ) -> SObject:
        """Create a record. Raise RecordError if it is invalid. With `assign`, an assignment rule sets the owner."""
        self.access.check_create(kind.name)
        values = self._validated(kind, fields, create=True)
        self._apply_defaults(kind, values)
        if assign and kind.name in self.assignment_rules:
            values["OwnerId"] = self.assignment_rules[kind.name]
        missing = [
            definition.name
            for definition in kind.fields.values()
            if definition.required and values.get(definition.name) is None
        ]
        if missing:
            raise RecordError(
                "REQUIRED_FIELD_MISSING", f"Required fields are missing: {missing}".replace("'", ""), missing
            )
        record = SObject(self._new_id(kind), kind.name, {}, now)
        self._save(kind, record, values, now, allow_duplicates)
        return record

    def update(
        self,
        kind: SObjectType,
        record: SObject,
        fields: Mapping[str, Any],
        now: datetime,
        *,
        assign: bool = False,
    ) -> SObject:
        """Update a record. Raise RecordError if the change is invalid. With `assign`, an assignment rule sets the
        owner."""
        if record.deleted:
            raise RecordError("ENTITY_IS_DELETED", "entity is deleted", status=404)
        if kind.name == "Lead" and record["IsConverted"]:
            raise RecordError("CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead")
        self.access.check_edit(kind.name, record.id)
        if kind.name == "Contact" and record["IsPersonAccount"]:
            raise RecordError("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id")
        self._check_lock(record)
        values = self._validated(kind, fields, create=False)
        if assign and kind.name in self.assignment_rules:
            values["OwnerId"] = self.assignment_rules[kind.name]
        self._save(kind, record, values, now, allow_duplicates=False)
        return record

    def delete(self, kind: SObjectType, record: SObject, now: datetime) -> None:
        """Move a record to the recycle bin and release its unique values."""
        self._unindex(kind, record)
        record.deleted = True
        record.fields["IsDeleted"] = True
        record.fields["LastModifiedDate"] = format_timestamp(now)

    def insert_unchecked(self, kind: SObjectType, values: Mapping[str, Any], now: datetime) -> SObject:
        """Insert a record without validation, including fields that only Salesforce writes."""
        record = SObject(self._new_id(kind), kind.name, {}, now)
        if "Id" in values:
            record.id = str(values["Id"])
        self._write(kind, record, dict(values), now)
        return record

    def _new_id(self, kind: SObjectType) -> str:
        number, encoded = self._next_id, ""
        self._next_id += 1
        for _ in range(7):
            number, digit = divmod(number, 62)
            encoded = _BASE62[digit] + encoded
        return long_id(f"{kind.prefix}5g000{encoded}")

    def _validated(self, kind: SObjectType, fields: Mapping[str, Any], *, create: bool) -> dict[str, Any]:
        values: dict[str, Any] = {}
        read_only = []
        for name, value in fields.items():
            if name == "attributes":
                continue
            definition = kind.field(name)
            if definition is None:
                raise RecordError("INVALID_FIELD", f"No such column '{name}' on sobject of type {kind.name}")
            if not (definition.createable if create else definition.updateable):
                read_only.append(definition.name)
                continue
            values[definition.name] = definition.validate(value)
        if read_only:
            raise RecordError(
                "INVALID_FIELD_FOR_INSERT_UPDATE",
                f"Unable to create/update fields: {', '.join(read_only)}. Please check the security settings of this "
                "field and verify that it is read/write for your profile or permission set.",
                read_only,
            )
        record_type = kind.record_types.get(str(values.get("RecordTypeId")))
        if values.get("RecordTypeId") and (record_type is None or not record_type.available):
            raise RecordError(
                "INVALID_CROSS_REFERENCE_KEY",
                f"Record Type ID: this ID value isn't valid for the user: {values['RecordTypeId']}",
                ["RecordTypeId"],
            )
        for name, value in values.items():
            if value is not None and kind.fields[name].references:
                self._check_reference(kind.fields[name], value)
        return values

    def _check_reference(self, definition: Field, value: str) -> None:
        target = next((kind for kind in self.types.values() if kind.prefix == value[:3]), None)
        if target is None or target.name not in definition.references:
            raise RecordError(
                "MALFORMED_ID", f"{definition.name}: id value of incorrect type: {value}", [definition.name]
            )
        record = self.tables[target.name].get(value)
        if record is None:
            raise RecordError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [definition.name])
        if record.deleted:
            raise RecordError("ENTITY_IS_DELETED", "entity is deleted", [definition.name])
        if definition.name == "OwnerId" and target.name == "User" and not record["IsActive"]:
            raise RecordError(
                "INACTIVE_OWNER_OR_USER",
                f"operation performed with inactive user [{value}] as owner",
                [definition.name],
            )
        self.access.check_reference(definition.name, value)
        if target.name == "Lead" and record["IsConverted"]:
            raise RecordError(
                "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead", [definition.name]
            )

    def _apply_defaults(self, kind: SObjectType, values: dict[str, Any]) -> None:
        if "OwnerId" in kind.fields:
            values.setdefault("OwnerId", USER_ID)
        if kind.name == "CampaignMember":
            campaigns.set_status(self, values, values.get("CampaignId"))
        if kind.name in self.statuses and values.get("Status") is None:
            values["Status"] = next(iter(self.statuses[kind.name]))
        if kind.name == "Task" and values.get("Priority") is None:
            values["Priority"] = "Normal"
        if kind.name == "Task" and values.get("TaskSubtype") is None:
            values["TaskSubtype"] = "Task"
        if kind.name == "Lead" and values.get("Status") is None:
            values["Status"] = kind.fields["Status"].values[0]
        if kind.name == "Case":
            self._next_case_number += 1
            values["CaseNumber"] = f"{self._next_case_number:08}"

    def _save(
        self,
        kind: SObjectType,
        record: SObject,
        values: dict[str, Any],
        now: datetime,
        allow_duplicates: bool,
    ) -> None:
        merged = record.fields | values
        if kind.name == "Event":
            check_times(merged)
        if kind.name == "CampaignMember":
            campaigns.check_member(self, record.id, merged)
            if record.fields and "Status" in values:
                campaigns.set_status(self, values, merged.get("CampaignId"))
        is_of_lead = str(merged.get("WhoId") or "").startswith("00Q")
        if kind.name in ("Task", "Event") and is_of_lead and merged.get("WhatId"):
            raise RecordError(
                "FIELD_INTEGRITY_EXCEPTION", "WhatId must be empty when WhoId is a lead", ["WhatId"]
            )
        for rule in self.rules.get(kind.name, ()):
            error = rule(merged)
            if error is not None:
                message, *fields = (error,) if isinstance(error, str) else error
                raise RecordError("FIELD_CUSTOM_VALIDATION_EXCEPTION", message, fields)
        for name, value in values.items():
            if kind.fields[name].unique and value is not None:
                others = [other for other in self.find_indexed(kind, name, [value]) if other.id != record.id]
                if others:
                    raise RecordError(
                        "DUPLICATE_VALUE",
                        f"duplicate value found: {name} duplicates value on record with id: {others[0].id}",
                    )
        if values.get("Email") != record["Email"]:
            self._check_duplicate_rule(kind, record, values, allow_duplicates)
        if record.id not in self.tables[kind.name] and sum(map(len, self.tables.values())) >= MAX_RECORDS:
            raise RecordError(
                "STORAGE_LIMIT_EXCEEDED", "the sandbox is full: POST /_sandbox/reset", status=507
            )
        for name in ("WhoId", "WhatId"):
            parent = next(
                (table[values[name]] for table in self.tables.values() if values.get(name) in table), None
            )
            if parent is not None:
                self._check_lock(parent)
        self._write(kind, record, values, now)

    def _check_duplicate_rule(
        self, kind: SObjectType, record: SObject, values: Mapping[str, Any], allowed: bool
    ) -> None:
        email = values.get("Email")
        same_email = self.find_indexed(kind, "Email", [email]) if email else []
        duplicate_ids = [duplicate.id for duplicate in same_email if duplicate.id != record.id]
        if self.duplicate_rule is None or not duplicate_ids or kind.name not in ("Contact", "Lead"):
            return
        if allowed and self.duplicate_rule == "alert":
            return
        matches = [
            {
                "additionalInformation": [],
                "fieldDiffs": [],
                "matchConfidence": 100.0,
                "record": {"attributes": {"type": kind.name, "url": ""}, "Id": duplicate},
            }
            for duplicate in duplicate_ids
        ]
        raise RecordError(
            "DUPLICATES_DETECTED",
            "Use one of these records?",
            duplicateResult={
                "allowSave": self.duplicate_rule == "alert",
                "duplicateRule": f"Standard_{kind.name}_Duplicate_Rule",
                "duplicateRuleEntityType": kind.name,
                "errorMessage": "Use one of these records?",
                "matchResults": [
                    {
                        "entityType": kind.name,
                        "errors": [],
                        "matchEngine": "FuzzyMatchEngine",
                        "matchRecords": matches,
                        "rule": f"Standard_{kind.name}_Match_Rule_v1_1",
                        "size": len(matches),
                        "success": True,
                    }
                ],
            },
        )

    def _check_lock(self, record: SObject) -> None:
        if self.locks.get(record.id, 0) > 0:
            self.locks[record.id] -= 1
            raise RecordError(
                "UNABLE_TO_LOCK_ROW",
                "unable to obtain exclusive access to this record or 1 records: " + record.id,
            )

    def _write(self, kind: SObjectType, record: SObject, values: dict[str, Any], now: datetime) -> None:
        self._unindex(kind, record)
        record.fields |= {"Id": record.id, "IsDeleted": False} | values
        record.fields.setdefault("CreatedDate", format_timestamp(now))
        record.fields.setdefault("CreatedById", USER_ID)
        record.fields |= {"LastModifiedDate": format_timestamp(now), "SystemModstamp": format_timestamp(now)}
        if kind.name in ("Contact", "Lead"):
            names = (record["FirstName"], record["LastName"])
            record.fields["Name"] = " ".join(name for name in names if name)
        if kind.name == "Lead":
            record.fields.setdefault("IsConverted", False)
        if kind.name in self.statuses:
            closed = self.statuses[kind.name].get(str(record["Status"]), False)
            if closed and not record["IsClosed"]:
                record.fields["ClosedDate" if kind.name == "Case" else "CompletedDateTime"] = (
                    format_timestamp(now)
                )
            record.fields["IsClosed"] = closed
        if kind.name == "Opportunity":
            record.fields["IsClosed"] = str(record["StageName"]).startswith("Closed")
        if kind.name == "Task":
            record.fields["IsHighPriority"] = record["Priority"] == "High"
        if kind.name == "Event" and "StartDateTime" in values:
            record.fields["ActivityDate"] = str(values["StartDateTime"])[:10]
        is_new_campaign = kind.name == "Campaign" and record.id not in self.tables["Campaign"]
        self.tables[kind.name][record.id] = record
        if is_new_campaign:
            for status in campaigns.default_statuses(record.id):
                self.insert_unchecked(self.types["CampaignMemberStatus"], status, now)
        for name, value in self._indexed(kind, record):
            self._values_index[kind.name, name].add(value.lower(), record.id)
        for word in _phone_words(kind, record):
            self._phone_index[kind.name].add(word, record.id)

    def _unindex(self, kind: SObjectType, record: SObject) -> None:
        for name, value in self._indexed(kind, record):
            self._values_index[kind.name, name].discard(value.lower(), record.id)
        for word in _phone_words(kind, record):
            self._phone_index[kind.name].discard(word, record.id)

    def _indexed(self, kind: SObjectType, record: SObject) -> list[tuple[str, str]]:
        return [
            (name, record[name])
            for name, definition in kind.fields.items()
            if definition.indexed and record[name]
        ]


def _phone_words(kind: SObjectType, record: SObject) -> list[str]:
    numbers = [
        record[name]
        for name, definition in kind.fields.items()
        if definition.type == "phone" and record[name]
    ]
    return [word for number in numbers for word in phone_words(number)]
