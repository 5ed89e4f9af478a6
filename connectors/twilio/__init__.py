"""Twilio connector: sends text messages and handles status callbacks and replies."""

from .account import classify_error, client
from .callbacks import inbound, status
from .check import check, check_rules
from .links import record_url, where_to_look
from .messages import find_sms, send_sms
from .settings import Settings, connector

__all__ = [
    "Settings",
    "check",
    "check_rules",
    "classify_error",
    "client",
    "connector",
    "find_sms",
    "inbound",
    "record_url",
    "send_sms",
    "status",
    "where_to_look",
]
