"""Twilio connector: sends text messages and handles status callbacks and replies."""

from .account import classify_error, client
from .callbacks import inbound, status
from .check import check, check_rules
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
    "send_sms",
    "status",
]
