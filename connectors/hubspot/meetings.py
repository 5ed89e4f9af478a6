"""Action that creates meetings: one per conversation, which later events of the conversation update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from bridge.connector import (
    BatchItem,
    BatchResult,
    ContactQuery,
    ContactRef,
    MeetingParams,
    check_meeting,
    items_by_conversation,
    param,
    per_conversation,
)
from bridge.errors import DeliveryError

from .account import BATCH_SIZE, Account
from .fields import OWNER, to_fitting_html, to_milliseconds, to_strings
from .params import DEAL, TICKET, check_ids
from .scopes import CONTACTS
from .settings import Settings, connector
from .timeline import Draft, write_batch


class CreateMeetingParams(MeetingParams):
    """A meeting to create."""

    url: str | None = param(
        None, "Link to the calendar event.", example="https://calendar.example.com/event/7"
    )
    outcome: Literal["SCHEDULED", "COMPLETED", "RESCHEDULED", "NO_SHOW", "CANCELED"] = param(
        "SCHEDULED", "Outcome of a new meeting.", example="SCHEDULED"
    )
    meeting_type: str | None = param(
        None, "Type of the meeting, one of those that the account has.", example="Test ride"
    )
    on_missing: Literal["create", "skip"] = param(
        "create", "If HubSpot has no such contact: `create` one, or `skip` the meeting.", example="skip"
    )
    owner: str | None = OWNER
    deal: str | None = DEAL
    ticket: str | None = TICKET


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE, needs=CONTACTS)
def create_meeting(account: Account, items: Sequence[BatchItem[CreateMeetingParams]]) -> list[BatchResult]:
    """Create a meeting of the contact, once per conversation. A later event of the conversation updates it."""
    by_key = items_by_conversation(items)
    results: dict[str, BatchResult] = {}
    queries: dict[str, ContactQuery] = {}
    drafts: dict[str, Draft] = {}
    for key, item in by_key.items():
        query = item.params.contact_query(item.context, create=item.params.on_missing == "create")
        try:
            drafts[key] = _draft(account, item.params, query)
        except DeliveryError as error:  # a start that is not a time fails one delivery of the batch
            results[key] = error
        else:
            queries[key] = query
    results |= write_batch(account, "meetings", queries, drafts) if queries else {}
    return [results[key] for key in by_key]


@create_meeting.check_params
def check_params(settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an ID or a time that the rule itself contains."""
    return check_ids(settings, params) or check_meeting(settings, params)


def _draft(account: Account, params: CreateMeetingParams, query: ContactQuery) -> Draft:
    context = query.context
    times = params.times(context, account.time_zone)

    def build(contact: ContactRef | None) -> dict[str, str]:
        return to_strings(
            {
                "hs_timestamp": to_milliseconds(times.start),
                "hs_meeting_start_time": to_milliseconds(times.start),
                "hs_meeting_end_time": to_milliseconds(times.end),
                "hs_meeting_title": params.display_title(query),
                "hs_meeting_body": to_fitting_html(lambda size: params.body(context, contact, size)),
                "hs_meeting_location": params.location,
                "hs_meeting_external_url": params.url,
                "hs_meeting_outcome": params.outcome,
                "hs_activity_type": params.meeting_type,
            }
        )

    skip = "" if params.on_missing == "create" else "no meeting: HubSpot has no such contact"
    return Draft(
        context,
        build,
        params.owner,
        {"deals": params.deal, "tickets": params.ticket},
        params.additional_fields(context),
        notes=times.notes,
        skip=skip,
    )
