"""A HubSpot account: what it holds, what people do in it, and whom it lets in."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from bridge.clock import Clock
from bridge.sandbox.faults import Faults
from bridge.sandbox.hubspot.api import DAILY_LIMIT, OWNER_ID, PORTAL_ID, HubSpotApi
from bridge.sandbox.hubspot.crm import Association, Crm, CrmObject
from bridge.sandbox.hubspot.errors import error_body, rate_limited
from bridge.sandbox.hubspot.pipelines import ticket_pipelines
from bridge.sandbox.hubspot.schema import account_types
from bridge.sandbox.hubspot.scopes import scope_of
from bridge.sandbox.provider import Call, Refusal

ACCESS_TOKEN = "pat-na1-5a6d0c8e-1f2b-4c3d-9e8f-0a1b2c3d4e5f"  # noqa: S105 - opens nothing but this sandbox
PER_TEN_SECONDS = 100
TEN_SECONDS = timedelta(seconds=10)


class HubSpot(HubSpotApi):
    """One account with two ticket pipelines and one owner.

    `missing_scopes` are those that the token lacks; `per_ten_seconds`, when set, is a rolling limit that holds.
    """

    name = "hubspot"

    def __init__(self, clock: Clock, faults: Faults) -> None:
        super().__init__(clock, faults)
        self.reset()

    def reset(self) -> None:
        """A fresh account: no records, no properties of one's own, all scopes granted."""
        with self.lock:
            self.token = ACCESS_TOKEN
            self.missing_scopes = set()
            self.requests_today = 0
            self.per_ten_seconds: int | None = None
            self._recent: deque[datetime] = deque()
            self.crm = Crm(account_types(), PORTAL_ID, ticket_pipelines(), {OWNER_ID})

    @property
    def contacts(self) -> list[CrmObject]:
        """The living contacts, oldest first."""
        return self.objects("contacts")

    @property
    def calls(self) -> list[CrmObject]:
        """The logged calls, oldest first."""
        return self.objects("calls")

    @property
    def notes(self) -> list[CrmObject]:
        """The notes, oldest first."""
        return self.objects("notes")

    @property
    def tasks(self) -> list[CrmObject]:
        """The tasks, oldest first."""
        return self.objects("tasks")

    @property
    def tickets(self) -> list[CrmObject]:
        """The tickets, oldest first."""
        return self.objects("tickets")

    @property
    def associations(self) -> list[Association]:
        """All links, each in both directions."""
        with self.lock:
            return list(self.crm.associations)

    def objects(self, kind: str) -> list[CrmObject]:
        """The living objects of any kind, oldest first."""
        with self.lock:
            return self.crm.live(self.crm.type(kind))

    def associated(self, kind: str, object_id: str, to: str) -> list[str]:
        """The ids of the objects of kind `to` that an object is linked with."""
        with self.lock:
            start = self.crm.type(kind)
            links = self.crm.linked(start, self.crm.get(start, object_id), self.crm.type(to))
            return [link.to_id for link in links]

    def add(self, kind: str, /, **values: str) -> CrmObject:
        """A record that was there before the bridge came; raises Refusal when HubSpot would refuse it."""
        with self.lock:
            found = self.crm.type(kind)
            return self.crm.create(found, self.crm.checked(found, values, create=True), [], self.now())

    def link(self, kind: str, object_id: str, to: str, to_id: str) -> Association:
        """Associate two records that were there before."""
        with self.lock:
            return self.crm.default_link(self.crm.type(kind), object_id, self.crm.type(to), to_id)

    def delete(self, kind: str, object_id: str) -> None:
        """A person in the account deletes a record."""
        with self.lock:
            found = self.crm.type(kind)
            self.crm.archive(found, self.crm.get(found, object_id), self.now())

    def merge(self, kind: str, winner_id: str, other_id: str) -> CrmObject:
        """A person in the account merges two records; the other's id leads to the winner."""
        with self.lock:
            found = self.crm.type(kind)
            winner, other = self.crm.get(found, winner_id), self.crm.get(found, other_id)
            return self.crm.merge(found, winner, other, self.now())

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """The living objects of each type that has any, and the associations."""
        with self.lock:
            found = {
                name: [self.show(item, list(item.properties)) for item in self.objects(name)]
                for name in self.crm.types
            }
            return {name: items for name, items in found.items() if items} | {
                "associations": [vars(link) for link in self.associations]
            }

    def failure(self, status: int, message: str | None = None) -> Response:
        """HubSpot's error body; 429 is the limit of ten seconds."""
        return rate_limited("TEN_SECONDLY_ROLLING") if status == 429 else error_body(status, message)

    def quota_exhausted(self) -> Response:
        """The day's requests are used up."""
        return rate_limited("DAILY")

    def authorize(self, call: Call) -> None:
        """A bearer token; an unknown one counts as expired."""
        token = call.bearer()
        if token is None:
            raise Refusal(
                error_body(401, "Authentication credentials not found.", category="INVALID_AUTHENTICATION")
            )
        if token != self.token:
            raise Refusal(error_body(401))
        needed = scope_of(call, self.crm)
        if needed in self.missing_scopes:
            raise Refusal(
                error_body(
                    403,
                    errors=[
                        {
                            "message": "One or more of the following scopes are required.",
                            "context": {"requiredGranularScopes": [needed]},
                        }
                    ],
                )
            )

    def answer(self, call: Call) -> Response:
        """As every partner, inside the limit of ten seconds, and with the headers that count requests.

        Searches do not carry these headers.
        """
        with self.lock:
            self.requests_today += 1
            left = self._left_of_ten_seconds()
            response = super().answer(call) if left >= 0 else rate_limited("TEN_SECONDLY_ROLLING")
            if not call.path.endswith("/search"):
                daily_left = max(DAILY_LIMIT - self.requests_today, 0)
                response.headers["X-HubSpot-RateLimit-Daily"] = str(DAILY_LIMIT)
                response.headers["X-HubSpot-RateLimit-Daily-Remaining"] = str(daily_left)
                response.headers["X-HubSpot-RateLimit-Interval-Milliseconds"] = "10000"
                response.headers["X-HubSpot-RateLimit-Max"] = str(self.per_ten_seconds or PER_TEN_SECONDS)
                response.headers["X-HubSpot-RateLimit-Remaining"] = str(max(left, 0))
            return response

    def _left_of_ten_seconds(self) -> int:
        """How many more requests the rolling limit allows after this one; negative when it refuses this one."""
        if self.per_ten_seconds is None:
            return PER_TEN_SECONDS
        now = self.now()
        while self._recent and self._recent[0] <= now - TEN_SECONDS:
            self._recent.popleft()
        left = self.per_ten_seconds - len(self._recent) - 1
        if left >= 0:
            self._recent.append(now)
        return left
