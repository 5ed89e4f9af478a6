"""Schema of the service itself: its processes, counts, sessions and the audit log."""

from __future__ import annotations

from sqlalchemy import Column, Integer, Table, Text

from bridge.store.schema.columns import Instant, doc, index, metadata

_IS_COUNTED = "kind = 'counted'"

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True, info=doc("ID of the process.")),
    Column("host", Text, nullable=False, info=doc("Host name.")),
    Column("version", Text, nullable=False, info=doc("Version of the bridge.")),
    Column("started_at", Instant, nullable=False, info=doc("When the process started.")),
    Column("last_heartbeat_at", Instant, nullable=False,
           info=doc("When the process last reported that it is alive, every 15 s.")),
    info=doc("The processes that work on this database. A row is deleted on shutdown, or an hour after "
              "the last heartbeat."),
)  # fmt: skip

hourly_counts = Table(
    "hourly_counts",
    metadata,
    Column("started_at", Instant, primary_key=True, info=doc("Start of the hour, in UTC.")),
    Column("kind", Text, primary_key=True,
           info=doc("`event`: received events; `fired`: events for which a rule created deliveries; `result`: "
                    "deliveries that reached a final state; `counted`: marks that the hour has been counted.")),
    Column("name", Text, primary_key=True, info=doc("The event type, or the name of the rule. Empty for `counted`.")),
    Column("state", Text, primary_key=True, info=doc("For `result`: the state. Otherwise empty.")),
    Column("reason", Text, primary_key=True,
           info=doc("For `result`: the reason of the state; `undelivered` for a message that was sent and not "
                    "delivered. Otherwise empty.")),
    Column("total", Integer, nullable=False, info=doc("How many.")),
    Column("last_at", Instant, info=doc("When the last of them happened.")),
    index("hourly_counts_counted", "started_at", where=_IS_COUNTED),
    info=doc("Counts per hour, for the overview. An hour is counted once, ten minutes after its end."),
)  # fmt: skip

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True,
           info=doc("Hash of the secret in the cookie, under the token that opened the session.")),
    Column("actor", Text, nullable=False, info=doc("Name of the token, or `dashboard` if it has none.")),
    Column("access", Text, nullable=False, info=doc("What the token opened at the login: `read` or `admin`.")),
    Column("client", Text, nullable=False, info=doc("IP address that logged in.")),
    Column("created_at", Instant, nullable=False, info=doc("When the login was.")),
    Column("expires_at", Instant, nullable=False, info=doc("When the session ends by itself. Deleted afterwards.")),
    info=doc("Sessions of the dashboard. A logout and `bridge sessions end` delete them."),
)  # fmt: skip

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Text, primary_key=True, info=doc("ID of the entry, `aud_...`.")),
    Column("created_at", Instant, nullable=False, info=doc("When the action was performed.")),
    Column("actor", Text, nullable=False,
           info=doc("Who performed it: a user name, `api`, `dashboard`, `recipient`, or `bridge` itself.")),
    Column("action", Text, nullable=False,
           info=doc("One of `bridge.store.audit_text.ACTIONS`, such as `retry`, `pause`, `opt_out` or `login`.")),
    Column("target", Text, nullable=False,
           info=doc("ID of the delivery, event or request, name of the connection, `all connections`, or masked "
                    "address.")),
    Column("detail", Text, info=doc("Parameters of the action, as JSON.")),
    Column("part_of", Text,
           info=doc("The entry of an action on many deliveries of which this is a part: `audit_log.id`. Such entries "
                    "are shown with their delivery only.")),
    index("audit_log_created", "created_at"),
    index("audit_log_target", "target", "id"),
    index("audit_log_action", "action", "id"),
    index("audit_log_actor", "actor", "id"),
    info=doc("What operators, recipients and the bridge itself did, one row per action and target, written in the "
              "transaction of the action."),
)  # fmt: skip
