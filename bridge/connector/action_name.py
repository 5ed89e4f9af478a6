"""The name of an action as rules and deliveries have it: `twilio.send_sms`."""

from __future__ import annotations

from typing import NamedTuple, Self


class ActionName(NamedTuple):
    """The two parts of `connector.action`."""

    connector: str
    action: str

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the parts of a name. The action is empty if there is no dot."""
        connector, _, action = name.partition(".")
        return cls(connector, action)

    def __str__(self) -> str:
        return f"{self.connector}.{self.action}"

    def with_connection(self, connection: str) -> str:
        """Return the name for display, followed by the connection if that has another name than the connector."""
        return str(self) if self.connector == connection else f"{self} ({connection})"
