"""Owners of records: users of Pipedrive. A wrong owner never loses a record; it is written without."""

from __future__ import annotations

from typing import NamedTuple

from bridge.connector import owner_param

from .account import Account

OWNER = owner_param(r"\d+", "1201 (in Pipedrive: Company settings > Manage users)")


class Owner(NamedTuple):
    """The ID of a user, or why there is none."""

    id: int | None
    problem: str = ""


def find_owner(account: Account, owner: str) -> Owner:
    """Return the active user with an email address or ID."""
    for user in account.users():
        if owner.lower() in (str(user.get("email")).lower(), str(user.get("id"))):
            if user.get("active_flag") is False:
                return Owner(None, "the owner is a deactivated user of Pipedrive")
            return Owner(int(user["id"]))
    what = "email address" if "@" in owner else "ID"
    return Owner(None, f"no user of Pipedrive has the owner's {what}")
