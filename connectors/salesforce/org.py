"""Client of one Salesforce org: queries, and writes of records in collections; check and setup of the org."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from simple_salesforce.exceptions import SalesforceError
from simple_salesforce.format import format_soql

from bridge.connector import Success
from bridge.errors import ConfigError, DeliveryError, OutcomeUnknown, PermanentError

from .errors import DELETED_CODES, error_code, errors_in, record_result
from .session import Record, Session
from .settings import Settings, connector
from .soql import chunks, select

BATCH_SIZE = 200
"""Salesforce's limit for one sObject collection."""
_STATUS_CACHE_SECONDS = 6 * 3600.0
_MISSING_FIELD_CACHE_SECONDS = 600.0
_FIELDS_CACHE_SECONDS = 600.0
EMAIL_FLAG, CALL_FLAG = "HasOptedOutOfEmail", "DoNotCall"
"""Fields of contacts and leads that say that the person wants no emails, or no calls."""
_DEFAULT_CLOSED_STATUS = {"Task": "Completed", "Case": "Closed"}
"""Salesforce's default status names, which an org may rename."""


class Org:
    """Client of one Salesforce org."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.session = Session(settings)
        self._closed_status: dict[str, tuple[float, str]] = {}
        self._field_missing_until = 0.0
        self._fields: dict[str, tuple[float, Mapping[str, bool]]] = {}
        self.close = self.session.close

    def query(self, soql: str) -> list[Record]:
        """Return all rows of a SOQL query."""
        return list(self.session.run(lambda api: api.query_all(soql))["records"])

    def search(self, sosl: str) -> list[Record]:
        """Return all records of a SOSL search."""
        return list((self.session.run(lambda api: api.search(sosl)) or {}).get("searchRecords") or ())

    def rest(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send one request below `/services/data/vXX.0/` and return its JSON."""
        return self.session.run(
            lambda api: api.restful(path, method=method, json=body, headers=dict(headers or {}))
        )

    def collection(
        self, method: str, path: str, records: Sequence[Record], headers: Mapping[str, str] | None = None
    ) -> list[Record]:
        """Write up to 200 records in one request and return a result for each of them."""
        body = {"allOrNone": False, "records": list(records)}
        results = self.rest(method, f"composite/sobjects{path}", body, headers)
        if not isinstance(results, list) or len(results) != len(records):
            raise OutcomeUnknown(
                "Salesforce's response does not match the records sent", reason="server_error"
            )
        return results

    def require_fields(
        self, object_type: str, names: Sequence[str], access: Literal["readable", "updateable"]
    ) -> None:
        """Raise ConfigError if field-level security hides one of these fields from the integration user.

        With `updateable`, the user must be able to write them as well.
        """
        fields = self._writable_fields(object_type)
        if any(name not in fields or (access == "updateable" and not fields[name]) for name in names):
            # An administrator who has granted access since need not wait for the cache.
            fields = self._writable_fields(object_type, refresh=True)
        for name in names:
            if name not in fields:
                raise ConfigError(
                    f"{object_type}.{name} is hidden from this user: grant read and edit access to the field in its "
                    "permission set"
                )
            if access == "updateable" and not fields[name]:
                raise ConfigError(
                    f"this user may not write {object_type}.{name}: grant edit access to the field in its "
                    "permission set"
                )

    def _writable_fields(self, object_type: str, *, refresh: bool = False) -> Mapping[str, bool]:
        """Return the fields that this user can read, and whether the user may write them."""
        cached = self._fields.get(object_type)
        if cached is None or cached[0] < time.monotonic() or refresh:
            description = self.rest("GET", f"sobjects/{object_type}/describe")
            if not isinstance(description, Mapping) or "fields" not in description:
                raise OutcomeUnknown(
                    "the description of an object is not Salesforce's", reason="server_error"
                )
            fields = {str(field["name"]): bool(field["updateable"]) for field in description["fields"]}
            cached = self._fields[object_type] = (time.monotonic() + _FIELDS_CACHE_SECONDS, fields)
        return cached[1]

    def closed_status(self, object_type: str) -> str:
        """Return the org's name for the closed status of Task or Case."""
        cached = self._closed_status.get(object_type)
        if cached is None or cached[0] < time.monotonic():
            condition = "IsClosed = true ORDER BY SortOrder LIMIT 1"
            try:
                rows = self.query(select(("ApiName",), f"{object_type}Status", condition))
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
            if key not in results or error_code(results[key]) in DELETED_CODES
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
                "PATCH", f"/Task/{field}", [typed("Task", record) for record in pending.values()]
            )
            results |= {key: record_result(item) for key, item in zip(pending, items, strict=True)}
            # With these codes the Task already exists: it was created by an attempt whose response was lost, or
            # concurrently by another process. A subtype can be set only when a Task is created.
            pending = {
                key: {name: value for name, value in record.items() if name != "TaskSubtype"}
                for key, record in pending.items()
                if error_code(results[key]) in ("INVALID_FIELD_FOR_INSERT_UPDATE", "DUPLICATE_VALUE")
            }
            if not pending:
                break
        return results

    def _upsert_by_call_object(self, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        """Upsert Tasks in an org without the External ID field: CallObject holds the key and is queried first."""
        existing: dict[str, str] = {}
        for keys in chunks(list(records)):
            soql = format_soql("SELECT Id, CallObject FROM Task WHERE CallObject IN {}", keys)
            existing |= {str(row["CallObject"]): str(row["Id"]) for row in self.query(soql)}
        keyed = {key: record | {"CallObject": key} for key, record in records.items()}
        results = self._update({key: keyed[key] | {"id": existing[key]} for key in keyed if key in existing})
        new = {key: record for key, record in keyed.items() if key not in existing}
        if new:
            items = self.collection("POST", "", [typed("Task", record) for record in new.values()])
            results |= {key: record_result(item) for key, item in zip(new, items, strict=True)}
        return results

    def _update(self, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        if not records:
            return {}
        rows = [
            typed("Task", {name: value for name, value in record.items() if name != "TaskSubtype"})
            for record in records.values()
        ]
        items = self.collection("PATCH", "", rows)
        return {key: record_result(item, "updated") for key, item in zip(records, items, strict=True)}

    def _is_field_missing(self, error: SalesforceError) -> bool:
        return any(
            code in ("NOT_FOUND", "INVALID_FIELD", "INVALID_ARGUMENT_TYPE")
            and self.settings.task_field in message
            for code, message, _ in errors_in(error)
        )


@connector.client
def client(settings: Settings) -> Org:
    """Return a client of the org. It sends no request before its first use."""
    return Org(settings)


def typed(object_type: str, record: Mapping[str, Any]) -> Record:
    """Return a record of a collection, which states its own object type."""
    return {"attributes": {"type": object_type}, **record}


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
    usage = f"logged in, {org.session.usage or 'an unknown number'} of the org's daily requests used"
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
    return "; ".join([usage, f"Task.{name} exists", *_hidden_flags(org)])


def _hidden_flags(org: Org) -> list[str]:
    """Return a note for each opt-out flag that this user cannot read or write."""
    notes = []
    for object_type in ("Contact", "Lead"):
        for flag in (EMAIL_FLAG, CALL_FLAG):
            try:
                org.require_fields(object_type, [flag], "updateable")
            except ConfigError as error:
                notes.append(f"{error} (needed by messaging.crm_opt_outs and set_opt_out)")
    return notes


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
        if "DUPLICATE_DEVELOPER_NAME" not in str(errors_in(error)):
            raise ConfigError(
                f"this user may not create fields: in Setup, Activity, Fields, add the text field {name} (255, "
                "External ID, unique) and grant the integration user edit access to it"
            ) from error
    return (
        f"Activity.{name} created; grant read and edit access to it in the integration user's permission set"
    )
