"""The call or note of a conversation, which a new ticket or deal of the conversation is associated with."""

from __future__ import annotations

from bridge.connector import Context

from .account import Account
from .errors import status_of
from .unique_properties import UNIQUE_PROPERTIES


def is_chat(context: Context) -> bool:
    """Return whether the conversation is a chat, which is logged as a note."""
    return context.event.conversation.type == "chat"


def associate_with_conversation(account: Account, context: Context, kind: str, record_id: str) -> str:
    """Associate a new record with the conversation's call or note, if it is logged. Return a note if that fails."""
    logged_as = "notes" if is_chat(context) else "calls"
    try:
        records = account.read(logged_as, [context.conversation_key], UNIQUE_PROPERTIES[logged_as][0])
        if records:
            account.associate(kind, record_id, logged_as, str(records[0].id))
    except Exception as error:
        if status_of(error) not in (400, 403, 404):  # 400: setup was never run, so no conversation is logged
            raise
        return (
            ""
            if status_of(error) == 400
            else f"not associated with the {'chat' if is_chat(context) else 'call'}"
        )
    return ""
