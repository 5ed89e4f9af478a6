"""Contacts and open leads of a Salesforce org, as contact resolution searches and creates them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from simple_salesforce.exceptions import SalesforceError
from simple_salesforce.format import format_soql

from bridge.connector import (
    ContactMatch,
    ContactQuery,
    ContactRef,
    Property,
    Success,
    contact_result,
    fields_to_write,
    national_digits,
    same_number,
)
from bridge.errors import DeliveryError, PermanentError

from .errors import classify_error, error_code, record_result
from .org import Org, typed
from .session import Record
from .soql import chunks, require_id, select

CONTACT_PREFIX, LEAD_PREFIX = "003", "00Q"
"""Key prefixes: the first three characters of an ID state its object type."""
_MATCH_FIELDS = {
    "Contact": (
        "Email",
        "Phone",
        "MobilePhone",
        "HomePhone",
        "OtherPhone",
        "LastActivityDate",
        "LastModifiedDate",
    ),
    "Lead": ("Email", "Phone", "MobilePhone", "LastActivityDate", "LastModifiedDate"),
}
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

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Return matches by query, which is always current. A lead matches only if no contact does."""
        matches: list[ContactMatch] = []
        remaining = list(emails)
        for object_type in self._object_types:
            for chunk in chunks(remaining):
                matches += self._query_matches(object_type, format_soql("Email IN {}", chunk))
            matched = {email.lower() for match in matches for email in match.emails}
            remaining = [email for email in remaining if email.lower() not in matched]
        return matches

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """Return matches by text search, because numbers have any format, and by query for recent records."""
        matches: list[ContactMatch] = []
        for chunk in chunks(phones):
            # Digits only: any other character would need SOSL's own escaping.
            terms = " OR ".join(re.sub(r"\D", "", national_digits(phone)) for phone in chunk)
            objects = [
                f"{object_type}({_returning_fields(object_type)}"
                f"{' WHERE IsConverted = false' if object_type == 'Lead' else ''})"
                for object_type in self._object_types
            ]
            sosl = f"FIND {{{terms}}} IN PHONE FIELDS RETURNING {', '.join(objects)} LIMIT 2000"
            matches += [_match(row) for row in self._org.search(sosl)]
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

    def create(self, queries: Sequence[ContactQuery]) -> list[str | DeliveryError]:
        """Create one contact or lead per query and return its ID or the error.

        If a duplicate rule names an existing record, that record is used.
        """
        rows = [typed(self._create_as, self._new_record(query)) for query in queries]
        items = self._org.collection("POST", "", rows)
        results: list[str | DeliveryError] = []
        for row, item in zip(rows, items, strict=True):
            result = record_result(item)
            if error_code(result) == "DUPLICATES_DETECTED":
                duplicate = re.search(
                    rf'"Id": "((?:{CONTACT_PREFIX}|{LEAD_PREFIX})\w{{12,15}})"', json.dumps(item)
                )
                results.append(duplicate[1] if duplicate else self._create_despite_alert(row))
            elif isinstance(result, Success):
                results.append(result.id or "")
            else:
                results.append(result)
        return results

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
            values["Company"] = contact.company or "[not provided]"
        max_length = {"FirstName": 40, "LastName": 80, "Company": 255}
        truncated = {key: value[: max_length.get(key)] for key, value in values.items() if value}
        return truncated | fields_to_write(self._properties, None)

    def _query_matches(self, object_type: str, condition: str) -> list[ContactMatch]:
        if object_type == "Lead":
            condition += " AND IsConverted = false"
        soql = select(("Id", *_MATCH_FIELDS[object_type]), object_type, condition)
        return [_match(row) for row in self._org.query(soql)]


def read_contact(org: Org, record_id: str, fields: Iterable[str]) -> Mapping[str, Any] | None:
    """Return the current fields of a contact or lead, or None if it was deleted, merged or converted."""
    object_type = _object_type(record_id)
    names = ("Id", "LastName", *fields, *(("IsConverted",) if object_type == "Lead" else ()))
    rows = org.query(select(names, object_type, format_soql("Id = {}", record_id)))
    return dict(rows[0]) if rows and not rows[0].get("IsConverted") else None


def update_contact_record(org: Org, contact: ContactRef, changes: Mapping[str, Any]) -> Success:
    """Write the changes, if any, to a contact or lead."""
    if changes:
        org.rest("PATCH", f"sobjects/{_object_type(contact.id)}/{require_id(contact.id)}", dict(changes))
    return contact_result(contact, changes)


def _object_type(record_id: str) -> str:
    return "Lead" if record_id.startswith(LEAD_PREFIX) else "Contact"


def _returning_fields(object_type: str) -> str:
    return ", ".join(("Id", *_MATCH_FIELDS[object_type]))


def _match(row: Record) -> ContactMatch:
    is_contact = str(row["Id"]).startswith(CONTACT_PREFIX)
    return ContactMatch(
        str(row["Id"]),
        [str(row["Email"])] if row.get("Email") else [],
        [str(row[name]) for name in _PHONE_FIELDS if row.get(name)],
        ("1" if is_contact else "0", row.get("LastActivityDate") or "", row.get("LastModifiedDate") or ""),
    )
