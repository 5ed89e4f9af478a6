"""Client of one Salesforce org: queries, and writes of records in collections."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from bridge.connector import TokenSource
from bridge.errors import AccountError, ConfigError, OutcomeUnknown, PermanentError, TransientError

from . import sdk
from .account_errors import PERMISSION_SET, hidden_object
from .campaigns import Campaigns
from .describe import FieldDescription, read_fields
from .match_fields import MatchFields
from .owners import Owners
from .session import Record, Session
from .settings import Settings, connector
from .soql import select

BATCH_SIZE = 200
"""Salesforce's limit for one sObject collection."""
_STATUS_CACHE_SECONDS = 6 * 3600.0
_FIELDS_CACHE_SECONDS = 3600.0
_MIN_SECONDS_BETWEEN_READS = 60.0
"""A value that Salesforce still refuses so soon after the org's values were read is an error of the rule."""
EMAIL_FLAG, CALL_FLAG = "HasOptedOutOfEmail", "DoNotCall"
"""Fields of contacts and leads that say that the person wants no emails, or no calls."""
_DEFAULT_CLOSED_STATUS = {"Task": "Completed", "Case": "Closed"}
"""Salesforce's default status names, which an org may rename."""


def _not_from_salesforce() -> OutcomeUnknown:
    """Return the error for a response that is not in Salesforce's format; it must not read as "no records"."""
    return OutcomeUnknown(
        "the response is not Salesforce's: check for a proxy in between", reason="server_error"
    )


class Org:
    """Client of one Salesforce org."""

    def __init__(self, settings: Settings, tokens: TokenSource) -> None:
        self.settings = settings
        self.session = Session(settings, tokens)
        self._time_zone: str | None = None
        self._closed_status: dict[str, tuple[float, str]] = {}
        self.task_field_missing_until = 0.0
        """Time (monotonic) until which the External ID field of Tasks is taken to be missing."""
        self._fields: dict[str, tuple[float, Mapping[str, FieldDescription]]] = {}
        self.values_read_again = float("-inf")
        """Time (monotonic) at which the cached statuses and picklists were last given up because of a refused value."""
        self.owners = Owners(self.query)
        self.campaigns = Campaigns(self.query)
        self.match_fields = MatchFields()
        self.close = self.session.close

    def query(self, soql: str) -> list[Record]:
        """Return all rows of a SOQL query."""
        try:
            return list(self.session.run(lambda api: api.query_all(soql))["records"])
        except (KeyError, TypeError) as error:  # raised by the SDK as well
            raise _not_from_salesforce() from error

    def query_together(self, queries: Mapping[str, str]) -> dict[str, list[Record]]:
        """Return the rows of up to five queries by name, sent as one request. A query that is refused is left out."""
        path = f"/services/data/v{self.settings.api_version}/query/?"
        body = {
            "compositeRequest": [
                {"method": "GET", "referenceId": name, "url": path + urlencode({"q": soql})}
                for name, soql in queries.items()
            ]
        }
        answer = self.rest("POST", "composite", body) if queries else {"compositeResponse": ()}
        items = answer.get("compositeResponse") if isinstance(answer, Mapping) else None
        if items is None or any(item["httpStatusCode"] >= 500 for item in items):
            raise OutcomeUnknown("Salesforce could not answer some of the queries", reason="server_error")
        return {
            item["referenceId"]: list(item["body"]["records"])
            for item in items
            if item["httpStatusCode"] == 200
        }

    def search(self, sosl: str) -> list[Record]:
        """Return all records of a SOSL search."""
        answer = self.session.run(lambda api: api.search(sosl))
        records = answer.get("searchRecords") if isinstance(answer, Mapping) else None
        if not isinstance(records, list):
            raise _not_from_salesforce()
        return records

    def rest(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send one request below `/services/data/vXX.0/` and return its JSON.

        An update runs no assignment rules, which would hand a lead, case or account to another owner.
        """
        all_headers = ({"Sforce-Auto-Assign": "FALSE"} if method == "PATCH" else {}) | dict(headers or {})
        return self.session.run(lambda api: api.restful(path, method=method, json=body, headers=all_headers))

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
        fields = self.fields(object_type)
        if any(
            name not in fields or (access == "updateable" and not fields[name].updateable) for name in names
        ):
            # An administrator who has granted access since need not wait for the cache.
            fields = self.fields(object_type, refresh=True)
        for name in names:
            if name not in fields:
                raise ConfigError(
                    f"{object_type}.{name} is hidden from this user: grant read and edit access to the field in its "
                    "permission set"
                )
            if access == "updateable" and not fields[name].updateable:
                raise ConfigError(
                    f"this user may not write {object_type}.{name}: grant edit access to the field in its "
                    "permission set"
                )

    def fields(self, object_type: str, *, refresh: bool = False) -> Mapping[str, FieldDescription]:
        """Return the fields of an object type that this user can read, by name."""
        cached = self._fields.get(object_type)
        if cached is None or cached[0] < time.monotonic() or refresh:
            fields = read_fields(self.describe(object_type))
            cached = self._fields[object_type] = (time.monotonic() + _FIELDS_CACHE_SECONDS, fields)
        return cached[1]

    def refused_value(self, code: str, read_again: float) -> TransientError | None:
        """Return the error for a value that the org may have renamed since it was cached. None: it is another error.

        The next attempt reads the values again. `read_again` is `values_read_again` when this attempt began.
        """
        if code != "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST":
            return None
        now = time.monotonic()
        if read_again == self.values_read_again:
            if now < read_again + _MIN_SECONDS_BETWEEN_READS:
                return None
            self.values_read_again = now
            self._fields.clear()
            self._closed_status.clear()
        return TransientError(
            "Salesforce refuses a value of a picklist: the org's values are read again",
            retry_after=timedelta(seconds=1),
        )

    def types(self, object_type: Literal["Task", "Event"]) -> Sequence[str]:
        """Return the values of Task.Type or Event.Type, none if the integration user may not write the field."""
        field = self.fields(object_type).get("Type")
        return list(field.options) if field and field.createable else ()

    def describe(self, object_type: str) -> Any:
        """Return Salesforce's description of an object type. Raise AccountError if it is hidden from this user."""
        try:
            return self.rest("GET", f"sobjects/{object_type}/describe")
        except sdk.SalesforceError as error:
            if error.status != 404:
                raise
            if object_type == "Task":  # every user of the API can see it
                version = self.settings.api_version
                raise AccountError(
                    f"the org has no API version {version}, or the integration user has no access to activities",
                    fix="remove SALESFORCE_API_VERSION from the settings, or select Access Activities under System "
                    f"Permissions in {PERMISSION_SET}",
                ) from error
            raise hidden_object(object_type) from error

    def closed_status(self, object_type: str) -> str:
        """Return the org's name for the closed status of Task or Case."""
        cached = self._closed_status.get(object_type)
        if cached is None or cached[0] < time.monotonic():
            condition = "IsClosed = true ORDER BY SortOrder LIMIT 1"
            answers = self.query_together(
                {
                    "Status": select(("ApiName",), f"{object_type}Status", condition),
                    "Organization": "SELECT TimeZoneSidKey FROM Organization",
                }
            )
            self._time_zone = _zone_name(answers.get("Organization", ()))
            # The statuses may be hidden from this user.
            rows = answers.get("Status", [{"ApiName": _DEFAULT_CLOSED_STATUS[object_type]}])
            if not rows:
                raise PermanentError(
                    f"this org has no closed status for {object_type}: add one in Setup",
                    code="no_closed_status",
                )
            cached = (time.monotonic() + _STATUS_CACHE_SECONDS, str(rows[0]["ApiName"]))
            self._closed_status[object_type] = cached
        return cached[1]

    @property
    def time_zone(self) -> str:
        """The time zone of the settings, or else of the org: for Tasks of contacts whose time zone is not known."""
        if self.settings.time_zone is None and self._time_zone is None:
            self.closed_status("Task")
        return self.settings.time_zone or self._time_zone or "UTC"


def _zone_name(organizations: Sequence[Record]) -> str:
    """Return the time zone of the org, UTC if it is unknown."""
    name = str(organizations[0].get("TimeZoneSidKey")) if organizations else ""
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        return "UTC"


@connector.client
def client(settings: Settings, tokens: TokenSource) -> Org:
    """Return a client of the org. It sends no request before its first use."""
    return Org(settings, tokens)


def typed(object_type: str, record: Mapping[str, Any]) -> Record:
    """Return a record of a collection, which states its own object type."""
    return {"attributes": {"type": object_type}, **record}
