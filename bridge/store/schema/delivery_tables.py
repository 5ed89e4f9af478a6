"""Schema of the deliveries, their attempts, and the side effects that they complete."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Integer, Table, Text, text

from bridge.store.schema.columns import Instant, doc, index, metadata
from bridge.store.sealing import SealedText

_IS_PENDING = "state IN ('pending', 'retrying')"
_IS_PENDING_ALERT = f"trigger = 'alert' AND {_IS_PENDING}"
ERASED = '{"erased":true}'
"""The `params` of a delivery that was pruned or erased."""
_ERASED_SQL = "'" + ERASED.replace(":", r"\:") + "'"  # for `text`, in which a colon starts a parameter
HAS_PARAMS = f"finished_at IS NOT NULL AND params <> {_ERASED_SQL}"
KEEPS_RECIPIENT = f"params = {_ERASED_SQL} AND recipient IS NOT NULL"
KEEPS_CONTACT = f"params = {_ERASED_SQL} AND contact IS NOT NULL"
"""What is left to prune of finished deliveries: the params first, the addresses once no rule counts them."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True, info=doc("Delivery ID, `dlv_...`.")),
    Column("event_id", Text, ForeignKey("events.id"),
           info=doc("The event that triggered the delivery. Null for alerts about a connection.")),
    Column("parent_id", Text,
           info=doc("The delivery, or the pause (`pau_...`), that an `on_success` or `on_failure` step or an "
                    "alert is about.")),
    Column("trigger", Text, nullable=False,
           info=doc("The part of the rules file that created the delivery: `rule`, `on_success`, "
                    "`on_failure` or `alert`.")),
    Column("rule", Text, nullable=False, info=doc("Name of the rule.")),
    Column("step_index", Integer, nullable=False,
           info=doc("Position of the step in the list of steps, from 0.")),
    Column("rules_hash", Text, nullable=False,
           info=doc("The rules that created the delivery: `rules.hash`.")),
    Column("action", Text, nullable=False, info=doc("Connector and action, such as `twilio.send_sms`.")),
    Column("connection", Text, nullable=False,
           info=doc("Name of the connection (the account) that the action uses.")),
    Column("channel", Text,
           info=doc("Channel of a message, such as `sms` or `email`. Null for actions that do not "
                    "contact anyone.")),
    Column("recipient", Text,
           info=doc("Address of a message, in lowercase. Null for other actions, or once pruned or "
                    "erased.")),
    Column("contact", Text,
           info=doc("Phone number, email address or visitor ID of the contact. Null if unknown, pruned "
                    "or erased.")),
    Column("conversation", Text, info=doc("ID of the phone call or chat.")),
    Column("params", Text, nullable=False,
           info=doc('Rendered parameters of the action, as JSON. `{"erased":true}` once pruned or erased.')),
    Column("options", Text, nullable=False,
           info=doc("Options of the step that are needed after routing (`cancel_on`, `once`, `retry`, ...), "
                    "as JSON.")),
    Column("concurrency_key", Text,
           info=doc("Deliveries with the same key never run at the same time. Null: no restriction.")),
    Column("idempotency_key", Text, nullable=False,
           info=doc("Identifies the side effect, which is completed at most once: `idempotency_keys.key`.")),
    Column("occurred_at", Instant, nullable=False, info=doc("When the event happened.")),
    Column("state", Text, nullable=False,
           info=doc("State of the delivery; see the reference page of delivery states.")),
    Column("reason", Text, info=doc("Reason of the state `suppressed`, or of the last failed attempt.")),
    Column("detail", Text, info=doc("Explanation of the state, for operators.")),
    Column("run_at", Instant, nullable=False, info=doc("When the next attempt or lookup is due.")),
    Column("expires_at", Instant,
           info=doc("After this time the delivery is no longer sent (`expires` of the rule).")),
    Column("attempts", Integer, nullable=False, default=0,
           info=doc("Attempts of the retry schedule that are used up.")),
    Column("fencing_token", Integer, nullable=False, default=0,
           info=doc("Number of the newest claim. A result with an older number changes nothing.")),
    Column("lease_expires_at", Instant,
           info=doc("When the lease of the running attempt expires. Null unless the delivery is running.")),
    Column("worker_id", Text, info=doc("The worker that holds the lease: `workers.id`.")),
    Column("first_attempt_at", Instant, info=doc("When the retry schedule started.")),
    Column("outcome_unknown_since", Instant,
           info=doc("Since when it is unknown whether an attempt took effect. While set, the next "
                    "attempt is a lookup.")),
    Column("possibly_sent_at", Instant,
           info=doc("When the action was first attempted, unless it certainly did not take effect. Caps "
                    "and `once` count it.")),
    Column("external_id", Text, info=doc("ID of the message or record at the provider.")),
    Column("message_status", Text,
           info=doc("Status reported by the provider: `queued`, `sent`, `delivered`, `undelivered` or "
                    "`failed`.")),
    Column("message_status_at", Instant, info=doc("When the status was stored.")),
    Column("needs_follow_up", Boolean, nullable=False, default=False,
           info=doc("True until the follow-ups of a failure, or of a success in a rule with `on_success`, have "
                    "been created.")),
    Column("created_at", Instant, nullable=False, info=doc("When the delivery was created.")),
    Column("finished_at", Instant, info=doc("When the delivery reached its final state.")),
    Column("dismissed_at", Instant,
           info=doc("When an operator dismissed the failed delivery. Null if it still needs attention.")),
    index("deliveries_due", "connection", "run_at", where=_IS_PENDING),
    index("deliveries_due_alerts", "connection", "run_at", where=_IS_PENDING_ALERT),
    index("deliveries_concurrency_key", "concurrency_key", unique=True,
          where="state = 'running' AND concurrency_key IS NOT NULL"),
    index("deliveries_lease", "lease_expires_at", where="state = 'running'"),
    index("deliveries_possibly_sent", "recipient", "channel", "possibly_sent_at",
          where="possibly_sent_at IS NOT NULL"),
    index("deliveries_contact", "contact", "rule"),
    index("deliveries_conversation", "conversation", "rule"),
    index("deliveries_follow_up", "id", where="needs_follow_up"),
    index("deliveries_event", "event_id"),
    index("deliveries_external_id", "external_id", where="external_id IS NOT NULL"),
    index("deliveries_state", "state", "created_at"),
    # Lists of one rule or connection, newest first: `bridge.store.delivery_list`.
    index("deliveries_rule", "rule", "created_at"),
    index("deliveries_connection", "connection", "created_at"),
    index("deliveries_finished", "finished_at", where="finished_at IS NOT NULL"),
    # What is left to prune, so that pruning does not read what it has pruned: `bridge.store.retention`.
    index("deliveries_unpruned", "finished_at", where=HAS_PARAMS),
    index("deliveries_kept_recipient", "possibly_sent_at", where=KEEPS_RECIPIENT),
    index("deliveries_kept_contact", "possibly_sent_at", where=KEEPS_CONTACT),
    info=doc("One action of one rule for one event: the unit of retry. Follow-ups are deliveries as "
              "well."),
)  # fmt: skip

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", Text, ForeignKey("deliveries.id"), primary_key=True,
           info=doc("The delivery: `deliveries.id`.")),
    Column("fencing_token", Integer, primary_key=True,
           info=doc("Number of the claim: 1 for the first attempt of a delivery.")),
    Column("kind", Text, nullable=False,
           info=doc("`send`, or `lookup` to ask the provider about an earlier attempt.")),
    Column("started_at", Instant, nullable=False, info=doc("When the attempt was claimed.")),
    Column("worker_id", Text, nullable=False, info=doc("The worker that made the attempt: `workers.id`.")),
    Column("finished_at", Instant,
           info=doc("When the result was recorded. Null while it runs, or if the worker died.")),
    Column("outcome", Text, info=doc("Outcome of the attempt; see the reference page of delivery states.")),
    Column("reason", Text, info=doc("Reason of a failed attempt.")),
    Column("detail", Text,
           info=doc("Message of the provider or explanation, for operators. Null once erased.")),
    Column("repeats", Integer, nullable=False, default=0, server_default=text("0"),
           info=doc("Later attempts with the same result during the same outage, which have no row of their own.")),
    info=doc("One row per attempt or lookup of a delivery, inserted before the request leaves."),
)  # fmt: skip

action_steps = Table(
    "action_steps",
    metadata,
    Column("id", Text, primary_key=True, info=doc("The delivery's ID and the name of the step.")),
    Column("delivery_id", Text, nullable=False, info=doc("The delivery whose action took the step.")),
    Column("idempotency_key", Text, nullable=False,
           info=doc("Idempotency key of the delivery: if it fails, the next one with this key continues there.")),
    Column("name", Text, nullable=False, info=doc("Name of the step, from the connector.")),
    Column("started_at", Instant, nullable=False, info=doc("When the step was first started.")),
    Column("finished_at", Instant,
           info=doc("When its value was recorded. Null if it is not known whether it took effect.")),
    Column("value", SealedText, info=doc("What the step returned, such as the ID of a record. Encrypted at rest.")),
    index("action_steps_delivery", "delivery_id"),
    index("action_steps_key", "idempotency_key"),
    info=doc("Writes of actions that make several: one row per step, written before and after it."),
)  # fmt: skip

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", Text, primary_key=True, info=doc("The idempotency key.")),
    Column("reserved_by", Text,
           info=doc("The delivery that is attempting the side effect, or whose outcome is unknown.")),
    Column("completed_by", Text, info=doc("The delivery that completed the side effect.")),
    Column("external_id", Text, info=doc("ID of the message or record at the provider.")),
    Column("precedence", Integer, nullable=False, default=0,
           info=doc("How final the event type is: an event of lower precedence does not overwrite the "
                    "record.")),
    Column("occurred_at", Instant, nullable=False,
           info=doc("When the event happened: an older event does not overwrite the record.")),
    Column("changed_at", Instant, nullable=False, info=doc("When the row was last changed.")),
    info=doc("Side effects that are in progress or completed. A key is reserved before the attempt; "
              "completed keys are kept permanently."),
)  # fmt: skip
