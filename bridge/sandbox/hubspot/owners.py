"""The owners of records: users of the account. A deactivated user is an archived owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OWNER_ID = "70011"
_LONG_AGO = "2024-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Owner:
    """A user to whom records can be assigned: by `id`, never by `user_id`."""

    id: str
    user_id: str
    email: str
    first_name: str = "Sales"
    last_name: str = "Team"
    archived: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the owner as the owners API shows it."""
        return {
            "id": self.id,
            "email": self.email,
            "firstName": self.first_name,
            "lastName": self.last_name,
            "type": "PERSON",
            "userId": None if self.archived else int(self.user_id),
            "userIdIncludingInactive": int(self.user_id),
            "archived": self.archived,
            "createdAt": _LONG_AGO,
            "updatedAt": _LONG_AGO,
        }


def default_owners() -> dict[str, Owner]:
    """Return the owners of a new account by ID: two active ones and one who has left."""
    owners = (
        Owner(OWNER_ID, "9100211", "owner@harbourlight.example"),
        Owner("70012", "9100212", "second@harbourlight.example", "Ines", "Okafor"),
        Owner("70019", "9100219", "former@harbourlight.example", "Former", "Colleague", archived=True),
    )
    return {owner.id: owner for owner in owners}
