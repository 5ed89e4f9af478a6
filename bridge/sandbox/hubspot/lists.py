"""Lists of records, which HubSpot's pages call segments, and their members."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MAX_NEW_MEMBERS = 100_000
"""HubSpot's limit for the records that one request adds to a list."""


@dataclass
class RecordList:
    """A list: `MANUAL` (static), `DYNAMIC` (active; HubSpot keeps its members by its filters) or `SNAPSHOT`."""

    id: str
    name: str
    type_id: str
    """The object type of its members."""
    processing_type: str
    members: list[str] = field(default_factory=list)
    """IDs of the members, in the order in which they were added."""

    @property
    def accepts_members(self) -> bool:
        """Return whether records can be added by hand or by the API."""
        return self.processing_type in ("MANUAL", "SNAPSHOT")

    def as_json(self) -> dict[str, Any]:
        """Return the list as the API shows it without its filters."""
        return {
            "listId": self.id,
            "listVersion": 1,
            "name": self.name,
            "objectTypeId": self.type_id,
            "processingType": self.processing_type,
            "processingStatus": "COMPLETE",
            "createdAt": "2026-01-05T09:00:00.000Z",
            "updatedAt": "2026-01-05T09:00:00.000Z",
            "filtersUpdatedAt": "2026-01-05T09:00:00.000Z",
            "createdById": "70011",
            "updatedById": "70011",
        }
