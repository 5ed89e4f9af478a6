"""Salesforce: calls and chats as Tasks, contacts, leads, cases and to-do Tasks.

A Task carries the conversation in an external id, so writing it twice is one upsert. Records go out in sObject
collections: up to 200 of them are one request of the org's daily quota, and each gets its own answer.
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

BATCH = 200
"""Salesforce's own limit for one collection."""
_ASKED_AT_ONCE = 50
"""Addresses in one query: it travels in the URL, which may have 16 KB."""
_USAGE_VALID = timedelta(minutes=10)
_STATUS_VALID = 6 * 3600.0
_FIELD_MISSING_VALID = 600.0
_ID = r"^[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?$"
CONTACT, LEAD = "003", "00Q"
"""How ids begin."""
_PERSON_FIELDS = {
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
_PHONES = ("Phone", "MobilePhone", "HomePhone", "OtherPhone")
_GONE = {"ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY", "CANNOT_UPDATE_CONVERTED_LEAD", "NOT_FOUND"}
"""The record that we remember is deleted, merged or converted."""
_CLOSED = {"Task": "Completed", "Case": "Closed"}
"""Salesforce's own words, which an org may rename."""
LONGEST = {"Subject": 255, "Description": 32_000, "CallDisposition": 255, "CallObject": 255}
_OUTCOMES = {"completed": "Connected", "no_answer": "No answer", "busy": "Busy", "failed": "Failed"}

T = TypeVar("T")
Record = dict[str, Any]


def _zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        raise ValueError("is no time zone, such as America/New_York") from None


class Settings(ConnectorSettings):
    """`SALESFORCE_URL` is the org's My Domain; with a secret or a private key of an external client app."""

    url: ProviderUrl
    consumer_key: SecretStr
    consumer_secret: SecretStr | None = None
    """Client credentials flow."""
    username: str | None = None
    private_key_file: FilePath | None = None
    """JWT bearer flow, for `username`."""
    api_version: str = Field("66.0", pattern=r"^\d\d\.0$")
    max_quota_fraction: float = Field(0.8, gt=0, le=1)
    """The bridge stops when the whole org has used this share of its daily requests: the rest is for others."""
    task_field: str = Field("Conversation_Id__c", pattern=r"^[A-Za-z]\w*__c$")
    owner: str | None = Field(None, pattern=_ID)
    """Who owns the Tasks; without one, the integration user does, and nobody sees them in a list of theirs."""
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Where a call counts to a day when the event does not say where the person is."""

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.consumer_secret is None and (self.username is None or self.private_key_file is None):
            raise ValueError(
                "set SALESFORCE_CONSUMER_SECRET, or SALESFORCE_USERNAME and SALESFORCE_PRIVATE_KEY_FILE"
            )
        return self


connector = Connector(
    "salesforce",
    settings=Settings,
    limits=Limits(concurrency=4, timeout=25),
    description="Logs calls and chats as Tasks; keeps contacts, leads and cases.",
)


class Adapter(DeadlineAdapter):
    """Every request of the connection passes here: bounded in time, and counted against the org's daily quota."""

    def __init__(self, share: float, redirect_to: str | None) -> None:
        super().__init__(redirect_to=redirect_to, pool_size=connector.limits.concurrency, read_seconds=20)
        self._share = share
        self._spent_until: datetime | None = None
        self.usage = ""
        """`18/5000`: requests of the whole org in the last 24 hours, as Salesforce last said."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send unless others need the rest of the quota; one request every ten minutes looks again."""
        now, until = datetime.now(UTC), self._spent_until
        if until and now < until:
            used = f"{self.usage} of the org's daily requests are used"
            raise QuotaExhausted(f"{used}; the rest is for others", until=until)
        response = super().send(request, *args, **kwargs)
        status = response.status_code
        if status == 429:  # not Salesforce's own way, and the SDK would lose how long to wait
            response.close()
            wait = parse_retry_after(response.headers.get("Retry-After"))
            raise RateLimited("Salesforce answered 429", retry_after=wait)
        if str(request.url).endswith("/token") and (status >= 500 or status == 408):
            response.close()
            raise TransientError(f"Salesforce's login answered {status}")  # nothing was asked for yet
        found = re.match(r"\s*api-usage=(\d+)/(\d+)", response.headers.get("Sforce-Limit-Info", ""))
        if found:
            self.usage = f"{found[1]}/{found[2]}"
            spent = int(found[1]) >= self._share * int(found[2])
            self._spent_until = now + _USAGE_VALID if spent else None
        return response


class Org:
    """One Salesforce org: logged in when first needed, and again once when the session has ended.

    The SDK's own renewal goes round in circles when a session is refused again and again, and every thread makes
    its own; so it is given a session that it cannot renew.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        host = urlsplit(settings.url).hostname or ""
        direct = settings.url.startswith("https://") and host.endswith(".salesforce.com")
        # The SDK insists on https and salesforce.com; any other address is put in below it.
        self.adapter = Adapter(settings.max_quota_fraction, None if direct else settings.url)
        self._domain = host.removesuffix(".salesforce.com") if direct else "redirected.my"
        self._http = requests.Session()
        self._http.trust_env = direct
        self._http.max_redirects = 0  # a session token goes nowhere else
        self._http.mount("https://", self.adapter)
        self._lock = threading.Lock()
        self._api: Salesforce | None = None
        self._logged_in_at = 0.0
        self._closed: dict[str, tuple[float, str]] = {}
        self._field_missing_until = 0.0
        self.close = self._http.close

    def query(self, soql: str) -> list[Record]:
        """All rows of a query."""
        return list(self._with_session(lambda api: api.query_all(soql))["records"])

    def search(self, sosl: str) -> list[Record]:
        """All records that a text search finds."""
        return list((self._with_session(lambda api: api.search(sosl)) or {}).get("searchRecords") or ())

    def rest(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """One request below `/services/data/vXX.0/`."""
        return self._with_session(
            lambda api: api.restful(path, method=method, json=body, headers=dict(headers or {}))
        )

    def collection(self, method: str, path: str, records: Sequence[Record]) -> list[Record]:
        """Write up to 200 records at once; each result says whether it went well."""
        body = {"allOrNone": False, "records": list(records)}
        results = self.rest(method, f"composite/sobjects{path}", body)
        if not isinstance(results, list) or len(results) != len(records):
            raise OutcomeUnknown("Salesforce's answer does not fit the records sent", reason="server_error")
        return results

    def closed_status(self, kind: str) -> str:
        """The org's own word for a closed Task or Case."""
        known = self._closed.get(kind)
        if known is None or known[0] < time.monotonic():
            where = "IsClosed = true ORDER BY SortOrder LIMIT 1"
            try:
                rows = self.query(_select(("ApiName",), f"{kind}Status", where))
            except SalesforceError as error:
                if error.status not in (400, 404):
                    raise
                rows = [{"ApiName": _CLOSED[kind]}]  # hidden from this user
            if not rows:
                raise PermanentError(
                    f"no status of {kind} counts as closed in this org", code="no_closed_status"
                )
            known = self._closed[kind] = (time.monotonic() + _STATUS_VALID, str(rows[0]["ApiName"]))
        return known[1]

    def put_tasks(
        self, records: Mapping[str, Record], known: Mapping[str, str]
    ) -> dict[str, Success | DeliveryError]:
        """Make each Task, or bring the one with its key up to date; `known` are the ids of those made before."""
        answers: dict[str, Success | DeliveryError] = {}
        answers |= self._update({key: records[key] | {"id": known[key]} for key in records if key in known})
        left = {
            key: record
            for key, record in records.items()
            if key not in answers or _code(answers[key]) in _GONE
        }
        if not left:
            return answers
        if time.monotonic() >= self._field_missing_until:
            try:
                return answers | self._upsert(left)
            except SalesforceError as error:
                if not self._is_field_missing(error):
                    raise
            self._field_missing_until = time.monotonic() + _FIELD_MISSING_VALID
        return answers | self._put_marked(left)

    def _upsert(self, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        name = self.settings.task_field
        answers: dict[str, Success | DeliveryError] = {}
        again = {key: {**record, name: key} for key, record in records.items()}
        for _ in range(2):
            results = self.collection(
                "PATCH", f"/Task/{name}", [_typed("Task", record) for record in again.values()]
            )
            answers |= {key: _answer(result) for key, result in zip(again, results, strict=True)}
            # It is there already: made by an attempt whose answer was lost, or just now by another replica.
            # A subtype can only be given when the Task is made.
            again = {
                key: {name: value for name, value in record.items() if name != "TaskSubtype"}
                for key, record in again.items()
                if _code(answers[key]) in ("INVALID_FIELD_FOR_INSERT_UPDATE", "DUPLICATE_VALUE")
            }
            if not again:
                break
        return answers

    def _put_marked(self, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        """For orgs without our field: CallObject carries the key, and is asked for before a Task is made."""
        held: dict[str, str] = {}
        for keys in _chunks(list(records)):
            soql = format_soql("SELECT Id, CallObject FROM Task WHERE CallObject IN {}", keys)
            held |= {str(row["CallObject"]): str(row["Id"]) for row in self.query(soql)}
        marked = {key: record | {"CallObject": key} for key, record in records.items()}
        answers = self._update({key: marked[key] | {"id": held[key]} for key in marked if key in held})
        new = {key: record for key, record in marked.items() if key not in held}
        if new:
            results = self.collection("POST", "", [_typed("Task", record) for record in new.values()])
            answers |= {key: _answer(result) for key, result in zip(new, results, strict=True)}
        return answers

    def _update(self, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        if not records:
            return {}
        rows = [
            _typed("Task", {name: value for name, value in record.items() if name != "TaskSubtype"})
            for record in records.values()
        ]
        results = self.collection("PATCH", "", rows)
        return {key: _answer(result, "updated") for key, result in zip(records, results, strict=True)}

    def _is_field_missing(self, error: SalesforceError) -> bool:
        codes = _codes(error)
        return any(
            code in ("NOT_FOUND", "INVALID_FIELD", "INVALID_ARGUMENT_TYPE")
            and self.settings.task_field in message
            for code, message, _ in codes
        )

    def _with_session(self, call: Callable[[Salesforce], T]) -> T:
        api = self._session(refused=None)
        try:
            return call(api)
        except SalesforceError as error:
            if error.status != 401:
                raise
        return call(self._session(refused=api))

    def _session(self, refused: Salesforce | None) -> Salesforce:
        """The session of all threads; `refused` is replaced, by one login however many threads ask."""
        with self._lock:
            if self._api is not None and self._api is not refused:
                return self._api
            if refused is not None and time.monotonic() - self._logged_in_at < 10:
                raise AuthenticationError("Salesforce refuses the session that it gave a moment ago")
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
        who: dict[str, Any] = {
            "consumer_key": settings.consumer_key.get_secret_value(),
            "session": self._http,
        }
        if settings.consumer_secret is not None:
            who |= {"consumer_secret": settings.consumer_secret.get_secret_value(), "domain": self._domain}
        else:
            sandbox = ".sandbox.my" in self._domain
            who |= {
                "username": settings.username,
                "privatekey_file": settings.private_key_file,
                "domain": "test" if sandbox else "login",
                "instance_url": self._domain,
            }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the SDK warns with the consumer key in the text
                token, instance = SalesforceLogin(**who)
        except requests.RequestException as error:
            # Nothing was asked for yet, whatever became of the login.
            raise TransientError(f"no login: {type(error).__name__}", reason="network") from error
        except (AttributeError, TypeError) as error:
            raise TransientError(
                "the login's answer is not Salesforce's; is something in between?"
            ) from error
        except (SalesforceError, DeliveryError):
            raise
        except Exception as error:
            raise AuthenticationError(
                f"no assertion can be signed with SALESFORCE_PRIVATE_KEY_FILE ({type(error).__name__})"
            ) from error
        return str(token), str(instance)


class People:
    """The org's contacts and open leads, for `resolve_contacts`."""

    def __init__(
        self,
        org: Org,
        kinds: Sequence[str] = ("Contact", "Lead"),
        create: str = "Contact",
        properties: Mapping[str, Property] | None = None,
    ) -> None:
        self._org = org
        self._kinds = kinds
        self._create_as = create
        self._properties = properties or {}

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        """By query, which is never behind; a lead only when there is no contact."""
        found: list[ContactMatch] = []
        left = list(emails)
        for kind in self._kinds:
            for chunk in _chunks(left):
                found += self._rows(kind, format_soql("Email IN {}", chunk))
            known = {email.lower() for match in found for email in match.emails}
            left = [email for email in left if email.lower() not in known]
        return found

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        """By text search, as numbers are typed in every form; what it does not know yet, by query."""
        found: list[ContactMatch] = []
        for chunk in _chunks(phones):
            # Digits only: everything else would have to be escaped in a way of SOSL's own.
            terms = " OR ".join(re.sub(r"\D", "", national_digits(phone)) for phone in chunk)
            objects = [
                f"{kind}({_fields(kind)}{' WHERE IsConverted = false' if kind == 'Lead' else ''})"
                for kind in self._kinds
            ]
            sosl = f"FIND {{{terms}}} IN PHONE FIELDS RETURNING {', '.join(objects)} LIMIT 2000"
            found += [_match(row) for row in self._org.search(sosl)]
            typed = [number for match in found for number in match.phones]
            missing = [phone for phone in chunk if not any(same_number(number, phone) for number in typed)]
            # The index is behind: somebody made by an attempt whose answer was lost would be made again.
            if missing:
                where = "CreatedDate >= {} AND (Phone IN {} OR MobilePhone IN {})"
                since = datetime.now(UTC) - timedelta(days=1)
                found += self._rows(self._create_as, format_soql(where, since, missing, missing))
        return found

    def create(self, strangers: Sequence[ContactQuery]) -> list[str | DeliveryError]:
        """A contact (or lead) for each; where a duplicate rule names a record, that one."""
        rows = [_typed(self._create_as, self._new(stranger)) for stranger in strangers]
        results = self._org.collection("POST", "", rows)
        made: list[str | DeliveryError] = []
        for row, result in zip(rows, results, strict=True):
            answer = _answer(result)
            if _code(answer) == "DUPLICATES_DETECTED":
                twin = re.search(rf'"Id": "((?:{CONTACT}|{LEAD})\w{{12,15}})"', json.dumps(result))
                made.append(twin[1] if twin else self._insist(row))
            elif isinstance(answer, Success):
                made.append(answer.id or "")
            else:
                made.append(answer)
        return made

    def _insist(self, row: Record) -> str | DeliveryError:
        """An `alert` rule lets it pass when asked to; a `block` rule does not."""
        body = {name: value for name, value in row.items() if name != "attributes"}
        headers = {"Sforce-Duplicate-Rule-Header": "allowSave=true"}
        try:
            return str(self._org.rest("POST", f"sobjects/{self._create_as}", body, headers)["id"])
        except SalesforceError as error:
            return classify_error(error) or PermanentError(
                "a duplicate rule refuses the person", code="DUPLICATES_DETECTED"
            )

    def _new(self, stranger: ContactQuery) -> Record:
        person = stranger.context.contact
        name = person.last_name or person.name
        values = {
            "FirstName": person.first_name if person.last_name else None,
            "LastName": name or stranger.phone or stranger.email,
            "Email": stranger.email,
            "Phone": stranger.phone,
            "Description": None if name else "Created by Heppu; the name is not known yet.",
        }
        if self._create_as == "Lead":
            values["Company"] = person.company or "[not provided]"
        longest = {"FirstName": 40, "LastName": 80, "Company": 255}
        cut = {key: value[: longest.get(key)] for key, value in values.items() if value}
        return cut | fields_to_write(self._properties, None)

    def _rows(self, kind: str, where: str) -> list[ContactMatch]:
        more = " AND IsConverted = false" if kind == "Lead" else ""
        return [
            _match(row) for row in self._org.query(_select(("Id", *_PERSON_FIELDS[kind]), kind, where + more))
        ]


@connector.client
def client(settings: Settings) -> Org:
    """One org; nothing is asked of it before the first use."""
    return Org(settings)


@connector.check
def check(org: Org) -> str:
    """Log in and look at Task; writes nothing."""
    task = org.rest("GET", "sobjects/Task/describe")
    if not task["createable"]:
        raise ConfigError("this user may not make Tasks: give its permission set create and edit on Task")
    name = org.settings.task_field
    ours = next((field for field in task["fields"] if field["name"] == name), None)
    used = f"logged in, {org.adapter.usage or 'an unknown number'} of the org's daily requests used"
    if ours is None:
        return (
            f"{used}; Task.{name} is missing or hidden from this user, so logs are told apart by CallObject: "
            "run `bridge connections setup salesforce`"
        )
    if not (ours["externalId"] and ours["unique"]):
        raise ConfigError(
            f"Task.{name} must be an External ID and unique: change it in Setup, Activity, Fields"
        )
    if not ours["createable"]:
        raise ConfigError(
            f"this user may not write Task.{name}: give its permission set edit access to the field"
        )
    return f"{used}; Task.{name} is there"


@connector.setup
def setup(org: Org) -> str:
    """Make the external id on Activity and let the integration user see it."""
    name = org.settings.task_field
    fields = {field["name"] for field in org.rest("GET", "sobjects/Task/describe")["fields"]}
    if name in fields:
        return f"Task.{name} is there"
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
        if "DUPLICATE_DEVELOPER_NAME" not in str(_codes(error)):
            raise ConfigError(
                f"this user may not make fields: in Setup, Activity, Fields add the text field {name} (255, External "
                "ID, unique) and let the integration user edit it"
            ) from error
    return f"Activity.{name} is made; give the integration user's permission set read and edit access to it"


_OWNER = param(None, "The Salesforce id of the owner.", example="0055g00000AbCdE", pattern=_ID)
_UNKNOWN = param("contact", "What a person whom Salesforce does not know becomes.", example="lead")
_WHAT = param(
    None,
    "The id of the account, opportunity or case it belongs to; not used for leads.",
    example="5005g00000AbCdE",
    pattern=_ID,
)


class Call(CallParams):
    """A phone call."""

    disposition: str | None = param(
        None, "The call result; from the status when left out.", example="Left voicemail"
    )
    call_id: str | None = param(
        "{{ event.twilioCallSid }}", "The telephone system's id of the call.", example="CA00"
    )
    on_missing: Literal["contact", "lead", "skip"] = _UNKNOWN
    owner: str | None = _OWNER
    what: str | None = _WHAT

    def facts(self, context: Context) -> Mapping[str, object]:
        """A Task has no fields for the numbers."""
        caller, called = self.numbers(context)
        return {"From": caller, "To": called, **super().facts(context)}


class Chat(ChatParams):
    """A chat."""

    on_missing: Literal["contact", "lead", "skip"] = _UNKNOWN
    owner: str | None = _OWNER
    what: str | None = _WHAT


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH)
def log_call(org: Org, jobs: Sequence[BatchItem[Call]]) -> list[BatchResult]:
    """Log the call as a closed Task of the contact or lead, once per conversation."""
    return _log(org, jobs, _call_fields)


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH)
def log_chat(org: Org, jobs: Sequence[BatchItem[Chat]]) -> list[BatchResult]:
    """Log the chat as a closed Task of the contact or lead, once per conversation."""
    return _log(org, jobs, _chat_fields)


def _chat_fields(_chat: Chat) -> Record:
    return {}  # there is no subtype for chats


def _call_fields(call: Call) -> Record:
    seconds = call.seconds()
    return {
        "TaskSubtype": "Call",
        "CallDurationInSeconds": None if seconds is None else round(seconds),
        "CallType": {True: "Outbound", False: "Inbound", None: None}[call.outbound],
        "CallDisposition": call.disposition or _OUTCOMES.get(call.line) or call.outcome,
        "CallObject": call.call_id,
    }


L = TypeVar("L", Call, Chat)


def _log(org: Org, jobs: Sequence[BatchItem[L]], describe: Callable[[L], Record]) -> list[BatchResult]:
    """Write every job's Task in as few requests as Salesforce allows: one, when the people are known."""
    by_key = {job.context.conversation_key: job for job in jobs}
    if len(by_key) < len(jobs):
        raise PermanentError("two events of one conversation in one batch", code="same_conversation")
    status = org.closed_status("Task")
    tasks: dict[str, Record] = {}
    for key, job in by_key.items():
        params, context = job.params, job.context
        own = describe(params) | {
            "Subject": params.headline(context),
            "Description": params.text(context, LONGEST["Description"]),
            "Status": status,
            "ActivityDate": _day(org, context, context.event.occurred_at),
            "OwnerId": params.owner or org.settings.owner,
            "WhatId": params.what,
        }
        tasks[key] = _cut(own) | fields_to_write(params.further(context), None)
    known = {key: job.context.existing_id for key, job in by_key.items() if job.context.existing_id}
    answers: dict[str, BatchResult] = {}
    for kind in ("Contact", "Lead"):
        queries = {
            key: job.params.query(job.context, create=job.params.on_missing != "skip")
            for key, job in by_key.items()
            if (job.params.on_missing == "lead") == (kind == "Lead")
        }
        if queries:
            answers |= write_for_contacts(
                People(org, create=kind), queries, lambda people: _link(org, tasks, known, people)
            )
    return [answers[key] for key in by_key]


def _link(
    org: Org, tasks: Mapping[str, Record], known: Mapping[str, str], people: Mapping[str, ContactRef | None]
) -> dict[str, Success | DeliveryError]:
    """Write Tasks with their people; a Task of a lead must belong to nothing else."""
    ready: dict[str, Record] = {}
    for key, person in people.items():
        ready[key] = dict(tasks[key])
        if person is not None:
            ready[key]["WhoId"] = person.id
            if person.id.startswith(LEAD):
                ready[key].pop("WhatId", None)
    return {
        key: ContactDeleted() if people[key] is not None and _code(answer) in _GONE else answer
        for key, answer in org.put_tasks(ready, known).items()
    }


class Contact(ContactParams):
    """A contact or lead, and what to write about it; what the event says only fills empty fields."""


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def upsert_contact(org: Org, contact: Contact, context: Context) -> Success:
    """Update the contact or open lead, or create a contact when Salesforce does not know the person."""
    wanted = contact.fields(
        FirstName=contact.first_name, LastName=contact.last_name, Email=contact.email, Phone=contact.phone
    )
    query = contact.query(context, create=True)
    people = People(org, properties=contact.properties)
    person, row = resolve_contact(people, query, lambda known: _row(org, known, wanted))
    if row is None:
        return Success(id=person.id, detail=person.detail)
    placeholder = row["LastName"] in (contact.phone, contact.email)  # ours, for a caller without a name
    return _change(org, person, fields_to_write(wanted, {**row, "LastName": None} if placeholder else row))


class Lead(ContactLookupParams):
    """An open lead, and what to write about it."""

    lead: str | None = param(
        "{{ event.metadata.leadId }}",
        "The lead's id; without one, the person's open lead.",
        example="00Q5g000009xYzA",
        pattern=_ID,
    )
    status: str | None = param(None, "The lead's new status.", example="Working - Contacted")
    properties: Properties = param(
        {}, "Further fields of the lead.", example={"Rating": {"value": "Warm", "mode": "fill"}}
    )


@connector.action(idempotency=per_event, dedupe_by="properties", idempotent=True)
def update_lead(org: Org, lead: Lead, context: Context) -> Success:
    """Update the person's open lead; one that was converted is left alone."""
    wanted = {"Status": Property(value=lead.status)} | lead.properties
    if lead.lead:
        person, row = ContactRef(lead.lead), _row(org, lead.lead, wanted)
    else:
        query = lead.query(context, create=False, scope="lead:")
        people = People(org, kinds=("Lead",), create="Lead")
        person, row = resolve_contact(people, query, lambda known: _row(org, known, wanted))
    if row is None:
        raise PermanentError("there is no open lead with this id", code="not_found")
    return _change(org, person, fields_to_write(wanted, row))


class Case(ContactLookupParams):
    """A case to close."""

    case: str | None = param(
        "{{ event.metadata.caseId }}",
        "The case's id; without one, the person's open case.",
        example="5005g00000AbCdE",
        pattern=_ID,
    )
    status: str | None = param(None, "A closed status; the org's first one when left out.", example="Closed")
    on_multiple: Literal["review", "newest"] = param(
        "review",
        "When the person has several open cases: ask a person, or take the newest.",
        example="newest",
    )
    properties: Properties = param({}, "Further fields of the case.", example={"Reason": "Solved by Heppu"})


@connector.action(idempotency=per_event, idempotent=True)
def close_case(org: Org, case: Case, context: Context) -> Success:
    """Close a case, in the org's own word for it."""
    if case.case:
        where = format_soql("Id = {}", case.case)
    else:
        query = case.query(context, create=False, scope="contact:")
        person, _ = resolve_contact(
            People(org, kinds=("Contact",)), query, lambda known: _row(org, known, ())
        )
        where = format_soql("ContactId = {} AND IsClosed = false", person.id)
    names = ("Id", "IsClosed", *case.properties)
    rows = org.query(_select(names, "Case", f"{where} ORDER BY CreatedDate DESC LIMIT 2"))
    if case.case and not rows:
        raise PermanentError("there is no case with this id", code="not_found")
    if not rows or rows[0]["IsClosed"]:
        return Success(id=case.case, detail="no open case")
    if len(rows) > 1 and case.on_multiple == "review":
        raise LookupInconclusive(
            "the person has several open cases: close the right one, or set `on_multiple: newest`"
        )
    change = fields_to_write(case.properties, rows[0]) | {"Status": case.status or org.closed_status("Case")}
    org.rest("PATCH", f"sobjects/Case/{_id(rows[0]['Id'])}", change)
    return Success(id=str(rows[0]["Id"]), detail="closed")


class ToDo(TaskParams):
    """Something for a colleague to do."""

    priority: Literal["Low", "Normal", "High"] = param("Normal", "How urgent.", example="High")
    owner: str | None = _OWNER


@connector.action(idempotency=per_event, dedupe_by="subject", idempotent=True)
def create_task(org: Org, todo: ToDo, context: Context) -> Success:
    """Give a colleague a Task on the person's contact or lead."""
    own = {
        "Subject": todo.subject,
        "Description": todo.body(context),
        "ActivityDate": _day(org, context, todo.due_at(context)),
        "Priority": todo.priority,
        "OwnerId": todo.owner or org.settings.owner,
    }
    key = f"task:{context.idempotency_token}"
    tasks = {key: _cut(own) | fields_to_write(todo.properties, None)}
    queries = {key: todo.query(context, create=True)}
    [answer] = write_for_contacts(People(org), queries, lambda people: _link(org, tasks, {}, people)).values()
    if not isinstance(answer, Success):
        raise answer
    return answer


def _row(org: Org, record_id: str, wanted: Iterable[str]) -> Mapping[str, Any] | None:
    """The fields of a contact or lead as they are now; None when it is deleted, merged or converted."""
    kind = _kind(record_id)
    names = ("Id", "LastName", *wanted, *(("IsConverted",) if kind == "Lead" else ()))
    rows = org.query(_select(names, kind, format_soql("Id = {}", record_id)))
    return dict(rows[0]) if rows and not rows[0].get("IsConverted") else None


def _change(org: Org, person: ContactRef, change: Mapping[str, Any]) -> Success:
    if change:
        org.rest("PATCH", f"sobjects/{_kind(person.id)}/{_id(person.id)}", dict(change))
    return Success(id=person.id, detail=person.detail or ("updated" if change else "nothing to change"))


def _kind(record_id: str) -> str:
    return "Lead" if record_id.startswith(LEAD) else "Contact"


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """What Salesforce's answer means: by its code, as a lock comes as 400 and an empty quota as 403."""
    if isinstance(error, SalesforceAuthenticationFailed):
        return _failure_of_login(error)
    if not isinstance(error, SalesforceError):
        return failure_from_exception(error)
    for code, message, fields in _codes(error):
        return _failure_of(code, message, fields, error.status)
    return failure_from_status(error.status, f"Salesforce answered {error.status}")


def _failure_of_login(error: SalesforceAuthenticationFailed) -> DeliveryError:
    if error.code == "login_rate_exceeded" or "rate exceeded" in error.auth_message:
        return RateLimited("Salesforce refuses so many logins", retry_after=timedelta(minutes=1))
    if error.code in ("server_error", "temporarily_unavailable") or (
        isinstance(error.code, int) and error.code < 400
    ):
        return TransientError(
            f"the login's answer ({error.code}) is not Salesforce's; is something in between?"
        )
    said = f": {error.auth_message[:100]}" if isinstance(error.code, str) else "; is SALESFORCE_URL right?"
    return AuthenticationError(f"Salesforce refuses the login with {error.code}{said}")


def _failure_of(code: str, message: str, fields: Sequence[str], status: int) -> DeliveryError:
    """Codes and names of fields only: messages repeat values, but for those that an administrator wrote."""
    detail = f"Salesforce answered {code}" + (f" ({', '.join(fields)})" if fields else "")
    if code == "UNABLE_TO_LOCK_ROW":
        return TransientError(detail, retry_after=timedelta(seconds=3))
    if code == "REQUEST_LIMIT_EXCEEDED" and "oncurrent" in message:
        return RateLimited(detail, retry_after=timedelta(seconds=5))
    if code == "REQUEST_LIMIT_EXCEEDED":
        return QuotaExhausted("the org's requests of the last 24 hours are used up")
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
        return PermanentError(f"a validation rule of the org refuses it: {message[:200]}", code=code)
    if code.startswith("INSUFFICIENT_ACCESS"):
        return PermanentError(f"{detail}: give the integration user access", code=code)
    return PermanentError(detail, code=code)


def _codes(error: SalesforceError) -> list[tuple[str, str, list[str]]]:
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


def _answer(result: Record, detail: str = "") -> Success | DeliveryError:
    """One record's own answer in a collection."""
    if result.get("success"):
        return Success(
            id=str(result["id"]), detail=detail or ("updated" if result.get("created") is False else "")
        )
    for item in result.get("errors") or ():
        fields = [str(name) for name in item.get("fields") or ()]
        return _failure_of(str(item.get("statusCode")), str(item.get("message", "")), fields, 400)
    return OutcomeUnknown("Salesforce says nothing about this record", reason="server_error")


def _code(answer: BatchResult) -> str:
    return answer.code if isinstance(answer, PermanentError) else ""


def _typed(kind: str, record: Mapping[str, Any]) -> Record:
    return {"attributes": {"type": kind}, **record}


def _chunks(addresses: Sequence[str]) -> list[Sequence[str]]:
    return [addresses[start : start + _ASKED_AT_ONCE] for start in range(0, len(addresses), _ASKED_AT_ONCE)]


def _fields(kind: str) -> str:
    return ", ".join(("Id", *_PERSON_FIELDS[kind]))


def _select(names: Iterable[str], kind: str, where: str) -> str:
    """A query. Names of fields come from rules and go in as they are, so they must be names."""
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise PermanentError(f"`{name[:40]}` is no name of a field", code="INVALID_FIELD")
    return f"SELECT {', '.join(wanted)} FROM {kind} WHERE {where}"  # noqa: S608 - values are quoted by format_soql


def _id(record_id: str) -> str:
    """Ids go into paths as they are, so they must be ids."""
    if not re.fullmatch(_ID, record_id):
        raise PermanentError("this is no Salesforce id", code="MALFORMED_ID")
    return record_id


def _match(row: Record) -> ContactMatch:
    contact = str(row["Id"]).startswith(CONTACT)
    return ContactMatch(
        str(row["Id"]),
        [str(row["Email"])] if row.get("Email") else [],
        [str(row[name]) for name in _PHONES if row.get(name)],
        ("1" if contact else "0", row.get("LastActivityDate") or "", row.get("LastModifiedDate") or ""),
    )


def _day(org: Org, context: Context, instant: datetime) -> str:
    """The person's calendar day: Salesforce keeps it without a zone and must not be left to shift it."""
    return (
        instant.astimezone(ZoneInfo(context.contact.time_zone or org.settings.time_zone)).date().isoformat()
    )


def _cut(record: Mapping[str, Any]) -> Record:
    """Salesforce refuses the whole record for one text that is too long; what has no value is left out."""
    return {
        name: value[: LONGEST.get(name)] if isinstance(value, str) else value
        for name, value in record.items()
        if value is not None
    }
