"""Params shared by the actions of the timeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.connector import param

from .settings import Settings

DEAL: Any = param(
    "{{ event.metadata.dealId }}",
    "ID of the deal to associate. Default: the event's, else the contact's only open deal.",
    example="1209876543",
)
TICKET: Any = param(
    "{{ event.metadata.ticketId }}",
    "ID of the ticket to associate. Default: the event's, else the contact's only open ticket.",
    example="1209876544",
)


def check_ids(_settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an ID that a rule itself contains. One of the event is only noted."""
    for kind in ("deal", "ticket"):
        if (record_id := params.get(kind)) and not str(record_id).isdecimal():
            return (
                f"`{kind}` needs the ID of a HubSpot {kind}: the number at the end of its address in HubSpot"
            )
    return None
