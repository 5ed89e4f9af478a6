"""Contacts of a HubSpot account, as contact resolution searches and creates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.connector import (
    ContactMatch,
    ContactQuery,
    ContactRef,
    Property,
    fields_to_write,
    national_digits,
    resolve_contact,
)
from bridge.errors import ConfigError, DeliveryError, PermanentError

from .account import Account
from .errors import failure_in_batch, is_conflict
from .fields import to_strings
from .unique_properties import UNIQUE_PROPERTIES

_MATCH_PROPERTIES = (
    "email",
    "hs_additional_emails",
    "phone",
    "mobilephone",
    "notes_last_updated",
    "lastmodifieddate",
    "hs_timezone",
)


class Contacts:
    """The account's contacts, as a source for `resolve_contacts`."""

    def __init__(self, account: Account, properties: Mapping[str, Property] | None = None) -> None:
        self._account = account
        self._properties = properties or {}
        """Properties of a new contact besides name and addresses."""

    def resolve(self, query: ContactQuery) -> tuple[ContactRef, Mapping[str, Any] | None]:
        """Return the contact and its current properties, as `resolve_contact` does."""

        def read(contact_id: str) -> Mapping[str, Any] | None:
            items = self._account.read("contacts", [contact_id], fields=self._properties)
            return items[0].properties if items else None

        return resolve_contact(self, query, read)

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Return matches by reading the unique property `email`, because the search index lags."""
        return [_match(item) for item in self._account.read("contacts", emails, "email", _MATCH_PROPERTIES)]

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """Return matches by search: phone numbers are free text, and only the index has them as digits."""
        digits = [national_digits(phone) for phone in phones]
        names = ("hs_searchable_calculated_phone_number", "hs_searchable_calculated_mobile_number")
        filters = [{"propertyName": name, "operator": "IN", "values": digits} for name in names]
        filters.append({"propertyName": "phone", "operator": "IN", "values": list(phones)})
        body: dict[str, Any] = {
            "filterGroups": [{"filters": [condition]} for condition in filters],
            "properties": list(_MATCH_PROPERTIES),
            "limit": 200,
        }
        matches: list[ContactMatch] = []
        for _ in range(5):
            page = self._account.search.do_search("contacts", body)
            matches += [_match(item) for item in page.results or ()]
            if not (page.paging and page.paging.next and page.paging.next.after):
                break
            body["after"] = page.paging.next.after
        return matches

    def create(self, queries: Sequence[ContactQuery]) -> list[str | DeliveryError]:
        """Create one contact per query and return its ID or the error.

        A contact that another process has just created, or that the index does not show yet, is read instead.
        """
        try:
            response = self._create(queries)
        except Exception as error:
            if not is_conflict(error):
                raise
            if len(queries) > 1:  # HubSpot names only the first conflicting contact
                return [self.create([query])[0] for query in queries]
            return [
                self._find_existing(queries[0])
                or PermanentError(
                    "HubSpot reports a conflicting contact, but it cannot be found: search for the email and phone "
                    "in HubSpot",
                    code="CONFLICT",
                )
            ]
        items = list(response.results or ())
        if len(queries) == 1 and len(items) == 1:
            return [str(items[0].id)]
        created: dict[str, str] = {}
        for item in items:
            values = item.properties or {}
            created |= {
                str(values.get(name)).lower(): str(item.id) for name in ("email", "phone") if values.get(name)
            }
        failure = failure_in_batch(response)
        return [created.get((query.email or query.phone or "").lower(), failure) for query in queries]

    def _create(self, queries: Sequence[ContactQuery]) -> Any:
        def write() -> Any:
            inputs = [{"properties": self._new_contact(query), "associations": []} for query in queries]
            return self._account.batch.create("contacts", {"inputs": inputs})

        try:
            return self._account.unique_properties.run_with("contacts", write)
        except (PermanentError, ConfigError):
            if not self._account.has_phone_property:
                raise
            # The unique phone property only prevents duplicates while the index does not show a new contact yet.
            self._account.has_phone_property = False
            return write()

    def _new_contact(self, query: ContactQuery) -> dict[str, str]:
        contact = query.context.contact
        values = {
            "email": query.email,
            "phone": query.phone,
            "firstname": contact.first_name or contact.name,
            "lastname": contact.last_name,
            "company": contact.company,
            UNIQUE_PROPERTIES["contacts"][0]: query.phone if self._account.has_phone_property else None,
        }
        return to_strings(
            {name: value for name, value in values.items() if value} | fields_to_write(self._properties, None)
        )

    def _find_existing(self, query: ContactQuery) -> str | None:
        if query.email and (items := self._account.read("contacts", [query.email], "email")):
            return str(items[0].id)
        if query.phone and self._account.has_phone_property:
            items = self._account.read("contacts", [query.phone], UNIQUE_PROPERTIES["contacts"][0])
            return str(items[0].id) if items else None
        return None


def _match(item: Any) -> ContactMatch:
    values = item.properties or {}
    emails = [values.get("email") or "", *(values.get("hs_additional_emails") or "").split(";")]
    return ContactMatch(
        str(item.id),
        [email.strip() for email in emails if email.strip()],
        [number for name in ("phone", "mobilephone") if (number := values.get(name))],
        (values.get("notes_last_updated") or "", values.get("lastmodifieddate") or ""),
        # HubSpot encodes time zones as `america_slash_port_hyphen_au_hyphen_prince`.
        (values.get("hs_timezone") or "").replace("_slash_", "/").replace("_hyphen_", "-") or None,
    )
