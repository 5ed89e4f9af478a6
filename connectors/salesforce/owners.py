"""Owners of records: the users and queues that a rule or a setting names, each looked up once an hour."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from bridge.connector import owner_param

from . import sdk
from .session import Record
from .settings import ID_PATTERN

_CACHE_SECONDS = 3600.0
_MAX_CACHED = 1000
USER_PREFIX, QUEUE_PREFIX = "005", "00G"
OWNER = owner_param(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?", "0055g00000AbCdE")


@dataclass(frozen=True)
class Owner:
    """The result of looking for an owner."""

    id: str = ""
    """Empty: nobody can be the owner; `problem` says why."""
    problem: str = ""

    @property
    def is_user(self) -> bool:
        """True for a user, who can own any record. A queue owns leads and cases only."""
        return self.id.startswith(USER_PREFIX)


class Owners:
    """The users and queues of an org, by ID, email address or username."""

    def __init__(self, query: Callable[[str], list[Record]]) -> None:
        self._query = query
        self._cache: dict[str, tuple[float, Owner]] = {}

    def find(self, name: str) -> Owner:
        """Return the active user with this ID, email address or username, or the queue with this ID."""
        cached = self._cache.get(name)
        if cached is None or cached[0] < time.monotonic():
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            cached = self._cache[name] = (time.monotonic() + _CACHE_SECONDS, self._read(name))
        return cached[1]

    def _read(self, name: str) -> Owner:
        is_id = re.fullmatch(ID_PATTERN, name) is not None
        if is_id and name.startswith(QUEUE_PREFIX):
            soql = sdk.format_soql("SELECT Id FROM Group WHERE Id = {} AND Type = 'Queue'", name)
        elif is_id:
            soql = sdk.format_soql("SELECT Id, IsActive FROM User WHERE Id = {}", name)
        else:
            condition = "Email = {} OR Username = {}"
            soql = sdk.format_soql(f"SELECT Id, IsActive, Username FROM User WHERE {condition}", name, name)  # noqa: S608
        try:
            rows = self._query(soql)
        except sdk.SalesforceError as error:
            if error.status not in (400, 403, 404):
                raise
            return Owner(problem="the integration user may not read users")
        active = [row for row in rows if row.get("IsActive", True)]
        by_username = [row for row in active if str(row.get("Username", "")).lower() == name.lower()]
        if len(active) != 1 and len(by_username) != 1:
            return Owner(problem=_problem(len(rows), len(active)))
        return Owner(str((by_username or active)[0]["Id"]))


def _problem(found: int, active: int) -> str:
    if active:
        return f"{active} users have this email address: use the username or ID of one"
    return "the user is inactive" if found else "no user or queue has this email address, username or ID"
