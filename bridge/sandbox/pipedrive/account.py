"""Mock Pipedrive account: authentication, limits, and changes made by its users."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from bridge.sandbox.pipedrive.api import PLURALS, PipedriveApi
from bridge.sandbox.pipedrive.errors import blocked_response, error_response
from bridge.sandbox.pipedrive.records import KINDS, Record
from bridge.sandbox.pipedrive.schema import default_fields
from bridge.sandbox.provider import ProviderError, ProviderRequest

API_TOKEN = "1f0e2d3c4b5a69788796a5b4c3d2e1f001234567"  # noqa: S105 - valid only in this sandbox
BURST_WINDOW = timedelta(seconds=2)
DAILY_BUDGET = 30_000
"""Tokens of a day on the smallest plan with one seat."""
MAX_REFUSALS = 20
"""Requests over the limit in a row, after which the token is blocked for a while."""


class Pipedrive(PipedriveApi):
    """An account with two pipelines and two users.

    If `burst_limit` is set, the rolling limit of requests per two seconds is enforced; if `search_limit` is set, that
    of searches. The daily budget always is, by the documented costs of each endpoint, until midnight UTC: Pipedrive
    does not say in which time zone its day ends.
    """

    name = "pipedrive"

    def reset(self) -> None:
        """Restore a new account."""
        with self.lock:
            self.token = API_TOKEN
            self.daily_budget = DAILY_BUDGET
            self.burst_limit: int | None = None
            self.search_limit: int | None = None
            self.has_campaigns = False
            self.filters = {}
            self._spent: dict[str, int] = {}
            self._recent: dict[bool, deque[datetime]] = {False: deque(), True: deque()}
            self._refusals = 0
            self.all_records = {kind: {} for kind in KINDS}
            self.fields = default_fields()
            self.users = [
                _user(1201, "Ana Petrov", "ana@example.com"),
                _user(1202, "Sam Ortiz", "sam@example.com"),
            ]
            self.pipelines = [_named(1, "Sales"), _named(2, "Service")]
            self.stages = [
                _named(11, "Qualified", pipeline_id=1), _named(12, "Offer", pipeline_id=1),
                _named(21, "New", pipeline_id=2),
            ]  # fmt: skip
            self.activity_types = [
                {"id": number, "name": name, "key_string": name.lower(), "active_flag": True}
                for number, name in enumerate(("Call", "Meeting", "Task", "Email"), 1)
            ]

    @property
    def persons(self) -> list[Record]:
        """The persons that were not deleted, oldest first."""
        return self.existing("person")

    @property
    def organizations(self) -> list[Record]:
        """The organizations that were not deleted, oldest first."""
        return self.existing("organization")

    @property
    def deals(self) -> list[Record]:
        """The deals that were not deleted, oldest first."""
        return self.existing("deal")

    @property
    def activities(self) -> list[Record]:
        """The activities that were not deleted, oldest first."""
        return self.existing("activity")

    def existing(self, kind: str) -> list[Record]:
        """Return the records of a kind that were not deleted, oldest first."""
        with self.lock:
            return [record for record in self.all_records[kind].values() if not record.is_deleted]

    def add(self, kind: str, /, **values: Any) -> Record:
        """Create a record, as a user would. `email` and `phone` stand for a list of one."""
        with self.lock:
            for name in ("email", "phone"):
                if name in values:
                    values[f"{name}s"] = [{"value": values.pop(name)}]
            return self.create(kind, values)

    def update(self, record: Record, **values: Any) -> None:
        """Change a record, as a user would."""
        with self.lock:
            self.change(record, values)

    def delete(self, kind: str, record_id: int | str) -> None:
        """Delete a record, as a user would."""
        with self.lock:
            record = self.all_records[kind][int(record_id)]
            record.is_deleted = True
            record.versions.append((self.now(), None))

    def merge_persons(self, kept: Record, merged: Record) -> None:
        """Merge two persons, as a user would: addresses, deals and activities go to the kept one."""
        with self.lock:
            lists = {name: [*(kept[name] or ()), *(merged[name] or ())] for name in ("emails", "phones")}
            self.delete("person", merged.id)
            self.change(kept, lists)
            for kind in ("deal", "activity"):
                for record in self.existing(kind):
                    if record["person_id"] == merged.id:
                        record.values["person_id"] = kept.id

    def spent_today(self) -> int:
        """Return the tokens that today's requests have cost."""
        return self._spent.get(self._today(), 0)

    def charge(self, tokens: int, *, is_search: bool) -> None:
        """Count a request. Raise ProviderError if it is over a limit."""
        spent = self.spent_today() + tokens
        if spent > self.daily_budget:
            raise ProviderError(self.quota_error_response())
        now = self.now()
        for recent, limit in (
            (self._recent[False], self.burst_limit),
            (self._recent[True], self.search_limit),
        ):
            while recent and recent[0] <= now - BURST_WINDOW:
                recent.popleft()
            counts = recent is self._recent[False] or is_search
            if counts and limit is not None and len(recent) >= limit:
                self._refusals += 1
                raise ProviderError(
                    blocked_response() if self._refusals > MAX_REFUSALS else self.error_response(429)
                )
            if counts:
                recent.append(now)
        self._refusals = 0
        self._spent[self._today()] = spent

    def authorize(self, request: ProviderRequest) -> None:
        """Raise ProviderError without the token, which API v2 accepts in one header only."""
        if request.headers.get("x-api-token") != self.token:
            raise ProviderError(error_response(401))

    def handle(self, request: ProviderRequest) -> Response:
        """Return the response to a request, with the headers of the limits."""
        response = super().handle(request)
        if response.status_code != 401:
            limit = self.burst_limit or 20
            left = max(0, limit - len(self._recent[False]))
            headers = {"x-ratelimit-limit": limit, "x-ratelimit-remaining": left, "x-ratelimit-reset": 2}
            headers["x-daily-ratelimit-token-limit"] = self.daily_budget
            headers["x-daily-ratelimit-token-remaining"] = max(0, self.daily_budget - self.spent_today())
            for name, value in headers.items():
                response.headers.setdefault(name, str(value))
        return response

    def error_response(self, status: int, message: str | None = None) -> Response:
        """Return Pipedrive's response for an HTTP status. A 429 has no Retry-After."""
        response = error_response(status, message)
        if status == 429:
            response.headers["x-ratelimit-reset"] = "2"
        return response

    def quota_error_response(self) -> Response:
        """Return the response to requests over the daily budget."""
        response = error_response(429, "Daily API token budget exceeded")
        response.headers["x-daily-ratelimit-token-remaining"] = "0"
        return response

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return everything that the account stores."""
        return {
            plural: [record.as_json() for record in self.existing(kind)] for kind, plural in PLURALS.items()
        }

    def commands(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """Return the commands for tests."""
        return [("configure", self._configure)]

    def _configure(self, body: dict[str, Any]) -> dict[str, Any]:
        names = ("daily_budget", "burst_limit", "search_limit", "has_campaigns")
        for name, value in body.items():
            if name not in names or not isinstance(value, int | None):
                raise ValueError(f"{name} is not a number, or none of {', '.join(names)}")
            setattr(self, name, value)
        return {name: getattr(self, name) for name in names}

    def _today(self) -> str:
        return self.now().date().isoformat()


def _user(number: int, name: str, email: str) -> dict[str, Any]:
    return {
        "id": number, "name": name, "email": email, "active_flag": True, "is_deleted": False,
        "default_currency": "EUR", "timezone_name": "Europe/Berlin",
    }  # fmt: skip


def _named(number: int, name: str, **values: Any) -> dict[str, Any]:
    return {"id": number, "name": name, "is_deleted": False, **values}
