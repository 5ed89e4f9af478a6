"""An index from values to records, so that finding one among a hundred thousand stays quick."""

from __future__ import annotations

from collections.abc import Hashable, Iterable


class Lookup:
    """Which records hold a value, in the order in which they came to hold it."""

    def __init__(self) -> None:
        self._holders: dict[Hashable, dict[str, None]] = {}

    def add(self, value: Hashable, record_id: str) -> None:
        """The record holds `value` from now on."""
        self._holders.setdefault(value, {})[record_id] = None

    def discard(self, value: Hashable, record_id: str) -> None:
        """The record does not hold `value` any more."""
        holders = self._holders.get(value, {})
        holders.pop(record_id, None)
        if not holders:
            self._holders.pop(value, None)

    def holders(self, value: Hashable) -> list[str]:
        """The ids of the records that hold `value`."""
        return list(self._holders.get(value, ()))

    def holders_of_any(self, values: Iterable[Hashable]) -> list[str]:
        """The ids of the records that hold one of `values`, each once."""
        return list(dict.fromkeys(found for value in values for found in self.holders(value)))
