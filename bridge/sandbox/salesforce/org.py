"""A Salesforce org: what it holds, what people do in it, and whom it lets in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.responses import Response

from bridge.clock import Clock
from bridge.sandbox.faults import Faults
from bridge.sandbox.provider import Call, Refusal
from bridge.sandbox.salesforce.api import SalesforceApi
from bridge.sandbox.salesforce.errors import RecordRefusal, error_body
from bridge.sandbox.salesforce.records import ORG_ID, SALES_USER_ID, USER_ID, Records, Rule, SObject
from bridge.sandbox.salesforce.schema import Field
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


class Salesforce(SalesforceApi):
    """One org with two users; its Tasks have the external id `Conversation_Id__c`."""

    name = "salesforce"

    def __init__(self, clock: Clock, faults: Faults) -> None:
        super().__init__(clock, faults)
        self.reset()

    def reset(self) -> None:
        """A fresh org: users, statuses, no other records."""
        with self.lock:
            self.sessions = Sessions()
            self.daily_limit = DAILY_LIMIT
            self.requests_today = 0
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
    def leads(self) -> list[SObject]:
        """The leads, oldest first."""
        return self.records_of("Lead")

    @property
    def cases(self) -> list[SObject]:
        """The cases, oldest first."""
        return self.records_of("Case")

    def records_of(self, kind: str) -> list[SObject]:
        """The living records of any kind, oldest first."""
        with self.lock:
            return self.crm.live(self.crm.types[kind])

    def add(self, kind: str, /, **values: Any) -> SObject:
        """A record that was there before the bridge came; raises RecordRefusal when Salesforce would refuse it."""
        with self.lock:
            return self.crm.create(self.crm.types[kind], values, self.now(), allow_duplicates=True)

    def delete(self, kind: str, record_id: str) -> None:
        """A person in the org deletes a record."""
        with self.lock:
            self.crm.delete(self.crm.types[kind], self.crm.tables[kind][record_id], self.now())

    def convert(self, lead_id: str, contact_id: str) -> None:
        """A person in the org converts a lead to a contact."""
        with self.lock:
            lead = self.crm.tables["Lead"][lead_id]
            lead.fields |= {
                "IsConverted": True,
                "ConvertedContactId": contact_id,
                "ConvertedDate": self.now().date().isoformat(),
                "Status": "Closed - Converted",
            }

    def merge(self, kind: str, winner_id: str, other_id: str) -> None:
        """A person in the org merges two records: the other is deleted and names the winner."""
        with self.lock:
            table = self.crm.tables[kind]
            self.crm.delete(self.crm.types[kind], table[other_id], self.now())
            table[other_id].fields["MasterRecordId"] = winner_id
            for task in self.crm.live(self.crm.types["Task"]):
                if task["WhoId"] == other_id:
                    task.fields["WhoId"] = winner_id

    def add_field(self, kind: str, field: Field) -> None:
        """An administrator adds a custom field."""
        with self.lock:
            self.crm.types[kind].fields[field.name] = field

    def remove_field(self, kind: str, name: str) -> None:
        """The org has no such field."""
        with self.lock:
            del self.crm.types[kind].fields[name]

    def add_rule(self, kind: str, rule: Rule) -> None:
        """An administrator adds a validation rule."""
        with self.lock:
            self.crm.rules.setdefault(kind, []).append(rule)

    def set_statuses(self, kind: str, statuses: Mapping[str, bool]) -> None:
        """An administrator renames the statuses of Task or Case: each with whether it is a closed one."""
        with self.lock:
            self.crm.statuses[kind] = dict(statuses)
            known = self.crm.types[kind].fields
            known["Status"] = Field("Status", "picklist", 40, tuple(statuses), restricted=True, required=True)
            self.crm.tables[f"{kind}Status"].clear()
            self._seed_statuses(kind)

    def set_duplicate_rule(self, rule: str | None) -> None:
        """`alert` or `block` a second Contact or Lead with the same e-mail; None lets it pass."""
        with self.lock:
            self.crm.duplicate_rule = rule

    def lock_record(self, record_id: str, times: int = 1) -> None:
        """Another process holds the record: the next writes to it, or to its tasks, are refused."""
        with self.lock:
            self.crm.locks[record_id] = times

    def expire_sessions(self) -> None:
        """All sessions end."""
        with self.lock:
            self.sessions.expire()

    def controls(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """Ending all sessions."""
        return [("expire-sessions", lambda _: self.expire_sessions())]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """The living records of the kinds that a connector writes."""
        with self.lock:
            found = {
                name: [dict(one.fields) for one in self.records_of(name)]
                for name in ("Task", "Contact", "Lead", "Case", "Account", "Opportunity")
            }
            return {name: rows for name, rows in found.items() if rows}

    def failure(self, status: int, message: str | None = None) -> Response:
        """Salesforce's error body; 429 does not exist there."""
        return error_body(status, message=message)

    def quota_exhausted(self) -> Response:
        """The org's requests of the last 24 hours are used up."""
        return error_body(403)

    def authorize(self, call: Call) -> None:
        """A session token on everything but the login and the list of versions."""
        if call.path == "/services/oauth2/token" or call.path.rstrip("/") == "/services/data":
            return
        if not self.sessions.valid(call.bearer()):
            raise Refusal(error_body(401))
        if self.requests_today > self.daily_limit:
            raise Refusal(self.quota_exhausted())
        version = call.args.get("version")
        if version is not None and not re.fullmatch(r"\d\d\.0", version):
            raise Refusal(error_body(404))

    def answer(self, call: Call) -> Response:
        """As every partner, and with the header that counts requests."""
        with self.lock:
            if not call.path.startswith("/services/oauth2"):
                self.requests_today += 1
            try:
                response = super().answer(call)
            except RecordRefusal as refusal:
                response = refusal.response()
            response.headers["Sforce-Limit-Info"] = f"api-usage={self.requests_today}/{self.daily_limit}"
            return response

    def _seed(self) -> None:
        now = self.now()
        zone = {"TimeZoneSidKey": "America/New_York"}
        for user, name in ((USER_ID, USERNAME), (SALES_USER_ID, "sales@harbourlight.example")):
            person = {"Id": user, "Name": name.split("@")[0].title(), "Username": name, "Email": name}
            self.crm.put(self.crm.types["User"], person | zone | {"IsActive": True}, now)
        org = {"Id": ORG_ID, "Name": "Harbour Light", "InstanceName": "NA1", "IsSandbox": False}
        self.crm.put(self.crm.types["Organization"], org | zone, now)
        for kind in self.crm.statuses:
            self._seed_statuses(kind)

    def _seed_statuses(self, kind: str) -> None:
        for number, (status, closed) in enumerate(self.crm.statuses[kind].items()):
            self.crm.put(
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
