"""Persons of a Pipedrive account, as contact resolution searches, creates and completes them.

The search finds persons by one address per request, and lags behind. What it finds is read again, and before a person
is created, the list of recent changes shows whether the search only does not know the person yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bridge.connector import (
    ContactDetails,
    ContactMatch,
    ContactQuery,
    ContactRefused,
    FillResult,
    NewContact,
    RelatedRecords,
    same_number,
    search_digits,
)
from bridge.errors import DeliveryError

from .account import MIN_TERM_LENGTH, Account, Record
from .params import NewOrganization
from .writing import to_request

_NO_ORGANIZATION = "no organization, or several, have its name"


class Persons:
    """The account's persons, as a source for one delivery."""

    def __init__(
        self,
        account: Account,
        now: datetime,
        organization: NewOrganization = "link",
        details: ContactDetails | None = None,
    ) -> None:
        self._account = account
        self._now = now
        self._details = details
        """What a rule says about the person. None: what the event says."""
        self._organization = organization
        """What becomes of the company of a person, if Pipedrive has no organization of this name."""
        self._read: dict[str, Record] = {}
        """The persons that this delivery has read or written."""

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Return matches by search, as they are now."""
        found = [
            item for email in emails for item in self._account.search("person", "email", email, exact=True)
        ]
        return self.by_id([str(item["id"]) for item in found])

    def by_other_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Return nothing: the search by email covers all addresses of a person."""
        del emails
        return []

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """Return matches by search: numbers are free text, so it is for the digits without the country code."""
        found = {
            str(item["id"])
            for phone in phones
            for digits in search_digits(phone)
            for item in self._account.search("person", "phone", digits, exact=False)
            if any(same_number(str(number), phone) for number in item.get("phones") or ())
        }
        return self.by_id(sorted(found, key=int))

    def by_id(self, ids: Sequence[str]) -> list[ContactMatch]:
        """Return the existing persons among `ids`, each read once in a delivery, which is current."""
        unread = [person_id for person_id in dict.fromkeys(ids) if person_id not in self._read]
        for record in self._account.read_all("person", unread) if unread else ():
            self._keep(record)
        return [
            match_of(self._read[person_id]) for person_id in dict.fromkeys(ids) if person_id in self._read
        ]

    def person(self, person_id: str) -> Record | None:
        """Return a person as this delivery has read it; None if it no longer exists."""
        if person_id not in self._read:
            self.by_id([person_id])
        return self._read.get(person_id)

    def is_gone(self, person_id: str) -> bool:
        """Return whether a person no longer exists, by reading it again."""
        self._read.pop(person_id, None)
        return self.person(person_id) is None

    def created(self, person_id: str) -> RelatedRecords:
        """Return what belongs to a person that this delivery has created."""
        return owner_and_organization(self._read.get(person_id, {}))

    def create(
        self, queries: Sequence[ContactQuery]
    ) -> list[str | NewContact | ContactRefused | DeliveryError]:
        """Create one person per query, unless the person is so new that the search does not show it yet."""
        recent = [match_of(self._keep(record)) for record in self._account.recent("person", self._now)]
        results: list[str | NewContact | ContactRefused | DeliveryError] = []
        for query in queries:
            known = next((match for match in recent if _has_address(match, query)), None)
            if known is not None:
                results.append(NewContact(known.id, existing=True))
                continue
            try:
                results.append(self._create(query))
            except DeliveryError as error:
                results.append(error)
        return results

    def fill(self, details: Mapping[str, ContactDetails]) -> dict[str, FillResult]:
        """Write values to empty fields of persons."""
        results = {}
        for person_id, changes in details.items():
            person = self.person(person_id)
            if person is None:
                continue
            body, notes = self.changes(person, changes)
            if body:
                self._account.update("person", person_id, body)
            results[person_id] = FillResult({"company": _NO_ORGANIZATION} if notes else {})
        return results

    def changes(self, person: Record, details: ContactDetails) -> tuple[Record, list[str]]:
        """Return the request that adds these details to a person, and a note if there is no organization to link."""
        body: Record = {}
        if details.first_name or details.last_name:
            current = match_of(person)
            parts = (details.first_name or current.first_name, details.last_name or current.last_name)
            body["name"] = " ".join(part for part in parts if part)
        if details.email:
            body["emails"] = [_primary(details.email)]
        if details.phone:
            body["phones"] = [_primary(details.phone)]
        organization, notes = self._organization_of(details.company)
        return body | ({"org_id": organization} if organization else {}), notes

    def _create(self, query: ContactQuery) -> NewContact:
        details = self._details or query.details
        parts = (details.first_name, details.last_name) if self._details else (query.name,)
        body: Record = {"name": " ".join(part for part in parts if part) or query.phone or query.email}
        if query.email:
            body["emails"] = [_primary(query.email)]
        if query.phone:
            body["phones"] = [_primary(query.phone)]
        own, notes = to_request(self._account, "person", query.new_fields)
        if "org_id" not in own:
            organization, missing = self._organization_of(details.company)
            body |= {"org_id": organization} if organization else {}
            notes += missing
        record = self._keep(self._account.create("person", body | own))
        return NewContact(str(record["id"]), kind="person", notes=notes)

    def _organization_of(self, company: str | None) -> tuple[int | None, list[str]]:
        """Return the ID of the organization with a company's name, and a note if there is none to link."""
        name = (company or "").strip()
        if not name:
            return None, []
        if len(name) < MIN_TERM_LENGTH:  # it could not be found again, and would be created with each person
            return None, ["without an organization: Pipedrive cannot search for the company's name"]
        found = {
            int(item["id"])
            for item in self._account.search("organization", "name", name, exact=True)
            if str(item.get("name")).casefold() == name.casefold()
        }
        if len(found) > 1:
            return None, ["without an organization: Pipedrive has several with the company's name"]
        if found:
            return found.pop(), []
        if self._organization == "link":
            return None, ["without an organization: Pipedrive has none with the company's name"]
        recent = self._account.recent("organization", self._now)
        new = [item for item in recent if str(item.get("name")).casefold() == name.casefold()]
        record = new[0] if new else self._account.create("organization", {"name": name})
        return int(record["id"]), []

    def _keep(self, record: Record) -> Record:
        self._read[str(record["id"])] = record
        return record


def match_of(person: Mapping[str, Any]) -> ContactMatch:
    """Return a person as contact resolution compares it. An address in place of a name counts as no name."""
    emails, phones = _values(person, "emails"), _values(person, "phones")
    name = str(person.get("name") or "")
    first, last = person.get("first_name"), person.get("last_name")
    if first is None and last is None:
        first, _, last = name.partition(" ")
    if "@" in name or any(same_number(name, phone) or name == phone for phone in phones):
        first = last = ""
    return ContactMatch(
        str(person["id"]),
        emails,
        phones,
        (str(person.get("update_time") or ""),),
        first_name=first or "",
        last_name=last or "",
        company=str(person.get("org_id") or ""),
    )


def owner_and_organization(person: Mapping[str, Any]) -> RelatedRecords:
    """Return a person's owner and organization."""
    owner, organization = person.get("owner_id"), person.get("org_id")
    return RelatedRecords(
        owner=str(owner) if owner else "", company=str(organization) if organization else ""
    )


def _has_address(match: ContactMatch, query: ContactQuery) -> bool:
    return any(match.has_address(kind, address) for kind, address in query.addresses)


def _values(person: Mapping[str, Any], name: str) -> list[str]:
    return [
        str(item["value"])
        for item in person.get(name) or ()
        if isinstance(item, dict) and str(item.get("value") or "").strip()
    ]


def _primary(value: str) -> dict[str, Any]:
    return {"value": value, "primary": True}
