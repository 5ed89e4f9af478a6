"""Callbacks of providers: stores message statuses, inbound messages, opt-outs and opt-ins before responding.

Providers repeat callbacks and send them out of order, so the order in which they are stored does not matter: a message
status only moves forward, and the first final one stays. A message status also confirms that its delivery took effect,
whatever was known before. Only the result of a running attempt may contradict it, and it reads the status first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, or_, update

from bridge.connector.callbacks import Channel, InboundMessage, OptIn, OptOut, StatusUpdate
from bridge.contacts.address import normalize_address
from bridge.errors import AccountError
from bridge.lifecycle import DeliveryState, Transition
from bridge.store import schema
from bridge.store.connections import lock_connection, log_state_change, record_outcomes
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.deliveries import Delivery, lock_deliveries
from bridge.store.inbound_messages import store_inbound_messages
from bridge.store.opt_outs import OptOutChange, save_opt_outs
from bridge.store.results import CONFIRMED_BY_STATUS, UNDELIVERED_STATUSES, latest_status
from bridge.store.stalled_transactions import REQUEST_LIMIT
from bridge.store.transitions import Change, apply_transitions
from bridge.store.undeliverable import DeliveryProblem, clear_undeliverable, save_undeliverable
from bridge.telemetry import mask

CallbackEvent = StatusUpdate | OptOut | OptIn | InboundMessage

_TABLE = schema.deliveries


@dataclass(frozen=True)
class UnmatchedStatus:
    """A message status that matches no delivery, and why."""

    update: StatusUpdate
    reason: str


def apply_callback(
    database: Database,
    name: str,
    reported: Sequence[CallbackEvent],
    account_error: AccountError | None = None,
) -> list[UnmatchedStatus]:
    """Store what the provider of connection `name` reported, in one transaction; return the unmatched statuses.

    With an `account_error`, the connection is paused as by an attempt that raises it, unless every reported status is
    known already: a repeated callback must not pause a connection that an operator has resumed in the meantime.

    Raise StoreUnavailable if nothing was stored: then the provider must get an error, so that it sends it again.
    """
    status_updates = [item for item in reported if isinstance(item, StatusUpdate)]
    inbound_messages = [item for item in reported if isinstance(item, InboundMessage)]
    opt_out_changes = [
        _opt_out_change(item, name, database.default_country)
        for item in reported
        if isinstance(item, OptOut | OptIn)
    ]
    unmatched: list[UnmatchedStatus] = []
    changed_columns: Mapping[str, Any] = {}
    with database.write(limit=REQUEST_LIMIT) as conn:
        if account_error is not None:
            lock_connection(database, conn, name)  # before the deliveries, as `claim` does
        now = database.now(conn)
        deliveries = _deliveries(conn, name, status_updates)
        # Locks in the order of `record_results`: deliveries, recipients, idempotency keys.
        opt_out_changes += store_inbound_messages(database, conn, name, inbound_messages, now)
        save_opt_outs(database, conn, opt_out_changes, now)
        clear_undeliverable(conn, [_sender(message) for message in inbound_messages])
        is_news = not status_updates
        for status_update in status_updates:
            delivery = _match(deliveries, status_update)
            if isinstance(delivery, str):
                unmatched.append(UnmatchedStatus(status_update, delivery))
                continue
            is_news |= _apply_status(database, conn, delivery, status_update, account_error, now)
            if status_update.undeliverable and delivery.channel and delivery.recipient:
                detail = mask(status_update.detail)
                problem = DeliveryProblem(delivery.channel, delivery.recipient, name, detail)
                save_undeliverable(conn, [problem], now)
            deliveries |= lock_deliveries(conn, _TABLE.c.id == delivery.id)
        if account_error is not None and is_news:
            changed_columns = record_outcomes(database, conn, name, [account_error], now)
            database.publish(conn, [EVENTS_TOPIC])
    log_state_change(name, changed_columns)
    return unmatched


def _sender(message: InboundMessage) -> tuple[Channel, str]:
    """Return the channel and address that reach a person again, because they wrote from there."""
    return message.channel, normalize_address(message.sender) or message.sender


def _opt_out_change(item: OptOut | OptIn, name: str, country: str | None) -> OptOutChange:
    keyword = "STOP" if isinstance(item, OptOut) else "START"
    address = normalize_address(item.address, country) or item.address
    return OptOutChange(item.channel, address, isinstance(item, OptOut), f"{keyword} to {name}")


def _deliveries(conn: Connection, name: str, status_updates: Sequence[StatusUpdate]) -> dict[str, Delivery]:
    """Return the connection's deliveries that these statuses may belong to, locked."""
    delivery_ids = [status_update.delivery for status_update in status_updates if status_update.delivery]
    external_ids = [status_update.id for status_update in status_updates if status_update.id]
    if not delivery_ids and not external_ids:
        return {}
    is_named = or_(_TABLE.c.id.in_(delivery_ids), _TABLE.c.external_id.in_(external_ids))
    return lock_deliveries(conn, and_(is_named, _TABLE.c.connection == name))


def _match(deliveries: dict[str, Delivery], status_update: StatusUpdate) -> Delivery | str:
    """Return the delivery that a status belongs to, or why there is none."""
    for delivery in deliveries.values():
        if status_update.id is not None and delivery.external_id == status_update.id:
            return delivery
    named = deliveries.get(status_update.delivery or "")
    if named is None:
        return "no delivery of this connection has this ID"
    if status_update.id in named.options.undelivered_ids:
        is_sent_again = named.external_id is not None or named.possibly_sent_at is not None
        if is_sent_again or status_update.state != "delivered":
            return "it is about an earlier message of its delivery, which was retried since"
        return named  # it arrived before it was sent again
    if named.external_id is not None and status_update.id is not None:
        return "its delivery sent another message: one message too many may have been sent"
    if named.first_attempt_at is None:
        return "its delivery was never attempted"
    return named


def _apply_status(
    database: Database,
    conn: Connection,
    delivery: Delivery,
    status_update: StatusUpdate,
    account_error: AccountError | None,
    now: datetime,
) -> bool:
    """Store a message status, and confirm its delivery; return False for an outdated status, which changes nothing.

    With an `account_error`, a message that was not delivered makes its delivery fail, so that it can be retried.
    """
    columns: dict[str, Any] = {}
    was_failed = _failed_by_account(delivery)
    is_news = latest_status(delivery.message_status, status_update.state) != delivery.message_status
    is_news |= was_failed and status_update.state == "delivered"
    undelivered = is_news and status_update.state in UNDELIVERED_STATUSES
    detail = (mask(status_update.detail)[:500] or None) if undelivered else CONFIRMED_BY_STATUS
    if is_news:
        columns |= {"message_status": status_update.state, "message_status_at": now}
    if delivery.external_id is None and status_update.id is not None:
        columns["external_id"] = status_update.id
    if not is_news and was_failed:
        return False  # repeated, or out of order
    if undelivered and account_error is not None and delivery.state is DeliveryState.SUCCEEDED:
        transition = Transition.not_delivered(account_error.reason, detail)
        change = Change(delivery, transition, columns | {"possibly_sent_at": None})
        apply_transitions(database, conn, [change], now)
        return True
    # While an attempt runs, its result confirms the delivery and is followed up; it includes this status.
    is_running = delivery.state is DeliveryState.RUNNING
    if not is_running and (undelivered or delivery.state is not DeliveryState.SUCCEEDED):
        transition = Transition.confirmed(delivery, detail, undelivered=undelivered)
        apply_transitions(database, conn, [Change(delivery, transition, columns)], now)
    elif columns:
        if undelivered:
            columns["detail"] = detail
        conn.execute(update(_TABLE).where(_TABLE.c.id == delivery.id).values(columns))
    return is_news


def _failed_by_account(delivery: Delivery) -> bool:
    """Return whether the provider had accepted the message of a failed delivery, and did not deliver it."""
    return delivery.state is DeliveryState.FAILED and delivery.message_status in UNDELIVERED_STATUSES
