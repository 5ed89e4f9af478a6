"""HubSpot's search: filter groups over an index that may lag behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import ge, gt, le, lt
from typing import Any

from bridge.sandbox.hubspot.crm import Crm, CrmObject
from bridge.sandbox.hubspot.errors import invalid
from bridge.sandbox.hubspot.schema import ObjectType, PropertyDefinition, parse_timestamp
from bridge.sandbox.provider import parse_whole_number

MAX_FILTER_GROUPS = 5
MAX_FILTERS_PER_GROUP = 6
MAX_FILTERS = 18
MAX_PAGE_SIZE = 200
MAX_RESULTS = 10_000
MAX_SEARCH_LENGTH = 3000
"""Characters of a request's body."""

Properties = dict[str, str]


@dataclass(frozen=True)
class SearchPage:
    """One page of search results: each object with its properties as indexed."""

    total: int
    results: list[tuple[CrmObject, Properties]]
    after: str | None
    """The start of the next page."""


@dataclass(frozen=True)
class _Filter:
    """A filter. `indexed_values`, if set, is a property and the values of which a match has one."""

    matches: Callable[[Properties], bool]
    indexed_values: tuple[str, list[str]] | None = None


def search(crm: Crm, kind: ObjectType, body: dict[str, Any], now: datetime, lag: float) -> SearchPage:
    """Return the results of a search request. The index is `lag` seconds behind. Raise ProviderError."""
    unknown = set(body) - {"filterGroups", "filters", "sorts", "query", "properties", "limit", "after"}
    if unknown:
        raise invalid(f'Invalid input JSON: Unrecognized field "{min(unknown)}"')
    groups = _parse_filter_groups(kind, body)
    query = body.get("query")
    if query is not None and not isinstance(query, str):
        raise invalid("query must be a string")
    limit, start = body.get("limit", 10), parse_whole_number(str(body.get("after") or 0), 0, MAX_RESULTS)
    if type(limit) is not int or not 0 <= limit <= MAX_PAGE_SIZE:
        raise invalid(f"limit must be at most {MAX_PAGE_SIZE}")
    if start is None or start + limit > MAX_RESULTS:
        raise invalid(f"a search returns at most {MAX_RESULTS} results")
    matches = [
        (item, values)
        for item, values in _indexed(_candidates(crm, kind, groups), now, lag)
        if (not groups or any(all(condition.matches(values) for condition in group) for group in groups))
        and (not query or _matches_query(kind, values, query))
    ]
    _sort_matches(kind, matches, body.get("sorts"))
    end = start + limit
    return SearchPage(len(matches), matches[start:end], str(end) if end < len(matches) else None)


def _indexed(
    objects: Iterable[CrmObject], now: datetime, lag: float
) -> Iterator[tuple[CrmObject, Properties]]:
    """Yield each object as it was `lag` seconds ago."""
    visible_until = now - timedelta(seconds=lag)
    for item in objects:
        if item.archived_at is not None and item.archived_at <= visible_until:
            continue
        version = next(
            (values for changed_at, values in reversed(item.versions) if changed_at <= visible_until), None
        )
        if version is not None:
            yield item, version


def _candidates(crm: Crm, kind: ObjectType, groups: list[list[_Filter]]) -> Iterable[CrmObject]:
    """Return the objects that may match: from an index if every group has an indexed filter, or all objects."""
    candidates: dict[str, CrmObject] = {}
    for group in groups:
        for condition in group:
            indexed = (
                crm.find_indexed(kind, *condition.indexed_values)
                if condition.indexed_values is not None
                else None
            )
            if indexed is not None:
                candidates |= {item.id: item for item in indexed}
                break
        else:
            return crm.objects[kind.name].values()
    return candidates.values() if groups else crm.objects[kind.name].values()


def _parse_filter_groups(kind: ObjectType, body: dict[str, Any]) -> list[list[_Filter]]:
    groups = body.get("filterGroups") or []
    if body.get("filters"):
        groups = [*groups, {"filters": body["filters"]}]
    if not isinstance(groups, list) or len(groups) > MAX_FILTER_GROUPS:
        raise invalid(f"at most {MAX_FILTER_GROUPS} filterGroups")
    parsed = []
    for group in groups:
        filters = group.get("filters") if isinstance(group, dict) else None
        if not isinstance(filters, list) or not filters or len(filters) > MAX_FILTERS_PER_GROUP:
            raise invalid(f"a filterGroup has 1 to {MAX_FILTERS_PER_GROUP} filters")
        parsed.append([_parse_filter(kind, condition) for condition in filters])
    if sum(map(len, parsed)) > MAX_FILTERS:
        raise invalid(f"at most {MAX_FILTERS} filters")
    return parsed


def _parse_filter(kind: ObjectType, item: Any) -> _Filter:
    if not isinstance(item, dict) or set(item) - {"propertyName", "operator", "value", "values", "highValue"}:
        raise invalid("Invalid input JSON: a filter has propertyName, operator, value, values, highValue")
    name, operator = str(item.get("propertyName")), str(item.get("operator"))
    definition = kind.properties.get(name)
    if definition is None:
        raise invalid(f"There was a problem with the request: property {name} does not exist")
    key = _sort_key(definition)
    if operator in ("HAS_PROPERTY", "NOT_HAS_PROPERTY"):
        return _Filter(lambda record: (name in record) is (operator == "HAS_PROPERTY"))
    if operator in ("IN", "NOT_IN"):
        values = _string_list_operand(item, "values")
        accepted = {key(value) for value in values}
        if operator == "NOT_IN":
            return _Filter(lambda record: name not in record or key(record[name]) not in accepted)
        return _Filter(
            lambda record: (
                name in record and any(key(value) in accepted for value in _values(definition, record))
            ),
            (name, values),
        )
    value = _string_operand(item, "value")
    if operator in ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
        return _Filter(
            lambda record: (
                any(_has_token(part, value) for part in _values(definition, record))
                is (operator == "CONTAINS_TOKEN")
            )
        )
    if operator == "EQ":
        return _Filter(lambda record: name in record and key(record[name]) == key(value), (name, [value]))
    if operator == "NEQ":
        return _Filter(lambda record: name not in record or key(record[name]) != key(value))
    if operator == "BETWEEN":
        high = _string_operand(item, "highValue")
        return _Filter(lambda record: name in record and key(value) <= key(record[name]) <= key(high))
    compare = _COMPARE.get(operator)
    if compare is None:
        raise invalid(f"unknown operator {operator}")
    return _Filter(lambda record: name in record and compare(key(record[name]), key(value)))


def _string_operand(item: dict[str, Any], name: str) -> str:
    if not isinstance(item.get(name), str):
        raise invalid(f"operator {item.get('operator')} needs a {name}, which is a string")
    return str(item[name])


def _string_list_operand(item: dict[str, Any], name: str) -> list[str]:
    operand = item.get(name)
    if not isinstance(operand, list) or not all(isinstance(element, str) for element in operand):
        raise invalid(f"operator {item.get('operator')} needs {name}, which are strings")
    return operand


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "LT": lt, "LTE": le, "GT": gt, "GTE": ge,
}  # fmt: skip


def _sort_key(definition: PropertyDefinition) -> Callable[[str], Any]:
    """Return the function that maps a property's value to a comparable key. Strings compare without case."""

    def key(value: str) -> Any:
        if definition.type in ("number", "milliseconds"):
            return float(value) if re.fullmatch(r"-?\d+(\.\d+)?", value) else float("nan")
        if definition.type in ("datetime", "date"):
            timestamp = parse_timestamp(value)
            return timestamp.timestamp() if timestamp else float("nan")
        return value.lower()

    return key


def _values(definition: PropertyDefinition, record: Properties) -> list[str]:
    """Return the value of a property, or each selected option of a property with checkboxes."""
    text = record.get(definition.name, "")
    return text.split(";") if definition.field_type == "checkbox" else [text]


def _has_token(text: str, pattern_text: str) -> bool:
    pattern = "".join(
        ".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", pattern_text.lower())
    )
    return any(
        re.fullmatch(pattern, token) for token in [text.lower(), *re.split(r"[\s@.,+()-]+", text.lower())]
    )


def _matches_query(kind: ObjectType, values: dict[str, str], query: str) -> bool:
    text = " ".join(values.get(name, "") for name in kind.searchable).lower()
    return all(word in text for word in query.lower().split())


def _sort_matches(kind: ObjectType, matches: list[tuple[CrmObject, Properties]], sorts: Any) -> None:
    if not sorts:
        matches.sort(key=lambda match: int(match[0].id))
        return
    if not isinstance(sorts, list) or len(sorts) > 1:
        raise invalid("only one sort is possible")
    sort = sorts[0]
    if isinstance(sort, str):
        sort = {
            "propertyName": sort.lstrip("-"),
            "direction": "DESCENDING" if sort[:1] == "-" else "ASCENDING",
        }
    if not isinstance(sort, dict):
        raise invalid("Invalid input JSON: a sort has propertyName and direction")
    name, direction = sort.get("propertyName"), sort.get("direction", "ASCENDING")
    definition = kind.properties.get(str(name))
    if definition is None or direction not in ("ASCENDING", "DESCENDING"):
        raise invalid(f"cannot sort by {name} {direction}")
    key = _sort_key(definition)
    matches.sort(
        key=lambda match: (definition.name in match[1], key(match[1].get(definition.name, "0"))),
        reverse=direction == "DESCENDING",
    )
