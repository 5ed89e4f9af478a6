"""HubSpot connector: logs calls and chats on a contact's timeline; writes contacts, tickets and tasks.

HubSpot has no idempotency keys, so every record that the bridge creates carries a unique property. HubSpot rejects a
second create request with the same value, and the value leads to the existing record. Every action here is therefore
idempotent, and a call and its association are created in one request.
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

BATCH_SIZE = 100
"""HubSpot's limit for one batch request."""
MAX_BODY_LENGTH = 65_536
"""HubSpot's limit for a call body or a note body, in characters."""
UNIQUE_PROPERTIES = {
    "calls": ("heppu_conversation_id", "call", "Heppu conversation"),
    "notes": ("heppu_conversation_id", "note", "Heppu conversation"),
    "tasks": ("heppu_key", "task", "Heppu key"),
    "contacts": ("heppu_phone", "contactinformation", "Heppu caller"),
}
"""Object type -> name, group and label of its unique property."""
TICKETS_SCOPE = "tickets"
SCOPES = (
    "crm.objects.contacts.read",
    "crm.objects.contacts.write",
    "crm.schemas.contacts.read",
    "crm.schemas.contacts.write",
    TICKETS_SCOPE,
)
"""Scopes that a token needs for all actions. Calls, notes and tasks are covered by the scopes of contacts."""
CONTACT_ASSOCIATION_TYPES = {"calls": 194, "notes": 202, "tasks": 204}
"""HubSpot's association type IDs from each object type to contacts. The opposite direction has other IDs."""
CALL_STATUSES = {
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
"""HubSpot's default call outcomes, which have these IDs in every account."""
_DISPOSITION_OF_STATUS = {"completed": "connected", "busy": "busy", "no_answer": "no_answer"}
_MATCH_PROPERTIES = (
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
    """Settings: `HUBSPOT_ACCESS_TOKEN`, the token of a private app or a service key."""

    access_token: SecretStr
    """Access token of a private app, or a service key."""
    url: ProviderUrl = "https://api.hubapi.com"
    """Base URL of HubSpot's API."""
    api_version: str | None = Field(None, pattern=r"^20\d\d-(03|09)$")
    """Version such as `2026-03` for all paths. Default: v3 and v4 (the SDK's), which HubSpot supports until 2027."""


connector = Connector(
    "hubspot",
    settings=Settings,
    limits=Limits(per_second=9, concurrency=4, timeout=25),
    description="Logs calls and chats on contacts; writes contacts, tickets and tasks.",
)


class DeadlinePool(urllib3.PoolManager):
    """Connection pool for all requests of the account, which end within the attempt's deadline without retries."""

    def __init__(self, version: str | None) -> None:
        super().__init__(num_pools=2, maxsize=connector.limits.concurrency, retries=Retry(0))
        enforce_deadline(self)
        self._version = version

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send one request. Redirects are not followed: they would send the token to another host."""
        del redirect
        if self._version:
            url = re.sub(r"/crm/v\d/(\w+)", rf"/crm/\1/{self._version}", url, count=1)
        check_deadline()
        options["timeout"] = urllib3.Timeout(
            connect=max(0.05, remaining_seconds(3)), read=max(0.05, remaining_seconds(20))
        )
        response = super().urlopen(method, url, redirect=False, **options)
        if 200 <= response.status < 300 and response.data.lstrip()[:1] != b"{":
            raise _not_from_hubspot()  # an HTML page with status 200, which the SDK reads as an empty record
        return response


@dataclass(frozen=True)
class Record:
    """The desired properties and contact of a call, note or task."""

    properties: Mapping[str, str]
    contact_id: str | None


class Account:
    """Client of one HubSpot account, over one connection pool."""

    def __init__(self, settings: Settings) -> None:
        pool = DeadlinePool(settings.api_version)

        def create_api(package: Any, name: str, config: dict[str, Any]) -> Any:
            api = DiscoveryBase._default_api_factory(package, name, config)
            api.api_client.rest_client.pool_manager = pool
            api.api_client.call_api = _require_response(api.api_client.call_api)
            return api

        self._token = settings.access_token.get_secret_value()
        crm = HubSpot(
            access_token=self._token,
            host=settings.url,
            retry=Retry(0),
            api_factory=create_api,
        ).crm
        # The SDK creates a new object with a new pool each time one of these attributes is accessed.
        self.objects = crm.objects.basic_api
        self.batch = crm.objects.batch_api
        self.search = crm.objects.search_api
        self.properties = crm.properties.core_api
        self.pipelines = crm.pipelines.pipelines_api
        self.associations = crm.associations.v4.basic_api
        self.has_phone_property = True
        self.close = pool.clear
        self._property_lock = threading.Lock()

    def upsert(self, kind: str, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        """Create each record, or update the record with its key. If none exists yet, this takes one request."""
        response = None
        try:
            response = self._create(kind, records)
        except Exception as error:
            if not _is_conflict(error):
                raise
        results = {
            key: Success(id=record_id) for key, record_id in self._ids_by_key(kind, records, response).items()
        }
        remaining = [key for key in records if key not in results]
        if not remaining:
            return {**results}
        key_property = UNIQUE_PROPERTIES[kind][0]
        existing = {
            str(item.properties.get(key_property)): str(item.id)
            for item in self.read(kind, remaining, key_property)
        }
        results |= self.update(
            kind, {existing[key]: (key, records[key].properties) for key in remaining if key in existing}
        )
        missing = {key: records[key] for key in remaining if key not in results}
        if missing and response is None:
            response = self._create(kind, missing)
            created = self._ids_by_key(kind, missing, response)
            results |= {key: Success(id=record_id) for key, record_id in created.items()}
        failure = _failure_in_batch(response)
        return {key: results.get(key, failure) for key in records}

    def update(self, kind: str, changes: Mapping[str, tuple[str, Mapping[str, str]]]) -> dict[str, Success]:
        """Update records, given as ID -> (key, properties), and return a result per key. Deleted ones are omitted."""
        if not changes:
            return {}
        inputs = [
            {"id": record_id, "properties": dict(properties)}
            for record_id, (_, properties) in changes.items()
        ]
        try:
            response = self.batch.update(kind, {"inputs": inputs})
        except Exception as error:
            if getattr(error, "status", None) != 404:
                raise
            return {}
        return {
            changes[str(item.id)][0]: Success(id=str(item.id), detail="updated")
            for item in response.results
            if str(item.id) in changes
        }

    def read(
        self, kind: str, ids: Iterable[str], id_property: str | None = None, fields: Iterable[str] = ()
    ) -> list[Any]:
        """Return the existing records among `ids`. Unlike HubSpot's search, reading by ID or unique property is
        always current."""
        body = {
            "inputs": [{"id": value} for value in dict.fromkeys(ids)],
            "properties": [*fields, *([id_property] if id_property else [])],
            "propertiesWithHistory": [],
        }
        response = self.batch.read(kind, body | ({"idProperty": id_property} if id_property else {}))
        return list(response.results or ())

    def deleted_contacts(self, ids: Sequence[str]) -> set[str]:
        """Return the contacts among `ids` that were deleted or merged into another contact."""
        return set(ids) - {str(item.id) for item in self.read("contacts", ids)} if ids else set()

    def granted_scopes(self) -> Sequence[str]:
        """Return the token's scopes, or all required ones if HubSpot does not report them, as with a service key."""
        try:
            token_info = self.objects.api_client.call_api(
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
        return [str(scope) for scope in token_info.get("scopes") or SCOPES]

    def ensure_unique_property(self, kind: str) -> str:
        """Create the unique property of an object type unless it exists. Return a note of what was done."""
        name, group, label = UNIQUE_PROPERTIES[kind]
        try:
            existing = self.properties.get_by_name(kind, name)
        except Exception as error:
            if getattr(error, "status", None) != 404:
                raise
        else:
            _require_unique(kind, existing)
            return f"{kind}.{name} exists"
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
            if getattr(error, "status", None) != 409:  # created by another process in the meantime
                raise
        return f"{kind}.{name} created"

    def with_unique_property(self, kind: str, write: Callable[[], T]) -> T:
        """Run `write`. If the account lacks the unique property (setup was never run), create it and run it again."""
        name = UNIQUE_PROPERTIES[kind][0]
        try:
            return write()
        except Exception as error:
            if not _is_property_missing(error, name):
                raise
        with self._property_lock:
            try:
                self.ensure_unique_property(kind)
            except Exception as error:
                if getattr(error, "status", None) not in (403, 404, 405):
                    raise
                raise PermanentError(
                    f"HubSpot has no property {name} for {kind}, and this token may not create it: run "
                    "`bridge connections setup hubspot` once with a token that has crm.schemas.contacts.write",
                    code="PROPERTY_DOESNT_EXIST",
                ) from error
        try:
            return write()
        except Exception as error:
            if _is_property_missing(error, name):
                raise TransientError(
                    f"HubSpot is still creating the property {name}", retry_after=timedelta(seconds=10)
                ) from error
            raise

    def _create(self, kind: str, records: Mapping[str, Record]) -> Any:
        inputs: list[dict[str, Any]] = []
        for key, record in records.items():
            association = {
                "associationCategory": "HUBSPOT_DEFINED",
                "associationTypeId": CONTACT_ASSOCIATION_TYPES[kind],
            }
            inputs.append(
                {
                    "properties": {**record.properties, UNIQUE_PROPERTIES[kind][0]: key},
                    "associations": [{"to": {"id": record.contact_id}, "types": [association]}]
                    if record.contact_id
                    else [],
                }
            )
        return self.with_unique_property(kind, lambda: self.batch.create(kind, {"inputs": inputs}))

    def _ids_by_key(self, kind: str, records: Mapping[str, Record], response: Any) -> dict[str, str]:
        items = [item for item in (response.results if response is not None else None) or () if item.id]
        if len(records) == 1 and len(items) == 1:
            return {next(iter(records)): str(items[0].id)}
        ids = {str((item.properties or {}).get(UNIQUE_PROPERTIES[kind][0])): str(item.id) for item in items}
        return {key: ids[key] for key in records if key in ids}


def _require_unique(kind: str, existing: Any) -> None:
    if not existing.has_unique_value:
        raise ConfigError(
            f"the property {existing.name} of {kind} is not unique: archive it and run "
            "`bridge connections setup hubspot`"
        )


class Contacts:
    """The account's contacts, as a source for `resolve_contacts`."""

    def __init__(self, account: Account, properties: Mapping[str, Property] | None = None) -> None:
        self._account = account
        self._properties = properties or {}
        """Properties of a new contact besides name and addresses."""

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
            if not _is_conflict(error):
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
        failure = _failure_in_batch(response)
        return [created.get((query.email or query.phone or "").lower(), failure) for query in queries]

    def _create(self, queries: Sequence[ContactQuery]) -> Any:
        def write() -> Any:
            inputs = [{"properties": self._new_contact(query), "associations": []} for query in queries]
            return self._account.batch.create("contacts", {"inputs": inputs})

        try:
            return self._account.with_unique_property("contacts", write)
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
        return _strings(
            {name: value for name, value in values.items() if value} | fields_to_write(self._properties, None)
        )

    def _find_existing(self, query: ContactQuery) -> str | None:
        if query.email and (items := self._account.read("contacts", [query.email], "email")):
            return str(items[0].id)
        if query.phone and self._account.has_phone_property:
            items = self._account.read("contacts", [query.phone], UNIQUE_PROPERTIES["contacts"][0])
            return str(items[0].id) if items else None
        return None


@connector.client
def client(settings: Settings) -> Account:
    """Return the account's client, whose requests end within the attempt's deadline."""
    return Account(settings)


@connector.check
def check(account: Account) -> str:
    """Read the token's scopes, one contact and the unique properties. Writes nothing."""
    missing_scopes = [scope for scope in SCOPES if scope not in account.granted_scopes()]
    if required := [scope for scope in missing_scopes if scope != TICKETS_SCOPE]:
        raise ConfigError(f"the token lacks the scopes {', '.join(required)}: add them to the app in HubSpot")
    account.objects.get_page("contacts", limit=1)
    missing_properties = []
    for kind, (name, _, _) in UNIQUE_PROPERTIES.items():
        try:
            existing = account.properties.get_by_name(kind, name)
        except Exception as error:
            if getattr(error, "status", None) != 404:
                raise
            missing_properties.append(f"{kind}.{name}")
        else:
            _require_unique(kind, existing)
    notes = ["token accepted", "unique properties exist"]
    if missing_properties:
        notes[1] = f"missing {', '.join(missing_properties)}: run `bridge connections setup hubspot`"
    if missing_scopes:
        notes.append(f"without the scope {TICKETS_SCOPE}, tickets cannot be closed")
    return "; ".join(notes)


@connector.setup
def setup(account: Account) -> str:
    """Create the unique properties that prevent duplicate records."""
    return "; ".join(account.ensure_unique_property(kind) for kind in UNIQUE_PROPERTIES)


_OWNER = param(None, "HubSpot user ID of the owner.", example="41629779", pattern=r"^\d+$")
_ON_MISSING = param(
    "create", "If HubSpot has no such contact: `create` one, or `skip` logging.", example="skip"
)


class LogCallParams(CallParams):
    """A phone call to log."""

    disposition: str | None = param(
        None,
        f"Call outcome: {', '.join(DISPOSITIONS)}, or the ID of a custom outcome. Default: derived from the status.",
        example="left_voicemail",
        pattern=rf"^({'|'.join(DISPOSITIONS)}|[0-9a-f-]{{36}})$",
    )
    recording_url: str | None = param(
        None, "URL of the recording (https).", example="https://example.com/1.mp3", pattern=r"^https://"
    )
    on_missing: Literal["create", "skip"] = _ON_MISSING
    owner: str | None = _OWNER


class LogChatParams(ChatParams):
    """A chat to log."""

    on_missing: Literal["create", "skip"] = _ON_MISSING
    owner: str | None = _OWNER


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE)
def log_call(account: Account, items: Sequence[BatchItem[LogCallParams]]) -> list[BatchResult]:
    """Log the call on the contact's timeline, once per conversation."""
    return _log(account, "calls", items, _call_properties)


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE)
def log_chat(account: Account, items: Sequence[BatchItem[LogChatParams]]) -> list[BatchResult]:
    """Log the chat as a note on the contact's timeline, once per conversation."""
    return _log(account, "notes", items, _note_properties)


def _call_properties(call: LogCallParams, context: Context) -> dict[str, Any]:
    seconds = call.duration_seconds()
    caller, callee = call.caller_and_callee(context)
    disposition = call.disposition or _DISPOSITION_OF_STATUS.get(call.normalized_status)
    return {
        "hs_call_title": call.display_title(context),
        "hs_call_body": _html(call.body_text(context, MAX_BODY_LENGTH)),
        "hs_call_duration": None if seconds is None else round(seconds * 1000),
        "hs_call_direction": {True: "OUTBOUND", False: "INBOUND", None: None}[call.is_outbound],
        "hs_call_status": CALL_STATUSES.get(call.normalized_status),
        "hs_call_disposition": DISPOSITIONS.get(disposition, disposition) if disposition else None,
        "hs_call_from_number": caller,
        "hs_call_to_number": callee,
        "hs_call_recording_url": call.recording_url,
    }


def _note_properties(chat: LogChatParams, context: Context) -> dict[str, Any]:
    return {
        "hs_note_body": _html(f"{chat.display_title(context)}\n{chat.body_text(context, MAX_BODY_LENGTH)}")
    }


P = TypeVar("P", LogCallParams, LogChatParams)


def _log(
    account: Account,
    kind: str,
    items: Sequence[BatchItem[P]],
    to_properties: Callable[[P, Context], dict[str, Any]],
) -> list[BatchResult]:
    """Write the record of every item in as few requests as HubSpot allows: one, if all contacts are cached."""
    by_key = {item.context.conversation_key: item for item in items}
    if len(by_key) < len(items):
        raise PermanentError("two events of one conversation in one batch", code="same_conversation")
    properties: dict[str, dict[str, str]] = {}
    for key, item in by_key.items():
        standard = to_properties(item.params, item.context) | {
            "hs_timestamp": _milliseconds(item.context.event.occurred_at),
            "hubspot_owner_id": item.params.owner,
        }
        additional = fields_to_write(item.params.additional_properties(item.context), None)
        properties[key] = _strings(standard | additional)
    existing = {item.context.existing_id: key for key, item in by_key.items() if item.context.existing_id}
    results: dict[str, BatchResult] = {}
    results |= account.update(
        kind, {record_id: (key, properties[key]) for record_id, key in existing.items()}
    )
    queries = {
        key: item.params.contact_query(item.context, create=item.params.on_missing == "create")
        for key, item in by_key.items()
        if key not in results
    }
    results |= write_for_contacts(
        Contacts(account), queries, lambda contacts: _write_records(account, kind, properties, contacts)
    )
    return [results[key] for key in by_key]


def _write_records(
    account: Account,
    kind: str,
    properties: Mapping[str, Mapping[str, str]],
    contacts: Mapping[str, ContactRef | None],
) -> dict[str, Success | DeliveryError]:
    """Write the records of contacts. Without a contact nothing is written: HubSpot shows such a record nowhere."""
    results: dict[str, Success | DeliveryError] = {
        key: Success(detail="not logged: HubSpot has no such contact")
        for key, contact in contacts.items()
        if not contact
    }
    contact_ids = {key: contact.id for key, contact in contacts.items() if contact}
    if not contact_ids:
        return results
    records = {key: Record(properties[key], contact_id) for key, contact_id in contact_ids.items()}
    batch_error: Exception | None = None
    try:
        results |= account.upsert(kind, records)
        failed = [key for key in contact_ids if isinstance(results[key], PermanentError)]
    except Exception as error:
        batch_error, failed = error, list(contact_ids)
        if getattr(error, "status", None) not in (400, 404) or "propert" in _body_of(error).lower():
            raise
    deleted = account.deleted_contacts([contact_ids[key] for key in failed])
    if batch_error is not None and not deleted:
        raise batch_error
    results |= {key: ContactDeleted() for key in failed if contact_ids[key] in deleted}
    remaining = {key: record for key, record in records.items() if contact_ids[key] not in deleted}
    if (
        batch_error is not None and remaining
    ):  # HubSpot rejected the whole batch because of the deleted contacts
        results |= account.upsert(kind, remaining)
    return results


class WriteContactParams(ContactParams):
    """A contact and the fields to write. Values from the event fill empty fields only."""

    company: str | None = param(
        "{{ contact.company }}", "Company name. Written only if empty in HubSpot.", example="Lindqvist Cycles"
    )


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def upsert_contact(account: Account, params: WriteContactParams, context: Context) -> Success:
    """Update the contact, or create it if HubSpot has no such contact."""
    return _write_contact(account, params, context, create=True)


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def update_contact(account: Account, params: WriteContactParams, context: Context) -> Success:
    """Update the contact. Fail if HubSpot has no such contact."""
    return _write_contact(account, params, context, create=False)


def _write_contact(
    account: Account, params: WriteContactParams, context: Context, *, create: bool
) -> Success:
    fields = params.contact_fields(
        email=params.email,
        phone=params.phone,
        firstname=params.first_name,
        lastname=params.last_name,
        company=params.company,
    )
    contact, current = _resolve_contact(account, params.contact_query(context, create=create), fields)
    changes = _strings(fields_to_write(fields, current)) if current is not None else {}
    if changes:
        account.objects.update("contacts", contact.id, {"properties": changes})
    return Success(id=contact.id, detail=contact.detail or ("updated" if changes else "nothing to update"))


def _resolve_contact(
    account: Account, query: ContactQuery, fields: Mapping[str, Property]
) -> tuple[ContactRef, Mapping[str, Any] | None]:
    def read(contact_id: str) -> Mapping[str, Any] | None:
        items = account.read("contacts", [contact_id], fields=fields)
        return items[0].properties if items else None

    return resolve_contact(Contacts(account, fields), query, read)


class CloseTicketParams(ContactLookupParams):
    """A ticket to close."""

    ticket: str | None = param(
        "{{ event.metadata.ticketId }}",
        "Ticket ID. Default: the contact's open ticket.",
        example="1209876543",
        pattern=r"^\d+$",
    )
    on_multiple: Literal["review", "newest"] = param(
        "review",
        "If the contact has several open tickets: `review` asks the operator, `newest` closes the newest.",
        example="newest",
    )
    properties: Properties = param(
        {}, "Additional fields of the ticket.", example={"hs_resolution": "ISSUE_FIXED"}
    )


@connector.action(idempotency=per_event, idempotent=True)
def close_ticket(account: Account, params: CloseTicketParams, context: Context) -> Success:
    """Move a ticket to the closed stage of its pipeline."""
    closed_stages: dict[str, str] = {}
    """Stage -> pipeline. Each account configures which stages count as closed."""
    for pipeline in account.pipelines.get_all("tickets").results:
        for stage in sorted(pipeline.stages, key=lambda stage: stage.display_order):
            if (stage.metadata or {}).get("ticketState") == "CLOSED":
                closed_stages[stage.id] = pipeline.id
    if params.ticket:
        ids = [params.ticket]
    else:
        contact, _ = _resolve_contact(account, params.contact_query(context, create=False), {})
        page = account.associations.get_page("contacts", contact.id, "tickets", limit=BATCH_SIZE)
        ids = [str(association.to_object_id) for association in page.results]
    fields = ("hs_pipeline", "hs_pipeline_stage", *params.properties)
    tickets = account.read("tickets", ids, fields=fields) if ids else []
    if params.ticket and not tickets:
        raise PermanentError("HubSpot has no ticket with this ID: check the param `ticket`", code="not_found")
    open_tickets = [
        ticket for ticket in tickets if ticket.properties["hs_pipeline_stage"] not in closed_stages
    ]
    if not open_tickets:
        return Success(id=params.ticket, detail="no open ticket")
    if len(open_tickets) > 1 and params.on_multiple == "review":
        raise LookupInconclusive(
            f"the contact has {len(open_tickets)} open tickets: close the right one, or set `on_multiple: newest`"
        )
    newest = max(open_tickets, key=lambda ticket: int(ticket.id))
    pipeline_id = newest.properties["hs_pipeline"]
    stage_id = next((stage for stage, pipeline in closed_stages.items() if pipeline == pipeline_id), None)
    if stage_id is None:
        raise PermanentError(
            f"ticket pipeline {pipeline_id} has no closed stage: add one in HubSpot", code="no_closed_stage"
        )
    changes = _strings(
        fields_to_write(params.properties, newest.properties) | {"hs_pipeline_stage": stage_id}
    )
    account.objects.update("tickets", newest.id, {"properties": changes})
    return Success(id=str(newest.id), detail="closed")


class CreateTaskParams(TaskParams):
    """A task for a colleague."""

    type: Literal["CALL", "EMAIL", "TODO"] = param("TODO", "Task type.", example="CALL")
    priority: Literal["LOW", "MEDIUM", "HIGH"] = param("MEDIUM", "Task priority.", example="HIGH")
    owner: str | None = _OWNER


@connector.action(idempotency=per_event, dedupe_by="subject", idempotent=True)
def create_task(account: Account, params: CreateTaskParams, context: Context) -> BatchResult:
    """Create a task for a colleague on the contact."""
    standard = {
        "hs_timestamp": _milliseconds(params.due_at(context)),
        "hs_task_subject": params.subject,
        "hs_task_body": _html(params.body(context)),
        "hs_task_status": "NOT_STARTED",
        "hs_task_type": params.type,
        "hs_task_priority": params.priority,
        "hubspot_owner_id": params.owner,
    }
    properties = {context.idempotency_token: _strings(standard | fields_to_write(params.properties, None))}
    queries = {context.idempotency_token: params.contact_query(context, create=True)}
    [result] = write_for_contacts(
        Contacts(account), queries, lambda contacts: _write_records(account, "tasks", properties, contacts)
    ).values()
    if not isinstance(result, Success):
        raise result
    return result


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map HubSpot's status and codes. Its exception classes are of no use: each SDK package defines its own."""
    status = getattr(error, "status", None)
    if not isinstance(status, int):
        return failure_from_exception(error)
    if status == 0:  # the SDK's status for a TLS failure, whose cause it drops
        return failure_from_exception(error.__context__ or error) or TransientError(
            "no TLS connection to HubSpot", reason="network"
        )
    body = _body_of(error)
    headers = getattr(error, "headers", None) or {}
    wait = parse_retry_after(headers.get("Retry-After"))
    detail = f"HubSpot answered {status} {' '.join(_codes(body))}".rstrip()
    policy = _field(body, "policyName")
    if status == 429 and policy == "DAILY":
        return QuotaExhausted(
            "HubSpot's daily quota is used up; it is reset at midnight in the account's time zone"
        )
    if status == 429:
        return RateLimited(detail, retry_after=wait or timedelta(seconds=1 if policy == "SECONDLY" else 10))
    if status == 403 and (scopes := _required_scopes(body)):
        return AuthenticationError(
            f"the HubSpot token lacks the scope {' or '.join(scopes)}: add it to the app in HubSpot, then run "
            "`bridge resume hubspot`"
        )
    if status in (423, 477):  # 423: locked by another write; 477: the account is being migrated
        return TransientError(detail, retry_after=wait or timedelta(seconds=2 if status == 423 else 60))
    return failure_from_status(status, detail, wait)


def _require_response(call: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an SDK call to raise OutcomeUnknown instead of returning None for an unexpected success status."""

    def wrapper(*args: Any, **options: Any) -> Any:
        response = call(*args, **options)
        if response is None:
            raise _not_from_hubspot()
        return response

    return wrapper


def _not_from_hubspot() -> OutcomeUnknown:
    return OutcomeUnknown(
        "the response is not HubSpot's: check for a proxy in between", reason="server_error"
    )


def _body_of(error: Exception | None) -> str:
    body = getattr(error, "body", None)
    return body if isinstance(body, str) else ""


def _field(body: str, name: str) -> str:
    try:
        return str(json.loads(body).get(name, ""))
    except (ValueError, AttributeError):
        return ""


def _required_scopes(body: str) -> list[str]:
    match = re.search(r'"required(?:Granular)?Scopes":\s*\[([^\]]*)\]', body)
    return re.findall(r'"([\w.-]{1,80})"', match[1])[:4] if match else []


def _codes(body: str) -> list[str]:
    """Return HubSpot's error codes and property names only: its messages may repeat a contact's data."""
    codes = re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", body)
    names = re.findall(r'\\?"(?:name|propertyName)\\?":\s*\[?\s*\\?"(\w{1,100})\\?"', body)
    return [*dict.fromkeys([*codes, *names])][:6]


def _is_conflict(error: Exception) -> bool:
    """Return whether a unique value is in use: 409 for a contact's email, 400 for one of our unique properties."""
    status, body = getattr(error, "status", None), _body_of(error)
    return status == 409 or (
        status == 400 and ("CONFLICTING_UNIQUE_VALUE" in body or "already has that value" in body)
    )


def _is_property_missing(error: Exception, name: str) -> bool:
    body = _body_of(error)
    missing = "PROPERTY_DOESNT_EXIST" in body or "does not exist" in body
    return getattr(error, "status", None) == 400 and missing and name in body


def _failure_in_batch(response: Any) -> DeliveryError:
    """Return the error for the items that a partially successful batch (207) has no result for."""
    errors = getattr(response, "errors", None) or []
    categories = {str(error.category) for error in errors}
    detail = f"HubSpot rejected the record: {' '.join(sorted(categories))}"
    if categories & {"RATE_LIMITS", "RATE_LIMIT"}:
        return RateLimited(detail)
    if categories & {"VALIDATION_ERROR", "OBJECT_NOT_FOUND", "CONFLICT", "OBJECT_ALREADY_EXISTS"}:
        return PermanentError(detail, code=min(categories))
    return OutcomeUnknown("HubSpot's response does not mention this record", reason="server_error")


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


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _strings(values: Mapping[str, Any]) -> dict[str, str]:
    """Convert values to strings, the only type HubSpot accepts. None is omitted, so that it clears no field."""
    return {
        name: ("true" if value else "false") if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }


def _html(text: str) -> str:
    """Return the text as HTML, which HubSpot expects in bodies. Escaped, as a summary may look like a tag."""
    escaped = html.escape(text).replace("\n", "<br>")
    return re.sub(r"(&[^;]{0,6}|<[^>]{0,3})$", "", escaped[:MAX_BODY_LENGTH])
