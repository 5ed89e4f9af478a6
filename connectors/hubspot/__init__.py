"""HubSpot connector: logs calls, chats and messages on a contact's timeline; writes contacts, deals, tickets, tasks
and meetings; adds contacts to lists.

HubSpot has no idempotency keys, so every record that the bridge creates carries a unique property. HubSpot rejects a
second create request with the same value, and the value leads to the existing record. Every action here is therefore
idempotent, and a call and its association are created in one request.
"""

from .calls_and_chats import log_call, log_chat
from .check import check, check_rules, setup
from .contacts import update_contact, upsert_contact
from .deals import create_deal
from .links import record_url, where_to_look
from .list_members import add_to_list
from .meetings import create_meeting
from .new_tickets import create_ticket
from .opt_outs import opt_out_flags, set_opt_out
from .sent_messages import log_message
from .settings import Settings, connector
from .tasks import create_task
from .tickets import close_ticket

__all__ = [
    "Settings",
    "add_to_list",
    "check",
    "check_rules",
    "close_ticket",
    "connector",
    "create_deal",
    "create_meeting",
    "create_task",
    "create_ticket",
    "log_call",
    "log_chat",
    "log_message",
    "opt_out_flags",
    "record_url",
    "set_opt_out",
    "setup",
    "update_contact",
    "upsert_contact",
    "where_to_look",
]
