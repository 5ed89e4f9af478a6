"""Twilio connector: sends texts and WhatsApp messages, and handles status callbacks and replies."""

from .account import classify_error, client
from .callbacks import inbound, status
from .check import check, check_rules
from .links import record_url, where_to_look
from .settings import Settings, connector
from .sms import find_sms, send_sms
from .whatsapp import find_whatsapp, send_whatsapp

__all__ = [
    "Settings",
    "check",
    "check_rules",
    "classify_error",
    "client",
    "connector",
    "find_sms",
    "find_whatsapp",
    "inbound",
    "record_url",
    "send_sms",
    "send_whatsapp",
    "status",
    "where_to_look",
]
