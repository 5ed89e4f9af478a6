"""HubSpot: calls and chats on a contact's timeline, contacts, tickets and tasks.

Every record we make carries a unique property, because HubSpot has no key that makes a repeated request
harmless: creating twice is refused, and the refusal leads to the record that is there. So every action here may
be repeated, and a call and its association go out in one request.
"""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

import urllib3
from hubspot import HubSpot
from hubspot.discovery.discovery_base import DiscoveryBase
from pydantic import Field, SecretStr
from urllib3.util.retry import Retry

from bridge.connector import (
    BatchItem,
    BatchResult,
    CallParams,
    ChatParams,
    Connector,
    ConnectorSettings,
    ContactDeleted,
    ContactLookupParams,
    ContactMatch,
    ContactParams,
    ContactQuery,
    ContactRef,
    Context,
    Limits,
    Properties,
    Property,
    ProviderUrl,
    Success,
    TaskParams,
    check_deadline,
    enforce_deadline,
    failure_from_exception,
    failure_from_status,
    fields_to_write,
    national_digits,
    param,
    parse_retry_after,
    per_conversation,
    per_event,
    remaining_seconds,
    resolve_contact,
    write_for_contacts,
)
from bridge.errors import (
    AuthenticationError,
    ConfigError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)

BATCH = 100
"""HubSpot's own limit for one batch request."""
LONGEST_BODY = 65_536
KEYS = {
    "calls": ("heppu_conversation_id", "call", "Heppu conversation"),
    "notes": ("heppu_conversation_id", "note", "Heppu conversation"),
    "tasks": ("heppu_key", "task", "Heppu key"),
    "contacts": ("heppu_phone", "contactinformation", "Heppu caller"),
}
"""The unique property of each object: its name, group and label."""
FOR_TICKETS = "tickets"
SCOPES = (
    "crm.objects.contacts.read",
    "crm.objects.contacts.write",
    "crm.schemas.contacts.read",
    "crm.schemas.contacts.write",
    FOR_TICKETS,
)
"""What a token needs for everything here; calls, notes and tasks go by the scopes of contacts."""
TO_CONTACT = {"calls": 194, "notes": 202, "tasks": 204}
"""HubSpot's own association types; the direction matters."""
STATUSES = {
    "completed": "COMPLETED",
    "failed": "FAILED",
    "busy": "BUSY",
    "no_answer": "NO_ANSWER",
    "cancelled": "CANCELED",
}
DISPOSITIONS = {
    "connected": "f240bbac-87c9-4f6e-bf70-924b57d47db7",
    "busy": "9d9162e7-6cf3-4944-bf63-4dff82258764",
    "no_answer": "73a0d17f-1163-4015-bdd5-ec830791da20",
    "left_live_message": "a4c4c377-d246-4b32-a13b-75a56a4cd0ff",
    "left_voicemail": "b2cf5968-551e-4856-9783-52b3da59a7d0",
    "wrong_number": "17b47fee-58de-441e-a44c-c6300d46f273",
}
"""HubSpot's own call outcomes: every account has them under these ids."""
_OUTCOME_OF = {"completed": "connected", "busy": "busy", "no_answer": "no_answer"}
_PERSON_FIELDS = (
    "email",
    "hs_additional_emails",
    "phone",
    "mobilephone",
    "notes_last_updated",
    "lastmodifieddate",
    "hs_timezone",
)

T = TypeVar("T")


class Settings(ConnectorSettings):
    """`HUBSPOT_ACCESS_TOKEN`: the token of a private app or a service key."""

    access_token: SecretStr
    url: ProviderUrl = "https://api.hubapi.com"
    api_version: str | None = Field(None, pattern=r"^20\d\d-(03|09)$")
    """The SDK asks for v3 and v4, which HubSpot supports until 2027; a dated version replaces them everywhere."""


connector = Connector(
    "hubspot",
    settings=Settings,
    limits=Limits(per_second=9, concurrency=4, timeout=25),
    description="Logs calls and chats on contacts; keeps contacts, tickets and tasks.",
)


class Pool(urllib3.PoolManager):
    """All requests of the connection: bounded by the attempt's deadline, never repeated."""

    def __init__(self, version: str | None) -> None:
        super().__init__(num_pools=2, maxsize=connector.limits.concurrency, retries=Retry(0))
        enforce_deadline(self)
        self._version = version

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        """One request; a redirect would take the token elsewhere."""
        del redirect
        if self._version:
            url = re.sub(r"/crm/v\d/(\w+)", rf"/crm/\1/{self._version}", url, count=1)
        check_deadline()
        options["timeout"] = urllib3.Timeout(
            connect=max(0.05, remaining_seconds(3)), read=max(0.05, remaining_seconds(20))
        )
        response = super().urlopen(method, url, redirect=False, **options)
        if 200 <= response.status < 300 and response.data.lstrip()[:1] != b"{":
            raise _no_answer()  # a page with status 200, which the SDK reads as a record without anything
        return response


@dataclass(frozen=True)
class Record:
    """A call, note or task as it is to be."""

    properties: Mapping[str, str]
    contact: str | None


class Portal:
    """One HubSpot account, over one pool of connections."""

    def __init__(self, settings: Settings) -> None:
        pool = Pool(settings.api_version)

        def api(package: Any, name: str, config: dict[str, Any]) -> Any:
            made = DiscoveryBase._default_api_factory(package, name, config)
            made.api_client.rest_client.pool_manager = pool
            made.api_client.call_api = _answered(made.api_client.call_api)
            return made

        self._token = settings.access_token.get_secret_value()
        crm = HubSpot(
            access_token=self._token,
            host=settings.url,
            retry=Retry(0),
            api_factory=api,
        ).crm
        # The SDK makes a new object, with a new pool, at every access of these.
        self.objects = crm.objects.basic_api
        self.batch = crm.objects.batch_api
        self.search = crm.objects.search_api
        self.properties = crm.properties.core_api
        self.pipelines = crm.pipelines.pipelines_api
        self.associations = crm.associations.v4.basic_api
        self.has_phone_key = True
        self.close = pool.clear
        self._making = threading.Lock()

    def put(self, kind: str, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        """Make each record, or bring the one with its key up to date; one request when none is there yet."""
        answer = None
        try:
            answer = self._create(kind, records)
        except Exception as error:
            if not _is_conflict(error):
                raise
        done = {key: Success(id=made) for key, made in self._ids(kind, records, answer).items()}
        left = [key for key in records if key not in done]
        if not left:
            return {**done}
        there = self.read(kind, left, KEYS[kind][0])
        held = {str(item.properties.get(KEYS[kind][0])): str(item.id) for item in there}
        done |= self.update(kind, {held[key]: (key, records[key].properties) for key in left if key in held})
        absent = {key: records[key] for key in left if key not in done}
        if absent and answer is None:
            answer = self._create(kind, absent)
            done |= {key: Success(id=made) for key, made in self._ids(kind, absent, answer).items()}
        refused = _refusal_in(answer)
        return {key: done.get(key, refused) for key in records}

    def update(self, kind: str, wanted: Mapping[str, tuple[str, Mapping[str, str]]]) -> dict[str, Success]:
        """Change records, given as id -> (key, properties); those that are gone are left out of the answer."""
        if not wanted:
            return {}
        inputs = [{"id": known, "properties": dict(values)} for known, (_, values) in wanted.items()]
        try:
            answer = self.batch.update(kind, {"inputs": inputs})
        except Exception as error:
            if getattr(error, "status", None) != 404:
                raise
            return {}
        return {
            wanted[str(item.id)][0]: Success(id=str(item.id), detail="updated")
            for item in answer.results
            if str(item.id) in wanted
        }

    def read(
        self, kind: str, ids: Iterable[str], id_property: str | None = None, fields: Iterable[str] = ()
    ) -> list[Any]:
        """The records among `ids` that exist; by a unique property HubSpot answers at once, unlike its search."""
        body = {
            "inputs": [{"id": known} for known in dict.fromkeys(ids)],
            "properties": [*fields, *([id_property] if id_property else [])],
            "propertiesWithHistory": [],
        }
        answer = self.batch.read(kind, body | ({"idProperty": id_property} if id_property else {}))
        return list(answer.results or ())

    def gone(self, ids: Sequence[str]) -> set[str]:
        """Which of these contacts are deleted, or merged into another."""
        return set(ids) - {str(item.id) for item in self.read("contacts", ids)} if ids else set()

    def scopes(self) -> Sequence[str]:
        """What the token may do; all we need where HubSpot does not tell, as with a service key."""
        try:
            told = self.objects.api_client.call_api(
                "/oauth/v2/private-apps/get/access-token-info",
                "POST",
                header_params={"Content-Type": "application/json"},
                body={"tokenKey": self._token},
                response_types_map={200: "object"},
                auth_settings=["oauth2"],
                _return_http_data_only=True,
            )
        except Exception as error:
            if getattr(error, "status", None) not in (400, 403, 404):
                raise
            return SCOPES
        return [str(scope) for scope in told.get("scopes") or SCOPES]

    def make_key(self, kind: str) -> str:
        """Make the unique property of an object, if it is not there; says what was done."""
        name, group, label = KEYS[kind]
        try:
            found = self.properties.get_by_name(kind, name)
        except Exception as error:
            if getattr(error, "status", None) != 404:
                raise
        else:
            _require_unique(kind, found)
            return f"{kind}.{name} is there"
        body = {
            "name": name,
            "label": label,
            "groupName": group,
            "type": "string",
            "fieldType": "text",
            "hasUniqueValue": True,
            "formField": False,
        }
        try:
            self.properties.create(kind, body)
        except Exception as error:
            if getattr(error, "status", None) != 409:  # made by another replica in the meantime
                raise
        return f"{kind}.{name} is made"

    def with_key(self, kind: str, write: Callable[[], T]) -> T:
        """Run `write`; when the account lacks our property because setup was never run, make it and run it again."""
        try:
            return write()
        except Exception as error:
            if not _lacks(error, KEYS[kind][0]):
                raise
        with self._making:
            try:
                self.make_key(kind)
            except Exception as error:
                if getattr(error, "status", None) not in (403, 404, 405):
                    raise
                raise PermanentError(
                    f"{kind} lack the property {KEYS[kind][0]} and this token may not make it: run "
                    "`bridge connections setup hubspot` once with a token that has crm.schemas.contacts.write",
                    code="PROPERTY_DOESNT_EXIST",
                ) from error
        try:
            return write()
        except Exception as error:
            if _lacks(error, KEYS[kind][0]):
                raise TransientError(
                    "HubSpot is still making our property", retry_after=timedelta(seconds=10)
                ) from error
            raise

    def _create(self, kind: str, records: Mapping[str, Record]) -> Any:
        inputs: list[dict[str, Any]] = []
        for key, record in records.items():
            to_contact = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": TO_CONTACT[kind]}
            inputs.append(
                {
                    "properties": {**record.properties, KEYS[kind][0]: key},
                    "associations": [{"to": {"id": record.contact}, "types": [to_contact]}]
                    if record.contact
                    else [],
                }
            )
        return self.with_key(kind, lambda: self.batch.create(kind, {"inputs": inputs}))

    def _ids(self, kind: str, records: Mapping[str, Record], answer: Any) -> dict[str, str]:
        results = [item for item in (answer.results if answer is not None else None) or () if item.id]
        if len(records) == 1 and len(results) == 1:
            return {next(iter(records)): str(results[0].id)}
        found = {str((item.properties or {}).get(KEYS[kind][0])): str(item.id) for item in results}
        return {key: found[key] for key in records if key in found}


def _require_unique(kind: str, found: Any) -> None:
    if not found.has_unique_value:
        raise ConfigError(
            f"the property {found.name} of {kind} is not unique: archive it and run `bridge connections setup hubspot`"
        )


class Contacts:
    """The account's contacts, for `resolve_contacts`."""

    def __init__(self, portal: Portal, properties: Mapping[str, Property] | None = None) -> None:
        self._portal = portal
        self._properties = properties or {}
        """What a new contact gets besides name and addresses."""

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """Not by search, whose index lags."""
        return [_match(item) for item in self._portal.read("contacts", emails, "email", _PERSON_FIELDS)]

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """By search: numbers are free text, and only the index knows them as digits."""
        digits = [national_digits(phone) for phone in phones]
        names = ("hs_searchable_calculated_phone_number", "hs_searchable_calculated_mobile_number")
        filters = [{"propertyName": name, "operator": "IN", "values": digits} for name in names]
        filters.append({"propertyName": "phone", "operator": "IN", "values": list(phones)})
        body: dict[str, Any] = {
            "filterGroups": [{"filters": [one]} for one in filters],
            "properties": list(_PERSON_FIELDS),
            "limit": 200,
        }
        found: list[ContactMatch] = []
        for _ in range(5):
            answer = self._portal.search.do_search("contacts", body)
            found += [_match(item) for item in answer.results or ()]
            if not (answer.paging and answer.paging.next and answer.paging.next.after):
                break
            body["after"] = answer.paging.next.after
        return found

    def create(self, strangers: Sequence[ContactQuery]) -> list[str | DeliveryError]:
        """A contact for each; one that another process made a moment ago, or the index hides, is found again."""
        try:
            answer = self._create(strangers)
        except Exception as error:
            if not _is_conflict(error):
                raise
            if len(strangers) > 1:  # HubSpot names only the first that is in the way
                return [self.create([stranger])[0] for stranger in strangers]
            return [
                self._existing(strangers[0])
                or PermanentError("a contact is in the way that is not found", code="CONFLICT")
            ]
        results = list(answer.results or ())
        if len(strangers) == 1 and len(results) == 1:
            return [str(results[0].id)]
        made: dict[str, str] = {}
        for item in results:
            values = item.properties or {}
            made |= {
                str(values.get(name)).lower(): str(item.id) for name in ("email", "phone") if values.get(name)
            }
        refused = _refusal_in(answer)
        return [made.get((stranger.email or stranger.phone or "").lower(), refused) for stranger in strangers]

    def _create(self, strangers: Sequence[ContactQuery]) -> Any:
        def write() -> Any:
            inputs = [{"properties": self._new(stranger), "associations": []} for stranger in strangers]
            return self._portal.batch.create("contacts", {"inputs": inputs})

        try:
            return self._portal.with_key("contacts", write)
        except (PermanentError, ConfigError):
            if not self._portal.has_phone_key:
                raise
            # A caller's key only closes the gap in which the index does not know a new contact yet.
            self._portal.has_phone_key = False
            return write()

    def _new(self, stranger: ContactQuery) -> dict[str, str]:
        contact = stranger.context.contact
        values = {
            "email": stranger.email,
            "phone": stranger.phone,
            "firstname": contact.first_name or contact.name,
            "lastname": contact.last_name,
            "company": contact.company,
            KEYS["contacts"][0]: stranger.phone if self._portal.has_phone_key else None,
        }
        return _strings(
            {name: value for name, value in values.items() if value} | fields_to_write(self._properties, None)
        )

    def _existing(self, stranger: ContactQuery) -> str | None:
        if stranger.email and (found := self._portal.read("contacts", [stranger.email], "email")):
            return str(found[0].id)
        if stranger.phone and self._portal.has_phone_key:
            found = self._portal.read("contacts", [stranger.phone], KEYS["contacts"][0])
            return str(found[0].id) if found else None
        return None


@connector.client
def client(settings: Settings) -> Portal:
    """One account; every call it makes is bounded by the attempt."""
    return Portal(settings)


@connector.check
def check(portal: Portal) -> str:
    """Read the token's scopes, a contact and our own properties; writes nothing."""
    lacking = [scope for scope in SCOPES if scope not in portal.scopes()]
    if needed := [scope for scope in lacking if scope != FOR_TICKETS]:
        raise ConfigError(f"the token lacks the scopes {', '.join(needed)}: add them to the app in HubSpot")
    portal.objects.get_page("contacts", limit=1)
    missing = []
    for kind, (name, _, _) in KEYS.items():
        try:
            found = portal.properties.get_by_name(kind, name)
        except Exception as error:
            if getattr(error, "status", None) != 404:
                raise
            missing.append(f"{kind}.{name}")
        else:
            _require_unique(kind, found)
    notes = ["the token is accepted", "our properties are there"]
    if missing:
        notes[1] = f"missing {', '.join(missing)}: run `bridge connections setup hubspot`"
    if lacking:
        notes.append(f"without the scope {FOR_TICKETS} no ticket can be closed")
    return "; ".join(notes)


@connector.setup
def setup(portal: Portal) -> str:
    """Make the unique properties by which a repeated log is recognised."""
    return "; ".join(portal.make_key(kind) for kind in KEYS)


_OWNER = param(None, "The HubSpot user id of the owner.", example="41629779", pattern=r"^\d+$")
_UNKNOWN = param("create", "What to do when HubSpot does not know the person.", example="skip")


class Call(CallParams):
    """A phone call."""

    disposition: str | None = param(
        None,
        f"The outcome: {', '.join(DISPOSITIONS)}, or the id of one of your own. From the status when left out.",
        example="left_voicemail",
        pattern=rf"^({'|'.join(DISPOSITIONS)}|[0-9a-f-]{{36}})$",
    )
    recording_url: str | None = param(
        None, "Where the recording is.", example="https://example.com/1.mp3", pattern=r"^https://"
    )
    on_missing: Literal["create", "skip"] = _UNKNOWN
    owner: str | None = _OWNER


class Chat(ChatParams):
    """A chat."""

    on_missing: Literal["create", "skip"] = _UNKNOWN
    owner: str | None = _OWNER


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH)
def log_call(portal: Portal, jobs: Sequence[BatchItem[Call]]) -> list[BatchResult]:
    """Log the call on the contact's timeline, once per conversation."""
    return _log(portal, "calls", jobs, _call)


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH)
def log_chat(portal: Portal, jobs: Sequence[BatchItem[Chat]]) -> list[BatchResult]:
    """Log the chat as a note on the contact's timeline, once per conversation."""
    return _log(portal, "notes", jobs, _note)


def _call(call: Call, context: Context) -> dict[str, Any]:
    seconds = call.seconds()
    caller, called = call.numbers(context)
    outcome = call.disposition or _OUTCOME_OF.get(call.line)
    return {
        "hs_call_title": call.headline(context),
        "hs_call_body": _html(call.text(context, LONGEST_BODY)),
        "hs_call_duration": None if seconds is None else round(seconds * 1000),
        "hs_call_direction": {True: "OUTBOUND", False: "INBOUND", None: None}[call.outbound],
        "hs_call_status": STATUSES.get(call.line),
        "hs_call_disposition": DISPOSITIONS.get(outcome, outcome) if outcome else None,
        "hs_call_from_number": caller,
        "hs_call_to_number": called,
        "hs_call_recording_url": call.recording_url,
    }


def _note(chat: Chat, context: Context) -> dict[str, Any]:
    return {"hs_note_body": _html(f"{chat.headline(context)}\n{chat.text(context, LONGEST_BODY)}")}


L = TypeVar("L", Call, Chat)


def _log(
    portal: Portal, kind: str, jobs: Sequence[BatchItem[L]], describe: Callable[[L, Context], dict[str, Any]]
) -> list[BatchResult]:
    """Bring every job's record to HubSpot in as few requests as it allows: one, when the people are known."""
    by_key = {job.context.conversation_key: job for job in jobs}
    if len(by_key) < len(jobs):
        raise PermanentError("two events of one conversation in one batch", code="same_conversation")
    values: dict[str, dict[str, str]] = {}
    for key, job in by_key.items():
        when = {"hs_timestamp": _milliseconds(job.context.event.occurred_at)}
        own = describe(job.params, job.context) | when | {"hubspot_owner_id": job.params.owner}
        values[key] = _strings(own | fields_to_write(job.params.further(job.context), None))
    known = {job.context.existing_id: key for key, job in by_key.items() if job.context.existing_id}
    answers: dict[str, BatchResult] = {}
    answers |= portal.update(kind, {made: (key, values[key]) for made, key in known.items()})
    queries = {
        key: job.params.query(job.context, create=job.params.on_missing == "create")
        for key, job in by_key.items()
        if key not in answers
    }
    answers |= write_for_contacts(
        Contacts(portal), queries, lambda people: _make(portal, kind, values, people)
    )
    return [answers[key] for key in by_key]


def _make(
    portal: Portal,
    kind: str,
    values: Mapping[str, Mapping[str, str]],
    people: Mapping[str, ContactRef | None],
) -> dict[str, Success | DeliveryError]:
    """Make records on people's contacts. One that hangs on no contact is seen by nobody, so it is not made."""
    answers: dict[str, Success | DeliveryError] = {
        key: Success(detail="not logged: HubSpot has no contact for it")
        for key, person in people.items()
        if not person
    }
    contacts = {key: person.id for key, person in people.items() if person}
    if not contacts:
        return answers
    records = {key: Record(values[key], contact) for key, contact in contacts.items()}
    refusal: Exception | None = None
    try:
        answers |= portal.put(kind, records)
        refused = [key for key in contacts if isinstance(answers[key], PermanentError)]
    except Exception as error:
        refusal, refused = error, list(contacts)
        if getattr(error, "status", None) not in (400, 404) or "propert" in _body_of(error).lower():
            raise
    gone = portal.gone([contacts[key] for key in refused])
    if refusal is not None and not gone:
        raise refusal
    answers |= {key: ContactDeleted() for key in refused if contacts[key] in gone}
    left = {key: record for key, record in records.items() if contacts[key] not in gone}
    if refusal is not None and left:  # HubSpot refused all of them for those
        answers |= portal.put(kind, left)
    return answers


class Contact(ContactParams):
    """A contact, and what to write about it; what the event says only fills empty fields."""

    company: str | None = param(
        "{{ contact.company }}", "Fills an empty company name.", example="Lindqvist Cycles"
    )


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def upsert_contact(portal: Portal, contact: Contact, context: Context) -> Success:
    """Update the contact, or create it when HubSpot does not know the person."""
    return _save(portal, contact, context, create=True)


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def update_contact(portal: Portal, contact: Contact, context: Context) -> Success:
    """Update the contact; a person whom HubSpot does not know is an error."""
    return _save(portal, contact, context, create=False)


def _save(portal: Portal, contact: Contact, context: Context, *, create: bool) -> Success:
    wanted = contact.fields(
        email=contact.email,
        phone=contact.phone,
        firstname=contact.first_name,
        lastname=contact.last_name,
        company=contact.company,
    )
    person, current = _person(portal, contact.query(context, create=create), wanted)
    change = _strings(fields_to_write(wanted, current)) if current is not None else {}
    if change:
        portal.objects.update("contacts", person.id, {"properties": change})
    return Success(id=person.id, detail=person.detail or ("updated" if change else "nothing to change"))


def _person(
    portal: Portal, query: ContactQuery, wanted: Mapping[str, Property]
) -> tuple[ContactRef, Mapping[str, Any] | None]:
    def read(contact: str) -> Mapping[str, Any] | None:
        found = portal.read("contacts", [contact], fields=wanted)
        return found[0].properties if found else None

    return resolve_contact(Contacts(portal, wanted), query, read)


class Ticket(ContactLookupParams):
    """A ticket to close."""

    ticket: str | None = param(
        "{{ event.metadata.ticketId }}",
        "The ticket's id; without one, the person's open ticket.",
        example="1209876543",
        pattern=r"^\d+$",
    )
    on_multiple: Literal["review", "newest"] = param(
        "review",
        "When the person has several open tickets: ask a person, or take the newest.",
        example="newest",
    )
    properties: Properties = param(
        {}, "Further fields of the ticket.", example={"hs_resolution": "ISSUE_FIXED"}
    )


@connector.action(idempotency=per_event, idempotent=True)
def close_ticket(portal: Portal, ticket: Ticket, context: Context) -> Success:
    """Move a ticket to the closed stage of its own pipeline."""
    closed: dict[str, str] = {}
    """Stage -> pipeline; which stages count as closed is the account's own choice."""
    for pipeline in portal.pipelines.get_all("tickets").results:
        for stage in sorted(pipeline.stages, key=lambda one: one.display_order):
            if (stage.metadata or {}).get("ticketState") == "CLOSED":
                closed[stage.id] = pipeline.id
    if ticket.ticket:
        ids = [ticket.ticket]
    else:
        person, _ = _person(portal, ticket.query(context, create=False), {})
        page = portal.associations.get_page("contacts", person.id, "tickets", limit=BATCH)
        ids = [str(one.to_object_id) for one in page.results]
    fields = ("hs_pipeline", "hs_pipeline_stage", *ticket.properties)
    found = portal.read("tickets", ids, fields=fields) if ids else []
    if ticket.ticket and not found:
        raise PermanentError("there is no ticket with this id", code="not_found")
    open_ones = [one for one in found if one.properties["hs_pipeline_stage"] not in closed]
    if not open_ones:
        return Success(id=ticket.ticket, detail="no open ticket")
    if len(open_ones) > 1 and ticket.on_multiple == "review":
        raise LookupInconclusive(
            f"the person has {len(open_ones)} open tickets: close the right one, or set `on_multiple: newest`"
        )
    newest = max(open_ones, key=lambda one: int(one.id))
    pipeline_id = newest.properties["hs_pipeline"]
    stage_id = next((stage for stage, pipeline in closed.items() if pipeline == pipeline_id), None)
    if stage_id is None:
        raise PermanentError(
            f"ticket pipeline {pipeline_id} has no closed stage: add one in HubSpot", code="no_closed_stage"
        )
    change = _strings(fields_to_write(ticket.properties, newest.properties) | {"hs_pipeline_stage": stage_id})
    portal.objects.update("tickets", newest.id, {"properties": change})
    return Success(id=str(newest.id), detail="closed")


class Task(TaskParams):
    """Something for a colleague to do."""

    type: Literal["CALL", "EMAIL", "TODO"] = param("TODO", "Which kind of task.", example="CALL")
    priority: Literal["LOW", "MEDIUM", "HIGH"] = param("MEDIUM", "How urgent.", example="HIGH")
    owner: str | None = _OWNER


@connector.action(idempotency=per_event, dedupe_by="subject", idempotent=True)
def create_task(portal: Portal, task: Task, context: Context) -> BatchResult:
    """Give a colleague a task on the person's contact."""
    own = {
        "hs_timestamp": _milliseconds(task.due_at(context)),
        "hs_task_subject": task.subject,
        "hs_task_body": _html(task.body(context)),
        "hs_task_status": "NOT_STARTED",
        "hs_task_type": task.type,
        "hs_task_priority": task.priority,
        "hubspot_owner_id": task.owner,
    }
    values = {context.idempotency_token: _strings(own | fields_to_write(task.properties, None))}
    queries = {context.idempotency_token: task.query(context, create=True)}
    [answer] = write_for_contacts(
        Contacts(portal), queries, lambda people: _make(portal, "tasks", values, people)
    ).values()
    if not isinstance(answer, Success):
        raise answer
    return answer


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """What HubSpot's answer means; its exception classes do not tell, each of its packages has its own."""
    status = getattr(error, "status", None)
    if not isinstance(status, int):
        return failure_from_exception(error)
    if status == 0:  # the SDK's word for a TLS failure, whose cause it drops
        return failure_from_exception(error.__context__ or error) or TransientError(
            "no secure connection", reason="network"
        )
    body = _body_of(error)
    headers = getattr(error, "headers", None) or {}
    wait = parse_retry_after(headers.get("Retry-After"))
    detail = f"HubSpot answered {status} {' '.join(_codes(body))}".rstrip()
    policy = _field(body, "policyName")
    if status == 429 and policy == "DAILY":
        return QuotaExhausted(
            "HubSpot's daily quota is used up; it is filled again at midnight of the account's zone"
        )
    if status == 429:
        return RateLimited(detail, retry_after=wait or timedelta(seconds=1 if policy == "SECONDLY" else 10))
    if status == 403 and (scopes := _scopes(body)):
        return AuthenticationError(
            f"the HubSpot token lacks {' or '.join(scopes)}; add it, then `bridge resume hubspot`"
        )
    if status in (423, 477):  # locked by another write; the account is being moved
        return TransientError(detail, retry_after=wait or timedelta(seconds=2 if status == 423 else 60))
    return failure_from_status(status, detail, wait)


def _answered(call: Callable[..., Any]) -> Callable[..., Any]:
    """The SDK makes None of a success whose status it does not expect."""

    def answered(*args: Any, **options: Any) -> Any:
        answer = call(*args, **options)
        if answer is None:
            raise _no_answer()
        return answer

    return answered


def _no_answer() -> OutcomeUnknown:
    return OutcomeUnknown("that is no answer of HubSpot's; is something in between?", reason="server_error")


def _body_of(error: Exception | None) -> str:
    body = getattr(error, "body", None)
    return body if isinstance(body, str) else ""


def _field(body: str, name: str) -> str:
    try:
        return str(json.loads(body).get(name, ""))
    except (ValueError, AttributeError):
        return ""


def _scopes(body: str) -> list[str]:
    found = re.search(r'"required(?:Granular)?Scopes":\s*\[([^\]]*)\]', body)
    return re.findall(r'"([\w.-]{1,80})"', found[1])[:4] if found else []


def _codes(body: str) -> list[str]:
    """HubSpot's codes and the names of properties; its messages may repeat what a person wrote."""
    codes = re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", body)
    names = re.findall(r'\\?"(?:name|propertyName)\\?":\s*\[?\s*\\?"(\w{1,100})\\?"', body)
    return [*dict.fromkeys([*codes, *names])][:6]


def _is_conflict(error: Exception) -> bool:
    """A unique value is taken: 409 for a contact's e-mail, 400 for a property of our own."""
    status, body = getattr(error, "status", None), _body_of(error)
    return status == 409 or (
        status == 400 and ("CONFLICTING_UNIQUE_VALUE" in body or "already has that value" in body)
    )


def _lacks(error: Exception, name: str) -> bool:
    body = _body_of(error)
    missing = "PROPERTY_DOESNT_EXIST" in body or "does not exist" in body
    return getattr(error, "status", None) == 400 and missing and name in body


def _refusal_in(answer: Any) -> DeliveryError:
    """What a batch that went through in part (207) says about the items that it did not answer."""
    errors = getattr(answer, "errors", None) or []
    categories = {str(one.category) for one in errors}
    detail = f"HubSpot refused the record: {' '.join(sorted(categories))}"
    if categories & {"RATE_LIMITS", "RATE_LIMIT"}:
        return RateLimited(detail)
    if categories & {"VALIDATION_ERROR", "OBJECT_NOT_FOUND", "CONFLICT", "OBJECT_ALREADY_EXISTS"}:
        return PermanentError(detail, code=min(categories))
    return OutcomeUnknown("HubSpot's answer does not mention this record", reason="server_error")


def _match(item: Any) -> ContactMatch:
    values = item.properties or {}
    emails = [values.get("email") or "", *(values.get("hs_additional_emails") or "").split(";")]
    return ContactMatch(
        str(item.id),
        [email.strip() for email in emails if email.strip()],
        [number for name in ("phone", "mobilephone") if (number := values.get(name))],
        (values.get("notes_last_updated") or "", values.get("lastmodifieddate") or ""),
        # HubSpot writes `america_slash_port_hyphen_au_hyphen_prince`.
        (values.get("hs_timezone") or "").replace("_slash_", "/").replace("_hyphen_", "-") or None,
    )


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _strings(values: Mapping[str, Any]) -> dict[str, str]:
    """HubSpot takes strings only; what has no value is left out, so it blanks nothing."""
    return {
        name: ("true" if value else "false") if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }


def _html(text: str) -> str:
    """HubSpot shows bodies as HTML, and what was said in a call may look like a tag."""
    escaped = html.escape(text).replace("\n", "<br>")
    return re.sub(r"(&[^;]{0,6}|<[^>]{0,3})$", "", escaped[:LONGEST_BODY])
