"""Params and times of a meeting that a CRM action puts on the contact's timeline and in a colleague's calendar."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from bridge.connector.contacts import ContactQuery, ContactRef, FieldValue, Properties, fields_to_write
from bridge.connector.context import Context
from bridge.connector.crm import NewContactParams
from bridge.connector.params import ConnectorSettings, param
from bridge.connector.texts import text_with_details
from bridge.connector.typed_values import to_day, to_instant
from bridge.errors import PermanentError
from bridge.setting_types import Duration

_MAX_LENGTH = timedelta(days=14)
"""No calendar entry is longer. Salesforce has this limit for events that do not last whole days."""
_MAX_YEAR = 3999
"""A later year stands for an unknown date. Salesforce knows times to the year 4000."""
_FORM = "a time such as 2026-03-05T15:00, with or without its time zone"


def _time_zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        raise ValueError("is not a time zone: write an IANA name such as America/New_York") from None


TimeZone = Annotated[str, AfterValidator(_time_zone)]
"""IANA name of a time zone."""


@dataclass(frozen=True)
class MeetingTimes:
    """When a meeting takes place, in UTC, and what was not as the rule says."""

    start: datetime
    """Start."""
    end: datetime
    """End."""
    notes: Sequence[str] = ()
    """Notes for the result's `detail`."""


class MeetingParams(NewContactParams):
    """Params of a meeting, of which a conversation has one. A later event of the conversation updates it."""

    start: str = param(
        ...,
        f"Start: {_FORM}. A call agent writes it to a structured result: `{{{{ event.callMetadata.custom.start }}}}`.",
        example="2026-03-05T15:00:00-05:00",
    )
    end: str | None = param(
        None,
        "End, in the same form. Default: `duration` after the start.",
        example="2026-03-05T16:00:00-05:00",
    )
    duration: Annotated[Duration, Field(gt=timedelta(0), le=_MAX_LENGTH)] = param(
        "30m", "How long the meeting lasts, without an `end`.", example="1h", validate_default=True
    )
    time_zone: TimeZone | None = param(
        None,
        "IANA time zone of times that have none. Default: the contact's, or else that of the CRM account.",
        example="America/New_York",
    )
    title: str | None = param(
        None, "Title. Default: `Meeting with Maya Lindqvist`.", example="Test ride", max_length=255
    )
    text: str | None = param(
        "{{ event.summary }}",
        "Description; the conversation ID is added to it.",
        example="Wants to see the cargo bikes.",
    )
    location: str | None = param(
        None,
        "Where it takes place: an address, a room, a phone number or a link to a video conference.",
        example="Harbour Light, Pier 4",
    )
    properties: Properties = param(
        {},
        "Additional fields of the meeting: `field: value`, or `field: {value: ..., mode: fill}` for a new one only.",
        example={"interest": "{{ event.callMetadata.custom.interest }}"},
    )

    def times(self, context: Context, account_zone: Callable[[], str | None]) -> MeetingTimes:
        """Return start and end. An `end` that makes no sense is replaced; a start must be right.

        `account_zone` is called if a time has no time zone, and neither rule nor contact names one. Raise
        PermanentError if the start is not a time: a colleague then has to look, because the customer expects a meeting.
        """
        start = self._instant(self.start, context, account_zone)
        if start is None:
            raise PermanentError(_start_problem(self.start), code="no_start")
        end = self._instant(self.end, context, account_zone) if self.end else start + self.duration
        notes = ["the meeting is in the past"] if start < context.event.occurred_at else []
        if end is None or not timedelta(0) < end - start <= _MAX_LENGTH:
            end = start + self.duration
            notes.append("with the default duration, because `end` is not a time soon after `start`")
        return MeetingTimes(start, end, notes)

    def _instant(
        self, text: str, context: Context, account_zone: Callable[[], str | None]
    ) -> datetime | None:
        if to_day(text) is None or _is_day(text):
            return None
        instant = to_instant(text)
        zone = None if instant else self.time_zone or context.contact.time_zone or account_zone()
        instant = instant or (to_instant(text, ZoneInfo(zone)) if zone else None)
        return instant if instant is None or instant.year <= _MAX_YEAR else None

    def display_title(self, query: ContactQuery) -> str:
        """Return the title, by default `Meeting with Maya Lindqvist`."""
        person = query.name or query.phone or query.email or query.context.contact.name
        return self.title or f"Meeting with {person or 'an unknown person'}"[:255]

    def body(self, context: Context, contact: ContactRef | None, max_length: int) -> str:
        """Return the description and what the contact's record does not say, in at most `max_length` characters."""
        details = {
            "Name given": contact.given_name if contact else "",
            "Conversation": context.event.conversation.id,
        }
        return text_with_details(self.text, details, max_length, separator="\n\n")

    def additional_fields(self, context: Context) -> dict[str, FieldValue]:
        """Return the additional fields to write. An update leaves `fill` out."""
        is_new = context.existing_id is None
        chosen = {name: item for name, item in self.properties.items() if is_new or item.mode == "overwrite"}
        return fields_to_write(chosen, None)


def check_meeting(_settings: ConnectorSettings, params: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a time that the rule itself contains."""
    for name in ("start", "end"):
        value = params.get(name)
        if value is not None and (to_day(value) is None or _is_day(str(value))):
            return f"`{name}` needs {_FORM}"
    return None


def _is_day(text: str) -> bool:
    return re.fullmatch(r"\s*\d{4}-\d\d-\d\d\s*", text) is not None


def _start_problem(text: str) -> str:
    if _is_day(text):
        return "`start` has no time of day"
    day = to_day(text)
    if day is None or day.year > _MAX_YEAR:
        return f"`start` needs {_FORM}"
    return "`start` has no time zone, and neither contact nor account has one: set `time_zone`"
