"""Filters of lists, as query parameters of the API and of the dashboard's pages."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema
from starlette.datastructures import QueryParams

from bridge.clock import parse_timestamp
from bridge.connector import Channel
from bridge.lifecycle import DeliveryState, FailureReason, SuppressReason
from bridge.setting_types import parse_duration
from bridge.store.contact_report import ReportFilter
from bridge.store.delivery_list import DeliveryFilter
from bridge.store.opt_out_list import EntryKind
from bridge.store.queries import EventCriteria, NotFound
from bridge.web.validation import InvalidParameter, Parameters, read_query

MAX_LIMIT: Final = 500
DEFAULT_LIMIT: Final = 50
MAX_LENGTH: Final = 500
"""Characters of a text, at most."""
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
"""Characters that no database stores; JSON can contain them."""
_DIGITS: Final = re.compile("[0-9]{1,9}")
_AGE: Final = "^([0-9]{1,4}[smhdw]){1,3}$"


def _storable(value: str) -> str:
    if _UNSTORABLE.search(value):
        raise ValueError(
            f"must be a string of at most {MAX_LENGTH} characters, none of them NUL or half a character"
        )
    return value


def _without_nul(schema: dict[str, Any]) -> None:
    schema.setdefault("pattern", "^[^\\u0000]*$")


def number_in_query(value: Any, info: ValidationInfo) -> Any:
    """Return the number that a query parameter spells; a JSON body has numbers."""
    is_number = info.context == "parameter" and _DIGITS.fullmatch(value)
    return int(value) if is_number else value


def _time_or_age(value: Any) -> datetime | timedelta:
    timestamp = parse_timestamp(value)
    if timestamp is not None:
        return timestamp
    if isinstance(value, str) and re.fullmatch(_AGE, value):
        return parse_duration(value)
    raise ValueError("must be a time like 2026-03-02T21:30:00Z, or an age like 2h or 7d")


def _states(value: Any) -> Any:
    """Return states from a query, where commas separate them, or from a list of a JSON body."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    return tuple(_member(name, DeliveryState) for name in names if name != "")


def _reason(value: Any) -> Any:
    reason = _member(_member(value, SuppressReason), FailureReason)
    if isinstance(reason, str) and not isinstance(reason, StrEnum):
        raise ValueError(f"must be one of {', '.join((*SuppressReason, *FailureReason))}")
    return reason


def _member(value: Any, kind: type[StrEnum]) -> Any:
    """Return the member of an enum with this value; any other value is left for the error message."""
    return next((member for member in kind if type(value) is str and member == value), value)


def cursor_of(prefix: str) -> Any:
    """Return the constraint of a cursor, or of another ID of a list whose IDs have this prefix."""
    return Field(
        pattern=f"^{prefix}_[0-9A-Za-z]{{1,60}}$", description="The `next_cursor` of the previous page."
    )


Text = Annotated[
    str,
    Field(max_length=MAX_LENGTH, json_schema_extra=_without_nul),
    AfterValidator(_storable),
]
"""A string that the database can store."""
RequiredText = Annotated[Text, Field(min_length=1)]
Address = Annotated[
    RequiredText,
    WithJsonSchema({"type": "string", "format": "address", "minLength": 1, "maxLength": MAX_LENGTH}),
]
"""A phone number or an email address in any notation."""
Limit = Annotated[
    int, Field(ge=1, le=MAX_LIMIT, description="Items per page, at most."), BeforeValidator(number_in_query)
]
"""`limit` of a query."""
Time = Annotated[
    datetime | timedelta,
    BeforeValidator(_time_or_age),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "pattern": _AGE}]}
    ),
]
"""A time, or an age that is subtracted from the current time."""
DeliveryStates = Annotated[tuple[DeliveryState, ...], BeforeValidator(_states)]
EventCursor = Annotated[str | None, cursor_of("evt")]


class PageQuery(Parameters):
    """Query parameters that every list has, besides its cursor."""

    limit: Limit = DEFAULT_LIMIT


class EventSelection(Parameters):
    """The filter of a list of events, and of a replay of all that match."""

    type: Text | None = Field(None, description="Event type.", examples=["call.busy"])
    since: Time | None = Field(None, description="Received then or later.", examples=["7d"])
    until: Time | None = Field(None, description="Received before.", examples=["2026-03-02T21:30:00Z"])
    nothing: Literal["yes", "no"] = Field(
        "no", description="`yes`: only routed events for which no rule fired."
    )
    unrouted: Literal["yes", "no"] = Field("no", description="`yes`: only events that wait to be routed.")
    person: Text | None = Field(None, description="ID of an event: the events of the person it is about.")
    unreadable: Literal["yes", "no"] = Field("no", description="`yes`: only events with unreadable fields.")

    def criteria(self, now: datetime) -> EventCriteria:
        """Return the criteria, without a page."""
        return {
            "event_type": self.type,
            "since": instant(self.since, now),
            "until": instant(self.until, now),
            "unreadable": self.unreadable == "yes",
            "without_deliveries": self.nothing == "yes",
            "not_routed": self.unrouted == "yes",
            "person": self.person,
        }


class EventQuery(PageQuery, EventSelection):
    """Query parameters of a list of events."""

    cursor: EventCursor = None

    def arguments(self, now: datetime) -> dict[str, Any]:
        """Return the arguments of `list_events`."""
        return {**self.criteria(now), "limit": self.limit, "cursor": self.cursor}


class DeliveryCriteria(Parameters):
    """The filter of a list of deliveries, and of an action on all that match."""

    state: DeliveryStates = Field((), description="States; repeat the parameter, or separate them by commas.")
    reason: Annotated[SuppressReason | FailureReason | None, BeforeValidator(_reason)] = Field(
        None, description="Why it was suppressed, or why its last attempt failed."
    )
    event: Text | None = Field(None, description="ID of an event.")
    connection: Text | None = Field(None, description="Name of a connection.")
    rule: Text | None = Field(None, description="Name of a rule.")
    type: Text | None = Field(None, description="Type of the event.", examples=["call.busy"])
    since: Time | None = Field(None, description="Created then or later.", examples=["7d"])
    until: Time | None = Field(None, description="Created before.", examples=["2026-03-02T21:30:00Z"])
    person: Text | None = Field(None, description="ID of an event: the deliveries of the person it is about.")
    not_dismissed: Literal["yes", "no"] = Field("no", description="`yes`: without dismissed failures.")

    def filter(self, now: datetime) -> DeliveryFilter:
        """Return the filter of the list, without its page."""
        return DeliveryFilter(
            states=self.state,
            reason=self.reason,
            event=self.event,
            connection=self.connection,
            rule=self.rule,
            event_type=self.type,
            since=instant(self.since, now),
            until=instant(self.until, now),
            person=self.person,
            not_dismissed=self.not_dismissed == "yes",
        )


class DeliveryQuery(PageQuery, DeliveryCriteria):
    """Query parameters of a list of deliveries."""

    cursor: Annotated[str | None, cursor_of("dlv")] = None
    newer_than: Annotated[str | None, cursor_of("dlv")] = Field(
        None, description="ID of a delivery, for the page just above it."
    )

    def arguments(self, now: datetime) -> dict[str, Any]:
        """Return the arguments of `list_deliveries`."""
        page = {"limit": self.limit, "cursor": self.cursor, "newer_than": self.newer_than}
        return {"matching": self.filter(now), **page}


class PersonQuery(Parameters):
    """Query parameters of a person's page."""

    limit: Limit = 20
    shown: ReportFilter = Field("all", description="Which events: by their deliveries.")
    cursor: EventCursor | None = None
    undo: Text | None = Field(None, description="The change of an opt-out that can be undone.")


class OptOutListQuery(PageQuery):
    """Query parameters of the opt-out list."""

    channel: Channel | None = Field(None, description="Channel.")
    kind: EntryKind | None = Field(None, description="Kind of entry.")
    source: Text | None = Field(None, description="A part of the source.")
    since: Time | None = Field(None, description="Entered then or later.", examples=["30d"])
    cursor: Annotated[str | None, cursor_of("opt")] = None

    def arguments(self, now: datetime) -> dict[str, Any]:
        """Return the arguments of `list_opt_outs`."""
        return {**dict(self), "since": instant(self.since, now)}


class DuplicateQuery(PageQuery):
    """Query parameters of the possible duplicates."""

    connection: Text | None = Field(None, description="Name of a connection.")
    cursor: Annotated[str | None, cursor_of("dup")] = None


class RejectedQuery(PageQuery):
    """Query parameters of the rejected requests."""

    cursor: Annotated[str | None, cursor_of("rej")] = None


class AuditQuery(PageQuery):
    """Query parameters of the audit log."""

    action: Text | None = Field(None, description="What was done.", examples=["opt_out"])
    actor: Text | None = Field(None, description="Who did it.", examples=["ada"])
    target: Text | None = Field(
        None, description="ID of a delivery, event or request, or name of a connection.", examples=["twilio"]
    )
    cursor: Annotated[str | None, cursor_of("aud")] = None


class AnyPageQuery(PageQuery):
    """Query parameters of a page without filters, whatever it lists."""

    cursor: Text | None = Field(None, description="The `next_cursor` of the previous page.")


def instant(value: datetime | timedelta | None, now: datetime) -> datetime | None:
    """Return a time as it is, and an age as a time."""
    return now - value if isinstance(value, timedelta) else value


def check_id(value: str) -> str:
    """Return an ID from a path. Raise NotFound if it cannot be an ID and the database would reject it."""
    if "\x00" in value or len(value) > 200:
        raise NotFound("there is no such ID")
    return value


def page_filter(query: QueryParams) -> dict[str, Any]:
    """Return `limit` and `cursor`, for lists without other filters."""
    return dict(read_query(AnyPageQuery, query))


def event_filter(query: QueryParams, now: datetime) -> dict[str, Any]:
    """Return the arguments of `list_events`."""
    return read_query(EventQuery, query).arguments(now)


def one_of(name: str, value: Any, choices: Any) -> Any:
    """Return `value`. Raise InvalidParameter unless it is one of `choices`."""
    if value not in choices:
        raise InvalidParameter(f"`{name}` must be one of {', '.join(choices)}")
    return value


def string_or_none(name: str, value: Any) -> str | None:
    """Return `value`, or None if it is missing or empty. Raise InvalidParameter unless it is a short string."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > MAX_LENGTH or _UNSTORABLE.search(value):
        raise InvalidParameter(f"`{name}` must be a string of at most {MAX_LENGTH} characters")
    return value
