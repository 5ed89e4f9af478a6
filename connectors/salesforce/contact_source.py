"""Contacts and open leads of a Salesforce org, as contact resolution searches and creates them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from simple_salesforce.exceptions import SalesforceError
from simple_salesforce.format import format_soql

from bridge.connector import (
    ContactDetails,
    ContactMatch,
    ContactQuery,
    ContactRefused,
    FillResult,
    NewContact,
    Property,
    address_key,
    fields_to_write,
    same_number,
    search_digits,
)
from bridge.errors import DeliveryError, PermanentError

from .errors import classify_error
from .lenient_writes import CONTACT_PREFIX, LEAD_PREFIX, WriteOutcome, update_leniently, write_leniently
from .org import Org, typed
from .session import Record
from .soql import chunks, select

_MATCH_FIELDS = {
    "Contact": (
        "Email",
        "Phone",
        "MobilePhone",
        "HomePhone",
        "OtherPhone",
        "FirstName",
        "LastName",
        "LastActivityDate",
        "LastModifiedDate",
    ),
    "Lead": (
        "Email",
        "Phone",
        "MobilePhone",
        "FirstName",
        "LastName",
        "Company",
        "LastActivityDate",
        "LastModifiedDate",
    ),
}
NO_COMPANY = "[not provided]"
"""Company of a lead whose company is not known. Salesforce requires one."""
_PLACEHOLDER_NAME = re.compile(r"\+\d{2,15}|\S+@\S+")
"""Last name of a contact whose name is not known: the bridge writes its address."""
_MAX_LENGTH = {"FirstName": 40, "LastName": 80, "Company": 255}
_PHONE_FIELDS = ("Phone", "MobilePhone", "HomePhone", "OtherPhone")


class Contacts:
    """The org's contacts and open leads, as a source for `resolve_contacts`."""

    def __init__(
        self,
        org: Org,
        object_types: Sequence[str] = ("Contact", "Lead"),
        create_as: str = "Contact",
        properties: Mapping[str, Property] | None = None,
    ) -> None:
        self._org = org
        self._object_types = object_types
        self._create_as = create_as
        self._properties = properties or {}
        self._nameless: set[str] = set()
        """Records with an address in place of the last name."""

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Return matches by query, which is always current. A lead matches only if no contact does."""
        matches: list[ContactMatch] = []
        remaining = list(emails)
        for object_type in self._object_types:
            for chunk in chunks(remaining):
                matches += self._query_matches(object_type, format_soql("Email IN {}", chunk))
            matched = {address_key(email) for match in matches for email in match.emails}
            remaining = [email for email in remaining if address_key(email) not in matched]
        return matches

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """Return matches by text search, because numbers have any format, and by query for recent records."""
        matches: list[ContactMatch] = []
        for chunk in chunks(phones):
            # Digits only: any other character would need SOSL's own escaping.
            terms = " OR ".join(digits for phone in chunk for digits in search_digits(phone))
            objects = [
                f"{object_type}({', '.join(('Id', *_MATCH_FIELDS[object_type]))}"
                f"{' WHERE IsConverted = false' if object_type == 'Lead' else ''})"
                for object_type in self._object_types
            ]
            sosl = f"FIND {{{terms}}} IN PHONE FIELDS RETURNING {', '.join(objects)} LIMIT 2000"
            matches += self._matches(self._org.search(sosl))
            numbers = [number for match in matches for number in match.phones]
            missing = [phone for phone in chunk if not any(same_number(number, phone) for number in numbers)]
            # The search index lags: a record created by an attempt whose response was lost would be created again.
            if missing:
                condition = "CreatedDate >= {} AND (Phone IN {} OR MobilePhone IN {})"
                since = datetime.now(UTC) - timedelta(days=1)
                matches += self._query_matches(
                    self._create_as, format_soql(condition, since, missing, missing)
                )
        return matches

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
                matches += self._query_matches(object_type, format_soql("Id IN {}", chunk))
        return matches

    def create(
        self, queries: Sequence[ContactQuery]
    ) -> list[str | NewContact | ContactRefused | DeliveryError]:
        """Create one contact or lead per query, without the values that Salesforce refuses.

        If a duplicate rule names an existing record, that record is used.
        """
        rows = [typed(self._create_as, self._new_record(query)) for query in queries]
        outcomes = write_leniently(self._org, "POST", rows, _without)
        return [self._result(row, outcome) for row, outcome in zip(rows, outcomes, strict=True)]

    def fill(self, details: Mapping[str, ContactDetails]) -> dict[str, FillResult]:
        """Write values to empty fields of contacts and leads, without those that Salesforce refuses."""
        changes = {
            record_id: (object_type_of(record_id), self._fields_to_fill(record_id, values))
            for record_id, values in details.items()
        }
        outcomes = update_leniently(self._org, changes)
        for outcome in outcomes.values():
            if outcome.error is not None:
                raise outcome.error
        return {
            record_id: FillResult(outcome.refused, outcome.existing_id)
            for record_id, outcome in outcomes.items()
        }

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
        return {name: value[: _MAX_LENGTH.get(name)] for name, value in fields.items() if value}

    def _result(
        self, row: Record, outcome: WriteOutcome
    ) -> str | NewContact | ContactRefused | DeliveryError:
        if outcome.id:
            return NewContact(outcome.id, outcome.refused)
        if outcome.existing_id:
            return NewContact(outcome.existing_id, existing=True)
        if outcome.is_duplicate:
            return self._create_despite_alert(row)
        return outcome.error or ContactRefused(outcome.refused)

    def _create_despite_alert(self, row: Record) -> str | DeliveryError:
        """Create the record with `allowSave`, which a duplicate rule with action `alert` accepts, `block` does not."""
        body = {name: value for name, value in row.items() if name != "attributes"}
        headers = {"Sforce-Duplicate-Rule-Header": "allowSave=true"}
        try:
            return str(self._org.rest("POST", f"sobjects/{self._create_as}", body, headers)["id"])
        except SalesforceError as error:
            return classify_error(error) or PermanentError(
                "a duplicate rule of the org blocks this contact: merge the duplicates in Salesforce",
                code="DUPLICATES_DETECTED",
            )

    def _new_record(self, query: ContactQuery) -> Record:
        contact = query.context.contact
        name = contact.last_name or contact.name
        values = {
            "FirstName": contact.first_name if contact.last_name else None,
            "LastName": name or query.phone or query.email,
            "Email": query.email,
            "Phone": query.phone,
            "Description": None if name else "Created by Heppu; the name is not known yet.",
        }
        if self._create_as == "Lead":
            values["Company"] = contact.company or NO_COMPANY
        truncated = {key: value[: _MAX_LENGTH.get(key)] for key, value in values.items() if value}
        return truncated | fields_to_write(self._properties, None)

    def _query_matches(self, object_type: str, condition: str) -> list[ContactMatch]:
        if object_type == "Lead":
            condition += " AND IsConverted = false"
        soql = select(("Id", *_MATCH_FIELDS[object_type]), object_type, condition)
        return self._matches(self._org.query(soql))

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
    rows = org.query(select(names, object_type, format_soql("Id = {}", record_id)))
    return dict(rows[0]) if rows and not rows[0].get("IsConverted") else None


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
