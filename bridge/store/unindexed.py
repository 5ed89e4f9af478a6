"""Columns that must not lead a query, although an index has them.

SQLite chooses an index without knowing how many rows a value has: for `id IN (...) AND state IN (...)` it would read
all finished deliveries instead of a few rows by their IDs.
"""

from __future__ import annotations

from typing import Any


def unindexed(column: Any) -> Any:
    """Return the value of a text column as an expression that no index has."""
    return column.concat("")
