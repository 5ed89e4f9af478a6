"""HubSpot's search: filter groups over an index that lags behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from bridge.sandbox.hubspot.crm import CrmObject
from bridge.sandbox.hubspot.refusals import invalid
from bridge.sandbox.hubspot.schema import ObjectType, Property, instant

MOST_GROUPS = 5
MOST_FILTERS = 6
MOST_FILTERS_IN_ALL = 18
LARGEST_PAGE = 200
MOST_RESULTS = 10_000
LONGEST_QUERY = 3000

Found = tuple[CrmObject, dict[str, str]]


def indexed(objects: Iterable[CrmObject], now: datetime, lag: float) -> list[Found]:
    """What the index knows: each object as it was `lag` seconds ago."""
    seen = now - timedelta(seconds=lag)
    found = []
    for item in objects:
        if item.archived_at is not None and item.archived_at <= seen:
            continue
        version = next((values for at, values in reversed(item.versions) if at <= seen), None)
        if version is not None:
            found.append((item, version))
    return found


def search(kind: ObjectType, body: Any, index: list[Found]) -> tuple[int, list[CrmObject], str | None]:
    """How many objects fit, those of the asked page, and where the next page starts; raises Refusal."""
    if not isinstance(body, dict):
        raise invalid("Invalid input JSON")
    unknown = set(body) - {"filterGroups", "filters", "sorts", "query", "properties", "limit", "after"}
    if unknown:
        raise invalid(f"Invalid input JSON: unknown field {min(unknown)}")
    tests = _groups(kind, body)
    query = body.get("query")
    if query is not None and (not isinstance(query, str) or len(query) > LONGEST_QUERY):
        raise invalid("query must be a text of at most 3000 characters")
    fits = [
        (item, values)
        for item, values in index
        if (not tests or any(all(test(values) for test in group) for group in tests))
        and (not query or _mentions(kind, values, query))
    ]
    _sort(kind, fits, body.get("sorts"))
    limit, after = body.get("limit", 10), body.get("after") or "0"
    if type(limit) is not int or not 0 <= limit <= LARGEST_PAGE:
        raise invalid(f"limit must be at most {LARGEST_PAGE}")
    if not str(after).isdecimal() or int(after) + limit > MOST_RESULTS:
        raise invalid(f"a search goes no further than {MOST_RESULTS} results")
    start = int(after)
    page = [item for item, _ in fits[start : start + limit]]
    return len(fits), page, str(start + limit) if start + limit < len(fits) else None


def _groups(kind: ObjectType, body: dict[str, Any]) -> list[list[Callable[[dict[str, str]], bool]]]:
    groups = body.get("filterGroups") or []
    if body.get("filters"):
        groups = [*groups, {"filters": body["filters"]}]
    if not isinstance(groups, list) or len(groups) > MOST_GROUPS:
        raise invalid(f"at most {MOST_GROUPS} filterGroups")
    tests = []
    for group in groups:
        filters = group.get("filters") if isinstance(group, dict) else None
        if not isinstance(filters, list) or not filters or len(filters) > MOST_FILTERS:
            raise invalid(f"a filterGroup has 1 to {MOST_FILTERS} filters")
        tests.append([_test(kind, item) for item in filters])
    if sum(map(len, tests)) > MOST_FILTERS_IN_ALL:
        raise invalid(f"at most {MOST_FILTERS_IN_ALL} filters")
    return tests


def _test(kind: ObjectType, item: Any) -> Callable[[dict[str, str]], bool]:
    if not isinstance(item, dict) or set(item) - {"propertyName", "operator", "value", "values", "highValue"}:
        raise invalid("Invalid input JSON: a filter has propertyName, operator, value, values, highValue")
    name, operator = str(item.get("propertyName")), str(item.get("operator"))
    known = kind.properties.get(name)
    if known is None:
        raise invalid(f"There was a problem with the request: property {name} does not exist")
    key = _key(known)
    if operator in ("HAS_PROPERTY", "NOT_HAS_PROPERTY"):
        return lambda held: (name in held) is (operator == "HAS_PROPERTY")
    if operator in ("IN", "NOT_IN"):
        among = {key(one) for one in _texts(item, "values")}
        return lambda held: (name in held and key(held[name]) in among) is (operator == "IN")
    value = _text(item, "value")
    if operator in ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
        return lambda held: _has_token(held.get(name, ""), value) is (operator == "CONTAINS_TOKEN")
    if operator == "NEQ":
        return lambda held: name not in held or key(held[name]) != key(value)
    if operator == "BETWEEN":
        high = _text(item, "highValue")
        return lambda held: name in held and key(value) <= key(held[name]) <= key(high)
    compare = _COMPARE.get(operator)
    if compare is None:
        raise invalid(f"unknown operator {operator}")
    return lambda held: name in held and compare(key(held[name]), key(value))


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
    "EQ": lambda a, b: a == b,
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


def _sort(kind: ObjectType, fits: list[Found], sorts: Any) -> None:
    if not sorts:
        fits.sort(key=lambda found: int(found[0].id))
        return
    if not isinstance(sorts, list) or len(sorts) > 1:
        raise invalid("only one sort is possible")
    one = sorts[0]
    if isinstance(one, str):
        one = {"propertyName": one.lstrip("-"), "direction": "DESCENDING" if one[:1] == "-" else "ASCENDING"}
    name, direction = one.get("propertyName"), one.get("direction", "ASCENDING")
    known = kind.properties.get(name)
    if known is None or direction not in ("ASCENDING", "DESCENDING"):
        raise invalid(f"cannot sort by {name} {direction}")
    key = _key(known)
    fits.sort(
        key=lambda found: (known.name in found[1], key(found[1].get(known.name, "0"))),
        reverse=direction == "DESCENDING",
    )
