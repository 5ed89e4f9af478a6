"""Implementation of `bridge heppu reconcile`: find calls at Heppu without an event, and store them as events.

Heppu's API lists calls, but not chats, and it names neither the conversation of a call nor its webhook. A call is
therefore matched with the stored events by its ID, by Twilio's ID, or by agent, phone number and time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from time import sleep
from typing import Any, Final, TypeVar

from rich.status import Status

from bridge.cli.arguments import parse_time_option
from bridge.cli.db import open_store
from bridge.cli.delivery_commands import current_operator
from bridge.cli.heppu_webhooks import heppu_api
from bridge.cli.output import echo, errors, pluralize
from bridge.clock import format_timestamp, parse_timestamp
from bridge.connector import parse_retry_after
from bridge.contacts.phone import normalize_phone
from bridge.errors import BridgeError, ConfigError
from bridge.events import Event
from bridge.heppu_api import HeppuApi, HeppuError
from bridge.samples import iso
from bridge.signing import SignedRequestRejected, read_event
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.reconciliation import CallIdentity, stored_calls
from bridge.telemetry import mask_address

T = TypeVar("T")
MAX_CALLS: Final = 10_000
"""Calls that one run compares."""
MAX_MISSING: Final = 1_000
"""Missing calls that one run reads and stores."""
GRACE: Final = timedelta(minutes=2)
"""A call that ended later than this may still have its webhook on the way."""
RETRIES: Final = timedelta(minutes=81)
"""How long Heppu may try to deliver a webhook."""
MARGIN: Final = timedelta(minutes=15)
"""How far the time of an event may be from the end of its call. Clocks differ, and Heppu lists no end times."""
MAX_WAIT: Final = 60.0
"""Seconds to wait if Heppu limits the rate of requests."""
MAX_ATTEMPTS: Final = 4
EVENT_TYPES: Final[Mapping[str, str]] = {
    "completed": "call.completed",
    "failed": "call.failed",
    "busy": "call.busy",
    "no_answer": "call.no-answer",
}
"""Final status of a call -> the event that Heppu sends about it. It sends none about a cancelled call."""


@dataclass
class MissedCall:
    """A call without an event."""

    id: str
    event_type: str
    ended_at: datetime
    direction: str
    phone: str | None
    body: Mapping[str, Any]
    result: str = "missing"
    """`missing`, or the result of storing it: `stored` or `duplicate`."""
    event_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the call for programs."""
        return {
            "call_id": self.id,
            "event": self.event_type,
            "ended_at": self.ended_at,
            "direction": self.direction,
            "phone": self.phone,
            "result": self.result,
            "event_id": self.event_id,
        }


@dataclass
class ReconcileReport:
    """The result of a run."""

    since: datetime
    until: datetime
    calls: int = 0
    """Finished calls that were compared."""
    missed: list[MissedCall] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of calls that were not compared, by reason."""
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if no call is missing any more."""
        return all(call.result != "missing" for call in self.missed)

    def to_json(self) -> dict[str, Any]:
        """Return the result for programs."""
        return {
            "since": self.since,
            "until": self.until,
            "calls": self.calls,
            "items": [call.to_json() for call in self.missed],
            "skipped": dict(self.skipped),
            "notes": self.notes,
        }

    def print_text(self) -> None:
        """Print the missing calls and what to do."""
        period = f"{format_timestamp(self.since)} to {format_timestamp(self.until)} UTC"
        echo(f"Compared {pluralize(self.calls, 'call')} at Heppu from {period} with the stored events.")
        for call in self.missed:
            state = call.result if call.event_id is None else f"{call.result} as {call.event_id}"
            who = mask_address(call.phone) if call.phone else "unknown number"
            echo(
                f"  {format_timestamp(call.ended_at)}  {call.event_type}  {call.direction}  {who}  {call.id}  {state}"
            )
        for reason, count in self.skipped.items():
            echo(f"Not compared: {pluralize(count, 'call')} {reason}")
        for note in self.notes:
            echo(note)
        missing = sum(call.result == "missing" for call in self.missed)
        if missing:
            echo(
                f"{pluralize(missing, 'call')} without an event: `bridge heppu reconcile --apply` stores them."
            )
        elif not self.missed:
            echo("No call is missing.")
        else:
            echo("The rules handle the stored events now; what has expired is not sent.")


def reconcile(
    since: str, until: str | None, *, apply: bool, wait: Callable[[float], None] = sleep
) -> ReconcileReport:
    """Find the calls without an event; with `apply`, store them. Raise BridgeError."""
    now = datetime.now(UTC)
    start = parse_time_option(since, "--since")
    end = min(parse_time_option(until, "--until") or now, now - GRACE)
    if start is None or start >= end:
        raise ConfigError("--since must be more than two minutes ago, and before --until")
    report = ReconcileReport(start, end)
    with (
        heppu_api() as (api, settings),
        open_store(settings) as database,
        Status("Reading calls from Heppu ...", console=errors()),
    ):
        calls = list(_finished_calls(api, report, wait))
        report.calls = len(calls)
        subscribed = _subscribed_events(api)
        for call in _without_event(database, calls, start):
            event_type = EVENT_TYPES[str(call["status"])]
            if subscribed is not None and event_type not in subscribed:
                report.skipped[f"of the type {event_type}, which no active webhook sends"] += 1
                continue
            if len(report.missed) >= MAX_MISSING:
                report.notes.append(f"More than {MAX_MISSING:,} calls are missing: run it again afterwards.")
                break
            details = _patiently(partial(api.get_call, str(call["id"])), wait)
            report.missed.append(_missed_call(call, details))
        report.missed.sort(key=lambda call: call.ended_at)
        if apply:
            _store(database, report, settings.bridge_default_country)
    _add_notes(report, now)
    return report


def _add_notes(report: ReconcileReport, now: datetime) -> None:
    report.notes.append("Chats are not compared: Heppu's API does not list them.")
    if any(call.ended_at > now - RETRIES for call in report.missed):
        report.notes.append(
            "Heppu may still send the webhooks of the last 81 minutes; a webhook of a stored call is a duplicate."
        )
    if report.missed:
        report.notes.append(
            "Heppu's API names neither the conversation nor `callMetadata` of a call: its event has the ID of the call."
        )


def _finished_calls(
    api: HeppuApi, report: ReconcileReport, wait: Callable[[float], None]
) -> Iterator[dict[str, Any]]:
    """Yield the calls of the period that have ended, each once.

    Heppu filters by the time at which a call was created. A call may have been scheduled long before, so the calls that
    were scheduled for the period are read as well.
    """
    seen: set[str] = set()
    period = {"startDate": report.since.isoformat(), "endDate": report.until.isoformat()}
    for query in (
        period,
        {"sortBy": "scheduledAt", "sortOrder": "desc", "endDate": report.until.isoformat()},
    ):
        for call in _pages(api, query, wait):
            call_id, start = str(call.get("id")), _start(call)
            scheduled_at = parse_timestamp(call.get("scheduledAt"))
            if "sortBy" in query and scheduled_at is not None and scheduled_at < report.since:
                break
            if call_id in seen or start is None or not report.since <= start < report.until:
                continue
            seen.add(call_id)
            if len(seen) > MAX_CALLS:
                raise ConfigError(
                    f"there are more than {MAX_CALLS:,} calls in this period: choose a later --since, or --until"
                )
            if call.get("status") in EVENT_TYPES:
                yield call
            elif call.get("status") == "cancelled":
                report.skipped["that were cancelled, about which Heppu sends nothing"] += 1
            else:
                report.skipped["that have not ended"] += 1


def _pages(
    api: HeppuApi, query: Mapping[str, str], wait: Callable[[float], None]
) -> Iterator[dict[str, Any]]:
    offset = 0
    while True:
        page = _patiently(partial(api.calls_page, offset, **query), wait)
        yield from page.calls
        offset += len(page.calls)
        if not page.has_more or offset >= 2 * MAX_CALLS:
            return


def _patiently(request: Callable[[], T], wait: Callable[[float], None]) -> T:
    """Return the response to a request, which is repeated if Heppu limits the rate."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return request()
        except HeppuError as error:
            if error.status != 429 or attempt == MAX_ATTEMPTS:
                raise
            asked = parse_retry_after(error.retry_after)
            wait(min(MAX_WAIT, asked.total_seconds() if asked else 5.0 * attempt))
    raise AssertionError


def _subscribed_events(api: HeppuApi) -> set[str] | None:
    """Return the event types that active webhooks send; None if there is no active webhook, or they are not listed."""
    try:
        webhooks = api.list_webhooks()
    except HeppuError:
        return None
    active = [webhook for webhook in webhooks if webhook.get("status") == "active"]
    found = {str(event) for webhook in active for event in webhook.get("events") or ()}
    return found or None


def _without_event(
    database: Database, calls: Sequence[Mapping[str, Any]], since: datetime
) -> list[Mapping[str, Any]]:
    """Return the calls that no stored event is about; each event stands for one call."""
    stored = stored_calls(database, since - MARGIN)
    by_id = {key: index for index, event in enumerate(stored) for key in _ids(event, event.conversation_id)}
    free = set(range(len(stored)))
    unmatched = []
    # Those with an ID in common first, so that no other call with the same number takes their event.
    for call in calls:
        identity = _identity(call, database.default_country)
        found = [by_id[key] for key in _ids(identity, str(call["id"])) if by_id.get(key) in free]
        if found:
            free.remove(found[0])
        else:
            unmatched.append((call, identity))
    by_phone: dict[tuple[str, str | None], list[int]] = {}
    for index in free:
        by_phone.setdefault((stored[index].event_type, stored[index].phone), []).append(index)
    pairs = sorted(
        (abs(stored[index].occurred_at - identity.occurred_at), position, index)
        for position, (_, identity) in enumerate(unmatched)
        for index in by_phone.get((identity.event_type, identity.phone), ())
        if identity.may_be(stored[index], MARGIN)
    )
    matched: set[int] = set()
    for _, position, index in pairs:
        if position not in matched and index in free:
            matched.add(position)
            free.remove(index)
    return [call for position, (call, _) in enumerate(unmatched) if position not in matched]


def _ids(call: CallIdentity, conversation_id: str) -> list[tuple[str, str]]:
    """Return the IDs by which a call and an event are the same, each with the event type."""
    ids = [conversation_id, *([call.sid] if call.sid else [])]
    return [(call.event_type, value) for value in ids]


def _identity(call: Mapping[str, Any], default_country: str | None) -> CallIdentity:
    """Return the identity of a call as its event would have it."""
    contact = _mapping(call.get("contact"))
    phone = contact.get("phone")
    agent = _mapping(call.get("agent")).get("id")
    start = _start(call)
    assert start is not None  # noqa: S101 - calls without a time are left out
    sid = call.get("twilioCallSid")
    return CallIdentity(
        EVENT_TYPES[str(call["status"])],
        str(call["id"]),
        sid if isinstance(sid, str) else None,
        agent if isinstance(agent, str) else None,
        normalize_phone(phone, default_country),
        start + timedelta(seconds=_seconds(call)),
    )


def _start(call: Mapping[str, Any]) -> datetime | None:
    """Return when a call was due to begin."""
    return parse_timestamp(call.get("scheduledAt")) or parse_timestamp(call.get("createdAt"))


def _seconds(call: Mapping[str, Any]) -> float:
    duration = call.get("duration")
    if not isinstance(duration, int | float) or isinstance(duration, bool):
        return 0.0
    return min(86_400.0, max(0.0, float(duration)))


def _missed_call(call: Mapping[str, Any], details: Mapping[str, Any]) -> MissedCall:
    """Return a missing call with the body of its event, in the form of Heppu's webhooks."""
    call_id, event_type = str(call["id"]), EVENT_TYPES[str(call["status"])]
    start = _start(call)
    assert start is not None  # noqa: S101 - calls without a time are left out
    ended_at = parse_timestamp(details.get("endedAt")) or start + timedelta(seconds=_seconds(call))
    agent, contact = _mapping(call.get("agent")), _mapping(call.get("contact"))
    names = {"contactName": "name", "contactPhone": "phone", "contactEmail": "email"}
    metadata = _mapping(details.get("metadata")) | {
        name: contact[key] for name, key in names.items() if contact.get(key)
    }
    body = {
        "event": event_type,
        "timestamp": iso(ended_at),
        "webhookId": f"reconciled_{call_id}",
        "agentId": agent.get("id"),
        "agentName": agent.get("name"),
        "conversationId": call_id,
        "conversationType": "phone",
        "status": call.get("status"),
        "outcome": call.get("outcome"),
        "summary": details.get("summary"),
        "duration": call.get("duration"),
        "direction": call.get("direction"),
        "twilioCallSid": call.get("twilioCallSid"),
        "callMetadata": details.get("callMetadata"),
        "metadata": metadata,
    }
    phone = contact.get("phone")
    return MissedCall(
        call_id,
        event_type,
        ended_at,
        str(call.get("direction") or "unknown"),
        phone if isinstance(phone, str) else None,
        {name: value for name, value in body.items() if value is not None},
    )


def _store(database: Database, report: ReconcileReport, default_country: str | None) -> None:
    """Store the missing calls as events, each with an entry in the audit log."""
    for call in report.missed:
        raw = json.dumps(call.body, ensure_ascii=False).encode()
        try:
            event = read_event(raw, database.clock.now(), default_country)
        except SignedRequestRejected as error:
            report.notes.append(f"{call.id} is not a valid event: {error.detail}")
            continue
        [result] = store_events(database, [IncomingEvent(event, raw, reconciled=True)])
        if result == "unavailable":
            raise BridgeError("the event could not be stored; run it again")
        call.result = "stored" if result == "stored" else "duplicate"
        if result == "stored":
            call.event_id = event.id
            _audit(database, event, call.id)


def _audit(database: Database, event: Event, call_id: str) -> None:
    with database.write() as conn:
        record_audit(conn, database.now(conn), current_operator(), "reconcile", [event.id], {"call": call_id})


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
