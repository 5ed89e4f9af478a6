"""Inbound messages: what people text back, stored as events `sms.received` together with the opt-outs in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from bridge.connector.callbacks import InboundMessage
from bridge.contacts.parse import Contact
from bridge.contacts.phone import normalize_phone
from bridge.events import SMS_RECEIVED
from bridge.policy.stop_requests import StopRequest, read_stop_request
from bridge.store import schema
from bridge.store.bridge_events import BridgeEvent, insert_bridge_events
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row
from bridge.store.opt_outs import OptOutChange

REPLY_WINDOW: Final = timedelta(days=7)
"""For so long a text counts as the reply to the last message that was sent to its number."""
_EARLIER_EVENTS: Final = 10
"""Number of the newest events of a number among which the name of the contact is looked for."""
_EARLIER_MESSAGES: Final = 50
"""Number of the newest messages of a number among which the last one on a channel is looked for."""


@dataclass(frozen=True)
class _Reply:
    """An inbound message and what it means."""

    message: InboundMessage
    phone: str | None
    """The sender in E.164 format; None for a short code or a name."""
    request: StopRequest | None


def store_inbound_messages(
    database: Database, conn: Connection, connection: str, messages: Sequence[InboundMessage], now: datetime
) -> list[OptOutChange]:
    """Store each message as an event; return the opt-outs and opt-ins of those that were not stored before."""
    replies = {f"{connection}:{message.id}": _read(message) for message in messages}
    events = [
        BridgeEvent(SMS_RECEIVED, key, _event_body(database, conn, connection, key, reply, now), now)
        for key, reply in replies.items()
    ]
    new = [replies[event.dedupe_key] for event in insert_bridge_events(database, conn, events)]
    return [
        OptOutChange(
            reply.message.channel,
            reply.phone,
            reply.request == "stop",
            f"{reply.request.upper()} to {connection}",
        )
        for reply in new
        if reply.phone and reply.request
    ]


def last_inbound_at(
    database: Database, connection: str, channel: str, phone: str, to: str | None, now: datetime
) -> datetime | None:
    """Return when this phone number last wrote to the connection on this channel (to the number `to`, unless None).

    Only the last 7 days count, and of those the newest messages.
    """
    table = schema.events
    query = (
        select(table)
        .where(
            table.c.phone == phone,
            table.c.type == SMS_RECEIVED,
            table.c.received_at >= now - REPLY_WINDOW,
            table.c.body.is_not(None),
        )
        .order_by(table.c.received_at.desc())
        .limit(_EARLIER_MESSAGES)
    )
    with database.read() as conn:
        rows = conn.execute(query).all()
    for row in rows:
        body = event_from_row(row, database.default_country).body
        if (body.get("connection"), body.get("channel")) == (connection, channel) and to in (
            None,
            body.get("to"),
        ):
            return row.received_at  # type: ignore[no-any-return]
    return None


def _read(message: InboundMessage) -> _Reply:
    if message.keyword is None:
        request = read_stop_request(message.text)
    else:
        request = None if message.keyword == "help" else message.keyword
    return _Reply(message, normalize_phone(message.sender), request)


def _event_body(
    database: Database, conn: Connection, connection: str, key: str, reply: _Reply, now: datetime
) -> dict[str, Any]:
    message, phone = reply.message, reply.phone
    contact = (_known_contact(database, conn, phone) if phone else None) or Contact(name=message.sender_name)
    conversation = _answered_conversation(conn, message.channel, phone, now) if phone else None
    metadata = {
        "contactName": contact.name,
        "contactPhone": phone,
        "contactEmail": contact.email,
        "company": contact.company,
        "timezone": contact.time_zone,
    }
    return {
        "conversationId": conversation or key,
        "connection": connection,
        "channel": message.channel,
        "messageId": message.id,
        "from": phone or message.sender,
        "to": message.to,
        "text": message.text or None,
        "media": list(message.media),
        "button": message.button,
        "optOut": reply.request == "stop",
        "optIn": reply.request == "start",
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }


def _known_contact(database: Database, conn: Connection, phone: str) -> Contact | None:
    """Return the contact of the newest event of a number that says who it is."""
    table = schema.events
    rows = conn.execute(
        select(table)
        .where(table.c.phone == phone, table.c.body.is_not(None))
        .order_by(table.c.received_at.desc())
        .limit(_EARLIER_EVENTS)
    )
    contacts = (event_from_row(row, database.default_country).contact for row in rows)
    return next((contact for contact in contacts if contact.name or contact.email), None)


def _answered_conversation(conn: Connection, channel: str, phone: str, now: datetime) -> str | None:
    """Return the conversation of the last message that was sent to a number on this channel."""
    table = schema.deliveries
    query = (
        select(table.c.conversation)
        .where(
            table.c.recipient == phone,
            table.c.channel == channel,
            table.c.possibly_sent_at >= now - REPLY_WINDOW,
        )
        .order_by(table.c.possibly_sent_at.desc())
        .limit(1)
    )
    return conn.execute(query).scalar_one_or_none()
