"""Contacts of a HubSpot account, as contact resolution searches and creates them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bridge.connector import (
    ContactDetails,
    ContactField,
    ContactMatch,
    ContactQuery,
    ContactRef,
    ContactRefused,
    Context,
    FillResult,
    NewContact,
    Property,
    fields_to_write,
    resolve_contact,
    search_digits,
)
from bridge.errors import AccountError, ConfigError, DeliveryError, PermanentError

from .account import Account
from .fields import to_strings
from .lenient_writes import (
    CONTACT_PROPERTIES,
    PHONE_KEY,
    WriteOutcome,
    refused_values,
    update_leniently,
    write_leniently,
)
from .property_values import FittedProperties, fit_properties
from .records import OWNER_PROPERTY
from .search_requests import search_bodies

_MATCH_PROPERTIES = (
    "email",
    "hs_additional_emails",
    "phone",
    "mobilephone",
    "firstname",
    "lastname",
    "company",
    "notes_last_updated",
    "lastmodifieddate",
    "hs_timezone",
)
_OWN_PROPERTIES = CONTACT_PROPERTIES | {PHONE_KEY, OWNER_PROPERTY}
_MAX_PAGES = 5
"""Pages of 200 contacts that are read of one search."""
_FIELDS: Mapping[str, ContactField] = {
    "email": "email",
    "phone": "phone",
    "firstname": "name",
    "lastname": "name",
    "company": "company",
}


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

    def by_other_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Return matches by search: a secondary address is not a unique property."""
        return self._search(emails, lambda values: {"hs_additional_emails": values})

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """Return matches by search: phone numbers are free text, and only the index has them as digits."""

        def conditions(values: Sequence[str]) -> Mapping[str, Sequence[str]]:
            digits = [digits for phone in values for digits in search_digits(phone)]
            return {
                "hs_searchable_calculated_phone_number": digits,
                "hs_searchable_calculated_mobile_number": digits,
                "phone": values,
            }

        return self._search(phones, conditions)

    def by_id(self, ids: Sequence[str]) -> list[ContactMatch]:
        """Return the existing contacts by reading them, which is always current."""
        return [_match(item) for item in self._account.read("contacts", ids, fields=_MATCH_PROPERTIES)]

    def create(
        self, queries: Sequence[ContactQuery]
    ) -> list[str | NewContact | ContactRefused | DeliveryError]:
        """Create one contact per query, without the values that HubSpot refuses.

        A contact that HubSpot reports as existing is used: another process has just created it, the index does not
        show it yet, or the address is one of its secondary ones.
        """
        contacts = {str(number): self._new_contact(query) for number, query in enumerate(queries)}
        outcomes = write_leniently(
            {key: contact.values for key, contact in contacts.items()},
            self._send_new,
            is_sufficient=_has_address,
            stop_at_existing=True,
            optional=CONTACT_PROPERTIES | {OWNER_PROPERTY},
            of_rule={name for contact in contacts.values() for name in contact.values} - _OWN_PROPERTIES,
        )
        return [
            self._result(query, contacts[key], outcome)
            for query, (key, outcome) in zip(queries, outcomes.items(), strict=True)
        ]

    def fill(self, details: Mapping[str, ContactDetails]) -> dict[str, FillResult]:
        """Write values to empty properties of contacts, without those that HubSpot refuses."""
        changes = {
            contact_id: to_strings(
                {
                    "email": values.email,
                    "phone": values.phone,
                    "firstname": values.first_name,
                    "lastname": values.last_name,
                    "company": values.company,
                }
            )
            for contact_id, values in details.items()
        }
        outcomes = write_leniently(changes, self._send_changes, is_sufficient=bool, stop_at_existing=False)
        for outcome in outcomes.values():
            if outcome.error is not None:
                raise outcome.error
        return {
            contact_id: FillResult(refused_fields(outcome), outcome.existing_id)
            for contact_id, outcome in outcomes.items()
        }

    def update(self, contact_id: str, values: dict[str, str]) -> WriteOutcome:
        """Update one contact without the values that HubSpot refuses."""
        return update_leniently(
            self._account.objects,
            "contacts",
            contact_id,
            values,
            optional=CONTACT_PROPERTIES | {OWNER_PROPERTY},
            of_rule=values.keys(),
        )

    def _send_changes(self, pending: Mapping[str, dict[str, str]], traced: bool) -> Any:
        inputs = [
            {"id": contact_id, "properties": values} | ({"objectWriteTraceId": contact_id} if traced else {})
            for contact_id, values in pending.items()
        ]
        return self._account.batch.update("contacts", {"inputs": inputs})

    def _search(
        self, values: Sequence[str], conditions: Callable[[Sequence[str]], Mapping[str, Sequence[str]]]
    ) -> list[ContactMatch]:
        """Return the contacts that fulfill one of the conditions: a property has one of some values."""

        def build(some: Sequence[str]) -> Mapping[str, Any]:
            groups = [
                {"filters": [{"propertyName": name, "operator": "IN", "values": list(accepted)}]}
                for name, accepted in conditions(some).items()
            ]
            return {"filterGroups": groups, "properties": list(_MATCH_PROPERTIES), "limit": 200}

        matches: list[ContactMatch] = []
        for body in search_bodies(values, build):
            after: Mapping[str, str] = {}
            for _ in range(_MAX_PAGES):
                self._account.search_limiter.wait()
                page = self._account.search.do_search("contacts", {**body, **after})
                matches += [_match(item) for item in page.results or ()]
                if not (page.paging and page.paging.next and page.paging.next.after):
                    break
                after = {"after": page.paging.next.after}
        return matches

    def _result(
        self, query: ContactQuery, sent: FittedProperties, outcome: WriteOutcome
    ) -> str | NewContact | ContactRefused | DeliveryError:
        if outcome.id:
            notes = [*sent.notes, *refused_values(outcome.refused, sent.values.keys() - _OWN_PROPERTIES)]
            if code := outcome.refused.get(OWNER_PROPERTY):
                self._account.owners.report_refused(sent.values[OWNER_PROPERTY])
                notes.append(f"without the contact's owner, which HubSpot refused ({code})")
            return NewContact(outcome.id, refused_fields(outcome), notes=notes)
        if outcome.existing_id:
            return NewContact(outcome.existing_id, existing=True)
        if outcome.error is None:
            return ContactRefused(refused_fields(outcome))
        if not (isinstance(outcome.error, PermanentError) and outcome.error.code == "CONFLICT"):
            return outcome.error
        existing = self._find_existing(query)
        return (
            NewContact(existing, existing=True)
            if existing
            else PermanentError(
                "HubSpot reports a conflicting contact, but it cannot be found: search for the email and phone "
                "in HubSpot",
                code="CONFLICT",
            )
        )

    def _send_new(self, pending: Mapping[str, dict[str, str]], traced: bool) -> Any:
        def write() -> Any:
            inputs = [
                {"properties": values, "associations": []} | ({"objectWriteTraceId": key} if traced else {})
                for key, values in pending.items()
            ]
            return self._account.batch.create("contacts", {"inputs": inputs})

        try:
            return self._account.unique_properties.run_with("contacts", write)
        except (AccountError, ConfigError):
            if not self._account.has_phone_property:
                raise
            # The unique phone property only prevents duplicates while the index does not show a new contact yet.
            self._account.has_phone_property = False
            for values in pending.values():
                values.pop(PHONE_KEY, None)
            return write()

    def _new_contact(self, query: ContactQuery) -> FittedProperties:
        contact = query.context.contact
        values = {
            "email": query.email,
            "phone": query.phone,
            "firstname": contact.first_name or (None if contact.last_name else contact.name),
            "lastname": contact.last_name,
            "company": contact.company,
            PHONE_KEY: query.phone if self._account.has_phone_property else None,
        }
        all_values = {**values, **fields_to_write(self._properties, None), **query.new_fields}
        return fit_contact(self._account, all_values, query.context)

    def _find_existing(self, query: ContactQuery) -> str | None:
        if query.email and (items := self._account.read("contacts", [query.email], "email")):
            return str(items[0].id)
        if query.phone and self._account.has_phone_property:
            items = self._account.read("contacts", [query.phone], PHONE_KEY)
            return str(items[0].id) if items else None
        return None


def fit_contact(account: Account, values: Mapping[str, Any], context: Context) -> FittedProperties:
    """Return the properties of a contact as HubSpot takes them. Name, company and addresses are texts."""
    own = {name: value for name, value in values.items() if name in CONTACT_PROPERTIES or name == PHONE_KEY}
    of_rule = {name: value for name, value in values.items() if name not in own}
    fitted = fit_properties(account, "contacts", of_rule, context)
    present = {name: value for name, value in own.items() if value}
    return FittedProperties({**to_strings(present), **fitted.values}, fitted.notes)


def _has_address(values: Mapping[str, str]) -> bool:
    return "email" in values or "phone" in values


def refused_fields(outcome: WriteOutcome) -> dict[ContactField, str]:
    """Return the contact's fields that HubSpot refused, with its error codes."""
    return {_FIELDS[name]: code for name, code in outcome.refused.items() if name in _FIELDS}


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
        first_name=values.get("firstname") or "",
        last_name=values.get("lastname") or "",
        company=values.get("company") or "",
    )
