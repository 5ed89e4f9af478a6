"""HubSpot's search: filter groups over an index that lags behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bridge.sandbox.hubspot.crm import Crm, CrmObject
from bridge.sandbox.hubspot.errors import invalid
from bridge.sandbox.hubspot.schema import ObjectType, Property, instant
from bridge.sandbox.provider import whole_number

MOST_GROUPS = 5
MOST_FILTERS = 6
MOST_FILTERS_IN_ALL = 18
LARGEST_PAGE = 200
MOST_RESULTS = 10_000
LONGEST_QUERY = 3000

Values = dict[str, str]


@dataclass(frozen=True)
class Page:
    """One page of what was found: each object with the values that the index knows of it."""

    total: int
    results: list[tuple[CrmObject, Values]]
    after: str | None
    """Where the next page starts."""


@dataclass(frozen=True)
class _Filter:
    """One filter; `only` is a property and the values of which it must hold one, where that is so."""

    fits: Callable[[Values], bool]
    only: tuple[str, list[str]] | None = None


def search(crm: Crm, kind: ObjectType, body: dict[str, Any], now: datetime, lag: float) -> Page:
    """What the index, which is `lag` seconds behind, finds for a search request; raises Refusal."""
    unknown = set(body) - {"filterGroups", "filters", "sorts", "query", "properties", "limit", "after"}
    if unknown:
        raise invalid(f'Invalid input JSON: Unrecognized field "{min(unknown)}"')
    groups = _groups(kind, body)
    query = body.get("query")
    if query is not None and (not isinstance(query, str) or len(query) > LONGEST_QUERY):
        raise invalid(f"query must be a text of at most {LONGEST_QUERY} characters")
    limit, start = body.get("limit", 10), whole_number(str(body.get("after") or 0), 0, MOST_RESULTS)
    if type(limit) is not int or not 0 <= limit <= LARGEST_PAGE:
        raise invalid(f"limit must be at most {LARGEST_PAGE}")
    if start is None or start + limit > MOST_RESULTS:
        raise invalid(f"a search goes no further than {MOST_RESULTS} results")
    found = [
        (item, values)
        for item, values in _indexed(_candidates(crm, kind, groups), now, lag)
        if (not groups or any(all(one.fits(values) for one in group) for group in groups))
        and (not query or _mentions(kind, values, query))
    ]
    _sort(kind, found, body.get("sorts"))
    end = start + limit
    return Page(len(found), found[start:end], str(end) if end < len(found) else None)


def _indexed(objects: Iterable[CrmObject], now: datetime, lag: float) -> Iterator[tuple[CrmObject, Values]]:
    """Each object as it was `lag` seconds ago."""
    seen = now - timedelta(seconds=lag)
    for item in objects:
        if item.archived_at is not None and item.archived_at <= seen:
            continue
        version = next((values for at, values in reversed(item.versions) if at <= seen), None)
        if version is not None:
            yield item, version


def _candidates(crm: Crm, kind: ObjectType, groups: list[list[_Filter]]) -> Iterable[CrmObject]:
    """The objects that may fit: those that a lookup names when each group allows one, or else all."""
    named: dict[str, CrmObject] = {}
    for group in groups:
        for one in group:
            holders = crm.holding(kind, *one.only) if one.only is not None else None
            if holders is not None:
                named |= {item.id: item for item in holders}
                break
        else:
            return crm.objects[kind.name].values()
    return named.values() if groups else crm.objects[kind.name].values()


def _groups(kind: ObjectType, body: dict[str, Any]) -> list[list[_Filter]]:
    groups = body.get("filterGroups") or []
    if body.get("filters"):
        groups = [*groups, {"filters": body["filters"]}]
    if not isinstance(groups, list) or len(groups) > MOST_GROUPS:
        raise invalid(f"at most {MOST_GROUPS} filterGroups")
    found = []
    for group in groups:
        filters = group.get("filters") if isinstance(group, dict) else None
        if not isinstance(filters, list) or not filters or len(filters) > MOST_FILTERS:
            raise invalid(f"a filterGroup has 1 to {MOST_FILTERS} filters")
        found.append([_filter(kind, item) for item in filters])
    if sum(map(len, found)) > MOST_FILTERS_IN_ALL:
        raise invalid(f"at most {MOST_FILTERS_IN_ALL} filters")
    return found


def _filter(kind: ObjectType, item: Any) -> _Filter:
    if not isinstance(item, dict) or set(item) - {"propertyName", "operator", "value", "values", "highValue"}:
        raise invalid("Invalid input JSON: a filter has propertyName, operator, value, values, highValue")
    name, operator = str(item.get("propertyName")), str(item.get("operator"))
    known = kind.properties.get(name)
    if known is None:
        raise invalid(f"There was a problem with the request: property {name} does not exist")
    key = _key(known)
    if operator in ("HAS_PROPERTY", "NOT_HAS_PROPERTY"):
        return _Filter(lambda held: (name in held) is (operator == "HAS_PROPERTY"))
    if operator in ("IN", "NOT_IN"):
        values = _texts(item, "values")
        among = {key(one) for one in values}
        if operator == "NOT_IN":
            return _Filter(lambda held: name not in held or key(held[name]) not in among)
        return _Filter(lambda held: name in held and key(held[name]) in among, (name, values))
    value = _text(item, "value")
    if operator in ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
        return _Filter(lambda held: _has_token(held.get(name, ""), value) is (operator == "CONTAINS_TOKEN"))
    if operator == "EQ":
        return _Filter(lambda held: name in held and key(held[name]) == key(value), (name, [value]))
    if operator == "NEQ":
        return _Filter(lambda held: name not in held or key(held[name]) != key(value))
    if operator == "BETWEEN":
        high = _text(item, "highValue")
        return _Filter(lambda held: name in held and key(value) <= key(held[name]) <= key(high))
    compare = _COMPARE.get(operator)
    if compare is None:
        raise invalid(f"unknown operator {operator}")
    return _Filter(lambda held: name in held and compare(key(held[name]), key(value)))


def _text(item: dict[str, Any], name: str) -> str:
    if not isinstance(item.get(name), str):
        raise invalid(f"operator {item.get('operator')} needs a {name}, which is a string")
    return str(item[name])


def _texts(item: dict[str, Any], name: str) -> list[str]:
    found = item.get(name)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise invalid(f"operator {item.get('operator')} needs {name}, which are strings")
    return found


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "LT": lambda a, b: a < b,
    "LTE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GTE": lambda a, b: a >= b,
}


def _key(known: Property) -> Callable[[str], Any]:
    """How values of a property compare: numbers and instants by size, text without regard to case."""

    def key(value: str) -> Any:
        if known.type in ("number", "milliseconds"):
            return float(value) if re.fullmatch(r"-?\d+(\.\d+)?", value) else float("nan")
        if known.type in ("datetime", "date"):
            at = instant(value)
            return at.timestamp() if at else float("nan")
        return value.lower()

    return key


def _has_token(held: str, wanted: str) -> bool:
    pattern = "".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", wanted.lower()))
    return any(
        re.fullmatch(pattern, token) for token in [held.lower(), *re.split(r"[\s@.,+()-]+", held.lower())]
    )


def _mentions(kind: ObjectType, values: dict[str, str], query: str) -> bool:
    text = " ".join(values.get(name, "") for name in kind.searched).lower()
    return all(word in text for word in query.lower().split())


def _sort(kind: ObjectType, fits: list[tuple[CrmObject, Values]], sorts: Any) -> None:
    if not sorts:
        fits.sort(key=lambda found: int(found[0].id))
        return
    if not isinstance(sorts, list) or len(sorts) > 1:
        raise invalid("only one sort is possible")
    one = sorts[0]
    if isinstance(one, str):
        one = {"propertyName": one.lstrip("-"), "direction": "DESCENDING" if one[:1] == "-" else "ASCENDING"}
    if not isinstance(one, dict):
        raise invalid("Invalid input JSON: a sort has propertyName and direction")
    name, direction = one.get("propertyName"), one.get("direction", "ASCENDING")
    known = kind.properties.get(str(name))
    if known is None or direction not in ("ASCENDING", "DESCENDING"):
        raise invalid(f"cannot sort by {name} {direction}")
    key = _key(known)
    fits.sort(
        key=lambda found: (known.name in found[1], key(found[1].get(known.name, "0"))),
        reverse=direction == "DESCENDING",
    )
