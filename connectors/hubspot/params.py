"""Params shared by the actions of the timeline."""

from __future__ import annotations

from typing import Any

from bridge.connector import param

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
