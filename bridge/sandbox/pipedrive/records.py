"""Records of a Pipedrive account: persons, organizations, deals and activities, and what a lagging index knows."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.sandbox.pipedrive.errors import invalid
from bridge.sandbox.provider import parse_whole_number

KINDS = ("person", "organization", "deal", "activity")
MAX_PAGE_SIZE = 500
MAX_IDS = 100
SEARCH_FIELDS = {
    "person": ("name", "email", "phone", "notes", "custom_fields"),
    "organization": ("name", "address", "notes", "custom_fields"),
}
_SORT_FIELDS = ("id", "update_time", "add_time")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")
"""Pipedrive refuses fractions of a second in a filter."""


@dataclass
class Record:
    """A record. A lagging index may still show one of its `versions`; None is a deletion."""

    id: int
    kind: str
    values: dict[str, Any]
    added_at: datetime
    updated_at: datetime
    is_deleted: bool = False
    versions: list[tuple[datetime, dict[str, Any] | None]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name)

    @property
    def emails(self) -> list[str]:
        """The email addresses of a person."""
        return [item["value"] for item in self.values.get("emails", ())]

    @property
    def phones(self) -> list[str]:
        """The phone numbers of a person, as typed."""
        return [item["value"] for item in self.values.get("phones", ())]

    def as_json(self) -> dict[str, Any]:
        """Return the record as API v2 does."""
        return {
            "id": self.id,
            **self.values,
            "add_time": to_rfc_3339(self.added_at),
            "update_time": to_rfc_3339(self.updated_at),
            "is_deleted": self.is_deleted,
        }

    def indexed(self, at: datetime) -> dict[str, Any] | None:
        """Return the values that an index of this time has; None if it does not have the record."""
        known = [values for changed_at, values in self.versions if changed_at <= at]
        return known[-1] if known else None


def to_rfc_3339(instant: datetime) -> str:
    """Return a time as Pipedrive writes it."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def select(records: Iterable[Record], query: Mapping[str, str], filters: Mapping[str, type]) -> list[Record]:
    """Return the records of a list request, in its order. Raise ProviderError for a parameter that is not valid."""
    known = {
        *filters,
        "ids",
        "sort_by",
        "sort_direction",
        "limit",
        "cursor",
        "include_fields",
        "custom_fields",
    }
    if unknown := set(query) - known - {"updated_since", "updated_until"}:
        raise invalid(f"Parameter '{min(unknown)}' is not allowed")
    found = [record for record in records if not record.is_deleted]
    if "ids" in query:
        ids = [_id(value) for value in query["ids"].split(",")]
        if len(ids) > MAX_IDS:
            raise invalid(f"At most {MAX_IDS} ids are allowed")
        found = [record for record in found if record.id in ids]
    for name, kind in filters.items():
        if name in query:
            wanted = _parse(query[name], kind, name)
            found = [record for record in found if record[name] == wanted]
    if "updated_since" in query:
        since = _time(query["updated_since"])
        found = [record for record in found if record.updated_at.replace(microsecond=0) >= since]
    sort_by, direction = query.get("sort_by", "id"), query.get("sort_direction", "asc")
    if sort_by not in _SORT_FIELDS or direction not in ("asc", "desc"):
        raise invalid("Invalid sorting")
    keys = {"id": lambda r: r.id, "update_time": lambda r: (r.updated_at, r.id)}
    keys["add_time"] = lambda r: (r.added_at, r.id)
    return sorted(found, key=keys[sort_by], reverse=direction == "desc")


def page_of(items: list[Any], query: Mapping[str, str]) -> tuple[list[Any], str | None]:
    """Return one page of a list, and the cursor of the next one."""
    limit = parse_whole_number(query.get("limit", "100"), 1, MAX_PAGE_SIZE)
    if limit is None:
        raise invalid(f"limit must be a number from 1 to {MAX_PAGE_SIZE}")
    start = 0
    if "cursor" in query:
        try:
            start = json.loads(base64.b64decode(query["cursor"], validate=True))["start"]
        except (binascii.Error, ValueError, TypeError, KeyError):
            raise invalid("Invalid cursor") from None
        if type(start) is not int or start < 0:
            raise invalid("Invalid cursor")
    end = start + limit
    following = base64.b64encode(json.dumps({"start": end}).encode()).decode() if end < len(items) else None
    return items[start:end], following


def search(
    records: Iterable[Record], kind: str, query: Mapping[str, str], now: datetime, lag: float
) -> list[Any]:
    """Return the items of a search over an index that is `lag` seconds behind. Raise ProviderError."""
    if unknown := set(query) - {"term", "fields", "exact_match", "limit", "cursor", "organization_id"}:
        raise invalid(f"Parameter '{min(unknown)}' is not allowed")
    if query.get("exact_match", "false") not in ("true", "false"):
        raise invalid("exact_match must be a boolean")
    is_exact = query.get("exact_match") == "true"
    term = query.get("term", "").strip().lower()
    if len(term) < (1 if is_exact else 2):
        raise invalid("The search term must be at least 2 characters long")
    names = query.get("fields", "name").split(",")
    if not set(names) <= set(SEARCH_FIELDS[kind]):
        raise invalid("Invalid fields")
    at = now - timedelta(seconds=lag)
    results = []
    for record in records:
        values = record.indexed(at)
        if values is not None and any(_matches(term, text, is_exact) for text in _texts(values, names)):
            results.append({"result_score": 0.5, "item": _search_item(record, values)})
    return results


def _texts(values: Mapping[str, Any], names: Iterable[str]) -> list[tuple[str, bool]]:
    """Return the indexed texts of a record, and whether each is a phone number."""
    texts: list[tuple[str, bool]] = []
    for name in names:
        if name == "name":
            texts.append((values["name"], False))
        elif name in ("email", "phone"):
            texts += [(item["value"], name == "phone") for item in values.get(f"{name}s", ())]
    return texts


def _matches(term: str, text: tuple[str, bool], is_exact: bool) -> bool:
    value, is_phone = text[0].lower(), text[1]
    if is_exact:
        return term == value
    if is_phone and term.isdecimal():
        return term in re.sub(r"\D", "", value)
    return term in value


def _search_item(record: Record, values: Mapping[str, Any]) -> dict[str, Any]:
    item = {"id": record.id, "type": record.kind, "name": values["name"], "visible_to": 3}
    if record.kind == "person":
        item |= {
            f"{name}s": [entry["value"] for entry in values.get(f"{name}s", ())]
            for name in ("phone", "email")
        }
        organization = values.get("org_id")
        item["organization"] = {"id": organization} if organization else None
    return item | {"owner": {"id": values["owner_id"]}, "custom_fields": [], "notes": []}


def _parse(text: str, kind: type, name: str) -> Any:
    if kind is bool:
        if text not in ("true", "false"):
            raise invalid(f"'{name}' must be a boolean")
        return text == "true"
    return _id(text) if kind is int else text


def _id(text: str) -> int:
    number = parse_whole_number(text, 1, 10**12)
    if number is None:
        raise invalid("Invalid ID")
    return number


def _time(text: str) -> datetime:
    try:
        if _RFC_3339.fullmatch(text):
            return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        pass
    raise invalid("updated_since must be in RFC3339 format")
