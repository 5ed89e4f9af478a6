"""Pipedrive connector: logs calls and chats as activities, writes persons, creates deals, and reads opt-outs."""

from .activities import log_call, log_chat
from .check import check, setup
from .deals import create_deal
from .links import record_url, where_to_look
from .opt_outs import opt_out_flags
from .person_actions import upsert_person
from .rule_checks import check_rules
from .settings import connector

__all__ = [
    "check",
    "check_rules",
    "connector",
    "create_deal",
    "log_call",
    "log_chat",
    "opt_out_flags",
    "record_url",
    "setup",
    "upsert_person",
    "where_to_look",
]
