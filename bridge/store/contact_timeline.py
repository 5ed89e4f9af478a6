"""Contact timeline: everything that happened with a person, newest first, a page of events at a time."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, select

from bridge.events import CONTACT_OPTED_OUT
from bridge.store import schema
from bridge.store.contact_details import PersonDetails
from bridge.store.contact_report import ReportFilter, report_contact
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row
from bridge.store.schema import ERASED
from bridge.store.timeline import describe_audit_entry

EntryKind = Literal["event", "opt_out", "action"]
_TEXT_PARAMS: Final = ("subject", "body", "text")
_MAX_TEXT: Final = 2000
"""Characters of a message that the timeline shows; the page of the delivery shows it whole."""
_MAX_ACTIONS: Final = 200
_DELIVERIES, _AUDIT = schema.deliveries.c, schema.audit_log


@dataclass(frozen=True)
class TimelineEntry:
    """One thing that happened: an event with its deliveries, an opt-out, or an operator action."""

    kind: EntryKind
    at: datetime
    record: Mapping[str, Any]
    """An event of `report_contact` with `text` (of a reply) and, for each delivery, `message` (the text) and
    `message_status_at`; an entry of the opt-out list; or an entry of the audit log with `text`."""


@dataclass(frozen=True)
class ContactTimeline:
    """A page of a person's timeline."""

    entries: Sequence[TimelineEntry]
    """Newest first."""
    next_cursor: str | None
    """Leads to the page before these events."""
    events: Sequence[Mapping[str, Any]]
    """The events of the page alone, newest first."""


def read_timeline(
    database: Database,
    details: PersonDetails,
    *,
    time_zone: str,
    shown: ReportFilter = "all",
    limit: int = 20,
    cursor: str | None = None,
) -> ContactTimeline:
    """Return a page of `limit` events with what belongs to their time: opt-outs and operator actions.

    `time_zone` is `messaging.time_zone`; `shown` selects events by their deliveries, and leaves out everything else.
    """
    if not details.addresses:
        return ContactTimeline([], None, [])
    report = report_contact(
        database, details.addresses, shown=shown, time_zone=time_zone, limit=limit, cursor=cursor
    )
    events = [dict(item) for item in reversed(report.items)]
    with database.read() as conn:
        _add_texts(database, conn, events)
        actions = _actions(conn, events) if shown == "all" else []
        newest = _received_at(conn, cursor) if cursor else None
    opt_outs = {entry["id"] for entry in details.opt_outs}
    entries = [
        TimelineEntry("event", item["occurred_at"], item)
        for item in events
        # The entry of the opt-out list says the same.
        if item["type"] != CONTACT_OPTED_OUT or item["deliveries"] or item["conversation_id"] not in opt_outs
    ]
    entries += [TimelineEntry("action", entry["created_at"], entry) for entry in actions]
    oldest = events[-1]["received_at"] if events and report.next_cursor else None
    if shown == "all":
        entries += [
            TimelineEntry("opt_out", entry["since"], entry)
            for entry in details.opt_outs
            if (newest is None or entry["since"] < newest) and (oldest is None or entry["since"] >= oldest)
        ]
    return ContactTimeline(
        sorted(entries, key=lambda entry: entry.at, reverse=True), report.next_cursor, events
    )


def _received_at(conn: Connection, event_id: str) -> datetime | None:
    events = schema.events.c
    return conn.execute(select(events.received_at).where(events.id == event_id)).scalar_one_or_none()


def _add_texts(database: Database, conn: Connection, events: Sequence[dict[str, Any]]) -> None:
    """Add the text of each message and of each reply."""
    deliveries = {item["id"]: item for event in events for item in event["deliveries"]}
    columns = schema.deliveries.c["id", "params", "message_status_at"]
    for row in conn.execute(select(*columns).where(_DELIVERIES.id.in_(deliveries))):
        item = deliveries[row.id]
        item["message_status_at"] = row.message_status_at
        item["message"] = _message(row.params) if item["channel"] else None
    replies = [event["id"] for event in events if event["type"] == "sms.received"]
    rows = conn.execute(select(schema.events).where(schema.events.c.id.in_(replies))) if replies else ()
    texts = {row.id: event_from_row(row, database.default_country).body.get("text") for row in rows}
    for event in events:
        event["text"] = texts.get(event["id"])


def _message(params: str) -> str | None:
    """Return the text of a message, with its subject if it has one; None once it is no longer kept."""
    if params == ERASED:
        return None
    values = json.loads(params)
    texts = (values.get(name) for name in _TEXT_PARAMS)
    return "\n".join(text for text in texts if isinstance(text, str) and text)[:_MAX_TEXT] or None


def _actions(conn: Connection, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the operator actions on these events and their deliveries, newest first."""
    targets = [event["id"] for event in events]
    targets += [item["id"] for event in events for item in event["deliveries"]]
    query = (
        select(_AUDIT).where(_AUDIT.c.target.in_(targets)).order_by(_AUDIT.c.id.desc()).limit(_MAX_ACTIONS)
    )
    entries = [dict(row._mapping) for row in conn.execute(query)]
    for entry in entries:
        entry["detail"] = json.loads(entry["detail"]) if entry["detail"] else None
        entry["text"] = describe_audit_entry(entry)
    return entries


def missing_messages(
    events: Sequence[Mapping[str, Any]], channel: str, channels_of_rules: Mapping[str, Collection[str | None]]
) -> list[dict[str, Any]]:
    """Return for each of these events why it led to no message on a channel: `event`, `answer`, `delivery` (an ID).

    `channels_of_rules` has the channels of each active rule. Events that led to a message are left out, as are those
    that no rule on this channel is for.
    """
    found = []
    for event in events:
        own = [item for item in event["deliveries"] if item["channel"] == channel]
        if any(item["state"] in ("succeeded", "running") for item in own):
            continue
        if own:
            last = own[-1]
            answer = f"{last['state']}: {last['detail']}" if last["detail"] else last["answer"]
            found.append({"event": event, "answer": answer, "delivery": last["id"]})
            continue
        nearest = next(
            (rule for rule in event["rules"] if channel in channels_of_rules.get(rule["rule"], ())), None
        )
        if nearest is not None:
            answer = f"`{nearest['rule']}` {nearest['answer']}"
            found.append({"event": event, "answer": answer, "delivery": None})
    return found
