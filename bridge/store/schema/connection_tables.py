"""Schema of the connections: their state, pauses and statistics, and the alerts about them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, Table, Text

from bridge.store.schema.columns import Instant, doc, index, metadata

connections = Table(
    "connections",
    metadata,
    Column("name", Text, primary_key=True,
           info=doc("Name of the connection, or `*`: such a row exists while all connections are paused.")),
    Column("paused_until", Instant,
           info=doc("End of the pause; the year 9999 if it lasts until an operator acts. Null if not "
                    "paused.")),
    Column("pause_reason", Text, info=doc("Explanation of the pause, for operators.")),
    Column("pause_cause", Text,
           info=doc("`operator`, `rate_limit`, `quota`, `auth`, `account`, `circuit_open` or `total_cap`.")),
    Column("pause_id", Text, info=doc("ID of the pause, `pau_...`: the team is alerted once per pause.")),
    Column("pause_scope", Text,
           info=doc("What a pause of all connections stops: `messages` to people, `deliveries` (all but alerts), or "
                    "`everything`. Null for a pause of one connection.")),
    Column("alert_due", Boolean, nullable=False, default=False,
           info=doc("True until the alerts about the pause have been created.")),
    Column("settings_fingerprint", Text,
           info=doc("Fingerprint of the settings: changed settings end a pause with cause `auth` or `account`.")),
    Column("failures", Integer, nullable=False, default=0,
           info=doc("Failed attempts in the window of the circuit breaker.")),
    Column("successes", Integer, nullable=False, default=0,
           info=doc("Other attempts in the window of the circuit breaker.")),
    Column("window_started_at", Instant, info=doc("Start of the window of the circuit breaker.")),
    Column("consecutive_rate_limits", Integer, nullable=False, default=0,
           info=doc("Number of consecutive 429 responses without `Retry-After`: each one doubles the pause.")),
    Column("tokens", Float, info=doc("Requests that may start now, under the limit per second.")),
    Column("tokens_refilled_at", Instant, info=doc("When `tokens` was last computed.")),
    Column("message_counts", Text,
           info=doc("Messages that were sent, or may have been, by channel and start of the period, as JSON: for "
                    "`messaging.caps.total`. Null: none since the connection was last resumed.")),
    Column("quota_used", Integer,
           info=doc("Requests of the account's quota that are used up, as the provider last said.")),
    Column("quota_limit", Integer, info=doc("The account's quota of requests. Null if the provider says nothing.")),
    Column("quota_seen_at", Instant, info=doc("When the provider said so; recorded at most once a minute.")),
    info=doc("The shared state of each connection: its pause, circuit breaker and request budget."),
)  # fmt: skip

connection_tokens = Table(
    "connection_tokens",
    metadata,
    Column("connection", Text, primary_key=True, info=doc("Name of the connection.")),
    Column("value", Text,
           info=doc("The access token and the refresh token as JSON, always encrypted. Null until the first one.")),
    Column("settings_fingerprint", Text,
           info=doc("Fingerprint of the settings that the token belongs to: with others, it counts as absent.")),
    Column("claimed_by", Text, info=doc("The process that obtains a new token. Null if none does.")),
    Column("claimed_until", Instant, info=doc("When another process may take over.")),
    info=doc("The token of each connection that logs in for one, shared by all processes."),
)  # fmt: skip

connection_pauses = Table(
    "connection_pauses",
    metadata,
    Column("id", Text, primary_key=True, info=doc("ID of the pause, `pau_...`.")),
    Column("connection", Text, nullable=False, info=doc("Name of the connection, or `*` for all connections.")),
    Column("cause", Text, nullable=False, info=doc("Cause of the pause: `connections.pause_cause`.")),
    Column("reason", Text, info=doc("Explanation of the pause, for operators.")),
    Column("actor", Text, info=doc("The operator who paused the connection. Null if it was paused automatically.")),
    Column("started_at", Instant, nullable=False, info=doc("When the pause started.")),
    Column("ended_at", Instant, info=doc("When the pause ended. Null while it lasts.")),
    Column("waited", Integer, info=doc("Due deliveries that waited when the pause ended, at most 10,001.")),
    Column("drained_at", Instant,
           info=doc("When the last of the deliveries that waited was attempted or rescheduled.")),
    index("connection_pauses_started", "started_at"),
    index("connection_pauses_current", "connection", where="drained_at IS NULL"),
    info=doc("Pauses of connections, present and past, so that an outage stays visible after it."),
)  # fmt: skip

connection_stats = Table(
    "connection_stats",
    metadata,
    Column("connection", Text, primary_key=True, info=doc("Name of the connection.")),
    Column("started_at", Instant, primary_key=True, info=doc("Start of the period of 5 minutes.")),
    Column("succeeded", Integer, nullable=False, default=0, info=doc("Attempts that took effect.")),
    Column("failed", Integer, nullable=False, default=0,
           info=doc("Attempts that failed because of the provider, the network or the account.")),
    Column("rejected", Integer, nullable=False, default=0, info=doc("Attempts whose content the provider rejected.")),
    Column("milliseconds", BigInteger, nullable=False, default=0, info=doc("Total duration of the attempts.")),
    index("connection_stats_started", "started_at"),
    info=doc("Number and duration of the attempts per connection, in periods of 5 minutes."),
)  # fmt: skip

alert_groups = Table(
    "alert_groups",
    metadata,
    Column("connection", Text, primary_key=True,
           info=doc("The connection that has the problem, or the host. Empty for a problem of the whole service.")),
    Column("cause", Text, primary_key=True,
           info=doc("State and reason, such as `failed: rejected` or `paused: auth`, or `problem: backlog`.")),
    Column("last_alert_at", Instant, info=doc("When the team was last alerted about this cause.")),
    Column("waiting", Text,
           info=doc("Number of problems that no alert has mentioned yet, by rule, as JSON. Null: none.")),
    Column("latest", Text,
           info=doc("The last of them: ID of a delivery or of a pause. For a problem of the service, since when it is "
                    "alerted; null once it is over.")),
    info=doc("One row per connection and cause of alerts: the team gets at most one alert about each in ten minutes."),
)  # fmt: skip
