"""Contacts and open leads of a Salesforce org, as contact resolution searches and creates them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bridge.connector import (
    ContactDetails,
    ContactMatch,
    ContactQuery,
    ContactRefused,
    FillResult,
    NewContact,
    address_key,
    same_number,
    search_digits,
)
from bridge.errors import AccountError, DeliveryError, PermanentError

from . import sdk
from .errors import classify_error
from .lenient_writes import (
    CONTACT_PREFIX,
    FIELDS,
    LEAD_PREFIX,
    WriteOutcome,
    update_leniently,
    write_leniently,
)
from .new_records import (
    ACCOUNT_FIELDS,
    NO_COMPANY,
    Accounts,
    NewRecord,
    by_assignment,
    new_records,
    shortened,
)
from .org import Org, typed
from .person_accounts import business_accounts
from .session import Record
from .soql import chunks, select

_PLACEHOLDER_NAME = re.compile(r"\+\d{2,15}|\S+@\S+")
"""Last name of a contact whose name is not known: the bridge writes its address."""
_PHONE_FIELDS = ("Phone", "MobilePhone", "HomePhone", "OtherPhone")


class Contacts:
    """The org's contacts and open leads, as a source for `resolve_contacts`."""

    def __init__(
        self,
        org: Org,
        object_types: Sequence[str] = ("Contact", "Lead"),
        create_as: Collection[str] = ("Lead",),
    ) -> None:
        """`create_as` are the object types of records that may be created."""
        self._org = org
        self._object_types = object_types
        self._create_as = create_as
        self._accounts = Accounts(org)
        self._nameless: set[str] = set()
        """Records with an address in place of the last name."""

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Return matches by query, which is always current. A lead matches only if no contact does."""
        matches: list[ContactMatch] = []
        remaining = list(emails)
        for object_type in self._object_types:
            for chunk in chunks(remaining):
                matches += self._query_matches(object_type, sdk.format_soql("Email IN {}", chunk))
            matched = {address_key(email) for match in matches for email in match.emails}
            remaining = [email for email in remaining if address_key(email) not in matched]
        return matches

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """Return matches by text search, because numbers have any format, and by query for recent records."""
        matches: list[ContactMatch] = []
        for chunk in chunks(phones):
            rows = self._org.match_fields.run(partial(self._search, chunk))
            self._accounts.add_found(row for row in rows if _is_account(row))
            matches += self._matches([row for row in rows if not _is_account(row)])
            numbers = [number for match in matches for number in match.phones]
            missing = [phone for phone in chunk if not any(same_number(number, phone) for number in numbers)]
            # The search index lags: a record created by an attempt whose response was lost would be created again.
            if missing:
                for object_type in [name for name in self._object_types if name in self._recent_types]:
                    matches += self._query_matches(object_type, self._is_recent(object_type, missing))
        return matches

    def _is_recent(self, object_type: str, phones: Sequence[str]) -> str:
        """Return the condition for records of the last day that have one of these numbers."""
        visible = self._org.match_fields.of(object_type)
        names = [name for name in ("Phone", "MobilePhone") if name in visible]
        any_phone = " OR ".join(sdk.format_soql(f"{name} IN {{}}", phones) for name in names)
        return (
            sdk.format_soql("CreatedDate >= {}", datetime.now(UTC) - timedelta(days=1))
            + f" AND ({any_phone})"
        )

    def _search(self, phones: Sequence[str]) -> list[Record]:
        """Return the contacts, open leads and accounts with these digits in a phone field."""
        # Digits only: any other character would need SOSL's own escaping.
        terms = " OR ".join(digits for phone in phones for digits in search_digits(phone))
        objects = [
            f"{object_type}({', '.join(('Id', *self._org.match_fields.of(object_type)))}"
            f"{' WHERE IsConverted = false' if object_type == 'Lead' else ''})"
            for object_type in self._object_types
        ]
        if "Contact" in self._create_as:
            condition = business_accounts(self._org)
            where = f" WHERE {condition}" if condition else ""
            objects.append(f"Account({', '.join(ACCOUNT_FIELDS)}{where})")
        return self._org.search(f"FIND {{{terms}}} IN PHONE FIELDS RETURNING {', '.join(objects)} LIMIT 2000")

    @property
    def _recent_types(self) -> Collection[str]:
        """The object types of records that another attempt may have created a moment ago."""
        return self._create_as if len(self._object_types) > 1 else self._object_types

    def by_other_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Return nothing: contacts and leads have one email address each."""
        del emails
        return []

    def by_id(self, ids: Sequence[str]) -> list[ContactMatch]:
        """Return the existing contacts and open leads."""
        matches: list[ContactMatch] = []
        for object_type in ("Contact", "Lead"):
            own_ids = [record_id for record_id in ids if object_type_of(record_id) == object_type]
            for chunk in chunks(own_ids):
                matches += self._query_matches(object_type, sdk.format_soql("Id IN {}", chunk))
        return matches

    def create(
        self, queries: Sequence[ContactQuery]
    ) -> list[str | NewContact | ContactRefused | DeliveryError]:
        """Create one contact or lead per query, without the values that Salesforce refuses.

        If a duplicate rule names an existing record, that record is used.
        """
        records = new_records(self._org, queries, self._accounts)
        results: dict[int, str | NewContact | ContactRefused | DeliveryError] = {}
        for assign, numbers in by_assignment(records).items():
            headers = {} if assign else {"Sforce-Auto-Assign": "FALSE"}
            rows = [typed(records[number].object_type, records[number].fields) for number in numbers]
            optional = {name for number in numbers for name in records[number].optional}
            of_rule = {name for number in numbers for name in records[number].of_rule}
            outcomes = write_leniently(self._org, "POST", rows, _without, headers, optional, of_rule)
            for number, row, outcome in zip(numbers, rows, outcomes, strict=True):
                results[number] = self._result(records[number], row, outcome, headers)
        return [results[number] for number in range(len(records))]

    def fill(self, details: Mapping[str, ContactDetails]) -> dict[str, FillResult]:
        """Write values to empty fields of contacts and leads, without those that Salesforce refuses.

        A record that the integration user may not edit is left alone: its calls are logged anyway.
        """
        changes = {
            record_id: (object_type_of(record_id), self._fields_to_fill(record_id, values))
            for record_id, values in details.items()
        }
        outcomes = update_leniently(self._org, changes)
        results: dict[str, FillResult] = {}
        for record_id, outcome in outcomes.items():
            if isinstance(outcome.error, AccountError) and outcome.denied:
                outcome.refused |= {FIELDS[name]: outcome.denied for name in changes[record_id][1]}
            elif outcome.error is not None:
                raise outcome.error
            results[record_id] = FillResult(outcome.refused, outcome.existing_id)
        return results

    def _fields_to_fill(self, record_id: str, values: ContactDetails) -> Record:
        first, last = values.first_name, values.last_name
        if record_id in self._nameless and not last:
            first, last = None, first
        fields = {
            "FirstName": first,
            "LastName": last,
            "Email": values.email,
            "Phone": values.phone,
            "Company": values.company,
        }
        return {name: shortened(name, value) for name, value in fields.items() if value}

    def _result(
        self, record: NewRecord, row: Record, outcome: WriteOutcome, headers: Mapping[str, str]
    ) -> NewContact | ContactRefused | DeliveryError:
        notes = [*record.notes, *outcome.notes]
        if outcome.id:
            return NewContact(outcome.id, outcome.refused, kind=record.object_type.lower(), notes=notes)
        if outcome.existing_id:
            return NewContact(outcome.existing_id, existing=True)
        if outcome.is_duplicate:
            return self._create_despite_alert(record, row, headers)
        return outcome.error or ContactRefused(outcome.refused)

    def _create_despite_alert(
        self, record: NewRecord, row: Record, headers: Mapping[str, str]
    ) -> NewContact | DeliveryError:
        """Create the record with `allowSave`, which a duplicate rule with action `alert` accepts, `block` does not."""
        body = {name: value for name, value in row.items() if name != "attributes"}
        headers = {**headers, "Sforce-Duplicate-Rule-Header": "allowSave=true"}
        try:
            created = self._org.rest("POST", f"sobjects/{record.object_type}", body, headers)
            return NewContact(str(created["id"]), kind=record.object_type.lower(), notes=record.notes)
        except sdk.SalesforceError as error:
            return classify_error(error) or PermanentError(
                "a duplicate rule of the org blocks this contact: merge the duplicates in Salesforce",
                code="DUPLICATES_DETECTED",
            )

    def _query_matches(self, object_type: str, condition: str) -> list[ContactMatch]:
        if object_type == "Lead":
            condition += " AND IsConverted = false"

        def query() -> list[Record]:
            names = ("Id", *self._org.match_fields.of(object_type))
            return self._org.query(select(names, object_type, condition))

        return self._matches(self._org.match_fields.run(query))

    def _matches(self, rows: Sequence[Record]) -> list[ContactMatch]:
        matches = [_match(row) for row in rows]
        self._nameless |= {match.id for match in matches if not match.last_name}
        return matches


def _without(row: Record, fields: set[str]) -> Record | None:
    """Return a new record without the refused fields; None if nobody could find it again without an address."""
    remaining = {name: value for name, value in row.items() if name not in fields}
    address = remaining.get("Phone") or remaining.get("Email")
    if not address:
        return None
    if "LastName" in fields:  # required
        remaining["LastName"] = address
    if "Company" in fields:
        remaining["Company"] = NO_COMPANY
    return remaining if remaining != row else None


def read_contact(org: Org, record_id: str, fields: Iterable[str]) -> Mapping[str, Any] | None:
    """Return the current fields of a contact or lead, or None if it was deleted, merged or converted."""
    object_type = object_type_of(record_id)
    names = ("Id", "LastName", *fields, *(("IsConverted",) if object_type == "Lead" else ()))
    rows = org.query(select(names, object_type, sdk.format_soql("Id = {}", record_id)))
    return dict(rows[0]) if rows and not rows[0].get("IsConverted") else None


def _is_account(row: Record) -> bool:
    return str(row["Id"]).startswith("001")


def object_type_of(record_id: str) -> str:
    """Return the object type of a contact or lead by its ID."""
    return "Lead" if record_id.startswith(LEAD_PREFIX) else "Contact"


def _match(row: Record) -> ContactMatch:
    is_contact = str(row["Id"]).startswith(CONTACT_PREFIX)
    last_name = str(row.get("LastName") or "")
    company = str(row.get("Company") or "")
    return ContactMatch(
        str(row["Id"]),
        [str(row["Email"])] if row.get("Email") else [],
        [str(row[name]) for name in _PHONE_FIELDS if row.get(name)],
        ("1" if is_contact else "0", row.get("LastActivityDate") or "", row.get("LastModifiedDate") or ""),
        first_name=str(row.get("FirstName") or ""),
        last_name="" if _PLACEHOLDER_NAME.fullmatch(last_name) else last_name,
        company=None if is_contact else "" if company == NO_COMPANY else company,
    )
