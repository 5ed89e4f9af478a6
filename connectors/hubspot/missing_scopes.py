"""Object types that the key has no scope for. Records are written without them, and the type is tried again later."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

_RETRY_SECONDS = 600.0


class MissingScopes:
    """The object types that requests of one client may not use."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, str]] = {}

    def report(self, object_type: str, scopes: Sequence[str]) -> None:
        """Remember for ten minutes that the key lacks the scopes for an object type."""
        problem = f"the HubSpot key lacks the scope {' or '.join(scopes)}"
        self._until[object_type] = (monotonic() + _RETRY_SECONDS, problem)

    def problem(self, object_type: str) -> str:
        """Return why an object type cannot be used, empty if it may be."""
        until, problem = self._until.get(object_type, (0.0, ""))
        return problem if until > monotonic() else ""
