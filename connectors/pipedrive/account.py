"""A Pipedrive account: its requests, and what changes rarely (fields, users, stages), cached for ten minutes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, TypeVar

from bridge.connector import JsonApi, SearchLimiter
from bridge.errors import LookupInconclusive, OutcomeUnknown, PermanentError, TransientError

from .errors import refusal
from .fields import PLURALS, Field, Fields
from .settings import Settings, connector

T = TypeVar("T")
Record = dict[str, Any]

INDEX_LAG = timedelta(minutes=15)
"""Time for which Pipedrive's search may not show a new record yet; the lists of records are current."""
MIN_TERM_LENGTH = 2
"""Characters of a term that Pipedrive searches for, at least."""
_CACHE_SECONDS = 600.0
_CURSOR = ("additional_data.next_cursor", "cursor")
_PAGE_SIZE = 500
_MAX_IDS = 100


@connector.client
class Account:
    """Client of one account, shared by the threads of a worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.api = JsonApi(
            "Pipedrive", settings.url, headers={"x-api-token": settings.api_token}, refusal=refusal
        )
        self._search_limiter = SearchLimiter(settings.searches_per_second)
        self._cached: dict[str, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the HTTP connections."""
        self.api.close()

    # ------------------------------------------------------------ records

    def read(self, kind: str, record_id: str) -> Record | None:
        """Return a record as it is now; None if it was deleted or merged."""
        record = self.api.find(f"/api/v2/{PLURALS[kind]}/{{}}", record_id, holds="data")
        return record if isinstance(record, dict) and not record.get("is_deleted") else None

    def read_all(self, kind: str, ids: Sequence[str]) -> list[Record]:
        """Return the records with these IDs that still exist. One record costs a tenth of a list of records."""
        if len(ids) == 1:
            record = self.read(kind, ids[0])
            return [record] if record else []
        return [
            record
            for start in range(0, len(ids), _MAX_IDS)
            for record in self.list_all(kind, ids=",".join(ids[start : start + _MAX_IDS]))
        ]

    def list_all(self, kind: str, **filters: Any) -> Iterator[Record]:
        """Yield the records that a filter selects, as they are now. Raise LookupInconclusive for too many pages."""
        query = {"limit": _PAGE_SIZE, **filters}
        return self.api.pages(f"/api/v2/{PLURALS[kind]}", items="data", query=query, cursor=_CURSOR)

    def open_deals(self, person_id: str) -> list[Record]:
        """Return the open deals of a person: none, the only one, or two of several."""
        query = {"person_id": person_id, "status": "open", "limit": 2}
        deals: list[Record] = self.api.read("/api/v2/deals", query=query, holds="data", kind=list)
        return deals

    def recent(self, kind: str, now: datetime) -> list[Record]:
        """Return the records that the search may not show yet, because they are new."""
        try:
            return [*self.list_all(kind, updated_since=rfc_3339(now - INDEX_LAG))]
        except LookupInconclusive as error:
            raise TransientError(
                f"too many {PLURALS[kind]} were changed in Pipedrive a moment ago to tell whether one of them is the "
                "one to create",
                retry_after=INDEX_LAG,
            ) from error

    def search(self, kind: str, field: str, term: str, *, exact: bool) -> list[Record]:
        """Return the items that the search finds, which may lag behind."""
        if len(term) < MIN_TERM_LENGTH:
            return []
        self._search_limiter.wait()
        query = {"term": term, "fields": field, "exact_match": "true" if exact else "false", "limit": 100}
        pages = self.api.pages(
            f"/api/v2/{PLURALS[kind]}/search", items="data.items", query=query, cursor=_CURSOR
        )
        return [found["item"] for found in pages if isinstance(found.get("item"), dict)]

    def create(self, kind: str, values: Mapping[str, Any]) -> Record:
        """Create a record and return it."""
        created = self.api.write("POST", f"/api/v2/{PLURALS[kind]}", json=values, holds="data", kind=dict)
        return self._with_id(created)

    def update(self, kind: str, record_id: str, values: Mapping[str, Any]) -> Record | None:
        """Update a record and return it; None if it was deleted or merged."""
        try:
            updated = self.api.write(
                "PATCH", f"/api/v2/{PLURALS[kind]}/{{}}", record_id, json=values, holds="data", kind=dict
            )
        except PermanentError as error:
            if error.code not in ("404", "410"):
                raise
            return None
        return self._with_id(updated)

    def _with_id(self, record: Record) -> Record:
        if type(record.get("id")) is not int:
            raise OutcomeUnknown(
                "Pipedrive's response does not contain the record's ID", reason="server_error"
            )
        return record

    # ------------------------------------------------------------ what changes rarely

    def fields(self, kind: str) -> Fields:
        """Return the fields that records of a kind have in this account."""
        return self._cache(
            f"{kind}Fields", lambda: Fields(map(Field.parse, self._pages(f"/api/v2/{kind}Fields")))
        )

    def users(self) -> list[Record]:
        """Return the users of the company. API v2 has no list of them."""
        return self._cache("users", lambda: self.api.read("/api/v1/users", holds="data", kind=list))

    def own_user(self) -> Record:
        """Return the user of the token, with the company."""
        return self._cache("me", lambda: self.api.read("/api/v1/users/me", holds="data", kind=dict))

    def pipelines(self) -> list[Record]:
        """Return the pipelines for deals."""
        return self._cache("pipelines", lambda: [*self._pages("/api/v2/pipelines")])

    def stages(self) -> list[Record]:
        """Return the stages of all pipelines."""
        return self._cache("stages", lambda: [*self._pages("/api/v2/stages")])

    def activity_types(self) -> list[Record]:
        """Return the active types of activities. API v2 has no list of them."""
        types = self._cache("types", lambda: self.api.read("/api/v1/activityTypes", holds="data", kind=list))
        return [item for item in types if item.get("active_flag", True)]

    def forget(self) -> None:
        """Read again what was cached: it has been changed."""
        with self._lock:
            self._cached.clear()

    def _pages(self, path: str) -> Iterator[Record]:
        return self.api.pages(path, items="data", query={"limit": _PAGE_SIZE}, cursor=_CURSOR)

    def _cache(self, key: str, read: Callable[[], T]) -> T:
        cached = self._cached.get(key)
        if cached is not None and cached[0] > monotonic():
            value: T = cached[1]
            return value
        value = read()
        with self._lock:
            self._cached[key] = (monotonic() + _CACHE_SECONDS, value)
        return value


def rfc_3339(instant: datetime) -> str:
    """Return a time for a filter, which takes no fractions of a second."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
