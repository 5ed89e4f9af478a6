"""An index from values to records: lookups stay fast with a hundred thousand records."""

from __future__ import annotations

from collections.abc import Hashable, Iterable


class ValueIndex:
    """IDs of the records that have a value, in the order in which they were added."""

    def __init__(self) -> None:
        self._ids_by_value: dict[Hashable, dict[str, None]] = {}

    def add(self, value: Hashable, record_id: str) -> None:
        """Add a record that has `value`."""
        self._ids_by_value.setdefault(value, {})[record_id] = None

    def discard(self, value: Hashable, record_id: str) -> None:
        """Remove a record that no longer has `value`."""
        ids = self._ids_by_value.get(value, {})
        ids.pop(record_id, None)
        if not ids:
            self._ids_by_value.pop(value, None)

    def ids(self, value: Hashable) -> list[str]:
        """Return the IDs of the records that have `value`."""
        return list(self._ids_by_value.get(value, ()))

    def ids_for_any(self, values: Iterable[Hashable]) -> list[str]:
        """Return the IDs of the records that have one of `values`, without duplicates."""
        return list(dict.fromkeys(record_id for value in values for record_id in self.ids(value)))
