"""Contacts and leads for people whom Salesforce does not know: a lead, or a contact of an account that exists.

A contact without an account is private in every org: only its owner and administrators see it. So a contact is created
only if the phone number or the company name leads to one account; otherwise a lead is created.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge.connector import (
    CONTACT_OWNER,
    ContactQuery,
    Context,
    NewContactParams,
    Properties,
    param,
    same_number,
)

from . import sdk
from .field_values import writable_fields
from .org import Org
from .owners import USER_PREFIX
from .person_accounts import business_accounts
from .session import Record
from .soql import chunks, select

ObjectType = Literal["Contact", "Lead"]
ACCOUNT_FIELDS = ("Id", "Name", "Phone", "OwnerId")
NO_COMPANY = "[not provided]"
"""Company of a lead whose company is not known. Salesforce requires one, and writes this text itself."""
_MAX_LENGTH = {"FirstName": 40, "LastName": 80, "Company": 255}


class NewRecordParams(NewContactParams):
    """Params of an action that creates a lead or contact if Salesforce has neither."""

    on_missing: Literal["lead", "contact", "skip"] = param(
        "lead",
        "If Salesforce has no such contact or open lead: create a `lead`; create a `contact` if exactly one account "
        "has the phone number or company name, otherwise a lead; or `skip` it.",
        example="contact",
    )
    lead_source: str | None = param(
        "Heppu", "`LeadSource` of a record that this action creates.", example="Phone"
    )
    new_contact: Properties = param(
        {},
        "Additional fields of a lead or contact that this action creates: `field: value`. Fields that only the other "
        "of the two has are left out. An existing record is left alone.",
        example={"Rating": "Warm"},
    )

    def new_record_query(self, org: Org, context: Context, owner: str | None) -> NewRecordQuery:
        """Return the query that finds this contact or lead, with what to write if it is created.

        `owner` is the owner that the rule names, who then owns the new record as well.
        """
        query = self.contact_query(context, create=self.on_missing != "skip")
        source = {"LeadSource": self.lead_source} if self.lead_source else {}
        return NewRecordQuery(
            query.email,
            query.phone,
            context,
            query.on_multiple,
            query.create,
            query.scope,
            {**source, **query.new_fields},
            "Contact" if self.on_missing == "contact" else "Lead",
            query.new_fields.keys(),
            org.owners.find(owner).id if owner and owner != CONTACT_OWNER else "",
        )


@dataclass(frozen=True)
class NewRecordQuery(ContactQuery):
    """The contact or lead that one delivery needs, and what to create if there is none."""

    create_as: ObjectType = "Lead"
    optional: Collection[str] = ()
    """Those of `new_fields` that are left out if Salesforce refuses them."""
    owner: str = ""
    """ID of the owner of a new record. Empty: the org's assignment rules decide, or the account's owner."""


@dataclass
class NewRecord:
    """A contact or lead to create."""

    object_type: ObjectType
    fields: Record
    optional: Collection[str]
    """Fields that are left out if Salesforce refuses them."""
    of_rule: Collection[str]
    """Fields that are left out if Salesforce refuses their values."""
    assign: bool
    """The org's assignment rules choose the owner."""
    notes: list[str] = field(default_factory=list)
    """What the result of the delivery says about it."""


def types_to_create(queries: Iterable[ContactQuery]) -> set[ObjectType]:
    """Return the object types of the records that may be created for the queries. A contact may become a lead."""
    return {"Lead", *(_create_as(query) for query in queries)}


class Accounts:
    """The accounts that a search for phone numbers found, and those with the company names of new contacts."""

    def __init__(self, org: Org) -> None:
        self._org = org
        self._by_phone: list[Record] = []
        self._by_name: dict[str, list[Record]] = {}

    def add_found(self, rows: Iterable[Record]) -> None:
        """Remember accounts that a search for phone numbers has returned."""
        self._by_phone += rows

    def read_by_name(self, names: Iterable[str]) -> None:
        """Read the accounts with these names. Uppercase and lowercase letters are the same to Salesforce."""
        unread = sorted({name for name in names if name and name.lower() not in self._by_name})
        self._by_name |= {name.lower(): [] for name in unread}
        only = f" AND {condition}" if unread and (condition := business_accounts(self._org)) else ""
        for chunk in chunks(unread):
            named = sdk.format_soql("Name IN {}", chunk) + only
            for row in self._org.query(select(ACCOUNT_FIELDS, "Account", named)):
                self._by_name.setdefault(str(row["Name"]).lower(), []).append(row)

    def of(self, query: ContactQuery) -> Record | None:
        """Return the only account with the phone number, or else the only one with the company name."""
        name = (query.person.company or "").lower()
        by_phone = {
            str(row["Id"]): row
            for row in self._by_phone
            if query.phone and row.get("Phone") and same_number(str(row["Phone"]), query.phone)
        }
        by_name = {str(row["Id"]): row for row in self._by_name.get(name, ())}
        for accounts in (by_phone, by_name, {key: by_phone[key] for key in by_phone.keys() & by_name.keys()}):
            if len(accounts) == 1:
                return next(iter(accounts.values()))
        return None


def new_records(org: Org, queries: Sequence[ContactQuery], accounts: Accounts) -> list[NewRecord]:
    """Return the record to create for each query."""
    for_contacts = [query for query in queries if _create_as(query) == "Contact"]
    accounts.read_by_name(query.person.company or "" for query in for_contacts if accounts.of(query) is None)
    return [_new_record(org, query, accounts) for query in queries]


def _create_as(query: ContactQuery) -> ObjectType:
    return query.create_as if isinstance(query, NewRecordQuery) else "Lead"


def _new_record(org: Org, query: ContactQuery, accounts: Accounts) -> NewRecord:
    person = query.person
    name = person.last_name or person.name
    values: dict[str, Any] = {
        "FirstName": person.first_name if person.last_name else None,
        "LastName": name or query.phone or query.email,
        "Email": query.email,
        "Phone": query.phone,
        "Description": None if name else "Created by Heppu; the name is not known yet.",
    }
    owner = query.owner if isinstance(query, NewRecordQuery) else ""
    account = accounts.of(query) if _create_as(query) == "Contact" else None
    optional = {name.lower() for name in query.optional} if isinstance(query, NewRecordQuery) else set()
    record = NewRecord("Contact" if account else "Lead", {}, (), (), assign=not owner)
    if account:
        user = owner if owner.startswith(USER_PREFIX) else ""  # a queue owns no contacts
        values |= {"AccountId": account["Id"], "OwnerId": user or account["OwnerId"]}
        record.notes.append(f"of the account {account['Name']}")
    else:
        # An active assignment rule overrides the owner of the settings.
        fallback = org.owners.find(org.settings.owner).id if org.settings.owner and not owner else ""
        values |= {"Company": person.company or NO_COMPANY, "OwnerId": owner or fallback}
        if _create_as(query) == "Contact":
            record.notes.append(
                "a lead, because not exactly one account has this phone number or company name"
            )
    record.fields = {key: shortened(key, value) for key, value in values.items() if value}
    extra, notes = writable_fields(org, record.object_type, query.new_fields, "createable", query.context)
    record.fields |= extra
    record.assign = record.assign and "OwnerId" not in extra
    record.of_rule = extra.keys()
    record.optional = [name for name in extra if name.lower() in optional]
    record.notes += notes
    return record


def shortened(name: str, value: Any) -> Any:
    """Return the value of a field, cut to the length that the field has room for."""
    return value[: _MAX_LENGTH.get(name)] if isinstance(value, str) else value


def by_assignment(records: Sequence[NewRecord]) -> Mapping[bool, list[int]]:
    """Return the positions of the records whose owner the assignment rules choose (True) and of the others."""
    return {
        assign: [number for number, record in enumerate(records) if record.assign is assign]
        for assign in (True, False)
    }
