"""Policy inputs: loads the data that decides about due deliveries, a few queries for a whole batch.

The decision itself is `bridge.policy.decide`, which dry runs use as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, union

from bridge.connector.callbacks import Channel
from bridge.contacts.address import address_key
from bridge.contacts.parse import Contact
from bridge.events import Event
from bridge.policy import (
    ActiveOptOut,
    Allow,
    CrmFlag,
    Decision,
    Defer,
    DueDelivery,
    EventRef,
    PolicyInputs,
    UndeliverableAddress,
    decide,
    event_precedence,
    find_cancelling_event,
)
from bridge.rules.model import MessagingPolicy, PlannedDelivery
from bridge.rules.trace import Truth
from bridge.store import schema
from bridge.store.connections import stored_message_counts
from bridge.store.contact_cache import cached_time_zones
from bridge.store.database import Database
from bridge.store.deliveries import Delivery
from bridge.store.details import RECHECK_INTERVAL, WAITING_FOR_DETAILS
from bridge.store.earlier_results import (
    EarlierResults,
    RenderResults,
    UseResults,
    decide_about_results,
    load_earlier_results,
)
from bridge.store.idempotency import IdempotencyKey, load_keys
from bridge.store.opt_out_queries import FlagsByChannel, addresses_to_query, cached_flags
from bridge.store.opt_outs import AddressHasher, active_opt_outs
from bridge.store.routing import delivery_row, read_events
from bridge.store.undeliverable import undeliverable_addresses
from bridge.store.unindexed import unindexed
from bridge.telemetry import log

UNDECIDED_RETRY_INTERVAL = timedelta(minutes=1)
"""When a delivery is decided again that could not be decided: by a newer version, if there is one."""
MAX_CLOCK_DIFFERENCE = timedelta(hours=1)
"""How far Heppu's clock may be ahead of the bridge's for `cancel_on` to compare timestamps correctly."""


@dataclass(frozen=True)
class PolicyConfig:
    """The parts of the current configuration that the decision needs."""

    messaging: MessagingPolicy
    consent: Callable[[Event], Truth | None] = lambda _: None
    """Evaluates `messaging.consent` for an event; None if there is no such condition."""
    allowlist: Collection[str] = ()
    hash_address: AddressHasher | None = None
    """Returns the hashes that can replace an erased address in the opt-out list; None without BRIDGE_SECRET_KEY."""
    render_results: RenderResults = lambda _delivery, _event, _results, _history: None
    """Renders the results of earlier actions into the params of a delivery."""


@dataclass
class PolicyData:
    """The data about a batch of due deliveries."""

    idempotency_keys: dict[str, IdempotencyKey] = field(default_factory=dict)
    opt_outs: Mapping[tuple[Channel, str], ActiveOptOut] = field(default_factory=dict)
    undeliverable: Mapping[tuple[Channel, str], UndeliverableAddress] = field(default_factory=dict)
    crms: Collection[str] = ()
    """The connections of `messaging.crm_opt_outs`."""
    crm_flags: Mapping[tuple[str, str], FlagsByChannel] = field(default_factory=dict)
    """The current answers of these connections, by connection and address."""
    messages: dict[tuple[str, str], list[tuple[str, datetime]]] = field(default_factory=dict)
    """Messages that were sent, or may have been, by channel and address: delivery ID and time."""
    time_zones: Mapping[str, str] = field(default_factory=dict)
    """Time zones that a CRM reported, by address in lowercase."""
    last_done: dict[str, datetime] = field(default_factory=dict)
    """For deliveries with `once`, by ID: when it was last done for the same contact or conversation."""
    later_events: list[EventRef] = field(default_factory=list)
    """Accepted events that may cancel a delivery of the batch."""

    earlier_results: Mapping[str, EarlierResults] = field(default_factory=dict)
    """The results of earlier actions that params use, by delivery ID."""
    message_totals: dict[Channel, int] = field(default_factory=dict)
    """Messages of the connection that count toward `caps.total`, by channel."""

    def existing_id(self, delivery: Delivery) -> str | None:
        """Return the external ID of the record that this delivery is to update; None if it creates one."""
        key = self.idempotency_keys.get(delivery.idempotency_key)
        return key.external_id if key is not None and delivery.options.updates else None


def load_policy_data(
    database: Database,
    conn: Connection,
    deliveries: Sequence[Delivery],
    events: Mapping[str, Event],
    messaging: MessagingPolicy,
    now: datetime,
    hash_address: AddressHasher | None = None,
) -> PolicyData:
    """Load the data that decides about these deliveries. `events` are their events by delivery ID."""
    data = PolicyData(load_keys(conn, {delivery.idempotency_key for delivery in deliveries}))
    data.earlier_results = load_earlier_results(conn, deliveries, now)
    recipients = {
        (delivery.channel, delivery.recipient)
        for delivery in deliveries
        if delivery.channel and delivery.recipient and not delivery.options.internal
    }
    if recipients:
        data.opt_outs = active_opt_outs(conn, recipients, messaging.opt_out_scope, hash_address)
        data.undeliverable = undeliverable_addresses(conn, recipients, now)
        longest_cap = max((cap.per for cap in messaging.caps.values()), default=timedelta(0))
        data.messages = _messages(conn, recipients, now - longest_cap)
        data.time_zones = cached_time_zones(conn, {address for _, address in recipients}, now)
    if recipients and messaging.crm_opt_outs:
        data.crms = messaging.crm_opt_outs
        addresses = {
            address
            for item in deliveries
            if _asks_crms(item)
            for address in addresses_to_query(item, events[item.id])
        }
        data.crm_flags = cached_flags(conn, data.crms, addresses, now)
    data.last_done = _last_done(conn, deliveries)
    data.later_events = _later_events(database, conn, deliveries)
    return data


def inputs_for_planned(
    database: Database,
    planned: PlannedDelivery,
    event: Event,
    messaging: MessagingPolicy,
    hash_address: AddressHasher | None = None,
) -> PolicyInputs:
    """Load the policy inputs of a delivery that is only planned, for `bridge explain`."""
    return inputs_for_all(database, [(planned, event)], messaging, hash_address)[0]


def inputs_for_all(
    database: Database,
    planned: Sequence[tuple[PlannedDelivery, Event]],
    messaging: MessagingPolicy,
    hash_address: AddressHasher | None = None,
) -> list[PolicyInputs]:
    """Load the policy inputs of deliveries that are only planned, as if each were the only one."""
    if not planned:
        return []
    with database.read() as conn:
        now = database.now(conn)
        deliveries = [Delivery.not_stored(delivery_row(item, event, "", now)) for item, event in planned]
        events = {item.id: event for item, (_, event) in zip(deliveries, planned, strict=True)}
        data = load_policy_data(database, conn, deliveries, events, messaging, now, hash_address)
        totals = {
            connection: stored_message_counts(conn, connection).totals(messaging.total_caps, now)
            for connection in {item.connection for item in deliveries}
        }
        return [
            _inputs(item, events[item.id], replace(data, message_totals=totals[item.connection]))
            for item in deliveries
        ]


def _messages(
    conn: Connection, recipients: Collection[tuple[str, str]], since: datetime
) -> dict[tuple[str, str], list[tuple[str, datetime]]]:
    """Return the messages to these recipients since an instant: delivery ID and time."""
    table = schema.deliveries
    rows = conn.execute(
        select(table.c.id, table.c.channel, table.c.recipient, table.c.possibly_sent_at).where(
            table.c.recipient.in_({address for _, address in recipients}), table.c.possibly_sent_at > since
        )
    )
    messages: dict[tuple[str, str], list[tuple[str, datetime]]] = defaultdict(list)
    for row in rows:
        messages[row.channel, row.recipient].append((row.id, row.possibly_sent_at))
    return messages


def _last_done(conn: Connection, deliveries: Sequence[Delivery]) -> dict[str, datetime]:
    """Return when rule and action last took effect for the contact or conversation of deliveries with `once`."""
    table = schema.deliveries
    last_done = {}
    for delivery in deliveries:
        once = delivery.options.once
        if once is None or delivery.once_value is None:
            continue  # unidentified contacts are not the same contact
        last = conn.execute(
            select(func.max(table.c.possibly_sent_at)).where(
                table.c[once.per] == delivery.once_value,
                table.c.rule == delivery.rule,
                table.c.action == delivery.action,
                table.c.id != delivery.id,
            )
        ).scalar_one_or_none()
        if last is not None:
            last_done[delivery.id] = last
    return last_done


def _later_events(database: Database, conn: Connection, deliveries: Sequence[Delivery]) -> list[EventRef]:
    """Return accepted events, routed or not, that share a conversation or contact with a delivery with `cancel_on`."""
    cancellable = [delivery for delivery in deliveries if delivery.options.cancel_on]
    if not cancellable:
        return []
    events = schema.events
    event_types = {event_type for delivery in cancellable for event_type in delivery.options.cancel_on}
    shared = events.c["conversation_id", "phone", "email"]
    is_trigger = events.c.id.in_([delivery.event_id for delivery in cancellable])
    triggers = conn.execute(select(*shared).where(is_trigger)).all()
    since = min(delivery.occurred_at for delivery in cancellable) - MAX_CLOCK_DIFFERENCE
    columns = events.c["id", "dedupe_key", "type", "conversation_id", "phone", "email", "occurred_at"]
    # Lists of values, not a join: with statistics, SQLite would read all events and look for each in the triggers.
    rows = conn.execute(
        union(
            *(
                select(*columns).where(
                    column.in_({trigger[index] for trigger in triggers if trigger[index] is not None}),
                    unindexed(events.c.type).in_(event_types),
                    events.c.occurred_at >= since,
                )
                for index, column in enumerate(shared)
            )
        )
    ).all()
    # Compare Heppu's own timestamps: `occurred_at` is at most `received_at`, by the bridge's clock.
    bodies = read_events(database, conn, {row.id for row in rows})
    return [
        EventRef(
            row.dedupe_key, row.type, bodies[row.id].timestamp or row.occurred_at, row.conversation_id,
            row.phone, row.email,
        )
        for row in rows
    ]  # fmt: skip


def decide_all(
    deliveries: Sequence[Delivery],
    events: Mapping[str, Event],
    data: PolicyData,
    policy_config: PolicyConfig,
    now: datetime,
) -> dict[str, Decision | UseResults]:
    """Return the decision about each delivery, by ID; a lookup needs none. Allowed messages are added to `data`."""
    decisions: dict[str, Decision | UseResults] = {}
    for delivery in deliveries:
        if delivery.outcome_unknown_since is not None:
            continue
        decision: Decision | UseResults = _decide(delivery, events[delivery.id], data, policy_config, now)
        if isinstance(decision, Allow) and delivery.id in data.earlier_results:
            decision = decide_about_results(delivery, data.earlier_results[delivery.id], now)
        elif isinstance(decision, Allow) and delivery.options.late:
            decision = Defer(now + RECHECK_INTERVAL, WAITING_FOR_DETAILS, needs_details=True)
        if isinstance(decision, Allow) and (channel := delivery.capped_channel) is not None:
            data.message_totals[channel] = data.message_totals.get(channel, 0) + 1
        decisions[delivery.id] = decision
    return decisions


def _decide(
    delivery: Delivery, event: Event, data: PolicyData, policy_config: PolicyConfig, now: datetime
) -> Decision:
    """Decide about one delivery. One that cannot be decided waits, without holding up others."""
    try:
        return decide(
            _due_delivery(delivery, event, policy_config),
            _inputs(delivery, event, data),
            policy_config.messaging,
            now,
            policy_config.allowlist,
        )
    except Exception as error:
        log.error("failed to decide about a delivery", delivery=delivery.id, exc_info=error)
        reason = f"this version cannot decide about it ({type(error).__name__}); left for a worker of a newer version"
        return Defer(now + UNDECIDED_RETRY_INTERVAL, reason)


_NO_CONTACT = Contact()
"""The contact of deliveries without a channel: the messaging policy does not apply to them."""


def _due_delivery(delivery: Delivery, event: Event, policy_config: PolicyConfig) -> DueDelivery:
    options = delivery.options
    return DueDelivery(
        id=delivery.id,
        occurred_at=delivery.occurred_at,
        precedence=event_precedence(event.type),
        contact=event.contact if delivery.channel else _NO_CONTACT,
        channel=delivery.channel,
        recipient=delivery.recipient,
        expires_at=delivery.expires_at,
        once=options.once,
        consent=policy_config.consent(event) if delivery.channel else None,
        updates=options.updates,
        shadow=options.shadow,
        internal=options.internal,
        more_recipients=options.more_recipients,
        force=options.force,
    )


def _asks_crms(delivery: Delivery) -> bool:
    """Return whether the opt-out flags of a CRM apply: to messages, except those to the team."""
    return bool(delivery.channel and delivery.recipient and not delivery.options.internal)


def _crm_answers(delivery: Delivery, event: Event, data: PolicyData) -> tuple[CrmFlag | None, Sequence[str]]:
    """Return the flag of a CRM that covers the message, and the CRMs whose answer is missing."""
    if not data.crms or not _asks_crms(delivery):
        return None, ()
    missing: list[str] = []
    addresses = [address_key(address) for address in addresses_to_query(delivery, event)]
    for connection in data.crms:
        answers = [data.crm_flags.get((connection, address)) for address in addresses]
        for flags in answers:
            if flags and delivery.channel and (name := flags.get(delivery.channel)):
                return CrmFlag(connection, name), ()
        if None in answers:
            missing.append(connection)
    return None, missing


def _inputs(delivery: Delivery, event: Event, data: PolicyData) -> PolicyInputs:
    cancel_on, recipient = delivery.options.cancel_on, delivery.recipient or ""
    address = (delivery.channel or "", recipient)
    key = data.idempotency_keys.get(delivery.idempotency_key)
    crm_flag, crms_to_ask = _crm_answers(delivery, event, data)
    return PolicyInputs(
        cancelled_by=find_cancelling_event(cancel_on, EventRef.of(event), data.later_events)
        if cancel_on
        else None,
        last_done_at=data.last_done.get(delivery.id),
        opt_out=data.opt_outs.get((delivery.channel, recipient)) if delivery.channel else None,
        undeliverable=data.undeliverable.get((delivery.channel, recipient)) if delivery.channel else None,
        crm_flag=crm_flag,
        crms_to_ask=crms_to_ask,
        crm_time_zone=data.time_zones.get(address_key(recipient)),
        messages_sent_at=[
            at for delivery_id, at in data.messages.get(address, ()) if delivery_id != delivery.id
        ],
        messages_of_connection=data.message_totals.get(delivery.channel, 0) if delivery.channel else 0,
        idempotency_record=key.record_for(delivery.id) if key is not None else None,
    )
