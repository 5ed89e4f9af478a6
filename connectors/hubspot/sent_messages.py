"""Action that logs sent messages on the contact's timeline: texts as communications, emails as emails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from bridge.connector import (
    BatchItem,
    BatchResult,
    ContactRef,
    Context,
    SentMessageParams,
    param,
    per_event,
)

from .account import BATCH_SIZE, Account
from .fields import MAX_BODY_LENGTH, OWNER, to_html, to_milliseconds, to_strings
from .params import DEAL, TICKET, check_ids
from .scopes import CONTACTS
from .settings import connector
from .timeline import Draft, write_batch

_CHANNEL_TYPES = {"sms": "SMS", "whatsapp": "WHATS_APP"}


class LogMessageParams(SentMessageParams):
    """A message that was sent."""

    on_missing: Literal["create", "skip"] = param(
        "create", "If HubSpot has no such contact: `create` one, or `skip` logging.", example="skip"
    )
    owner: str | None = OWNER
    deal: str | None = DEAL
    ticket: str | None = TICKET


@connector.action(idempotency=per_event, dedupe_by="body", idempotent=True, batch=BATCH_SIZE, needs=CONTACTS)
def log_message(account: Account, items: Sequence[BatchItem[LogMessageParams]]) -> list[BatchResult]:
    """Log a sent message on the contact's timeline. Use it under `on_success` of a rule that sends messages."""
    by_key = {item.context.idempotency_token: item for item in items}
    results: dict[str, BatchResult] = {}
    for kind in ("communications", "emails"):
        chosen = {key: item for key, item in by_key.items() if _kind(item.params) == kind}
        if chosen:
            results |= _write(account, kind, chosen)
    return [results[key] for key in by_key]


log_message.check_params(check_ids)


def _write(
    account: Account, kind: str, by_key: Mapping[str, BatchItem[LogMessageParams]]
) -> dict[str, BatchResult]:
    queries = {
        key: item.params.contact_query(item.context, create=item.params.on_missing == "create")
        for key, item in by_key.items()
    }
    drafts = {key: _draft(item.params, item.context) for key, item in by_key.items()}
    return write_batch(account, kind, queries, drafts)


def _draft(params: LogMessageParams, context: Context) -> Draft:
    def build(_contact: ContactRef | None) -> dict[str, str]:
        timestamp = {"hs_timestamp": to_milliseconds(params.time(context))}
        return to_strings(timestamp | (_email(params) if params.channel == "email" else _text(params)))

    linked = {"deals": params.deal, "tickets": params.ticket}
    skip = "" if params.on_missing == "create" else "not logged: HubSpot has no such contact"
    return Draft(context, build, params.owner, linked, skip=skip)


def _kind(params: LogMessageParams) -> str:
    return "emails" if params.channel == "email" else "communications"


def _text(params: LogMessageParams) -> dict[str, Any]:
    return {
        "hs_communication_channel_type": _CHANNEL_TYPES[params.channel],
        "hs_communication_logged_from": "CRM",
        "hs_communication_body": to_html(params.body),
    }


def _email(params: LogMessageParams) -> dict[str, Any]:
    return {
        "hs_email_direction": "EMAIL",
        "hs_email_status": "SENT",
        "hs_email_subject": params.subject or params.title,
        "hs_email_text": params.body[:MAX_BODY_LENGTH],
    }
