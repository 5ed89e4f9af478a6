"""The records that an org holds, and the rules they keep."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bridge.sandbox.index import Lookup
from bridge.sandbox.provider import RECORDS_KEPT
from bridge.sandbox.salesforce.errors import RecordRefusal
from bridge.sandbox.salesforce.schema import Field, SObjectType, long_id, org_types, phone_words, timestamp

USER_ID = long_id("0055g00000AbCdE")
SALES_USER_ID = long_id("0055g00000AbCdF")
ORG_ID = long_id("00D5g000004XyZa")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

Rule = Callable[[Mapping[str, Any]], str | None]
"""A validation rule: the message that refuses a record, or None."""


@dataclass
class SObject:
    """One record; a field that was never set is absent from `fields`."""

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
    """Task and Case: each status and whether it is a closed one, in the org's order."""
    types: dict[str, SObjectType] = field(init=False)
    tables: dict[str, dict[str, SObject]] = field(init=False)
    rules: dict[str, list[Rule]] = field(default_factory=dict)
    locks: dict[str, int] = field(default_factory=dict)
    """Records that another process holds: how many writes will still be refused."""
    duplicate_rule: str | None = None
    """None, `alert` or `block`: what happens to a second Contact or Lead with the same e-mail."""
    _values: dict[tuple[str, str], Lookup] = field(default_factory=lambda: defaultdict(Lookup))
    _phones: dict[str, Lookup] = field(default_factory=lambda: defaultdict(Lookup))
    _next: int = 1
    _cases: int = 1000

    def __post_init__(self) -> None:
        self.types = org_types(self.statuses)
        self.tables = {name: {} for name in self.types}

    def live(self, kind: SObjectType) -> list[SObject]:
        """The records that were not deleted, oldest first."""
        return [found for found in self.tables[kind.name].values() if not found.deleted]

    def holding(self, kind: SObjectType, name: str, values: Iterable[str]) -> list[SObject]:
        """The living records that hold one of `values` in an indexed field; case does not matter."""
        ids = self._values[kind.name, name].holders_of_any(value.lower() for value in values)
        return [self.tables[kind.name][found] for found in ids]

    def possibly_sent_at(self, kind: SObjectType, digits: str) -> list[SObject]:
        """The living records one of whose phone numbers is found by `digits`."""
        return [self.tables[kind.name][found] for found in self._phones[kind.name].holders(digits)]

    def snapshot(self) -> tuple[Any, ...]:
        """What `restore` needs to take back everything done since."""
        kept = (self.tables, self._values, self._phones, self.locks, self._next, self._cases)
        return copy.deepcopy(kept)

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """Undo what was done since `snapshot`."""
        self.tables, self._values, self._phones, self.locks, self._next, self._cases = snapshot

    def create(
        self, kind: SObjectType, given: Mapping[str, Any], now: datetime, *, allow_duplicates: bool = False
    ) -> SObject:
        """A new record; raises RecordRefusal."""
        values = self._checked(kind, given, create=True)
        self._defaults(kind, values)
        missing = [
            known.name for known in kind.fields.values() if known.required and values.get(known.name) is None
        ]
        if missing:
            raise RecordRefusal(
                "REQUIRED_FIELD_MISSING", f"Required fields are missing: {missing}".replace("'", ""), missing
            )
        new = SObject(self._new_id(kind), kind.name, {}, now)
        self._keep(kind, new, values, now, allow_duplicates)
        return new

    def update(self, kind: SObjectType, found: SObject, given: Mapping[str, Any], now: datetime) -> SObject:
        """Change a record; raises RecordRefusal."""
        if found.deleted:
            raise RecordRefusal("ENTITY_IS_DELETED", "entity is deleted", status=404)
        if kind.name == "Lead" and found["IsConverted"]:
            raise RecordRefusal("CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead")
        self._unlocked(found)
        self._keep(kind, found, self._checked(kind, given, create=False), now, allow_duplicates=True)
        return found

    def delete(self, kind: SObjectType, found: SObject, now: datetime) -> None:
        """Move a record to the recycle bin; its unique values are free again."""
        self._unindex(kind, found)
        found.deleted = True
        found.fields["IsDeleted"] = True
        found.fields["LastModifiedDate"] = timestamp(now)

    def put(self, kind: SObjectType, values: Mapping[str, Any], now: datetime) -> SObject:
        """A record as it is, also with fields that only Salesforce writes; nothing is checked."""
        new = SObject(self._new_id(kind), kind.name, {}, now)
        if "Id" in values:
            new.id = str(values["Id"])
        self._write(kind, new, dict(values), now)
        return new

    def _new_id(self, kind: SObjectType) -> str:
        number, text = self._next, ""
        self._next += 1
        for _ in range(7):
            number, digit = divmod(number, 62)
            text = _DIGITS[digit] + text
        return long_id(f"{kind.prefix}5g000{text}")

    def _checked(self, kind: SObjectType, given: Mapping[str, Any], *, create: bool) -> dict[str, Any]:
        values: dict[str, Any] = {}
        refused = []
        for name, value in given.items():
            if name == "attributes":
                continue
            known = kind.field(name)
            if known is None:
                raise RecordRefusal(
                    "INVALID_FIELD", f"No such column '{name}' on sobject of type {kind.name}"
                )
            if not (known.createable if create else known.updateable):
                refused.append(known.name)
                continue
            values[known.name] = known.checked(value)
        if refused:
            raise RecordRefusal(
                "INVALID_FIELD_FOR_INSERT_UPDATE",
                f"Unable to create/update fields: {', '.join(refused)}. Please check the security settings of this "
                "field and verify that it is read/write for your profile or permission set.",
                refused,
            )
        for name, value in values.items():
            if value is not None and kind.fields[name].references:
                self._check_reference(kind.fields[name], value)
        return values

    def _check_reference(self, known: Field, value: str) -> None:
        target = next((kind for kind in self.types.values() if kind.prefix == value[:3]), None)
        if target is None or target.name not in known.references:
            raise RecordRefusal(
                "MALFORMED_ID", f"{known.name}: id value of incorrect type: {value}", [known.name]
            )
        found = self.tables[target.name].get(value)
        if found is None:
            raise RecordRefusal("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [known.name])
        if found.deleted:
            raise RecordRefusal("ENTITY_IS_DELETED", "entity is deleted", [known.name])
        if target.name == "Lead" and found["IsConverted"]:
            raise RecordRefusal(
                "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead", [known.name]
            )

    def _defaults(self, kind: SObjectType, values: dict[str, Any]) -> None:
        values.setdefault("OwnerId", USER_ID)
        if kind.name in self.statuses and values.get("Status") is None:
            values["Status"] = next(iter(self.statuses[kind.name]))
        if kind.name == "Task" and values.get("Priority") is None:
            values["Priority"] = "Normal"
        if kind.name == "Task" and values.get("TaskSubtype") is None:
            values["TaskSubtype"] = "Task"
        if kind.name == "Lead" and values.get("Status") is None:
            values["Status"] = kind.fields["Status"].values[0]
        if kind.name == "Case":
            self._cases += 1
            values["CaseNumber"] = f"{self._cases:08}"

    def _keep(
        self,
        kind: SObjectType,
        found: SObject,
        values: dict[str, Any],
        now: datetime,
        allow_duplicates: bool,
    ) -> None:
        after = found.fields | values
        if kind.name == "Task" and str(after.get("WhoId") or "").startswith("00Q") and after.get("WhatId"):
            raise RecordRefusal(
                "FIELD_INTEGRITY_EXCEPTION", "WhatId must be empty when WhoId is a lead", ["WhatId"]
            )
        for rule in self.rules.get(kind.name, ()):
            message = rule(after)
            if message is not None:
                raise RecordRefusal("FIELD_CUSTOM_VALIDATION_EXCEPTION", message)
        for name, value in values.items():
            if kind.fields[name].unique and value is not None:
                others = [one for one in self.holding(kind, name, [value]) if one.id != found.id]
                if others:
                    raise RecordRefusal(
                        "DUPLICATE_VALUE",
                        f"duplicate value found: {name} duplicates value on record with id: {others[0].id}",
                    )
        if found.id not in self.tables[kind.name]:
            self._check_duplicate_rule(kind, values, allow_duplicates)
            if sum(map(len, self.tables.values())) >= RECORDS_KEPT:
                raise RecordRefusal(
                    "STORAGE_LIMIT_EXCEEDED", "the sandbox is full: POST /_sandbox/reset", status=507
                )
        for name in ("WhoId", "WhatId"):
            parent = next(
                (table[values[name]] for table in self.tables.values() if values.get(name) in table), None
            )
            if parent is not None:
                self._unlocked(parent)
        self._write(kind, found, values, now)

    def _check_duplicate_rule(self, kind: SObjectType, values: Mapping[str, Any], allowed: bool) -> None:
        email = values.get("Email")
        twins = [twin.id for twin in self.holding(kind, "Email", [email])] if email else []
        if self.duplicate_rule is None or not twins or kind.name not in ("Contact", "Lead"):
            return
        if allowed and self.duplicate_rule == "alert":
            return
        matches = [
            {
                "additionalInformation": [],
                "fieldDiffs": [],
                "matchConfidence": 100.0,
                "record": {"attributes": {"type": kind.name, "url": ""}, "Id": twin},
            }
            for twin in twins
        ]
        raise RecordRefusal(
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

    def _unlocked(self, found: SObject) -> None:
        if self.locks.get(found.id, 0) > 0:
            self.locks[found.id] -= 1
            raise RecordRefusal(
                "UNABLE_TO_LOCK_ROW",
                "unable to obtain exclusive access to this record or 1 records: " + found.id,
            )

    def _write(self, kind: SObjectType, found: SObject, values: dict[str, Any], now: datetime) -> None:
        self._unindex(kind, found)
        found.fields |= {"Id": found.id, "IsDeleted": False} | values
        found.fields.setdefault("CreatedDate", timestamp(now))
        found.fields.setdefault("CreatedById", USER_ID)
        found.fields |= {"LastModifiedDate": timestamp(now), "SystemModstamp": timestamp(now)}
        if kind.name in ("Contact", "Lead"):
            names = (found["FirstName"], found["LastName"])
            found.fields["Name"] = " ".join(name for name in names if name)
        if kind.name == "Lead":
            found.fields.setdefault("IsConverted", False)
        if kind.name in self.statuses:
            closed = self.statuses[kind.name].get(str(found["Status"]), False)
            if closed and not found["IsClosed"]:
                found.fields["ClosedDate" if kind.name == "Case" else "CompletedDateTime"] = timestamp(now)
            found.fields["IsClosed"] = closed
        if kind.name == "Task":
            found.fields["IsHighPriority"] = found["Priority"] == "High"
        self.tables[kind.name][found.id] = found
        for name, value in self._indexed(kind, found):
            self._values[kind.name, name].add(value.lower(), found.id)
        for word in _phone_words(kind, found):
            self._phones[kind.name].add(word, found.id)

    def _unindex(self, kind: SObjectType, found: SObject) -> None:
        for name, value in self._indexed(kind, found):
            self._values[kind.name, name].discard(value.lower(), found.id)
        for word in _phone_words(kind, found):
            self._phones[kind.name].discard(word, found.id)

    def _indexed(self, kind: SObjectType, found: SObject) -> list[tuple[str, str]]:
        return [(name, found[name]) for name, known in kind.fields.items() if known.indexed and found[name]]


def _phone_words(kind: SObjectType, found: SObject) -> list[str]:
    numbers = [found[name] for name, known in kind.fields.items() if known.type == "phone" and found[name]]
    return [word for number in numbers for word in phone_words(number)]
