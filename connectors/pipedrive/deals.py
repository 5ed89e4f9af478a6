"""Action that creates deals: one per conversation, which later events of the conversation update."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from bridge.connector import (
    ContactDeleted,
    ContactQuery,
    ContactRef,
    Context,
    EventValue,
    Properties,
    Success,
    fields_to_write,
    forget_related_records,
    param,
    per_conversation,
    to_number,
    write_for_contact,
)
from bridge.errors import DeliveryError, LookupInconclusive, PermanentError

from .account import Account, Record, rfc_3339
from .owners import OWNER
from .params import PersonParams
from .persons import Persons
from .settings import Settings, connector
from .timeline import owner_of_record, query_with_owner, related_records
from .writing import to_request

REFERENCE_FIELD = "Heppu reference"
"""Custom field of deals by which a lookup recognizes the deal of a delivery. `bridge connections setup` creates it."""
_LOOK_BACK = timedelta(minutes=5)


class CreateDealParams(PersonParams):
    """A deal to create."""

    title: str | None = param(
        None,
        "Title. Default: the kind of conversation and the person.",
        example="Bicycle service",
        max_length=255,
    )
    value: EventValue | None = param(
        None, "Value of the deal. Anything but a number is left out.", example=1200
    )
    currency: str | None = param(
        None,
        "Currency of the value (ISO 4217). Default: that of the token's user.",
        example="EUR",
        pattern=r"^[A-Z]{3}$",
        must_be="a currency of three capitals, like EUR",
    )
    pipeline: str | None = param(
        None, "Name or ID of the pipeline. Default: that of the stage, else the first one.", example="Sales"
    )
    stage: str | None = param(
        None,
        "Name or ID of the stage of a new deal. Default: the first one of the pipeline.",
        example="Qualified",
    )
    owner: str | None = OWNER
    properties: Properties = param(
        {},
        "Additional fields of the deal, by name or key: `field: value`, or `field: {value: ..., mode: fill}` for a new "
        "deal only.",
        example={"Source": "{{ event.callMetadata.context.campaignType }}"},
    )

    def display_title(self, query: ContactQuery) -> str:
        """Return the title, by default `Call with Maya Lindqvist`."""
        kind = "Chat" if query.context.event.conversation.type == "chat" else "Call"
        person = query.name or query.phone or query.email or query.context.contact.name
        return self.title or f"{kind} with {person or 'an unknown person'}"


@connector.action(idempotency=per_conversation)
def create_deal(account: Account, params: CreateDealParams, context: Context) -> Success:
    """Create a deal of the person, once per conversation. A later event of the conversation updates the deal."""
    persons = Persons(account, context.now, params.organization)
    query, notes = query_with_owner(account, params.person_query(context), params.owner)

    def write(contacts: Mapping[str, ContactRef | None]) -> dict[str, Success | DeliveryError]:
        [(key, contact)] = contacts.items()
        return {key: _write(account, persons, params, query, contact, list(notes))}

    return write_for_contact(persons, context.conversation_key, query, write)


@create_deal.check_params
def check_value(_settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a value that the rule itself contains."""
    value = params.get("value")
    number = to_number(value)
    return None if value is None or (number is not None and number >= 0) else "`value` takes a number from 0"


@create_deal.lookup
def find_deal(account: Account, params: CreateDealParams, context: Context) -> Success | None:
    """Find the deal by its reference field. Without this field, only the absence of deals proves anything."""
    if context.existing_id is not None:
        return None  # updating it again changes nothing
    field = account.fields("deal").find(REFERENCE_FIELD)
    since = rfc_3339(min(context.first_attempt_at, context.now) - _LOOK_BACK)
    title = params.display_title(params.person_query(context))
    candidates: set[str] = set()
    for deal in account.list_all("deal", updated_since=since):
        if field and (deal.get("custom_fields") or {}).get(field.code) == context.idempotency_token:
            return Success(id=str(deal["id"]), detail="found by its reference")
        if not field and deal.get("title") == title:
            candidates.add(str(deal["id"]))
    used = context.ids_used_by_others(candidates) if context.ids_used_by_others and candidates else set()
    if candidates - used:
        raise LookupInconclusive(
            "Pipedrive has a new deal with this title, and nothing tells whether it is the one of this delivery: run "
            "`bridge connections setup`, which creates a field for that"
        )
    return None


class Stage(NamedTuple):
    """Where a new deal is put, and what could not be found."""

    pipeline_id: int | None
    stage_id: int | None
    problem: str = ""


def find_stage(account: Account, pipeline: str | None, stage: str | None) -> Stage:
    """Return the pipeline and stage with these names or IDs."""
    pipeline_id = None
    if pipeline:
        found = [item for item in account.pipelines() if _is_named(item, pipeline)]
        if not found:
            return Stage(None, None, f"Pipedrive has no pipeline `{pipeline}`")
        pipeline_id = int(found[0]["id"])
    if not stage:
        return Stage(pipeline_id, None)
    stages = [
        item
        for item in account.stages()
        if _is_named(item, stage) and pipeline_id in (None, item.get("pipeline_id"))
    ]
    if not stages:
        where = f" in the pipeline `{pipeline}`" if pipeline else ""
        return Stage(pipeline_id, None, f"Pipedrive has no stage `{stage}`{where}")
    if len(stages) > 1:
        return Stage(
            pipeline_id, None, f"several pipelines have a stage `{stage}`: name the pipeline as well"
        )
    return Stage(int(stages[0]["pipeline_id"]), int(stages[0]["id"]))


def _is_named(item: Record, name: str) -> bool:
    return name == str(item.get("id")) or name.casefold() == str(item.get("name")).casefold()


def _write(
    account: Account,
    persons: Persons,
    params: CreateDealParams,
    query: ContactQuery,
    contact: ContactRef | None,
    notes: list[str],
) -> Success | ContactDeleted:
    context = query.context
    is_new = context.existing_id is None
    chosen = {name: item for name, item in params.properties.items() if is_new or item.mode == "overwrite"}
    body, field_notes = to_request(account, "deal", fields_to_write(chosen, None))
    notes += field_notes
    value = None if params.value in (None, "") else to_number(params.value)
    if params.value not in (None, "") and (value is None or value < 0):
        value = None
        notes.append("without `value`, which takes a number from 0")
    amount = {"value": value, "currency": params.currency}
    body |= {name: value for name, value in amount.items() if value is not None}
    if context.existing_id is not None:
        if not body:
            return Success(id=context.existing_id, detail="; ".join(["nothing to update", *notes]))
        if account.update("deal", context.existing_id, body) is None:
            return Success(id=context.existing_id, detail="not updated: the deal was deleted in Pipedrive")
        return Success(id=context.existing_id, detail="; ".join(["updated", *notes]))
    if contact is None and params.on_missing == "skip":
        return Success(detail="no deal: Pipedrive has no such person")
    links, link_notes = _links(account, persons, params, context, contact)
    body |= links | {"title": params.display_title(query)}
    if field := account.fields("deal").find(REFERENCE_FIELD):
        body.setdefault("custom_fields", {})[field.code] = context.idempotency_token
    try:
        created = account.create("deal", body)
    except PermanentError:
        if contact and persons.is_gone(contact.id):
            return ContactDeleted()
        if contact:
            forget_related_records(context.contact_cache, [contact.id])
        raise
    if contact:  # the person has one more open deal
        forget_related_records(context.contact_cache, [contact.id])
    return Success(id=str(created["id"]), detail="; ".join([*notes, *link_notes]))


def _links(
    account: Account, persons: Persons, params: CreateDealParams, context: Context, contact: ContactRef | None
) -> tuple[Record, list[str]]:
    """Return the person, organization, owner and stage of a new deal."""
    related = related_records(account, persons, {"": context}, {"": contact})[""]
    stage = find_stage(account, params.pipeline, params.stage)
    named = {
        "person_id": contact.id if contact else None,
        "org_id": related.company,
        "owner_id": owner_of_record(account, params.owner, related),
        "pipeline_id": stage.pipeline_id,
        "stage_id": stage.stage_id,
    }
    notes = [f"in the first stage: {stage.problem}"] if stage.problem else []
    return {name: int(value) for name, value in named.items() if value}, notes
