"""Schema of incoming events: the events, the rules that routed them, and what else is stored about a request."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Integer, LargeBinary, Table, Text, text

from bridge.store.schema.columns import Instant, doc, index, metadata
from bridge.store.sealing import SealedBody, SealedBytes, SealedText

PHONE_ENDING = " || ".join(f"substr(phone, length(phone) - {place}, 1)" for place in range(4))
"""The last four digits of a phone number, the last one first."""
_HAS_ENDING = "phone IS NOT NULL AND routed_at IS NOT NULL"
IS_UNPRUNED = "body IS NOT NULL AND routed_at IS NOT NULL"
_IS_ROUTED = "routed_at IS NOT NULL"

events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True, info=doc("Event ID, `evt_...`.")),
    Column("dedupe_key", Text, nullable=False, unique=True,
           info=doc("Identifies the event: the signed `webhookId`, otherwise the SHA-256 of the body. A "
                    "second event with this key is a duplicate.")),
    Column("fallback_dedupe_key", Text, unique=True,
           info=doc("Type, conversation and timestamp: recognizes an event that Heppu sends again with "
                    "a new `webhookId`.")),
    Column("type", Text, nullable=False, info=doc("Event type, such as `call.no-answer`.")),
    Column("conversation_id", Text, nullable=False, info=doc("ID of the phone call or chat.")),
    Column("phone", Text,
           info=doc("Phone number of the contact, in E.164 format. Null if unknown, pruned or erased.")),
    Column("email", Text,
           info=doc("Email address of the contact, in lowercase. Null if unknown, pruned or erased.")),
    Column("contact_name", Text,
           info=doc("Words of the contact's name without case and accents, for the search; set when the event is "
                    "routed. Null if unknown, pruned or erased.")),
    Column("contact_sort_name", Text,
           info=doc("The same words with the last one first. Null if the name has one word.")),
    Column("unreadable", Text,
           info=doc("Names of the documented fields that had a value when the event was received, but none that "
                    "could be read, separated by commas. Null: none.")),
    Column("duplicates", Integer, nullable=False, default=0, server_default=text("0"),
           info=doc("How often the event was received again, at least.")),
    Column("occurred_at", Instant, nullable=False,
           info=doc("When the event happened: the timestamp of the body, but not later than "
                    "`received_at`.")),
    Column("received_at", Instant, nullable=False, info=doc("When the bridge received the event.")),
    Column("body", SealedBody,
           info=doc("The body, compressed if it has 2 KB or more; `bridge show` and the dashboard show it as received. "
                    "Null once pruned or erased.")),
    Column("reconciled", Boolean, nullable=False, default=False, server_default=text("false"),
           info=doc("True if `bridge heppu reconcile` made the event from a call at Heppu, because no webhook had "
                    "come.")),
    Column("duplicate_of", Text,
           info=doc("The event about the same call that was routed instead of this one. Null: none.")),
    Column("dropped_fields", Text,
           info=doc("Paths of the fields that the event had and that are never stored, separated by commas "
                    "(BRIDGE_DROP_FIELDS). Null: none.")),
    Column("body_sha256", LargeBinary, nullable=False,
           info=doc("SHA-256 of the body: distinguishes a duplicate from a conflict.")),
    Column("routed_at", Instant,
           info=doc("When the rules were evaluated. Null while the event waits to be routed.")),
    Column("rules_hash", Text, info=doc("The rules that routed the event: `rules.hash`.")),
    Column("trace", SealedText,
           info=doc("The evaluation of every rule, as JSON, of events that were routed before there was "
                    "`packed_trace`.")),
    Column("packed_trace", SealedBytes,
           info=doc("The evaluation of the rules for this type of event, as JSON, compressed if it is long. Null once "
                    "pruned or erased.")),
    index("events_unrouted", "received_at", where="routed_at IS NULL"),
    index("events_conversation", "conversation_id", prefixes_of=["conversation_id"]),
    # Each index also leads from an address to those that occur with it: `bridge.store.contact_links`.
    index("events_phone", "phone", "email", where="phone IS NOT NULL", prefixes_of=["phone"]),
    index("events_email", "email", "phone", where="email IS NOT NULL", prefixes_of=["email"]),
    index("events_received", "received_at"),
    # Routed events only: an event enters the index when it is routed, not while Heppu waits for the response.
    index("events_phone_ending", text(f"({PHONE_ENDING})"), "phone", where=_HAS_ENDING),
    index("events_contact_name", "contact_name", where="contact_name IS NOT NULL", prefixes_of=["contact_name"]),
    index("events_contact_sort_name", "contact_sort_name",
          where="contact_sort_name IS NOT NULL", prefixes_of=["contact_sort_name"]),
    index("events_type", "type", "received_at", where=_IS_ROUTED),
    index("events_unpruned", "received_at", where=IS_UNPRUNED),
    index("events_reconciled", "received_at", where="reconciled"),
    index("events_duplicate_of", "duplicate_of", where="duplicate_of IS NOT NULL"),
    index("events_unreadable", "id", where="unreadable IS NOT NULL"),
    info=doc("Accepted webhook events. A row is inserted once and later only marked as routed, pruned or "
              "erased."),
)  # fmt: skip

deleted_event_keys = Table(
    "deleted_event_keys",
    metadata,
    Column("key_hash", LargeBinary, primary_key=True,
           info=doc("The first 16 bytes of the SHA-256 of a `dedupe_key` or `fallback_dedupe_key`.")),
    info=doc("The keys of deleted events (BRIDGE_DELETE_AFTER): a request with one of them is a duplicate."),
    sqlite_with_rowid=False,
)  # fmt: skip

rules = Table(
    "rules",
    metadata,
    Column("hash", Text, primary_key=True, info=doc("SHA-256 of the text.")),
    Column("text", Text, nullable=False, info=doc("The rules file.")),
    Column("first_used_at", Instant, nullable=False, info=doc("When these rules first routed an event.")),
    Column("outlines", LargeBinary,
           info=doc("Name, event types and state of each rule, as compressed JSON. They complete the traces. Null: "
                    "these rules have only routed events whose traces are complete.")),
    info=doc("Every rules file that routed an event, by hash, so that a trace can be read "
              "with its rules."),
)  # fmt: skip

conversation_details = Table(
    "conversation_details",
    metadata,
    Column("conversation", Text, primary_key=True, info=doc("ID of the phone call or chat.")),
    Column("event_id", Text, nullable=False, info=doc("The event by which it is found: `events.id`.")),
    Column("asked_at", Instant, nullable=False, info=doc("When the first delivery started to wait.")),
    Column("run_at", Instant, info=doc("When Heppu is asked next. Null once it has answered.")),
    Column("attempts", Integer, nullable=False, info=doc("How often Heppu has been asked since `asked_at`.")),
    Column("fetched_at", Instant, info=doc("When Heppu has answered.")),
    Column("value", SealedText, info=doc("The details of the conversation as JSON, with its transcript, for a day.")),
    index("conversation_details_due", "run_at", where="run_at IS NOT NULL"),
    index("conversation_details_asked", "asked_at"),
    info=doc("Conversations whose details deliveries wait for, and the details that Heppu has returned."),
)  # fmt: skip

rejected_requests = Table(
    "rejected_requests",
    metadata,
    Column("id", Text, primary_key=True, info=doc("ID of the rejected request, `rej_...`.")),
    Column("received_at", Instant, nullable=False, info=doc("When the request arrived.")),
    Column("reason", Text, nullable=False,
           info=doc("Reason why it was rejected, such as `signature_wrong`, `timestamp_off` or `conflict`.")),
    Column("detail", Text, nullable=False, info=doc("Explanation, for operators.")),
    Column("status", Integer, nullable=False, info=doc("HTTP status of the response.")),
    Column("signature_valid", Boolean, nullable=False,
           info=doc("Whether Heppu signed the request. Only such a request can be accepted later.")),
    Column("body", SealedBytes, info=doc("The body, if the signature is valid. Null once erased.")),
    Column("accepted_event_id", Text,
           info=doc("The event that an operator accepted the request as: `events.id`.")),
    index("rejected_requests_received", "received_at"),
    info=doc("Webhook requests that were not accepted as events, at most 10,000 and for at most 30 days."),
)  # fmt: skip
