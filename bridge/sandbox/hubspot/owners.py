"""The owners of records: users of the account. A deactivated user is an archived owner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def list_owners(owners: Iterable[Owner], query: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the active owners, or the archived ones if the query asks for these, with the email address if given."""
    email = query.get("email")
    return [
        owner.as_json()
        for owner in owners
        if owner.archived is _wants_archived(query)
        and (email is None or owner.email.lower() == email.lower())
    ]


def find_owner(owners: Iterable[Owner], identifier: str, query: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the owner with an ID, or with a user ID if the query says `idProperty=userId`."""
    by_user = query.get("idProperty") == "userId"
    for owner in owners:
        if identifier == (owner.user_id if by_user else owner.id) and owner.archived is _wants_archived(
            query
        ):
            return owner.as_json()
    return None


def _wants_archived(query: Mapping[str, str]) -> bool:
    return query.get("archived", "").lower() == "true"
