"""Salesforce connector: logs calls and chats as Tasks; writes contacts, leads, cases, Events, to-do
Tasks and campaign members.

A Task stores the conversation ID in an External ID field, so a repeated write is an upsert of the same Task. Records
are sent in sObject collections: up to 200 records take one request of the org's daily quota, with a result for each.
"""

from .calls_and_chats import log_call, log_chat
from .campaign_members import add_to_campaign, update_campaign_member
from .cases import close_case
from .contacts import update_lead, upsert_contact
from .events import create_event
from .links import record_url, where_to_look
from .new_cases import create_case
from .opt_outs import opt_out_flags, set_opt_out
from .rule_checks import check_rules
from .sent_messages import log_message
from .settings import Settings, connector
from .setup import check, setup
from .tasks import create_task

__all__ = [
    "Settings",
    "add_to_campaign",
    "check",
    "check_rules",
    "close_case",
    "connector",
    "create_case",
    "create_event",
    "create_task",
    "log_call",
    "log_chat",
    "log_message",
    "opt_out_flags",
    "record_url",
    "set_opt_out",
    "setup",
    "update_campaign_member",
    "update_lead",
    "upsert_contact",
    "where_to_look",
]
