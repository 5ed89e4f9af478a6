"""Action that creates deals: one per conversation, and none for a contact that has an open deal already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from bridge.connector import (
    ContactQuery,
    ContactRef,
    Context,
    Duration,
    EventValue,
    FieldValue,
    NewContactParams,
    Properties,
    Success,
    fields_to_write,
    param,
    per_conversation,
    remember_own_deal,
    text_with_details,
    write_for_contact,
)
from bridge.errors import DeliveryError

from .account import Account
from .contact_source import Contacts
from .conversation_records import associate_with_conversation
from .fields import MAX_BODY_LENGTH, OWNER, to_strings
from .pipeline_stages import StageLookup
from .scopes import CONTACTS, DEALS_READ, DEALS_WRITE
from .settings import connector
from .timeline import Draft, query_with_owner, write_drafts
from .unique_properties import UNIQUE_PROPERTIES

_MAX_NAME = 255


class CreateDealParams(NewContactParams):
    """A deal to create."""

    name: str | None = param(
        None,
        "Name. Default: the company or the person, as in `Deal with Lindqvist Cycles`.",
        example="20 cargo bikes",
        max_length=_MAX_NAME,
    )
    text: str | None = param(
        "{{ event.summary }}",
        "Description; the conversation ID is added to it.",
        example="Wants an offer for a fleet.",
    )
    pipeline: str | None = param(
        None, "Label or ID of the pipeline. Default: the account's first pipeline.", example="Sales Pipeline"
    )
    stage: str | None = param(
        None,
        "Label or ID of the stage of a new deal. Default: the pipeline's first open stage.",
        example="Qualified to buy",
    )
    amount: EventValue | None = param(
        None,
        "Amount of a new deal, in the account's currency. A value that is not a number is left out.",
        example=12000,
    )
    close_date: EventValue | None = param(
        None,
        "Expected close date of a new deal: a day like 2026-03-31, or a time. Any other value is left out.",
        example="2026-03-31",
    )
    closes_in: Duration | None = param(
        None,
        "Time from the event until a new deal is expected to close, without a `close_date`.",
        example="30d",
    )
    on_open_deal: Literal["skip", "create"] = param(
        "skip",
        "If the contact has an open deal in the same pipeline already: `skip` this one, or `create` another one.",
        example="create",
    )
    owner: str | None = OWNER
    on_missing: Literal["create", "skip"] = param(
        "create", "If HubSpot has no such contact: `create` one, or `skip` the deal.", example="skip"
    )
    properties: Properties = param(
        {},
        "Additional fields of the deal: `field: value`, or `field: {value: ..., mode: fill}` for a new deal only.",
        example={"dealtype": "newbusiness"},
    )

    def display_name(self, query: ContactQuery) -> str:
        """Return the name, by default `Deal with Lindqvist Cycles`."""
        contact = query.context.contact
        person = query.person.company or query.name or query.phone or query.email or contact.name
        return self.name or f"Deal with {person or 'an unknown person'}"[:_MAX_NAME]

    def values(self, context: Context) -> dict[str, FieldValue]:
        """Return the values of the event or the rule, of which those that do not fit are left out."""
        is_new = context.existing_id is None
        closing = self.close_date
        if closing is None and self.closes_in is not None:
            closing = (context.event.occurred_at + self.closes_in).date().isoformat()
        own = {"amount": self.amount, "closedate": closing} if is_new else {}
        chosen = {name: item for name, item in self.properties.items() if is_new or item.mode == "overwrite"}
        return {name: value for name, value in own.items() if value not in (None, "")} | fields_to_write(
            chosen, None
        )


@connector.action(idempotency=per_conversation, idempotent=True, needs=(*CONTACTS, DEALS_READ, DEALS_WRITE))
def create_deal(account: Account, params: CreateDealParams, context: Context) -> Success:
    """Create a deal of the contact, once per conversation. A contact with an open deal gets none by default."""
    key = context.conversation_key
    query = params.contact_query(context, create=params.on_missing == "create")
    query = query_with_owner(account, query, params.owner)
    stage = account.deal_stages.resolve(params.pipeline, params.stage)

    def write(contacts: Mapping[str, ContactRef | None]) -> dict[str, Success | DeliveryError]:
        contact = contacts[key]
        if contact and params.on_open_deal == "skip" and context.existing_id is None:
            others = _open_deals(account, contact, stage.pipeline, key)
            if others:
                return {key: Success(detail=f"no new deal: the contact has the open deal {others[0]}")}
        return write_drafts(account, "deals", {key: _draft(params, query, stage)}, contacts)

    result = write_for_contact(Contacts(account), key, query, write)
    if result.id is not None and context.existing_id is None:
        remember_own_deal(context, result.id)
        note = associate_with_conversation(account, context, "deals", result.id)
        return replace(result, detail="; ".join(part for part in (result.detail, note) if part))
    return result


def _draft(params: CreateDealParams, query: ContactQuery, stage: StageLookup) -> Draft:
    context = query.context

    def build(contact: ContactRef | None) -> dict[str, str]:
        details = {
            "Name given": contact.given_name if contact else "",
            "Conversation": context.event.conversation.id,
        }
        return to_strings(
            {
                "dealname": params.display_name(query),
                "description": text_with_details(params.text, details, MAX_BODY_LENGTH, separator="\n\n"),
                "pipeline": stage.pipeline,
                "dealstage": stage.stage,
            }
        )

    return Draft(
        context,
        build,
        params.owner,
        {},
        params.values(context),
        notes=[f"in the first open stage: {stage.problem}"] if stage.problem else [],
        skip="" if params.on_missing == "create" else "no deal: HubSpot has no such contact",
        new_owner=str(query.new_fields.get("hubspot_owner_id", "")),
    )


def _open_deals(account: Account, contact: ContactRef, pipeline: str, key: str) -> list[str]:
    """Return the contact's open deals in a pipeline, newest first; none if one of them is this conversation's own."""
    if contact.created:
        return []
    ids = account.associated("contacts", [contact.id], "deals").get(contact.id, [])
    key_property = UNIQUE_PROPERTIES["deals"][0]
    deals = account.read("deals", ids, fields=("hs_is_closed", "pipeline", key_property)) if ids else []
    if any(deal.properties.get(key_property) == key for deal in deals):
        return []
    found = [
        str(deal.id)
        for deal in deals
        if deal.properties.get("hs_is_closed") != "true" and deal.properties.get("pipeline") == pipeline
    ]
    return sorted(found, key=int, reverse=True)
