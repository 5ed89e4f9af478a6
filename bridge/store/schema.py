"""Schema: the tables of the database, as SQLAlchemy definitions; the migrations create exactly these.

Instants are microseconds since 1970 (UTC) in 64-bit integers: exact, indexable and the same on SQLite and
PostgreSQL. Structured values are JSON text. Event and idempotency keys are kept permanently; bodies and personal data
are deleted when their work is finished and `BRIDGE_RETENTION` has passed.

Each table and column carries its description in `info["doc"]`, which the reference page of the database shows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)

from bridge.store.sealing import SealedBytes, SealedText

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    """Return an instant as the tables store it; raise TypeError for a naive datetime, which is a bug."""
    return (instant - _EPOCH) // _MICROSECOND


class Instant(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Convert a datetime to the stored integer."""
        return None if value is None else microseconds(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:  # noqa: ARG002
        """Return the conversion from the stored integer. It is a plain function, because a row has many instants."""
        return _instant


def _instant(value: int | None) -> datetime | None:
    """Return a stored instant as a datetime in UTC."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def _doc(text: str) -> dict[str, str]:
    """Return the `info` of a table or column with this description."""
    return {"doc": text}


metadata = MetaData()

PHONE_ENDING = " || ".join(f"substr(phone, length(phone) - {place}, 1)" for place in range(4))
"""The last four digits of a phone number, the last one first."""
_HAS_ENDING = "phone IS NOT NULL AND routed_at IS NOT NULL"

events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True, info=_doc("Event ID, `evt_...`.")),
    Column("dedupe_key", Text, nullable=False, unique=True,
           info=_doc("Identifies the event: the signed `webhookId`, otherwise the SHA-256 of the body. A "
                     "second event with this key is a duplicate.")),
    Column("fallback_dedupe_key", Text, unique=True,
           info=_doc("Type, conversation and timestamp: recognizes an event that Heppu sends again with "
                     "a new `webhookId`.")),
    Column("type", Text, nullable=False, info=_doc("Event type, such as `call.no-answer`.")),
    Column("conversation_id", Text, nullable=False, info=_doc("ID of the phone call or chat.")),
    Column("phone", Text,
           info=_doc("Phone number of the contact, in E.164 format. Null if unknown, pruned or erased.")),
    Column("email", Text,
           info=_doc("Email address of the contact, in lowercase. Null if unknown, pruned or erased.")),
    Column("contact_name", Text,
           info=_doc("Words of the contact's name without case and accents, for the search; set when the event is "
                     "routed. Null if unknown, pruned or erased.")),
    Column("contact_sort_name", Text,
           info=_doc("The same words with the last one first. Null if the name has one word.")),
    Column("unreadable", Text,
           info=_doc("Names of the documented fields that had a value when the event was received, but none that "
                     "could be read, separated by commas. Null: none.")),
    Column("duplicates", Integer, nullable=False, default=0, server_default=text("0"),
           info=_doc("How often the event was received again, at least.")),
    Column("occurred_at", Instant, nullable=False,
           info=_doc("When the event happened: the timestamp of the body, but not later than "
                     "`received_at`.")),
    Column("received_at", Instant, nullable=False, info=_doc("When the bridge received the event.")),
    Column("body", SealedBytes, info=_doc("The body exactly as received. Null once pruned or erased.")),
    Column("reconciled", Boolean, nullable=False, default=False, server_default=text("false"),
           info=_doc("True if `bridge heppu reconcile` made the event from a call at Heppu, because no webhook had "
                     "come.")),
    Column("duplicate_of", Text,
           info=_doc("The event about the same call that was routed instead of this one. Null: none.")),
    Column("dropped_fields", Text,
           info=_doc("Paths of the fields that the event had and that are never stored, separated by commas "
                     "(BRIDGE_DROP_FIELDS). Null: none.")),
    Column("body_sha256", LargeBinary, nullable=False,
           info=_doc("SHA-256 of the body: distinguishes a duplicate from a conflict.")),
    Column("routed_at", Instant,
           info=_doc("When the rules were evaluated. Null while the event waits to be routed.")),
    Column("rules_hash", Text, info=_doc("The rules that routed the event: `rules.hash`.")),
    Column("trace", SealedText, info=_doc("The evaluation of every rule, as JSON. Null once pruned or erased.")),
    Index("events_unrouted", "received_at", sqlite_where=text("routed_at IS NULL"),
          postgresql_where=text("routed_at IS NULL")),
    # On PostgreSQL, the indexes with text_pattern_ops find prefixes as well, whatever the collation.
    Index("events_conversation", "conversation_id", postgresql_ops={"conversation_id": "text_pattern_ops"}),
    # Each index also leads from an address to those that occur with it: `bridge.store.contact_links`.
    Index("events_phone", "phone", "email", sqlite_where=text("phone IS NOT NULL"),
          postgresql_where=text("phone IS NOT NULL"), postgresql_ops={"phone": "text_pattern_ops"}),
    Index("events_email", "email", "phone", sqlite_where=text("email IS NOT NULL"),
          postgresql_where=text("email IS NOT NULL"), postgresql_ops={"email": "text_pattern_ops"}),
    Index("events_received", "received_at"),
    # Routed events only: an event enters the index when it is routed, not while Heppu waits for the response.
    Index("events_phone_ending", text(f"({PHONE_ENDING})"), "phone", sqlite_where=text(_HAS_ENDING),
          postgresql_where=text(_HAS_ENDING)),
    Index("events_contact_name", "contact_name", sqlite_where=text("contact_name IS NOT NULL"),
          postgresql_where=text("contact_name IS NOT NULL"), postgresql_ops={"contact_name": "text_pattern_ops"}),
    Index("events_contact_sort_name", "contact_sort_name", sqlite_where=text("contact_sort_name IS NOT NULL"),
          postgresql_where=text("contact_sort_name IS NOT NULL"),
          postgresql_ops={"contact_sort_name": "text_pattern_ops"}),
    Index("events_reconciled", "received_at", sqlite_where=text("reconciled"),
          postgresql_where=text("reconciled")),
    Index("events_duplicate_of", "duplicate_of", sqlite_where=text("duplicate_of IS NOT NULL"),
          postgresql_where=text("duplicate_of IS NOT NULL")),
    Index("events_unreadable", "id", sqlite_where=text("unreadable IS NOT NULL"),
          postgresql_where=text("unreadable IS NOT NULL")),
    info=_doc("Accepted webhook events. A row is inserted once and later only marked as routed, pruned or "
              "erased."),
)  # fmt: skip

deleted_event_keys = Table(
    "deleted_event_keys",
    metadata,
    Column("key_hash", LargeBinary, primary_key=True,
           info=_doc("The first 16 bytes of the SHA-256 of a `dedupe_key` or `fallback_dedupe_key`.")),
    info=_doc("The keys of deleted events (BRIDGE_DELETE_AFTER): a request with one of them is a duplicate."),
    sqlite_with_rowid=False,
)  # fmt: skip

rules = Table(
    "rules",
    metadata,
    Column("hash", Text, primary_key=True, info=_doc("SHA-256 of the text.")),
    Column("text", Text, nullable=False, info=_doc("The rules file.")),
    Column("first_used_at", Instant, nullable=False, info=_doc("When these rules first routed an event.")),
    info=_doc("Every rules file that routed an event, by hash, so that a trace can be read "
              "with its rules."),
)  # fmt: skip

_IS_PENDING = "state IN ('pending', 'retrying')"
_IS_PENDING_ALERT = f"trigger = 'alert' AND {_IS_PENDING}"

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True, info=_doc("Delivery ID, `dlv_...`.")),
    Column("event_id", Text, ForeignKey("events.id"),
           info=_doc("The event that triggered the delivery. Null for alerts about a connection.")),
    Column("parent_id", Text,
           info=_doc("The delivery, or the pause (`pau_...`), that an `on_success` or `on_failure` step or an "
                     "alert is about.")),
    Column("trigger", Text, nullable=False,
           info=_doc("The part of the rules file that created the delivery: `rule`, `on_success`, "
                     "`on_failure` or `alert`.")),
    Column("rule", Text, nullable=False, info=_doc("Name of the rule.")),
    Column("step_index", Integer, nullable=False,
           info=_doc("Position of the step in the list of steps, from 0.")),
    Column("rules_hash", Text, nullable=False,
           info=_doc("The rules that created the delivery: `rules.hash`.")),
    Column("action", Text, nullable=False, info=_doc("Connector and action, such as `twilio.send_sms`.")),
    Column("connection", Text, nullable=False,
           info=_doc("Name of the connection (the account) that the action uses.")),
    Column("channel", Text,
           info=_doc("Channel of a message, such as `sms` or `email`. Null for actions that do not "
                     "contact anyone.")),
    Column("recipient", Text,
           info=_doc("Address of a message, in lowercase. Null for other actions, or once pruned or "
                     "erased.")),
    Column("contact", Text,
           info=_doc("Phone number, email address or visitor ID of the contact. Null if unknown, pruned "
                     "or erased.")),
    Column("conversation", Text, info=_doc("ID of the phone call or chat.")),
    Column("params", Text, nullable=False,
           info=_doc('Rendered parameters of the action, as JSON. `{"erased":true}` once pruned or erased.')),
    Column("options", Text, nullable=False,
           info=_doc("Options of the step that are needed after routing (`cancel_on`, `once`, `retry`, ...), "
                     "as JSON.")),
    Column("concurrency_key", Text,
           info=_doc("Deliveries with the same key never run at the same time. Null: no restriction.")),
    Column("idempotency_key", Text, nullable=False,
           info=_doc("Identifies the side effect, which is completed at most once: `idempotency_keys.key`.")),
    Column("occurred_at", Instant, nullable=False, info=_doc("When the event happened.")),
    Column("state", Text, nullable=False,
           info=_doc("State of the delivery; see the reference page of delivery states.")),
    Column("reason", Text, info=_doc("Reason of the state `suppressed`, or of the last failed attempt.")),
    Column("detail", Text, info=_doc("Explanation of the state, for operators.")),
    Column("run_at", Instant, nullable=False, info=_doc("When the next attempt or lookup is due.")),
    Column("expires_at", Instant,
           info=_doc("After this time the delivery is no longer sent (`expires` of the rule).")),
    Column("attempts", Integer, nullable=False, default=0,
           info=_doc("Attempts of the retry schedule that are used up.")),
    Column("fencing_token", Integer, nullable=False, default=0,
           info=_doc("Number of the newest claim. A result with an older number changes nothing.")),
    Column("lease_expires_at", Instant,
           info=_doc("When the lease of the running attempt expires. Null unless the delivery is running.")),
    Column("worker_id", Text, info=_doc("The worker that holds the lease: `workers.id`.")),
    Column("first_attempt_at", Instant, info=_doc("When the retry schedule started.")),
    Column("outcome_unknown_since", Instant,
           info=_doc("Since when it is unknown whether an attempt took effect. While set, the next "
                     "attempt is a lookup.")),
    Column("possibly_sent_at", Instant,
           info=_doc("When the action was first attempted, unless it certainly did not take effect. Caps "
                     "and `once` count it.")),
    Column("external_id", Text, info=_doc("ID of the message or record at the provider.")),
    Column("message_status", Text,
           info=_doc("Status reported by the provider: `queued`, `sent`, `delivered`, `undelivered` or "
                     "`failed`.")),
    Column("message_status_at", Instant, info=_doc("When the status was stored.")),
    Column("needs_follow_up", Boolean, nullable=False, default=False,
           info=_doc("True until the follow-ups of a failure, or of a success in a rule with `on_success`, have "
                     "been created.")),
    Column("created_at", Instant, nullable=False, info=_doc("When the delivery was created.")),
    Column("finished_at", Instant, info=_doc("When the delivery reached its final state.")),
    Column("dismissed_at", Instant,
           info=_doc("When an operator dismissed the failed delivery. Null if it still needs attention.")),
    Index("deliveries_due", "connection", "run_at", sqlite_where=text(_IS_PENDING),
          postgresql_where=text(_IS_PENDING)),
    Index("deliveries_due_alerts", "connection", "run_at", sqlite_where=text(_IS_PENDING_ALERT),
          postgresql_where=text(_IS_PENDING_ALERT)),
    Index("deliveries_concurrency_key", "concurrency_key", unique=True,
          sqlite_where=text("state = 'running' AND concurrency_key IS NOT NULL"),
          postgresql_where=text("state = 'running' AND concurrency_key IS NOT NULL")),
    Index("deliveries_lease", "lease_expires_at", sqlite_where=text("state = 'running'"),
          postgresql_where=text("state = 'running'")),
    Index("deliveries_possibly_sent", "recipient", "channel", "possibly_sent_at",
          sqlite_where=text("possibly_sent_at IS NOT NULL"), postgresql_where=text("possibly_sent_at IS NOT NULL")),
    Index("deliveries_contact", "contact", "rule"),
    Index("deliveries_conversation", "conversation", "rule"),
    Index("deliveries_follow_up", "id", sqlite_where=text("needs_follow_up"),
          postgresql_where=text("needs_follow_up")),
    Index("deliveries_event", "event_id"),
    Index("deliveries_external_id", "external_id", sqlite_where=text("external_id IS NOT NULL"),
          postgresql_where=text("external_id IS NOT NULL")),
    Index("deliveries_state", "state", "created_at"),
    # Lists of one rule or connection, newest first: `bridge.store.delivery_list`.
    Index("deliveries_rule", "rule", "created_at"),
    Index("deliveries_connection", "connection", "created_at"),
    Index("deliveries_finished", "finished_at", sqlite_where=text("finished_at IS NOT NULL"),
          postgresql_where=text("finished_at IS NOT NULL")),
    info=_doc("One action of one rule for one event: the unit of retry. Follow-ups are deliveries as "
              "well."),
)  # fmt: skip

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", Text, ForeignKey("deliveries.id"), primary_key=True,
           info=_doc("The delivery: `deliveries.id`.")),
    Column("fencing_token", Integer, primary_key=True,
           info=_doc("Number of the claim: 1 for the first attempt of a delivery.")),
    Column("kind", Text, nullable=False,
           info=_doc("`send`, or `lookup` to ask the provider about an earlier attempt.")),
    Column("started_at", Instant, nullable=False, info=_doc("When the attempt was claimed.")),
    Column("worker_id", Text, nullable=False, info=_doc("The worker that made the attempt: `workers.id`.")),
    Column("finished_at", Instant,
           info=_doc("When the result was recorded. Null while it runs, or if the worker died.")),
    Column("outcome", Text, info=_doc("Outcome of the attempt; see the reference page of delivery states.")),
    Column("reason", Text, info=_doc("Reason of a failed attempt.")),
    Column("detail", Text,
           info=_doc("Message of the provider or explanation, for operators. Null once erased.")),
    Column("repeats", Integer, nullable=False, default=0, server_default=text("0"),
           info=_doc("Later attempts with the same result during the same outage, which have no row of their own.")),
    info=_doc("One row per attempt or lookup of a delivery, inserted before the request leaves."),
)  # fmt: skip

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", Text, primary_key=True, info=_doc("The idempotency key.")),
    Column("reserved_by", Text,
           info=_doc("The delivery that is attempting the side effect, or whose outcome is unknown.")),
    Column("completed_by", Text, info=_doc("The delivery that completed the side effect.")),
    Column("external_id", Text, info=_doc("ID of the message or record at the provider.")),
    Column("precedence", Integer, nullable=False, default=0,
           info=_doc("How final the event type is: an event of lower precedence does not overwrite the "
                     "record.")),
    Column("occurred_at", Instant, nullable=False,
           info=_doc("When the event happened: an older event does not overwrite the record.")),
    Column("changed_at", Instant, nullable=False, info=_doc("When the row was last changed.")),
    info=_doc("Side effects that are in progress or completed. A key is reserved before the attempt; "
              "completed keys are kept permanently."),
)  # fmt: skip

contact_cache = Table(
    "contact_cache",
    metadata,
    Column("connection", Text, primary_key=True,
           info=_doc("The connection that found the contact. Empty for time zones, which all connections "
                     "share.")),
    Column("lookup_key", Text, primary_key=True,
           info=_doc("`phone:` or `email:` and the address; `zone:` and the address for a time zone, "
                     "`opt_out:` and the address for opt-out flags; `record:` or `related:` and an external ID for "
                     "what is known about a record.")),
    Column("value", Text, nullable=False,
           info=_doc("External ID, an IANA time zone, or JSON: opt-out flags (channel: field), the empty fields of a "
                     "record, the IDs of the records that belong to it. Empty: the provider does not know the "
                     "contact.")),
    Column("expires_at", Instant, nullable=False, info=_doc("When the entry expires.")),
    info=_doc("Contacts found at providers: external IDs, time zones and opt-out flags by phone number or email "
              "address, for a limited time."),
)  # fmt: skip

possible_duplicates = Table(
    "possible_duplicates",
    metadata,
    Column("id", Text, primary_key=True, info=_doc("ID of the pair, `dup_...`.")),
    Column("connection", Text, nullable=False, info=_doc("The connection that has both records.")),
    Column("first_record", Text, nullable=False, info=_doc("External ID of one record.")),
    Column("second_record", Text, nullable=False, info=_doc("External ID of the other record.")),
    Column("delivery_id", Text, nullable=False,
           info=_doc("The delivery whose email and phone led to the two records: `deliveries.id`.")),
    Column("found_at", Instant, nullable=False, info=_doc("When the pair was found.")),
    Column("last_seen_at", Instant, nullable=False, info=_doc("When a delivery last led to the pair.")),
    Column("dismissed_at", Instant, info=_doc("When an operator dismissed the pair. Null if it is listed.")),
    Index("possible_duplicates_pair", "connection", "first_record", "second_record", unique=True),
    Index("possible_duplicates_last_seen", "last_seen_at"),
    info=_doc("Pairs of CRM records that may be the same person, once per pair and connection."),
)  # fmt: skip

opt_outs = Table(
    "opt_outs",
    metadata,
    Column("channel", Text, primary_key=True, info=_doc("Channel, such as `sms` or `email`.")),
    Column("address", Text, primary_key=True,
           info=_doc("Address in lowercase; `erased:` and a keyed hash once the contact was erased.")),
    Column("opted_out_at", Instant,
           info=_doc("When the recipient opted out. Null once the recipient opted in again.")),
    Column("source", Text,
           info=_doc("Source of the last change, such as `STOP to twilio`, `unsubscribe link` or `import`.")),
    Column("changed_at", Instant, nullable=False, info=_doc("When the row was last changed.")),
    Column("id", Text, info=_doc("ID of the opt-out, `opt_...`, for the order and the pages of lists.")),
    Column("actor", Text,
           info=_doc("The operator who made the last change. Null if the recipient or a provider made it.")),
    Column("reason", Text, info=_doc("The operator's reason, such as `our DNC list 2026-11`.")),
    Index("opt_outs_id", "id", sqlite_where=text("opted_out_at IS NOT NULL"),
          postgresql_where=text("opted_out_at IS NOT NULL")),
    info=_doc("Recipients who opted out of a channel, and those who opted in again."),
)  # fmt: skip

undeliverable_addresses = Table(
    "undeliverable_addresses",
    metadata,
    Column("channel", Text, primary_key=True, info=_doc("Channel, such as `sms` or `email`.")),
    Column("address", Text, primary_key=True, info=_doc("Phone number, or email address in lowercase.")),
    Column("id", Text, nullable=False, info=_doc("ID of the entry, `opt_...`.")),
    Column("since", Instant, nullable=False, info=_doc("When the last message could not be delivered.")),
    Column("until", Instant, nullable=False, info=_doc("When messages are tried again; then the row is deleted.")),
    Column("source", Text, nullable=False, info=_doc("The connection that reported it.")),
    Column("detail", Text, nullable=False, info=_doc("What the provider reported.")),
    Index("undeliverable_addresses_until", "until"),
    info=_doc("Addresses to which messages cannot be delivered (a dead mailbox, a landline), for 90 days."),
)  # fmt: skip

opt_out_queries = Table(
    "opt_out_queries",
    metadata,
    Column("connection", Text, primary_key=True, info=_doc("The CRM connection to ask.")),
    Column("delivery_id", Text, primary_key=True,
           info=_doc("The message that waits for the answer: `deliveries.id`.")),
    Column("asked_at", Instant, nullable=False, info=_doc("When the message started to wait.")),
    Column("run_at", Instant, nullable=False, info=_doc("When the CRM is asked next.")),
    Index("opt_out_queries_due", "connection", "run_at"),
    info=_doc("Messages that wait until a CRM has said whether the contact has an opt-out flag. The answers are in "
              "`contact_cache`."),
)  # fmt: skip

conversation_details = Table(
    "conversation_details",
    metadata,
    Column("conversation", Text, primary_key=True, info=_doc("ID of the phone call or chat.")),
    Column("event_id", Text, nullable=False, info=_doc("The event by which it is found: `events.id`.")),
    Column("asked_at", Instant, nullable=False, info=_doc("When the first delivery started to wait.")),
    Column("run_at", Instant, info=_doc("When Heppu is asked next. Null once it has answered.")),
    Column("attempts", Integer, nullable=False, info=_doc("How often Heppu has been asked since `asked_at`.")),
    Column("fetched_at", Instant, info=_doc("When Heppu has answered.")),
    Column("value", SealedText, info=_doc("The details of the conversation as JSON, with its transcript, for a day.")),
    Index("conversation_details_due", "run_at", sqlite_where=text("run_at IS NOT NULL"),
          postgresql_where=text("run_at IS NOT NULL")),
    info=_doc("Conversations whose details deliveries wait for, and the details that Heppu has returned."),
)  # fmt: skip

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True,
           info=_doc("Hash of the secret in the cookie, under the token that opened the session.")),
    Column("actor", Text, nullable=False, info=_doc("Name of the token, or `dashboard` if it has none.")),
    Column("access", Text, nullable=False, info=_doc("What the token opened at the login: `read` or `admin`.")),
    Column("client", Text, nullable=False, info=_doc("IP address that logged in.")),
    Column("created_at", Instant, nullable=False, info=_doc("When the login was.")),
    Column("expires_at", Instant, nullable=False, info=_doc("When the session ends by itself. Deleted afterwards.")),
    info=_doc("Sessions of the dashboard. A logout and `bridge sessions end` delete them."),
)  # fmt: skip

rejected_requests = Table(
    "rejected_requests",
    metadata,
    Column("id", Text, primary_key=True, info=_doc("ID of the rejected request, `rej_...`.")),
    Column("received_at", Instant, nullable=False, info=_doc("When the request arrived.")),
    Column("reason", Text, nullable=False,
           info=_doc("Reason why it was rejected, such as `signature_wrong`, `timestamp_off` or `conflict`.")),
    Column("detail", Text, nullable=False, info=_doc("Explanation, for operators.")),
    Column("status", Integer, nullable=False, info=_doc("HTTP status of the response.")),
    Column("signature_valid", Boolean, nullable=False,
           info=_doc("Whether Heppu signed the request. Only such a request can be accepted later.")),
    Column("body", SealedBytes, info=_doc("The body, if the signature is valid. Null once erased.")),
    Column("accepted_event_id", Text,
           info=_doc("The event that an operator accepted the request as: `events.id`.")),
    Index("rejected_requests_received", "received_at"),
    info=_doc("Webhook requests that were not accepted as events, at most 10,000 and for at most 30 days."),
)  # fmt: skip

connections = Table(
    "connections",
    metadata,
    Column("name", Text, primary_key=True,
           info=_doc("Name of the connection, or `*`: such a row exists while all connections are paused.")),
    Column("paused_until", Instant,
           info=_doc("End of the pause; the year 9999 if it lasts until an operator acts. Null if not "
                     "paused.")),
    Column("pause_reason", Text, info=_doc("Explanation of the pause, for operators.")),
    Column("pause_cause", Text,
           info=_doc("`operator`, `rate_limit`, `quota`, `auth`, `account`, `circuit_open` or `total_cap`.")),
    Column("pause_id", Text, info=_doc("ID of the pause, `pau_...`: the team is alerted once per pause.")),
    Column("pause_scope", Text,
           info=_doc("What a pause of all connections stops: `messages` to people, `deliveries` (all but alerts), or "
                     "`everything`. Null for a pause of one connection.")),
    Column("alert_due", Boolean, nullable=False, default=False,
           info=_doc("True until the alerts about the pause have been created.")),
    Column("settings_fingerprint", Text,
           info=_doc("Fingerprint of the settings: changed settings end a pause with cause `auth` or `account`.")),
    Column("failures", Integer, nullable=False, default=0,
           info=_doc("Failed attempts in the window of the circuit breaker.")),
    Column("successes", Integer, nullable=False, default=0,
           info=_doc("Other attempts in the window of the circuit breaker.")),
    Column("window_started_at", Instant, info=_doc("Start of the window of the circuit breaker.")),
    Column("consecutive_rate_limits", Integer, nullable=False, default=0,
           info=_doc("Number of consecutive 429 responses without `Retry-After`: each one doubles the pause.")),
    Column("tokens", Float, info=_doc("Requests that may start now, under the limit per second.")),
    Column("tokens_refilled_at", Instant, info=_doc("When `tokens` was last computed.")),
    Column("message_counts", Text,
           info=_doc("Messages that were sent, or may have been, by channel and start of the period, as JSON: for "
                     "`messaging.caps.total`. Null: none since the connection was last resumed.")),
    Column("quota_used", Integer,
           info=_doc("Requests of the account's quota that are used up, as the provider last said.")),
    Column("quota_limit", Integer, info=_doc("The account's quota of requests. Null if the provider says nothing.")),
    Column("quota_seen_at", Instant, info=_doc("When the provider said so; recorded at most once a minute.")),
    info=_doc("The shared state of each connection: its pause, circuit breaker and request budget."),
)  # fmt: skip

connection_pauses = Table(
    "connection_pauses",
    metadata,
    Column("id", Text, primary_key=True, info=_doc("ID of the pause, `pau_...`.")),
    Column("connection", Text, nullable=False, info=_doc("Name of the connection, or `*` for all connections.")),
    Column("cause", Text, nullable=False, info=_doc("Cause of the pause: `connections.pause_cause`.")),
    Column("reason", Text, info=_doc("Explanation of the pause, for operators.")),
    Column("actor", Text, info=_doc("The operator who paused the connection. Null if it was paused automatically.")),
    Column("started_at", Instant, nullable=False, info=_doc("When the pause started.")),
    Column("ended_at", Instant, info=_doc("When the pause ended. Null while it lasts.")),
    Column("waited", Integer, info=_doc("Due deliveries that waited when the pause ended, at most 10,001.")),
    Column("drained_at", Instant,
           info=_doc("When the last of the deliveries that waited was attempted or rescheduled.")),
    Index("connection_pauses_started", "started_at"),
    Index("connection_pauses_current", "connection", sqlite_where=text("drained_at IS NULL"),
          postgresql_where=text("drained_at IS NULL")),
    info=_doc("Pauses of connections, present and past, so that an outage stays visible after it."),
)  # fmt: skip

connection_stats = Table(
    "connection_stats",
    metadata,
    Column("connection", Text, primary_key=True, info=_doc("Name of the connection.")),
    Column("started_at", Instant, primary_key=True, info=_doc("Start of the period of 5 minutes.")),
    Column("succeeded", Integer, nullable=False, default=0, info=_doc("Attempts that took effect.")),
    Column("failed", Integer, nullable=False, default=0,
           info=_doc("Attempts that failed because of the provider, the network or the account.")),
    Column("rejected", Integer, nullable=False, default=0, info=_doc("Attempts whose content the provider rejected.")),
    Column("milliseconds", BigInteger, nullable=False, default=0, info=_doc("Total duration of the attempts.")),
    Index("connection_stats_started", "started_at"),
    info=_doc("Number and duration of the attempts per connection, in periods of 5 minutes."),
)  # fmt: skip

hourly_counts = Table(
    "hourly_counts",
    metadata,
    Column("started_at", Instant, primary_key=True, info=_doc("Start of the hour, in UTC.")),
    Column("kind", Text, primary_key=True,
           info=_doc("`event`: received events; `fired`: events for which a rule created deliveries; `result`: "
                     "deliveries that reached a final state; `counted`: marks that the hour has been counted.")),
    Column("name", Text, primary_key=True, info=_doc("The event type, or the name of the rule. Empty for `counted`.")),
    Column("state", Text, primary_key=True, info=_doc("For `result`: the state. Otherwise empty.")),
    Column("reason", Text, primary_key=True,
           info=_doc("For `result`: the reason of the state; `undelivered` for a message that was sent and not "
                     "delivered. Otherwise empty.")),
    Column("total", Integer, nullable=False, info=_doc("How many.")),
    Column("last_at", Instant, info=_doc("When the last of them happened.")),
    info=_doc("Counts per hour, for the overview. An hour is counted once, ten minutes after its end."),
)  # fmt: skip

alert_groups = Table(
    "alert_groups",
    metadata,
    Column("connection", Text, primary_key=True,
           info=_doc("The connection that has the problem, or the host. Empty for a problem of the whole service.")),
    Column("cause", Text, primary_key=True,
           info=_doc("State and reason, such as `failed: rejected` or `paused: auth`, or `problem: backlog`.")),
    Column("last_alert_at", Instant, info=_doc("When the team was last alerted about this cause.")),
    Column("waiting", Text,
           info=_doc("Number of problems that no alert has mentioned yet, by rule, as JSON. Null: none.")),
    Column("latest", Text,
           info=_doc("The last of them: ID of a delivery or of a pause. For a problem of the service, since when it is "
                     "alerted; null once it is over.")),
    info=_doc("One row per connection and cause of alerts: the team gets at most one alert about each in ten minutes."),
)  # fmt: skip

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True, info=_doc("ID of the process.")),
    Column("host", Text, nullable=False, info=_doc("Host name.")),
    Column("version", Text, nullable=False, info=_doc("Version of the bridge.")),
    Column("started_at", Instant, nullable=False, info=_doc("When the process started.")),
    Column("last_heartbeat_at", Instant, nullable=False,
           info=_doc("When the process last reported that it is alive, every 15 s.")),
    info=_doc("The processes that work on this database. A row is deleted on shutdown, or an hour after "
              "the last heartbeat."),
)  # fmt: skip

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Text, primary_key=True, info=_doc("ID of the entry, `aud_...`.")),
    Column("created_at", Instant, nullable=False, info=_doc("When the action was performed.")),
    Column("actor", Text, nullable=False,
           info=_doc("Who performed it: a user name, `api`, `dashboard`, `recipient`, or `bridge` itself.")),
    Column("action", Text, nullable=False,
           info=_doc("One of `bridge.store.audit_text.ACTIONS`, such as `retry`, `pause`, `opt_out` or `login`.")),
    Column("target", Text, nullable=False,
           info=_doc("ID of the delivery, event or request, name of the connection, `all connections`, or masked "
                     "address.")),
    Column("detail", Text, info=_doc("Parameters of the action, as JSON.")),
    Column("part_of", Text,
           info=_doc("The entry of an action on many deliveries of which this is a part: `audit_log.id`. Such entries "
                     "are shown with their delivery only.")),
    Index("audit_log_created", "created_at"),
    Index("audit_log_target", "target", "id"),
    Index("audit_log_action", "action", "id"),
    Index("audit_log_actor", "actor", "id"),
    info=_doc("What operators, recipients and the bridge itself did, one row per action and target, written in the "
              "transaction of the action."),
)  # fmt: skip
