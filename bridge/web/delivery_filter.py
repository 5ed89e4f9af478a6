"""The filter of the list of deliveries in URLs and forms, so that a page leads back to the list it came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from starlette.datastructures import ImmutableMultiDict, QueryParams

from bridge.web.query_params import DeliveryCriteria

Criteria = Sequence[tuple[str, str]]
"""Query parameters of a filter, in order. They contain no addresses."""


def criteria_of(fields: ImmutableMultiDict[str, str]) -> list[tuple[str, str]]:
    """Return the criteria among the parameters of a page or the fields of a form; empty ones are left out."""
    return [
        (name, value)
        for name, value in fields.multi_items()
        if value and name in DeliveryCriteria.model_fields
    ]


def link_to(path: str, criteria: Iterable[tuple[str, str]], **more: str) -> str:
    """Return a path with criteria as its query string. `more` replaces those of the same name; an empty one removes."""
    kept = [(name, value) for name, value in criteria if name not in more]
    kept += [(name, value) for name, value in more.items() if value]
    return f"{path}?{QueryParams(kept)}" if kept else path
