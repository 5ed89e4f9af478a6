"""SOQL queries and IDs, safe to insert into requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bridge.errors import PermanentError

from .settings import ID_PATTERN

_ADDRESSES_PER_QUERY = 50
"""A query is sent in the URL, which is limited to 16 KB."""


def chunks(addresses: Sequence[str]) -> list[Sequence[str]]:
    """Return the addresses in parts that fit into one query each."""
    size = _ADDRESSES_PER_QUERY
    return [addresses[start : start + size] for start in range(0, len(addresses), size)]


def select(names: Iterable[str], object_type: str, condition: str) -> str:
    """Return a SOQL query. Field names come from rules and are inserted unquoted, so they are validated."""
    unique_names = list(dict.fromkeys(names))
    for name in unique_names:
        if not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)?", name):
            raise PermanentError(
                f"`{name[:40]}` is not a valid field name: use the API name", code="INVALID_FIELD"
            )
    # format_soql has quoted the values in the condition.
    return f"SELECT {', '.join(unique_names)} FROM {object_type} WHERE {condition}"  # noqa: S608


def require_id(record_id: str) -> str:
    """Return the ID if it is valid: IDs are inserted into paths unquoted."""
    if not re.fullmatch(ID_PATTERN, record_id):
        raise PermanentError("not a valid Salesforce ID: expected 15 or 18 characters", code="MALFORMED_ID")
    return record_id
