"""Files of `bridge connectors new NAME --crm`: a connector that logs calls in a CRM, and its test."""

from string import Template

CRM_CONNECTOR = Template('''\
"""$title: log calls as records of a contact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from pydantic import SecretStr

from bridge.connector import (
    CONTACT_OWNER,
    CallParams,
    Connector,
    ConnectorGroup,
    ConnectorSettings,
    ContactDeleted,
    ContactMatch,
    ContactQuery,
    ContactRef,
    Context,
    JsonApi,
    Limits,
    NewContact,
    ProviderUrl,
    Success,
    json_object,
    parse_retry_after,
    per_conversation,
    search_digits,
    write_for_contact,
)
from bridge.errors import DeliveryError, PermanentError, TransientError

MAX_TEXT = 10_000
"""Characters that the text of an activity may have in $title."""


class Settings(ConnectorSettings):
    """`${capitals}_URL` and `${capitals}_TOKEN`, from the environment."""

    url: ProviderUrl
    """URL of the account."""
    token: SecretStr
    """API token of the account."""


connector = Connector(
    "$name",
    settings=Settings,
    limits=Limits(per_second=5, concurrency=4),
    description="Logs calls in $title.",
    group=ConnectorGroup.CRM,
)


@connector.client
def client(settings: Settings) -> JsonApi:
    """Return the client of a connection, which threads share."""
    return JsonApi(
        "$title",
        settings.url,
        bearer=settings.token,
        refusal=refusal,
    )


class RecordExistsError(PermanentError):
    """The CRM has the record already, and its response names it."""

    def __init__(self, record_id: str) -> None:
        super().__init__("$title has this record already", code="exists")
        self.record_id = record_id


def refusal(response: httpx.Response) -> DeliveryError | None:
    """Return the error that the CRM reports in its own words; None leaves the response to its HTTP status."""
    body = json_object(response)
    if response.status_code == 409 and body.get("existing_id"):
        return RecordExistsError(str(body["existing_id"]))
    if response.status_code == 423:
        wait = parse_retry_after(response.headers.get("Retry-After"))
        return TransientError("a user of $title has the record open", retry_after=wait)
    return None


@connector.check
def check(crm: JsonApi) -> str:
    """Authenticate and return what was verified. Writes nothing."""
    return f"authenticated as {crm.read('/me', holds='name', kind=str)}"


class Contacts:
    """The contacts of the CRM. Contact resolution searches them, and creates the one that is missing."""

    def __init__(self, crm: JsonApi) -> None:
        self._crm = crm

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Return the contacts with one of these addresses."""
        return [match for email in emails for match in self._search("email", email)]

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """Return the contacts that may have one of these numbers. The bridge compares the numbers again."""
        digits = [form for phone in phones for form in search_digits(phone)]
        return [match for form in digits for match in self._search("phone", form)]

    def create(self, queries: Sequence[ContactQuery]) -> list[NewContact]:
        """Create one contact per query."""
        return [self._create(query) for query in queries]

    def _create(self, query: ContactQuery) -> NewContact:
        details = query.details
        fields = {
            "first_name": details.first_name,
            "last_name": details.last_name,
            "company": details.company,
            "email": details.email,
            "phone": details.phone,
        }
        body = filled(query.new_fields | fields)
        try:
            return NewContact(str(self._crm.write("POST", "/contacts", json=body, holds="id")))
        except RecordExistsError as error:
            return NewContact(error.record_id, existing=True)

    def _search(self, field: str, value: str) -> list[ContactMatch]:
        contacts = self._crm.pages(
            "/contacts", items="contacts", query={field: value}, cursor=("next_cursor", "cursor")
        )
        return [
            ContactMatch(
                str(contact["id"]),
                emails=[contact.get("email") or ""],
                phones=[contact.get("phone") or ""],
                activity=(contact.get("updated_at") or "",),
                first_name=contact.get("first_name") or "",
                last_name=contact.get("last_name") or "",
            )
            for contact in contacts
        ]


@connector.action(idempotency=per_conversation)
def log_call(crm: JsonApi, call: CallParams, context: Context) -> Success:
    """Log the call at its contact, once per conversation."""

    def write(contacts: Mapping[str, ContactRef | None]) -> dict[str, Success | ContactDeleted]:
        return {
            key: write_activity(crm, call_fields(call, context, contact), context, contact)
            for key, contact in contacts.items()
        }

    return write_for_contact(Contacts(crm), "call", call.contact_query(context, create=True), write)


def write_activity(
    crm: JsonApi, fields: Mapping[str, Any], context: Context, contact: ContactRef | None
) -> Success | ContactDeleted:
    """Create the activity, or update the one that an earlier event of the conversation created."""
    activity_id, detail = context.existing_id, ""
    if activity_id is not None:  # None for the first event of a conversation
        if update_activity(crm, activity_id, fields):
            return Success(id=activity_id, detail="updated")
        # A user has deleted it. An attempt before this one may have replaced it.
        detail = "the activity had been deleted in $title"
        activity_id = find_activity_id(crm, context)
        if activity_id is not None and update_activity(crm, activity_id, fields):
            return Success(id=activity_id, detail=detail)
    links = {"reference": context.idempotency_token, "contact_id": contact.id if contact else None}
    try:
        created = crm.write("POST", "/activities", json=filled({**fields, **links}), holds="id")
    except PermanentError:
        if contact is not None and crm.find("/contacts/{}", contact.id) is None:
            return ContactDeleted()
        raise
    return Success(id=str(created), detail=detail)


def update_activity(crm: JsonApi, activity_id: str, fields: Mapping[str, Any]) -> bool:
    """Update an activity; return False if it no longer exists."""
    try:
        crm.write("PATCH", "/activities/{}", activity_id, json=filled(fields), holds="id")
    except PermanentError:
        if crm.find("/activities/{}", activity_id) is None:
            return False
        raise
    return True


def call_fields(call: CallParams, context: Context, contact: ContactRef | None) -> dict[str, Any]:
    """Return the fields that every event of the conversation writes."""
    caller, callee = call.caller_and_callee(context)
    return call.additional_fields(context) | {
        "kind": "call",
        "title": call.display_title(context),
        "text": call.body_text(context, contact, MAX_TEXT),
        "transcript": call.transcript,
        "type": call.call_type,
        "status": call.normalized_status,
        "direction": call.direction,
        "from": caller,
        "to": callee,
        "started_at": call.start(context).isoformat(),
        "seconds": call.duration_seconds(),
        "recording_url": call.recording_url,
        "owner": None if call.owner == CONTACT_OWNER else call.owner,
    }


@log_call.lookup
def find_call(crm: JsonApi, call: CallParams, context: Context) -> Success | None:
    """Return the activity that an attempt with unknown outcome created. None is proof that it created none."""
    del call
    if context.existing_id is not None:
        return None  # repeating an update changes nothing
    activity_id = find_activity_id(crm, context)
    return None if activity_id is None else Success(id=activity_id, detail="found by its reference")


def find_activity_id(crm: JsonApi, context: Context) -> str | None:
    """Return the ID of the activity with the reference of this conversation."""
    query = {"reference": context.idempotency_token}
    for record in crm.pages("/activities", items="activities", query=query, cursor=("next_cursor", "cursor")):
        if record.get("reference") == context.idempotency_token:
            return str(record["id"])
    return None


def filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with a value: an update must not empty what an earlier event has written."""
    return {name: value for name, value in fields.items() if value not in (None, "")}
''')

CRM_TEST = Template('''\
"""Tests of the $title connector: contacts, later events of a conversation, and the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from bridge.connector import Success
from bridge.errors import TransientError
from bridge.testing import (
    ConnectorConformance,
    Received,
    Reply,
    StubServer,
    build_context,
    event,
    load_connector,
    run_action,
)

connector = load_connector("$name", Path(__file__).parents[1])
CALL = {
    "conversationId": "conv_1",
    "metadata.contactEmail": "maya@lindqvist.example",
    "metadata.contactPhone": "+12125550143",
}


class FakeCrm:
    """A fake $title: it stores contacts and activities, and lists them in pages of two."""

    def __init__(self, server: StubServer) -> None:
        self.environ = environ(server.url)
        self.server = server
        self.contacts: dict[str, dict[str, Any]] = {}
        self.activities: dict[str, dict[str, Any]] = {}
        server.answer("GET", "/me", Reply(200, {"name": "the bridge"}))
        for name, records in (("contacts", self.contacts), ("activities", self.activities)):
            self.serve(name, records)

    def serve(self, name: str, records: dict[str, dict[str, Any]]) -> None:
        """Answer the requests about one kind of record."""

        def create(request: Received) -> Reply:
            if request.json.get("contact_id", "") not in ("", *self.contacts):
                return Reply(422, {"error": "no such contact"})
            if name == "contacts" and (taken := self.find_address(request.json)):
                return Reply(409, {"existing_id": taken})
            record_id = f"{name}-{len(records) + 1}"
            records[record_id] = request.json | {"id": record_id}
            return Reply(201, records[record_id])

        def find(request: Received) -> Reply:
            query = dict(request.query)
            start = int(query.pop("cursor", "0"))
            matches = [record for record in records.values() if matches_all(record, query)]
            following = str(start + 2) if len(matches) > start + 2 else None
            return Reply(200, {name: matches[start : start + 2], "next_cursor": following})

        def one(request: Received) -> Reply:
            record = records.get(request.path.rpartition("/")[2])
            if record is None:
                return Reply(404, {"error": "no such record"})
            if request.method == "PATCH":
                record.update(request.json)
            return Reply(200, record)

        self.server.answer("POST", f"/{name}", create)
        self.server.answer("GET", f"/{name}", find)
        self.server.answer("*", f"/{name}/*", one)

    def find_address(self, contact: Mapping[str, Any]) -> str | None:
        """Return the contact that has the email address, also as one that the search does not cover."""
        for record_id, record in self.contacts.items():
            if contact.get("email", "") in (record.get("email"), record.get("old_email")):
                return record_id
        return None

    def drop_next_response(
        self, when: Literal["before", "after"], *, nth: int = 1, status: int | None = None
    ) -> None:
        self.server.drop_next_write(when, nth=nth, status=status)

    def side_effect_count(self) -> int:
        return len(self.contacts) + len(self.activities)

    def received_text(self) -> str:
        return self.server.received_text()


def matches_all(record: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    """Return whether a record has all values: a phone number is found by its last digits."""
    return all(str(record.get(name, "")).endswith(value) for name, value in query.items())


def environ(url: str) -> dict[str, str]:
    return {"${capitals}_URL": url, "${capitals}_TOKEN": "a-secret-of-this-test"}


@contextmanager
def fake_provider() -> Iterator[FakeCrm]:
    with StubServer() as server:
        yield FakeCrm(server)


def log_call(provider: FakeCrm, changes: Mapping[str, Any], existing_id: str | None = None) -> Success:
    """Make an attempt to log a call of Maya's; `existing_id` as the bridge sets it for a later event."""
    about = event("call.completed", CALL | dict(changes))
    context = build_context(about, connector.actions["log_call"], "$name", existing_id=existing_id)
    return run_action(connector, "log_call", environ=provider.environ, context=context)


def test_call_is_logged_at_an_existing_contact() -> None:
    with fake_provider() as provider:
        provider.contacts["contacts-1"] = {"id": "contacts-1", "phone": "2125550143"}
        log_call(provider, {"metadata.contactEmail": None})
        [call] = provider.activities.values()
    assert (call["contact_id"], list(provider.contacts)) == ("contacts-1", ["contacts-1"])


def test_call_is_logged_at_the_contact_that_the_crm_names() -> None:
    with fake_provider() as provider:
        provider.contacts["contacts-1"] = {"id": "contacts-1", "old_email": "maya@lindqvist.example"}
        log_call(provider, {"metadata.contactPhone": None})
        [call] = provider.activities.values()
    assert (call["contact_id"], list(provider.contacts)) == ("contacts-1", ["contacts-1"])


def test_record_that_a_user_has_open_is_tried_again_later() -> None:
    with fake_provider() as provider:
        provider.server.fail(Reply(423, headers={"Retry-After": "30"}))
        with pytest.raises(TransientError) as caught:
            log_call(provider, {})
    assert caught.value.retry_after == timedelta(seconds=30)


def test_later_event_updates_the_call_and_keeps_what_it_does_not_say() -> None:
    with fake_provider() as provider:
        first = log_call(provider, {"direction": "outbound"})
        later = log_call(provider, {"direction": None, "duration": 90}, first.id)
        [call] = provider.activities.values()
    assert (later.id, later.detail, call["seconds"]) == (first.id, "updated", 90)
    assert (call["contact_id"], call["direction"]) == ("contacts-1", "outbound")


def test_call_that_a_user_deleted_is_created_once_more() -> None:
    with fake_provider() as provider:
        first = log_call(provider, {})
        provider.activities.clear()
        provider.activities["activities-0"] = {"id": "activities-0", "reference": "of another conversation"}
        results = [log_call(provider, {}, first.id) for _ in range(2)]
        created = [activity for activity in provider.activities if activity != "activities-0"]
    assert [result.id for result in results] == created * 2
    assert all(result.detail.startswith("the activity had been deleted") for result in results)


class TestConformance(ConnectorConformance):
    """HTTP statuses, lost responses, lookups, timeouts, secrets: the suite that every connector passes."""

    connector = connector

    def environ(self, url: str) -> Mapping[str, str]:
        return environ(url)

    def provider(self) -> Any:
        return fake_provider()
''')
