"""Unique properties, which make HubSpot reject a second record for the same conversation, task or caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from bridge.errors import AccountError, ConfigError, TransientError

from .errors import is_property_missing, required_scopes, status_of
from .settings import KEYS_PAGE

UNIQUE_PROPERTIES = {
    "calls": ("heppu_conversation_id", "call", "Heppu conversation"),
    "notes": ("heppu_conversation_id", "note", "Heppu conversation"),
    "tasks": ("heppu_key", "task", "Heppu key"),
    "contacts": ("heppu_phone", "contactinformation", "Heppu caller"),
    "tickets": ("heppu_conversation_id", "ticketinformation", "Heppu conversation"),
    "deals": ("heppu_conversation_id", "dealinformation", "Heppu conversation"),
    "meetings": ("heppu_conversation_id", "meeting", "Heppu conversation"),
    "communications": ("heppu_key", "communication", "Heppu key"),
    "emails": ("heppu_key", "email", "Heppu key"),
}
"""Object type -> name, group and label of its unique property."""
T = TypeVar("T")


class UniqueProperties:
    """The unique properties of one account."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._lock = threading.Lock()

    def exists(self, kind: str) -> bool:
        """Return whether an object type has its unique property. Raise ConfigError if the property is not unique."""
        name = UNIQUE_PROPERTIES[kind][0]
        try:
            existing = self._api.get_by_name(kind, name)
        except Exception as error:
            if status_of(error) != 404:
                raise
            return False
        if not existing.has_unique_value:
            raise ConfigError(
                f"the property {name} of {kind} is not unique: archive it and run "
                "`bridge connections setup hubspot`"
            )
        return True

    def ensure(self, kind: str) -> str:
        """Create the unique property of an object type unless it exists. Return a note of what was done."""
        name, group, label = UNIQUE_PROPERTIES[kind]
        if self.exists(kind):
            return f"{kind}.{name} exists"
        body = {
            "name": name,
            "label": label,
            "groupName": group,
            "type": "string",
            "fieldType": "text",
            "hasUniqueValue": True,
            "formField": False,
        }
        try:
            self._api.create(kind, body)
        except Exception as error:
            if status_of(error) != 409:  # created by another process in the meantime
                raise
        return f"{kind}.{name} created"

    def run_with(self, kind: str, write: Callable[[], T]) -> T:
        """Run `write`. If the account lacks the unique property (setup was never run), create it and run it again."""
        name = UNIQUE_PROPERTIES[kind][0]
        try:
            return write()
        except Exception as error:
            if not is_property_missing(error, name):
                raise
        with self._lock:
            try:
                self.ensure(kind)
            except Exception as error:
                if status_of(error) not in (400, 403, 404, 405):
                    raise
                raise _not_created(kind, error) from error
        try:
            return write()
        except Exception as error:
            if is_property_missing(error, name):
                raise TransientError(
                    f"HubSpot is still creating the property {name}", retry_after=timedelta(seconds=10)
                ) from error
            raise


def _not_created(kind: str, error: Exception) -> AccountError:
    """Return what the operator does if HubSpot refuses to create the unique property of an object type."""
    problem = f"HubSpot has no property {UNIQUE_PROPERTIES[kind][0]} for {kind}"
    setup = "`bridge connections setup hubspot`"
    if status_of(error) == 400:
        fix = f"{kind} can have ten unique properties: delete one in HubSpot, then run {setup}"
        return AccountError(f"{problem}, and does not accept another unique one", fix=fix)
    scope = " or ".join(required_scopes(error)) or "crm.schemas.contacts.write"
    fix = f"add the scope {scope} under {KEYS_PAGE}, or run {setup} once with a key that has it"
    return AccountError(f"{problem}, and this key may not create it", fix=fix)
