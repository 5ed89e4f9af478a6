"""Zendesk connector: creates and updates tickets, with the recordings of calls."""

from .check import check, check_rules
from .links import record_url, where_to_look
from .new_tickets import create_ticket
from .settings import connector
from .ticket_updates import update_ticket

__all__ = [
    "check",
    "check_rules",
    "connector",
    "create_ticket",
    "record_url",
    "update_ticket",
    "where_to_look",
]
