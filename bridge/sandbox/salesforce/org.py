"""Mock Salesforce org: its records, authentication, limits, and changes made by its users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from bridge.sandbox.provider import ProviderError, ProviderRequest
from bridge.sandbox.salesforce.api import API_VERSIONS, SalesforceApi
from bridge.sandbox.salesforce.errors import RecordError, error_response
from bridge.sandbox.salesforce.records import (
    ORG_ID,
    QUEUE_ID,
    SALES_USER_ID,
    USER_ID,
    Records,
    SObject,
    ValidationRule,
)
from bridge.sandbox.salesforce.schema import Field, RecordType, long_id
from bridge.sandbox.salesforce.sessions import CONSUMER_KEY, CONSUMER_SECRET, USERNAME, Sessions

__all__ = ["CONSUMER_KEY", "CONSUMER_SECRET", "USERNAME", "Salesforce"]

DAILY_LIMIT = 100_000
_STATUSES = {
    "Task": {
        "Not Started": False,
        "In Progress": False,
        "Completed": True,
        "Waiting on someone else": False,
        "Deferred": False,
    },
    "Case": {"New": False, "Working": False, "Escalated": False, "Closed": True},
}


_SHOWN = (
    "Task", "Event", "Contact", "Lead", "Case", "Account", "Opportunity", "Campaign", "CampaignMember",
)  # fmt: skip
"""The object types that a connector writes, and those that they refer to."""


class Salesforce(SalesforceApi):
    """An org with two users and one queue. Its Tasks and cases have the external ID field `Conversation_Id__c`."""

    name = "salesforce"

    moved_to: str | None
    """The host of the org's new My Domain: every request to the old one is redirected there."""

    def reset(self) -> None:
        """Restore a new org: users and statuses, no other records."""
        with self.lock:
            self.sessions = Sessions()
            self.daily_limit = DAILY_LIMIT
            self.requests_today = 0
            self.moved_to = None
            self.crm = Records({name: dict(values) for name, values in _STATUSES.items()})
            self._pages = {}
            self._seed()

    @property
    def tasks(self) -> list[SObject]:
        """The tasks, oldest first."""
        return self.records_of("Task")

    @property
    def contacts(self) -> list[SObject]:
        """The contacts, oldest first."""
        return self.records_of("Contact")

    @property
    def private_contacts(self) -> list[SObject]:
        """The contacts without an account. Only their owner and administrators see them, whatever is shared."""
        return [contact for contact in self.contacts if contact["AccountId"] is None]

    @property
    def leads(self) -> list[SObject]:
        """The leads, oldest first."""
        return self.records_of("Lead")

    @property
    def cases(self) -> list[SObject]:
        """The cases, oldest first."""
        return self.records_of("Case")

    def records_of(self, kind: str) -> list[SObject]:
        """Return the records of a type that were not deleted, oldest first."""
        with self.lock:
            return self.crm.active_records(self.crm.types[kind])

    def add(self, kind: str, /, **values: Any) -> SObject:
        """Create an existing record for a test. Raise RecordError if Salesforce would reject it."""
        with self.lock:
            return self.crm.create(self.crm.types[kind], values, self.now(), allow_duplicates=True)

    def add_campaign(self, name: str, statuses: Mapping[str, bool] | None = None, **values: Any) -> SObject:
        """Create a campaign, with member statuses of its own: label -> whether such a member has responded."""
        campaign = self.add("Campaign", Name=name, IsActive=True, **values)
        table = self.crm.tables["CampaignMemberStatus"]
        with self.lock:
            for status in [row for row in table.values() if statuses and row["CampaignId"] == campaign.id]:
                del table[status.id]
            for number, (label, has_responded) in enumerate((statuses or {}).items(), 1):
                self.crm.insert_unchecked(
                    self.crm.types["CampaignMemberStatus"],
                    {
                        "CampaignId": campaign.id,
                        "Label": label,
                        "HasResponded": has_responded,
                        "IsDefault": number == 1,
                        "SortOrder": number,
                    },
                    self.now(),
                )
        return campaign

    def delete(self, kind: str, record_id: str) -> None:
        """Delete a record, as a user of the org would."""
        with self.lock:
            self.crm.delete(self.crm.types[kind], self.crm.tables[kind][record_id], self.now())

    def convert(self, lead_id: str, contact_id: str) -> None:
        """Convert a lead to a contact, as a user of the org would."""
        with self.lock:
            lead = self.crm.tables["Lead"][lead_id]
            lead.fields |= {
                "IsConverted": True,
                "ConvertedContactId": contact_id,
                "ConvertedDate": self.now().date().isoformat(),
                "Status": "Closed - Converted",
            }

    def merge(self, kind: str, winner_id: str, other_id: str) -> None:
        """Merge two records, as a user would. The other one is deleted and refers to the winner."""
        with self.lock:
            table = self.crm.tables[kind]
            self.crm.delete(self.crm.types[kind], table[other_id], self.now())
            table[other_id].fields["MasterRecordId"] = winner_id
            for task in self.crm.active_records(self.crm.types["Task"]):
                if task["WhoId"] == other_id:
                    task.fields["WhoId"] = winner_id

    def add_field(self, kind: str, field: Field) -> None:
        """Add a custom field, as an administrator would."""
        with self.lock:
            self.crm.types[kind].fields[field.name] = field

    def remove_field(self, kind: str, name: str) -> None:
        """Remove a field from the org."""
        with self.lock:
            del self.crm.types[kind].fields[name]

    def grant_field(self, kind: str, name: str) -> None:
        """Grant the integration user access to a field that field-level security hides."""
        with self.lock:
            object_type = self.crm.types[kind]
            object_type.fields[name] = object_type.hidden_fields.pop(name)

    def hide_field(self, kind: str, name: str) -> None:
        """Hide a field from the integration user, with field-level security."""
        with self.lock:
            object_type = self.crm.types[kind]
            object_type.hidden_fields[name] = object_type.fields.pop(name)

    def enable_person_accounts(self) -> None:
        """Let accounts be people. It cannot be undone."""
        with self.lock:
            for kind in ("Account", "Contact"):
                field = Field("IsPersonAccount", "boolean", createable=False, updateable=False)
                self.crm.types[kind].fields[field.name] = field

    def add_person(self, **values: Any) -> SObject:
        """Add a person account, and return its contact. Its account has the same name and phone number."""
        with self.lock:
            now, types, flag = self.now(), self.crm.types, {"IsPersonAccount": True}
            account = {"Name": values["LastName"], "Phone": values.get("Phone"), "OwnerId": USER_ID}
            account_id = self.crm.insert_unchecked(types["Account"], account | flag, now).id
            contact = {"AccountId": account_id, "OwnerId": USER_ID, **values}
            return self.crm.insert_unchecked(types["Contact"], contact | flag, now)

    def add_record_type(self, kind: str, name: str, *, available: bool = True) -> str:
        """Add a record type, and return its ID."""
        with self.lock:
            object_type = self.crm.types[kind]
            object_type.fields.setdefault("RecordTypeId", Field("RecordTypeId", "reference"))
            record_type = RecordType(
                long_id(f"0125g00000{len(object_type.record_types):05}"), name, available
            )
            object_type.record_types[record_type.id] = record_type
            return record_type.id

    def make_read_only(self, kind: str, name: str) -> None:
        """Take edit access to a field from the integration user, with field-level security."""
        with self.lock:
            fields = self.crm.types[kind].fields
            fields[name] = replace(fields[name], createable=False, updateable=False)

    def add_rule(self, kind: str, rule: ValidationRule) -> None:
        """Add a validation rule, as an administrator would."""
        with self.lock:
            self.crm.rules.setdefault(kind, []).append(rule)

    def set_statuses(self, kind: str, statuses: Mapping[str, bool]) -> None:
        """Replace the statuses of Task or Case, as an administrator would. Each maps to whether it is closed."""
        with self.lock:
            self.crm.statuses[kind] = dict(statuses)
            fields = self.crm.types[kind].fields
            fields["Status"] = Field(
                "Status", "picklist", 40, tuple(statuses), restricted=True, required=True
            )
            self.crm.tables[f"{kind}Status"].clear()
            self._seed_statuses(kind)

    def deny(self, kind: str, *operations: str) -> None:
        """Take object permissions from the integration user: `read`, `create`, `edit`."""
        with self.lock:
            self.crm.access.denied.setdefault(kind, set()).update(operations)

    def set_assignment_rule(self, kind: str, owner_id: str) -> None:
        """Activate an assignment rule of Lead, Case or Account that gives every record to this user or queue."""
        with self.lock:
            self.crm.assignment_rules[kind] = owner_id

    def deactivate_user(self, user_id: str) -> None:
        """Deactivate a user, who can no longer own new records."""
        with self.lock:
            self.crm.tables["User"][user_id].fields["IsActive"] = False

    def set_duplicate_rule(self, rule: str | None) -> None:
        """Set whether to `alert` or `block` on a second Contact or Lead with the same email. None allows it."""
        with self.lock:
            self.crm.duplicate_rule = rule

    def lock_record(self, record_id: str, times: int = 1) -> None:
        """Lock a record, as another process would. The next `times` writes to it, or to its tasks, are rejected."""
        with self.lock:
            self.crm.locks[record_id] = times

    def expire_sessions(self) -> None:
        """End all sessions."""
        with self.lock:
            self.sessions.expire()

    def commands(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """Return the command that ends all sessions."""
        return [("expire-sessions", lambda _: self.expire_sessions())]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the records of the types that a connector writes, without deleted ones."""
        with self.lock:
            tables = {name: [dict(record.fields) for record in self.records_of(name)] for name in _SHOWN}
            return {name: rows for name, rows in tables.items() if rows}

    def error_response(self, status: int, message: str | None = None) -> Response:
        """Return Salesforce's error response. Salesforce has no 429."""
        return error_response(status, message=message)

    def quota_error_response(self) -> Response:
        """Return the response to requests over the org's 24-hour limit."""
        return error_response(403)

    def authorize(self, request: ProviderRequest) -> None:
        """Check the session token of all requests except the login and the list of versions."""
        if self.moved_to is not None:
            location = f"https://{self.moved_to}{request.path}"
            raise ProviderError(Response(status_code=302, headers={"Location": location}))
        if request.path == "/services/oauth2/token" or request.path.rstrip("/") == "/services/data":
            return
        if not self.sessions.is_valid(request.bearer_token()):
            raise ProviderError(error_response(401))
        if self.requests_today > self.daily_limit:
            raise ProviderError(self.quota_error_response())
        version = request.path_params.get("version")
        if version is not None and version not in API_VERSIONS:
            raise ProviderError(error_response(404))

    def handle(self, request: ProviderRequest) -> Response:
        """Return the response, with the API usage header."""
        with self.lock:
            if not request.path.startswith("/services/oauth2"):
                self.requests_today += 1
            try:
                response = super().handle(request)
            except RecordError as error:
                response = error.response()
            response.headers["Sforce-Limit-Info"] = f"api-usage={self.requests_today}/{self.daily_limit}"
            return response

    def _seed(self) -> None:
        now = self.now()
        time_zone = {"TimeZoneSidKey": "America/New_York"}
        for user_id, name in ((USER_ID, USERNAME), (SALES_USER_ID, "sales@harbourlight.example")):
            user_fields = {"Id": user_id, "Name": name.split("@")[0].title(), "Username": name, "Email": name}
            self.crm.insert_unchecked(
                self.crm.types["User"], user_fields | time_zone | {"IsActive": True}, now
            )
        queue = {"Id": QUEUE_ID, "Name": "New leads", "DeveloperName": "New_leads", "Type": "Queue"}
        self.crm.insert_unchecked(self.crm.types["Group"], queue, now)
        org = {"Id": ORG_ID, "Name": "Harbour Light", "InstanceName": "NA1", "IsSandbox": False}
        self.crm.insert_unchecked(self.crm.types["Organization"], org | time_zone, now)
        for kind in self.crm.statuses:
            self._seed_statuses(kind)

    def _seed_statuses(self, kind: str) -> None:
        for number, (status, closed) in enumerate(self.crm.statuses[kind].items()):
            self.crm.insert_unchecked(
                self.crm.types[f"{kind}Status"],
                {
                    "MasterLabel": status,
                    "ApiName": status,
                    "IsClosed": closed,
                    "IsDefault": number == 0,
                    "SortOrder": number + 1,
                },
                self.now(),
            )
