"""Mock HubSpot account: its objects, authentication, rate limits, and changes made by its users."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from bridge.sandbox.hubspot.api import HubSpotApi
from bridge.sandbox.hubspot.associations import Association
from bridge.sandbox.hubspot.crm import Crm, CrmObject
from bridge.sandbox.hubspot.errors import error_response, rate_limited
from bridge.sandbox.hubspot.lists import RecordList
from bridge.sandbox.hubspot.owners import default_owners
from bridge.sandbox.hubspot.pipelines import default_pipelines
from bridge.sandbox.hubspot.properties import parse_property
from bridge.sandbox.hubspot.schema import default_object_types
from bridge.sandbox.hubspot.scopes import missing_scopes_response, required_scopes
from bridge.sandbox.hubspot.settings_api import API_VERSION, DAILY_LIMIT, PORTAL_ID
from bridge.sandbox.provider import ProviderError, ProviderRequest, spend

ACCESS_TOKEN = "pat-na1-5a6d0c8e-1f2b-4c3d-9e8f-0a1b2c3d4e5f"  # noqa: S105 - valid only in this sandbox
DEFAULT_BURST_LIMIT = 100
VERSION_WITH_ADMIN_RULES = "2026-09"
BURST_WINDOW = timedelta(seconds=10)
SEARCH_WINDOW = timedelta(seconds=1)


class HubSpot(HubSpotApi):
    """An account with two pipelines each of tickets and deals, and two owners.

    `missing_scopes` are the scopes that the token lacks. The token is a service key, whose scopes HubSpot does not
    list, unless `is_private_app` is set. If `burst_limit` is set, the rolling limit of requests per
    ten seconds is enforced; if `search_limit` is set, the limit of searches per second. Paths of the numbered API
    versions (`/crm/v3/objects/...`) lead to the dated one. `crm.required_by_admin` are
    the properties that a rule of the account requires, which API version 2026-09 applies to requests as well.
    """

    name = "hubspot"

    def reset(self) -> None:
        """Restore a new account: no records, no custom properties, all scopes granted."""
        with self.lock:
            self.token = ACCESS_TOKEN
            self.missing_scopes = set()
            self.is_private_app = False
            self.requests_today = 0
            self.burst_limit: int | None = None
            self.search_limit: int | None = None
            self._recent: deque[datetime] = deque()
            self._recent_searches: deque[datetime] = deque()
            self.crm = Crm(default_object_types(), PORTAL_ID, default_pipelines(), default_owners())

    @property
    def contacts(self) -> list[CrmObject]:
        """The contacts that were not deleted, oldest first."""
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
        """All associations, each in both directions."""
        with self.lock:
            return list(self.crm.associations)

    def objects(self, kind: str) -> list[CrmObject]:
        """Return the objects of a type that were not deleted, oldest first."""
        with self.lock:
            return self.crm.active_objects(self.crm.type(kind))

    def associated(self, kind: str, object_id: str, to: str) -> list[str]:
        """Return the IDs of the objects of type `to` that are associated with an object."""
        with self.lock:
            start = self.crm.type(kind)
            links = self.crm.links_of(start, self.crm.get(start, object_id), self.crm.type(to))
            return [link.to_id for link in links]

    def add(self, kind: str, /, **values: str) -> CrmObject:
        """Create an existing record for a test. Raise ProviderError if HubSpot would reject it."""
        with self.lock:
            object_type = self.crm.type(kind)
            return self.crm.create(
                object_type, self.crm.validate_properties(object_type, values, create=True), [], self.now()
            )

    def link(self, kind: str, object_id: str, to: str, to_id: str) -> Association:
        """Associate two existing records."""
        with self.lock:
            return self.crm.associate_default(self.crm.type(kind), object_id, self.crm.type(to), to_id)

    def delete(self, kind: str, object_id: str) -> None:
        """Delete a record, as a user of the account would."""
        with self.lock:
            object_type = self.crm.type(kind)
            self.crm.archive(object_type, self.crm.get(object_type, object_id), self.now())

    def merge(self, kind: str, winner_id: str, other_id: str) -> CrmObject:
        """Merge two records, as a user would. The ID of the other one then resolves to the winner."""
        with self.lock:
            object_type = self.crm.type(kind)
            winner, other = self.crm.get(object_type, winner_id), self.crm.get(object_type, other_id)
            return self.crm.merge(object_type, winner, other, self.now())

    def define_property(self, kind: str, body: dict[str, Any]) -> None:
        """Create a custom property, as an administrator would."""
        with self.lock:
            object_type = self.crm.type(kind)
            definition = parse_property(object_type, body)
            object_type.properties[definition.name] = definition

    def add_list(self, name: str, processing_type: str = "MANUAL", kind: str = "contacts") -> RecordList:
        """Create a list, as a user of the account would: `MANUAL` (static), `DYNAMIC` (active) or `SNAPSHOT`."""
        with self.lock:
            new = RecordList(
                str(len(self.crm.lists) + 401), name, self.crm.type(kind).type_id, processing_type
            )
            self.crm.lists[new.id] = new
            return new

    def unsubscribe(self, email: str) -> None:
        """Unsubscribe an address from all email, as its owner would with the link in an email."""
        with self.lock:
            self.crm.unsubscribe(email.lower(), self.now())

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the objects of each type that has any, and the associations."""
        with self.lock:
            objects = {
                name: [self.show(item, list(item.properties)) for item in self.objects(name)]
                for name in self.crm.types
            }
            return {name: items for name, items in objects.items() if items} | {
                "associations": [vars(link) for link in self.associations]
            }

    def error_response(self, status: int, message: str | None = None) -> Response:
        """Return HubSpot's error response. 429 refers to the limit per ten seconds."""
        return rate_limited("TEN_SECONDLY_ROLLING") if status == 429 else error_response(status, message)

    def quota_error_response(self) -> Response:
        """Return the response to requests over the daily limit."""
        return rate_limited("DAILY")

    def authorize(self, request: ProviderRequest) -> None:
        """Check the bearer token and its scopes. An unknown token counts as expired."""
        token = request.bearer_token()
        if token is None:
            raise ProviderError(
                error_response(
                    401, "Authentication credentials not found.", category="INVALID_AUTHENTICATION"
                )
            )
        if token != self.token:
            raise ProviderError(error_response(401))
        required = required_scopes(request, self.crm)
        if self.missing_scopes & set(required):
            raise ProviderError(missing_scopes_response(required))

    def handle(self, request: ProviderRequest) -> Response:
        """Return the response, subject to the burst limit, with the rate limit headers.

        Searches have a limit of their own, which all integrations of an account share, and no such headers.
        """
        with self.lock:
            self.requests_today += 1
            path = re.sub(r"^/crm/v[34]/(\w+)", rf"/crm/\1/{API_VERSION}", request.path).rstrip("/")
            self.crm.admin_rules_apply = bool(re.match(rf"/crm/\w+/{VERSION_WITH_ADMIN_RULES}", path))
            path = path.replace(f"/{VERSION_WITH_ADMIN_RULES}/", f"/{API_VERSION}/", 1)
            request = replace(request, path=path)
            if path.endswith("/search"):
                if not spend(self._recent_searches, self.search_limit, SEARCH_WINDOW, self.now()):
                    return rate_limited("SECONDLY")
                return super().handle(request)
            has_room = spend(self._recent, self.burst_limit, BURST_WINDOW, self.now())
            response = super().handle(request) if has_room else rate_limited("TEN_SECONDLY_ROLLING")
            limit = self.burst_limit or DEFAULT_BURST_LIMIT
            daily_remaining = max(DAILY_LIMIT - self.requests_today, 0)
            response.headers["X-HubSpot-RateLimit-Daily"] = str(DAILY_LIMIT)
            response.headers["X-HubSpot-RateLimit-Daily-Remaining"] = str(daily_remaining)
            response.headers["X-HubSpot-RateLimit-Interval-Milliseconds"] = "10000"
            response.headers["X-HubSpot-RateLimit-Max"] = str(limit)
            response.headers["X-HubSpot-RateLimit-Remaining"] = str(max(limit - len(self._recent), 0))
            return response
