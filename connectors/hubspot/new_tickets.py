"""Action that creates tickets: one per conversation, which later events of the conversation update."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from bridge.connector import (
    ContactQuery,
    ContactRef,
    Context,
    NewContactParams,
    NewTicketParams,
    Properties,
    Success,
    fields_to_write,
    param,
    per_conversation,
    remember_own_ticket,
)

from .account import Account
from .conversation_records import associate_with_conversation, is_chat
from .fields import MAX_BODY_LENGTH, OWNER, to_strings
from .params import DEAL, check_ids
from .scopes import CONTACTS, TICKETS
from .settings import connector
from .timeline import Draft, write_batch


class CreateTicketParams(NewTicketParams, NewContactParams):
    """A ticket to create."""

    pipeline: str | None = param(
        None,
        "Label or ID of the pipeline. Default: the account's first pipeline.",
        example="Support Pipeline",
    )
    stage: str | None = param(
        None,
        "Label or ID of the stage of a new ticket. Default: the pipeline's first open stage.",
        example="New",
    )
    priority: Literal["LOW", "MEDIUM", "HIGH", "URGENT"] | None = param(
        None, "Priority. Default: none.", example="HIGH"
    )
    owner: str | None = OWNER
    deal: str | None = DEAL
    on_missing: Literal["create", "skip"] = param(
        "create", "If HubSpot has no such contact: `create` one, or `skip` the ticket.", example="skip"
    )
    properties: Properties = param(
        {},
        "Additional fields of the ticket: `field: value`, or `field: {value: ..., mode: fill}` for a new ticket only.",
        example={"hs_ticket_category": "PRODUCT_ISSUE"},
    )


@connector.action(idempotency=per_conversation, idempotent=True, needs=(*CONTACTS, TICKETS))
def create_ticket(account: Account, params: CreateTicketParams, context: Context) -> Success:
    """Create a ticket of the contact, once per conversation. A later event of the conversation updates the ticket."""
    key = context.conversation_key
    query = params.contact_query(context, create=params.on_missing == "create")
    result = write_batch(account, "tickets", {key: query}, {key: _draft(account, params, query)})[key]
    if not isinstance(result, Success):
        raise result
    if result.id is not None and context.existing_id is None:
        remember_own_ticket(context, result.id)
        note = associate_with_conversation(account, context, "tickets", result.id)
        return replace(result, detail="; ".join(part for part in (result.detail, note) if part))
    return result


create_ticket.check_params(check_ids)


def _draft(account: Account, params: CreateTicketParams, query: ContactQuery) -> Draft:
    context = query.context
    stage = account.ticket_stages.resolve(params.pipeline, params.stage)
    is_new = context.existing_id is None
    properties = {
        name: item for name, item in params.properties.items() if is_new or item.mode == "overwrite"
    }

    def build(contact: ContactRef | None) -> dict[str, str]:
        standard = {
            "subject": params.display_subject(query),
            "content": params.body(context, contact, MAX_BODY_LENGTH),
            "hs_pipeline": stage.pipeline,
            "hs_pipeline_stage": stage.stage,
            "hs_ticket_priority": params.priority,
            "source_type": "CHAT" if is_chat(context) else "PHONE",
        }
        return to_strings(standard)

    notes = [f"in the first open stage: {stage.problem}"] if stage.problem else []
    skip = "" if params.on_missing == "create" else "no ticket: HubSpot has no such contact"
    linked = {"deals": params.deal}
    return Draft(context, build, params.owner, linked, fields_to_write(properties, None), (), notes, skip)
