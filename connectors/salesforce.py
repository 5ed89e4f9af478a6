"""Salesforce connector: logs calls and chats as Tasks; writes contacts, leads, cases and to-do Tasks.

A Task stores the conversation ID in an External ID field, so a repeated write is an upsert of the same Task. Records
are sent in sObject collections: up to 200 records take one request of the org's daily quota, with a result for each.
"""

from __future__ import annotations

import json
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import requests
from pydantic import AfterValidator, Field, FilePath, SecretStr, model_validator
from simple_salesforce.api import Salesforce
from simple_salesforce.exceptions import SalesforceAuthenticationFailed, SalesforceError
from simple_salesforce.format import format_soql
from simple_salesforce.login import SalesforceLogin

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
    DeadlineAdapter,
    Limits,
    Properties,
    Property,
    ProviderUrl,
    Success,
    TaskParams,
    failure_from_exception,
    failure_from_status,
    fields_to_write,
    national_digits,
    param,
    parse_retry_after,
    per_conversation,
    per_event,
    resolve_contact,
    same_number,
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

BATCH_SIZE = 200
"""Salesforce's limit for one sObject collection."""
_ADDRESSES_PER_QUERY = 50
"""A query is sent in the URL, which is limited to 16 KB."""
_QUOTA_RECHECK_INTERVAL = timedelta(minutes=10)
_STATUS_CACHE_SECONDS = 6 * 3600.0
_MISSING_FIELD_CACHE_SECONDS = 600.0
_ID = r"^[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?$"
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
_DELETED_CODES = {
    "ENTITY_IS_DELETED",
    "INVALID_CROSS_REFERENCE_KEY",
    "CANNOT_UPDATE_CONVERTED_LEAD",
    "NOT_FOUND",
}
"""Error codes for a cached record that was deleted, merged or converted."""
_DEFAULT_CLOSED_STATUS = {"Task": "Completed", "Case": "Closed"}
"""Salesforce's default status names, which an org may rename."""
MAX_LENGTH = {"Subject": 255, "Description": 32_000, "CallDisposition": 255, "CallObject": 255}
_CALL_RESULTS = {"completed": "Connected", "no_answer": "No answer", "busy": "Busy", "failed": "Failed"}

T = TypeVar("T")
Record = dict[str, Any]


def _validate_time_zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        raise ValueError("is not a valid time zone: write an IANA name such as America/New_York") from None


class Settings(ConnectorSettings):
    """Settings: `SALESFORCE_URL`, the org's My Domain, and a secret or private key of an external client app."""

    url: ProviderUrl
    """My Domain URL of the org: `https://acme.my.salesforce.com`."""
    consumer_key: SecretStr
    """Consumer key of the external client app."""
    consumer_secret: SecretStr | None = None
    """Consumer secret, for the OAuth client credentials flow."""
    username: str | None = None
    """Name of the integration user, for the OAuth JWT bearer flow."""
    private_key_file: FilePath | None = None
    """Path of the RSA private key (PEM), for the OAuth JWT bearer flow."""
    api_version: str = Field("66.0", pattern=r"^\d\d\.0$")
    """Version of the REST API."""
    max_quota_fraction: float = Field(0.8, gt=0, le=1)
    """The bridge stops when the org has used this fraction of its daily requests, and leaves the rest to others."""
    task_field: str = Field("Conversation_Id__c", pattern=r"^[A-Za-z]\w*__c$")
    """External ID field of Task for the conversation ID."""
    owner: str | None = Field(None, pattern=_ID)
    """Owner of the Tasks. Default: the integration user, in whose lists no colleague sees them."""
    time_zone: Annotated[str, AfterValidator(_validate_time_zone)] = "UTC"
    """Time zone for the date of a Task if the event does not state the contact's time zone."""

    @model_validator(mode="after")
    def _require_one_flow(self) -> Self:
        if self.consumer_secret is None and (self.username is None or self.private_key_file is None):
            raise ValueError(
                "set SALESFORCE_CONSUMER_SECRET, or SALESFORCE_USERNAME and SALESFORCE_PRIVATE_KEY_FILE"
            )
        return self


connector = Connector(
    "salesforce",
    settings=Settings,
    limits=Limits(concurrency=4, timeout=25),
    description="Logs calls and chats as Tasks; writes contacts, leads and cases.",
)


class QuotaAdapter(DeadlineAdapter):
    """Transport adapter for all requests of the org: applies the attempt's deadline and guards the daily quota."""

    def __init__(self, max_fraction: float, redirect_to: str | None) -> None:
        super().__init__(redirect_to=redirect_to, pool_size=connector.limits.concurrency, read_seconds=20)
        self._max_fraction = max_fraction
        self._exhausted_until: datetime | None = None
        self.usage = ""
        """`18/5000`: requests of the whole org in the last 24 hours, as last reported by Salesforce."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send the request unless the quota fraction is used up. Every ten minutes, one request checks again."""
        now, until = datetime.now(UTC), self._exhausted_until
        if until and now < until:
            raise QuotaExhausted(
                f"{self.usage} of the org's daily requests are used; SALESFORCE_MAX_QUOTA_FRACTION leaves the rest "
                "to other applications",
                until=until,
            )
        response = super().send(request, *args, **kwargs)
        status = response.status_code
        if status == 429:  # Salesforce itself does not send it, and the SDK would drop Retry-After
            response.close()
            wait = parse_retry_after(response.headers.get("Retry-After"))
            raise RateLimited("Salesforce answered 429", retry_after=wait)
        if str(request.url).endswith("/token") and (status >= 500 or status == 408):
            response.close()
            # No record was sent yet, so nothing can have happened.
            raise TransientError(f"Salesforce's login answered {status}")
        usage = re.match(r"\s*api-usage=(\d+)/(\d+)", response.headers.get("Sforce-Limit-Info", ""))
        if usage:
            used, limit = int(usage[1]), int(usage[2])
            self.usage = f"{used}/{limit}"
            exhausted = used >= self._max_fraction * limit
            self._exhausted_until = now + _QUOTA_RECHECK_INTERVAL if exhausted else None
        return response


class Org:
    """Client of one Salesforce org. Logs in on first use, and once more when the session has expired.

    The SDK's own renewal loops if a session is rejected repeatedly, and each thread renews for itself. The SDK
    therefore gets a session that it cannot renew.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        host = urlsplit(settings.url).hostname or ""
        direct = settings.url.startswith("https://") and host.endswith(".salesforce.com")
        # The SDK supports https and salesforce.com only; the adapter redirects to any other address.
        self.adapter = QuotaAdapter(settings.max_quota_fraction, None if direct else settings.url)
        self._domain = host.removesuffix(".salesforce.com") if direct else "redirected.my"
        self._http = requests.Session()
        self._http.trust_env = direct
        self._http.max_redirects = 0  # the session token must not be sent to another host
        self._http.mount("https://", self.adapter)
        self._lock = threading.Lock()
        self._api: Salesforce | None = None
        self._logged_in_at = 0.0
        self._closed_status: dict[str, tuple[float, str]] = {}
        self._field_missing_until = 0.0
        self.close = self._http.close

    def query(self, soql: str) -> list[Record]:
        """Return all rows of a SOQL query."""
        return list(self._with_session(lambda api: api.query_all(soql))["records"])

    def search(self, sosl: str) -> list[Record]:
        """Return all records of a SOSL search."""
        return list((self._with_session(lambda api: api.search(sosl)) or {}).get("searchRecords") or ())

    def rest(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send one request below `/services/data/vXX.0/` and return its JSON."""
        return self._with_session(
            lambda api: api.restful(path, method=method, json=body, headers=dict(headers or {}))
        )

    def collection(self, method: str, path: str, records: Sequence[Record]) -> list[Record]:
        """Write up to 200 records in one request and return a result for each of them."""
        body = {"allOrNone": False, "records": list(records)}
        results = self.rest(method, f"composite/sobjects{path}", body)
        if not isinstance(results, list) or len(results) != len(records):
            raise OutcomeUnknown(
                "Salesforce's response does not match the records sent", reason="server_error"
            )
        return results

    def closed_status(self, object_type: str) -> str:
        """Return the org's name for the closed status of Task or Case."""
        cached = self._closed_status.get(object_type)
        if cached is None or cached[0] < time.monotonic():
            condition = "IsClosed = true ORDER BY SortOrder LIMIT 1"
            try:
                rows = self.query(_select(("ApiName",), f"{object_type}Status", condition))
            except SalesforceError as error:
                if error.status not in (400, 404):
                    raise
                rows = [{"ApiName": _DEFAULT_CLOSED_STATUS[object_type]}]  # hidden from this user
            if not rows:
                raise PermanentError(
                    f"this org has no closed status for {object_type}: add one in Setup",
                    code="no_closed_status",
                )
            cached = (time.monotonic() + _STATUS_CACHE_SECONDS, str(rows[0]["ApiName"]))
            self._closed_status[object_type] = cached
        return cached[1]

    def upsert_tasks(
        self, records: Mapping[str, Record], existing_ids: Mapping[str, str]
    ) -> dict[str, Success | DeliveryError]:
        """Create each Task, or update the Task with its key. `existing_ids` holds the IDs of Tasks written before."""
        results: dict[str, Success | DeliveryError] = {}
        results |= self._update(
            {key: records[key] | {"id": existing_ids[key]} for key in records if key in existing_ids}
        )
        remaining = {
            key: record
            for key, record in records.items()
            if key not in results or _error_code(results[key]) in _DELETED_CODES
        }
        if not remaining:
            return results
        if time.monotonic() >= self._field_missing_until:
            try:
                return results | self._upsert_by_external_id(remaining)
            except SalesforceError as error:
                if not self._is_field_missing(error):
                    raise
            self._field_missing_until = time.monotonic() + _MISSING_FIELD_CACHE_SECONDS
        return results | self._upsert_by_call_object(remaining)

    def _upsert_by_external_id(self, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        field = self.settings.task_field
        results: dict[str, Success | DeliveryError] = {}
        pending = {key: {**record, field: key} for key, record in records.items()}
        for _ in range(2):
            items = self.collection(
                "PATCH", f"/Task/{field}", [_typed("Task", record) for record in pending.values()]
            )
            results |= {key: _record_result(item) for key, item in zip(pending, items, strict=True)}
            # With these codes the Task already exists: it was created by an attempt whose response was lost, or
            # concurrently by another process. A subtype can be set only when a Task is created.
            pending = {
                key: {name: value for name, value in record.items() if name != "TaskSubtype"}
                for key, record in pending.items()
                if _error_code(results[key]) in ("INVALID_FIELD_FOR_INSERT_UPDATE", "DUPLICATE_VALUE")
            }
            if not pending:
                break
        return results

    def _upsert_by_call_object(self, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        """Upsert Tasks in an org without the External ID field: CallObject holds the key and is queried first."""
        existing: dict[str, str] = {}
        for keys in _chunks(list(records)):
            soql = format_soql("SELECT Id, CallObject FROM Task WHERE CallObject IN {}", keys)
            existing |= {str(row["CallObject"]): str(row["Id"]) for row in self.query(soql)}
        keyed = {key: record | {"CallObject": key} for key, record in records.items()}
        results = self._update({key: keyed[key] | {"id": existing[key]} for key in keyed if key in existing})
        new = {key: record for key, record in keyed.items() if key not in existing}
        if new:
            items = self.collection("POST", "", [_typed("Task", record) for record in new.values()])
            results |= {key: _record_result(item) for key, item in zip(new, items, strict=True)}
        return results

    def _update(self, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        if not records:
            return {}
        rows = [
            _typed("Task", {name: value for name, value in record.items() if name != "TaskSubtype"})
            for record in records.values()
        ]
        items = self.collection("PATCH", "", rows)
        return {key: _record_result(item, "updated") for key, item in zip(records, items, strict=True)}

    def _is_field_missing(self, error: SalesforceError) -> bool:
        return any(
            code in ("NOT_FOUND", "INVALID_FIELD", "INVALID_ARGUMENT_TYPE")
            and self.settings.task_field in message
            for code, message, _ in _errors_in(error)
        )

    def _with_session(self, call: Callable[[Salesforce], T]) -> T:
        api = self._session(rejected=None)
        try:
            return call(api)
        except SalesforceError as error:
            if error.status != 401:
                raise
        return call(self._session(rejected=api))

    def _session(self, rejected: Salesforce | None) -> Salesforce:
        """Return the session shared by all threads. `rejected` is replaced by a single login for all threads."""
        with self._lock:
            if self._api is not None and self._api is not rejected:
                return self._api
            if rejected is not None and time.monotonic() - self._logged_in_at < 10:
                raise AuthenticationError(
                    "Salesforce rejects a session that it issued a moment ago: check the session and IP settings "
                    "of the integration user"
                )
            self._api = None
            token, instance = self._log_in()
            self._logged_in_at = time.monotonic()
            self._api = Salesforce(
                session_id=token,
                instance=f"{self._domain}.salesforce.com" if self.adapter.redirect_to else instance,
                session=self._http,
                version=self.settings.api_version,
            )
            return self._api

    def _log_in(self) -> tuple[str, str]:
        settings = self.settings
        credentials: dict[str, Any] = {
            "consumer_key": settings.consumer_key.get_secret_value(),
            "session": self._http,
        }
        if settings.consumer_secret is not None:
            credentials |= {
                "consumer_secret": settings.consumer_secret.get_secret_value(),
                "domain": self._domain,
            }
        else:
            is_sandbox = ".sandbox.my" in self._domain
            credentials |= {
                "username": settings.username,
                "privatekey_file": settings.private_key_file,
                "domain": "test" if is_sandbox else "login",
                "instance_url": self._domain,
            }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the SDK's warnings contain the consumer key
                token, instance = SalesforceLogin(**credentials)
        except requests.RequestException as error:
            # No record was sent yet, whatever the outcome of the login.
            raise TransientError(f"no login: {type(error).__name__}", reason="network") from error
        except (AttributeError, TypeError) as error:
            raise TransientError(
                "the response to the login is not Salesforce's: check for a proxy in between"
            ) from error
        except (SalesforceError, DeliveryError):
            raise
        except Exception as error:
            raise AuthenticationError(
                f"SALESFORCE_PRIVATE_KEY_FILE cannot sign the login ({type(error).__name__}): set it to an RSA "
                "private key in PEM format"
            ) from error
        return str(token), str(instance)


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
            for chunk in _chunks(remaining):
                matches += self._query_matches(object_type, format_soql("Email IN {}", chunk))
            matched = {email.lower() for match in matches for email in match.emails}
            remaining = [email for email in remaining if email.lower() not in matched]
        return matches

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """Return matches by text search, because numbers have any format, and by query for recent records."""
        matches: list[ContactMatch] = []
        for chunk in _chunks(phones):
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
        rows = [_typed(self._create_as, self._new_record(query)) for query in queries]
        items = self._org.collection("POST", "", rows)
        results: list[str | DeliveryError] = []
        for row, item in zip(rows, items, strict=True):
            result = _record_result(item)
            if _error_code(result) == "DUPLICATES_DETECTED":
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
        soql = _select(("Id", *_MATCH_FIELDS[object_type]), object_type, condition)
        return [_match(row) for row in self._org.query(soql)]


@connector.client
def client(settings: Settings) -> Org:
    """Return a client of the org. It sends no request before its first use."""
    return Org(settings)


@connector.check
def check(org: Org) -> str:
    """Log in and read the description of Task. Writes nothing."""
    task = org.rest("GET", "sobjects/Task/describe")
    if not task["createable"]:
        raise ConfigError(
            "this user may not create Tasks: grant create and edit access to Task in its permission set"
        )
    name = org.settings.task_field
    external_id = next((field for field in task["fields"] if field["name"] == name), None)
    usage = f"logged in, {org.adapter.usage or 'an unknown number'} of the org's daily requests used"
    if external_id is None:
        return (
            f"{usage}; Task.{name} is missing or hidden from this user, so Tasks are identified by CallObject: "
            "run `bridge connections setup salesforce`"
        )
    if not (external_id["externalId"] and external_id["unique"]):
        raise ConfigError(
            f"Task.{name} must be an External ID and unique: change it in Setup, Activity, Fields"
        )
    if not external_id["createable"]:
        raise ConfigError(
            f"this user may not write Task.{name}: grant edit access to the field in its permission set"
        )
    return f"{usage}; Task.{name} exists"


@connector.setup
def setup(org: Org) -> str:
    """Create the External ID field on Activity."""
    name = org.settings.task_field
    fields = {field["name"] for field in org.rest("GET", "sobjects/Task/describe")["fields"]}
    if name in fields:
        return f"Task.{name} exists"
    metadata = {
        "type": "Text",
        "label": "Conversation Id",
        "length": 255,
        "externalId": True,
        "unique": True,
        "caseSensitive": False,
    }
    try:
        org.rest(
            "POST", "tooling/sobjects/CustomField", {"FullName": f"Activity.{name}", "Metadata": metadata}
        )
    except SalesforceError as error:
        if "DUPLICATE_DEVELOPER_NAME" not in str(_errors_in(error)):
            raise ConfigError(
                f"this user may not create fields: in Setup, Activity, Fields, add the text field {name} (255, "
                "External ID, unique) and grant the integration user edit access to it"
            ) from error
    return (
        f"Activity.{name} created; grant read and edit access to it in the integration user's permission set"
    )


_OWNER = param(None, "Salesforce ID of the owner.", example="0055g00000AbCdE", pattern=_ID)
_ON_MISSING = param(
    "contact",
    "If Salesforce has no such contact or lead: create a `contact` or a `lead`, or `skip` (log the Task without).",
    example="lead",
)
_WHAT = param(
    None,
    "Related To: ID of an account, opportunity or case. Not used for leads.",
    example="5005g00000AbCdE",
    pattern=_ID,
)


class LogCallParams(CallParams):
    """A phone call to log."""

    disposition: str | None = param(
        None, "Call result. Default: derived from the status.", example="Left voicemail"
    )
    call_id: str | None = param(
        "{{ event.twilioCallSid }}", "Call ID in the telephone system.", example="CA00"
    )
    on_missing: Literal["contact", "lead", "skip"] = _ON_MISSING
    owner: str | None = _OWNER
    what: str | None = _WHAT

    def details(self, context: Context) -> Mapping[str, object]:
        """Return the details with both numbers, for which a Task has no fields."""
        caller, callee = self.caller_and_callee(context)
        return {"From": caller, "To": callee, **super().details(context)}


class LogChatParams(ChatParams):
    """A chat to log."""

    on_missing: Literal["contact", "lead", "skip"] = _ON_MISSING
    owner: str | None = _OWNER
    what: str | None = _WHAT


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE)
def log_call(org: Org, items: Sequence[BatchItem[LogCallParams]]) -> list[BatchResult]:
    """Log the call as a closed Task of the contact or lead, once per conversation."""
    return _log(org, items, _call_fields)


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE)
def log_chat(org: Org, items: Sequence[BatchItem[LogChatParams]]) -> list[BatchResult]:
    """Log the chat as a closed Task of the contact or lead, once per conversation."""
    return _log(org, items, _chat_fields)


def _chat_fields(_chat: LogChatParams) -> Record:
    return {}  # Salesforce has no Task subtype for chats


def _call_fields(call: LogCallParams) -> Record:
    seconds = call.duration_seconds()
    return {
        "TaskSubtype": "Call",
        "CallDurationInSeconds": None if seconds is None else round(seconds),
        "CallType": {True: "Outbound", False: "Inbound", None: None}[call.is_outbound],
        "CallDisposition": call.disposition or _CALL_RESULTS.get(call.normalized_status) or call.outcome,
        "CallObject": call.call_id,
    }


P = TypeVar("P", LogCallParams, LogChatParams)


def _log(org: Org, items: Sequence[BatchItem[P]], to_fields: Callable[[P], Record]) -> list[BatchResult]:
    """Write the Task of every item in as few requests as Salesforce allows: one, if all contacts are cached."""
    by_key = {item.context.conversation_key: item for item in items}
    if len(by_key) < len(items):
        raise PermanentError("two events of one conversation in one batch", code="same_conversation")
    status = org.closed_status("Task")
    tasks: dict[str, Record] = {}
    for key, item in by_key.items():
        params, context = item.params, item.context
        standard = to_fields(params) | {
            "Subject": params.display_title(context),
            "Description": params.body_text(context, MAX_LENGTH["Description"]),
            "Status": status,
            "ActivityDate": _local_date(org, context, context.event.occurred_at),
            "OwnerId": params.owner or org.settings.owner,
            "WhatId": params.what,
        }
        tasks[key] = _truncate(standard) | fields_to_write(params.additional_properties(context), None)
    existing_ids = {key: item.context.existing_id for key, item in by_key.items() if item.context.existing_id}
    results: dict[str, BatchResult] = {}
    for create_as in ("Contact", "Lead"):
        queries = {
            key: item.params.contact_query(item.context, create=item.params.on_missing != "skip")
            for key, item in by_key.items()
            if (item.params.on_missing == "lead") == (create_as == "Lead")
        }
        if queries:
            results |= write_for_contacts(
                Contacts(org, create_as=create_as),
                queries,
                lambda contacts: _write_tasks(org, tasks, existing_ids, contacts),
            )
    return [results[key] for key in by_key]


def _write_tasks(
    org: Org,
    tasks: Mapping[str, Record],
    existing_ids: Mapping[str, str],
    contacts: Mapping[str, ContactRef | None],
) -> dict[str, Success | DeliveryError]:
    """Write Tasks of contacts or leads. A lead's Task must have no `WhatId`."""
    records: dict[str, Record] = {}
    for key, contact in contacts.items():
        records[key] = dict(tasks[key])
        if contact is not None:
            records[key]["WhoId"] = contact.id
            if contact.id.startswith(LEAD_PREFIX):
                records[key].pop("WhatId", None)
    return {
        key: ContactDeleted()
        if contacts[key] is not None and _error_code(result) in _DELETED_CODES
        else result
        for key, result in org.upsert_tasks(records, existing_ids).items()
    }


class UpsertContactParams(ContactParams):
    """A contact or lead and the fields to write. Values from the event fill empty fields only."""


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def upsert_contact(org: Org, params: UpsertContactParams, context: Context) -> Success:
    """Update the contact or open lead, or create a contact if Salesforce has neither."""
    fields = params.contact_fields(
        FirstName=params.first_name, LastName=params.last_name, Email=params.email, Phone=params.phone
    )
    query = params.contact_query(context, create=True)
    contacts = Contacts(org, properties=params.properties)
    contact, row = resolve_contact(contacts, query, lambda record_id: _read(org, record_id, fields))
    if row is None:
        return Success(id=contact.id, detail=contact.detail)
    # The bridge wrote the address as the last name if the name was not known.
    is_placeholder = row["LastName"] in (params.phone, params.email)
    current = {**row, "LastName": None} if is_placeholder else row
    return _update_contact(org, contact, fields_to_write(fields, current))


class UpdateLeadParams(ContactLookupParams):
    """An open lead and the fields to write."""

    lead: str | None = param(
        "{{ event.metadata.leadId }}",
        "Lead ID. Default: the open lead with the contact's email or phone.",
        example="00Q5g000009xYzA",
        pattern=_ID,
    )
    status: str | None = param(None, "New lead status.", example="Working - Contacted")
    properties: Properties = param(
        {}, "Additional fields of the lead.", example={"Rating": {"value": "Warm", "mode": "fill"}}
    )


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def update_lead(org: Org, params: UpdateLeadParams, context: Context) -> Success:
    """Update the contact's open lead. A converted lead is never changed."""
    fields = {"Status": Property(value=params.status)} | params.properties
    if params.lead:
        lead, row = ContactRef(params.lead), _read(org, params.lead, fields)
    else:
        query = params.contact_query(context, create=False, scope="lead:")
        leads = Contacts(org, object_types=("Lead",), create_as="Lead")
        lead, row = resolve_contact(leads, query, lambda record_id: _read(org, record_id, fields))
    if row is None:
        raise PermanentError(
            "Salesforce has no open lead with this ID: check the param `lead`", code="not_found"
        )
    return _update_contact(org, lead, fields_to_write(fields, row))


class CloseCaseParams(ContactLookupParams):
    """A case to close."""

    case: str | None = param(
        "{{ event.metadata.caseId }}",
        "Case ID. Default: the contact's open case.",
        example="5005g00000AbCdE",
        pattern=_ID,
    )
    status: str | None = param(
        None, "Closed status to set. Default: the org's first closed status.", example="Closed"
    )
    on_multiple: Literal["review", "newest"] = param(
        "review",
        "If the contact has several open cases: `review` asks the operator, `newest` closes the newest.",
        example="newest",
    )
    properties: Properties = param(
        {}, "Additional fields of the case.", example={"Reason": "Solved by Heppu"}
    )


@connector.action(idempotency=per_event, idempotent=True)
def close_case(org: Org, params: CloseCaseParams, context: Context) -> Success:
    """Close a case with the org's closed status."""
    if params.case:
        condition = format_soql("Id = {}", params.case)
    else:
        query = params.contact_query(context, create=False, scope="contact:")
        contacts = Contacts(org, object_types=("Contact",))
        contact, _ = resolve_contact(contacts, query, lambda record_id: _read(org, record_id, ()))
        condition = format_soql("ContactId = {} AND IsClosed = false", contact.id)
    names = ("Id", "IsClosed", *params.properties)
    cases = org.query(_select(names, "Case", f"{condition} ORDER BY CreatedDate DESC LIMIT 2"))
    if params.case and not cases:
        raise PermanentError("Salesforce has no case with this ID: check the param `case`", code="not_found")
    if not cases or cases[0]["IsClosed"]:
        return Success(id=params.case, detail="no open case")
    if len(cases) > 1 and params.on_multiple == "review":
        raise LookupInconclusive(
            "the contact has several open cases: close the right one, or set `on_multiple: newest`"
        )
    newest = cases[0]
    changes = fields_to_write(params.properties, newest)
    changes |= {"Status": params.status or org.closed_status("Case")}
    org.rest("PATCH", f"sobjects/Case/{_require_id(newest['Id'])}", changes)
    return Success(id=str(newest["Id"]), detail="closed")


class CreateTaskParams(TaskParams):
    """A task for a colleague."""

    priority: Literal["Low", "Normal", "High"] = param("Normal", "Task priority.", example="High")
    owner: str | None = _OWNER


@connector.action(idempotency=per_event, dedupe_by="subject", idempotent=True)
def create_task(org: Org, params: CreateTaskParams, context: Context) -> Success:
    """Create an open Task for a colleague on the contact or lead."""
    standard = {
        "Subject": params.subject,
        "Description": params.body(context),
        "ActivityDate": _local_date(org, context, params.due_at(context)),
        "Priority": params.priority,
        "OwnerId": params.owner or org.settings.owner,
    }
    key = f"task:{context.idempotency_token}"
    tasks = {key: _truncate(standard) | fields_to_write(params.properties, None)}
    queries = {key: params.contact_query(context, create=True)}
    [result] = write_for_contacts(
        Contacts(org), queries, lambda contacts: _write_tasks(org, tasks, {}, contacts)
    ).values()
    if not isinstance(result, Success):
        raise result
    return result


def _read(org: Org, record_id: str, fields: Iterable[str]) -> Mapping[str, Any] | None:
    """Return the current fields of a contact or lead, or None if it was deleted, merged or converted."""
    object_type = _object_type(record_id)
    names = ("Id", "LastName", *fields, *(("IsConverted",) if object_type == "Lead" else ()))
    rows = org.query(_select(names, object_type, format_soql("Id = {}", record_id)))
    return dict(rows[0]) if rows and not rows[0].get("IsConverted") else None


def _update_contact(org: Org, contact: ContactRef, changes: Mapping[str, Any]) -> Success:
    if changes:
        org.rest("PATCH", f"sobjects/{_object_type(contact.id)}/{_require_id(contact.id)}", dict(changes))
    return Success(id=contact.id, detail=contact.detail or ("updated" if changes else "nothing to update"))


def _object_type(record_id: str) -> str:
    return "Lead" if record_id.startswith(LEAD_PREFIX) else "Contact"


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map Salesforce's error code rather than the status: a locked row is a 400, an exhausted quota a 403."""
    if isinstance(error, SalesforceAuthenticationFailed):
        return _login_failure(error)
    if not isinstance(error, SalesforceError):
        return failure_from_exception(error)
    for code, message, fields in _errors_in(error):
        return _failure_from_code(code, message, fields, error.status)
    return failure_from_status(error.status, f"Salesforce answered {error.status}")


def _login_failure(error: SalesforceAuthenticationFailed) -> DeliveryError:
    if error.code == "login_rate_exceeded" or "rate exceeded" in error.auth_message:
        return RateLimited("Salesforce's limit for logins is exceeded", retry_after=timedelta(minutes=1))
    if error.code in ("server_error", "temporarily_unavailable") or (
        isinstance(error.code, int) and error.code < 400
    ):
        return TransientError(
            f"the response to the login ({error.code}) is not Salesforce's: check for a proxy in between"
        )
    advice = (
        f": {error.auth_message[:100]}" if isinstance(error.code, str) else "; is SALESFORCE_URL correct?"
    )
    return AuthenticationError(f"Salesforce rejects the login with {error.code}{advice}")


def _failure_from_code(code: str, message: str, fields: Sequence[str], status: int) -> DeliveryError:
    """Map an error code. Only code and field names are kept: messages repeat values, except in validation rules."""
    detail = f"Salesforce answered {code}" + (f" ({', '.join(fields)})" if fields else "")
    if code == "UNABLE_TO_LOCK_ROW":
        return TransientError(detail, retry_after=timedelta(seconds=3))
    if code == "REQUEST_LIMIT_EXCEEDED" and "oncurrent" in message:
        return RateLimited(detail, retry_after=timedelta(seconds=5))
    if code == "REQUEST_LIMIT_EXCEEDED":
        return QuotaExhausted("the org's daily request quota is used up (last 24 hours)")
    if code in ("INVALID_SESSION_ID", "API_DISABLED_FOR_ORG", "API_CURRENTLY_DISABLED") or status == 401:
        return AuthenticationError(detail)
    if status >= 500 or code in (
        "SERVER_UNAVAILABLE",
        "QUERY_TIMEOUT",
        "REQUEST_RUNNING_TOO_LONG",
        "UNKNOWN_EXCEPTION",
    ):
        return OutcomeUnknown(detail, reason="server_error")
    if code == "FIELD_CUSTOM_VALIDATION_EXCEPTION":
        return PermanentError(f"a validation rule of the org rejects the record: {message[:200]}", code=code)
    if code.startswith("INSUFFICIENT_ACCESS"):
        return PermanentError(f"{detail}: grant the integration user access", code=code)
    return PermanentError(detail, code=code)


def _errors_in(error: SalesforceError) -> list[tuple[str, str, list[str]]]:
    content: Any = error.content
    items = content if isinstance(content, list) else []
    return [
        (
            str(item["errorCode"]),
            str(item.get("message", "")),
            [str(name) for name in item.get("fields") or ()],
        )
        for item in items
        if isinstance(item, Mapping) and item.get("errorCode")
    ]


def _record_result(item: Record, detail: str = "") -> Success | DeliveryError:
    """Return the result of one record in a collection."""
    if item.get("success"):
        return Success(
            id=str(item["id"]), detail=detail or ("updated" if item.get("created") is False else "")
        )
    for error in item.get("errors") or ():
        fields = [str(name) for name in error.get("fields") or ()]
        return _failure_from_code(str(error.get("statusCode")), str(error.get("message", "")), fields, 400)
    return OutcomeUnknown("Salesforce's response has no result for this record", reason="server_error")


def _error_code(result: BatchResult) -> str:
    return result.code if isinstance(result, PermanentError) else ""


def _typed(object_type: str, record: Mapping[str, Any]) -> Record:
    return {"attributes": {"type": object_type}, **record}


def _chunks(addresses: Sequence[str]) -> list[Sequence[str]]:
    size = _ADDRESSES_PER_QUERY
    return [addresses[start : start + size] for start in range(0, len(addresses), size)]


def _returning_fields(object_type: str) -> str:
    return ", ".join(("Id", *_MATCH_FIELDS[object_type]))


def _select(names: Iterable[str], object_type: str, condition: str) -> str:
    """Return a SOQL query. Field names come from rules and are inserted unquoted, so they are validated."""
    unique_names = list(dict.fromkeys(names))
    for name in unique_names:
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise PermanentError(
                f"`{name[:40]}` is not a valid field name: use the API name", code="INVALID_FIELD"
            )
    # format_soql has quoted the values in the condition.
    return f"SELECT {', '.join(unique_names)} FROM {object_type} WHERE {condition}"  # noqa: S608


def _require_id(record_id: str) -> str:
    """Return the ID if it is valid: IDs are inserted into paths unquoted."""
    if not re.fullmatch(_ID, record_id):
        raise PermanentError("not a valid Salesforce ID: expected 15 or 18 characters", code="MALFORMED_ID")
    return record_id


def _match(row: Record) -> ContactMatch:
    is_contact = str(row["Id"]).startswith(CONTACT_PREFIX)
    return ContactMatch(
        str(row["Id"]),
        [str(row["Email"])] if row.get("Email") else [],
        [str(row[name]) for name in _PHONE_FIELDS if row.get(name)],
        ("1" if is_contact else "0", row.get("LastActivityDate") or "", row.get("LastModifiedDate") or ""),
    )


def _local_date(org: Org, context: Context, instant: datetime) -> str:
    """Return the date in the contact's time zone. Salesforce stores dates without a zone and must not shift them."""
    zone = ZoneInfo(context.contact.time_zone or org.settings.time_zone)
    return instant.astimezone(zone).date().isoformat()


def _truncate(record: Mapping[str, Any]) -> Record:
    """Truncate long strings, for which Salesforce rejects the whole record, and omit None."""
    return {
        name: value[: MAX_LENGTH.get(name)] if isinstance(value, str) else value
        for name, value in record.items()
        if value is not None
    }
