"""Twilio connector: sends text messages and handles status callbacks and replies."""

from .account import check, classify_error, client
from .callbacks import inbound, status
from .messages import find_sms, send_sms
from .settings import Settings, connector

__all__ = [
    "Settings",
    "check",
    "classify_error",
    "client",
    "connector",
    "find_sms",
    "inbound",
    "send_sms",
    "status",
]
