"""Schema of contacts: what CRMs know about them, and who gets no messages."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text

from bridge.store.schema.columns import Instant, doc, index, metadata

contact_cache = Table(
    "contact_cache",
    metadata,
    Column("connection", Text, primary_key=True,
           info=doc("The connection that found the contact. Empty for time zones, which all connections "
                    "share.")),
    Column("lookup_key", Text, primary_key=True,
           info=doc("`phone:` or `email:` and the address; `zone:` and the address for a time zone, "
                    "`opt_out:` and the address for opt-out flags; `record:` or `related:` and an external ID for "
                    "what is known about a record.")),
    Column("value", Text, nullable=False,
           info=doc("External ID, an IANA time zone, or JSON: opt-out flags (channel: field), the empty fields of a "
                    "record, the IDs of the records that belong to it. Empty: the provider does not know the "
                    "contact.")),
    Column("expires_at", Instant, nullable=False, info=doc("When the entry expires.")),
    index("contact_cache_expires", "expires_at"),
    info=doc("Contacts found at providers: external IDs, time zones and opt-out flags by phone number or email "
              "address, for a limited time."),
)  # fmt: skip

possible_duplicates = Table(
    "possible_duplicates",
    metadata,
    Column("id", Text, primary_key=True, info=doc("ID of the pair, `dup_...`.")),
    Column("connection", Text, nullable=False, info=doc("The connection that has both records.")),
    Column("first_record", Text, nullable=False, info=doc("External ID of one record.")),
    Column("second_record", Text, nullable=False, info=doc("External ID of the other record.")),
    Column("delivery_id", Text, nullable=False,
           info=doc("The delivery whose email and phone led to the two records: `deliveries.id`.")),
    Column("found_at", Instant, nullable=False, info=doc("When the pair was found.")),
    Column("last_seen_at", Instant, nullable=False, info=doc("When a delivery last led to the pair.")),
    Column("dismissed_at", Instant, info=doc("When an operator dismissed the pair. Null if it is listed.")),
    index("possible_duplicates_pair", "connection", "first_record", "second_record", unique=True),
    index("possible_duplicates_last_seen", "last_seen_at"),
    info=doc("Pairs of CRM records that may be the same person, once per pair and connection."),
)  # fmt: skip

opt_outs = Table(
    "opt_outs",
    metadata,
    Column("channel", Text, primary_key=True, info=doc("Channel, such as `sms` or `email`.")),
    Column("address", Text, primary_key=True,
           info=doc("Address in lowercase; `erased:` and a keyed hash once the contact was erased.")),
    Column("opted_out_at", Instant,
           info=doc("When the recipient opted out. Null once the recipient opted in again.")),
    Column("source", Text,
           info=doc("Source of the last change, such as `STOP to twilio`, `unsubscribe link` or `import`.")),
    Column("changed_at", Instant, nullable=False, info=doc("When the row was last changed.")),
    Column("id", Text, info=doc("ID of the opt-out, `opt_...`, for the order and the pages of lists.")),
    Column("actor", Text,
           info=doc("The operator who made the last change. Null if the recipient or a provider made it.")),
    Column("reason", Text, info=doc("The operator's reason, such as `our DNC list 2026-11`.")),
    index("opt_outs_id", "id", where="opted_out_at IS NOT NULL"),
    info=doc("Recipients who opted out of a channel, and those who opted in again."),
)  # fmt: skip

undeliverable_addresses = Table(
    "undeliverable_addresses",
    metadata,
    Column("channel", Text, primary_key=True, info=doc("Channel, such as `sms` or `email`.")),
    Column("address", Text, primary_key=True, info=doc("Phone number, or email address in lowercase.")),
    Column("id", Text, nullable=False, info=doc("ID of the entry, `opt_...`.")),
    Column("since", Instant, nullable=False, info=doc("When the last message could not be delivered.")),
    Column("until", Instant, nullable=False, info=doc("When messages are tried again; then the row is deleted.")),
    Column("source", Text, nullable=False, info=doc("The connection that reported it.")),
    Column("detail", Text, nullable=False, info=doc("What the provider reported.")),
    index("undeliverable_addresses_until", "until"),
    info=doc("Addresses to which messages cannot be delivered (a dead mailbox, a landline), for 90 days."),
)  # fmt: skip

opt_out_queries = Table(
    "opt_out_queries",
    metadata,
    Column("connection", Text, primary_key=True, info=doc("The CRM connection to ask.")),
    Column("delivery_id", Text, primary_key=True,
           info=doc("The message that waits for the answer: `deliveries.id`.")),
    Column("asked_at", Instant, nullable=False, info=doc("When the message started to wait.")),
    Column("run_at", Instant, nullable=False, info=doc("When the CRM is asked next.")),
    index("opt_out_queries_due", "connection", "run_at"),
    info=doc("Messages that wait until a CRM has said whether the contact has an opt-out flag. The answers are in "
              "`contact_cache`."),
)  # fmt: skip
