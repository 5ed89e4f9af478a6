"""Telemetry: structured logs and Prometheus metrics.

Log entries contain fields, never payloads. All fields pass through `mask`, so that a phone number or an address that
slips into a message is not written to disk in full.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import select
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bridge.printable import printable

log: structlog.stdlib.BoundLogger = structlog.get_logger("bridge")

_PHONE = re.compile(r"(?<![\w.:-])(?:\+|%2B)[1-9]\d{5,14}(?!\d)", re.IGNORECASE)
_NATIONAL = re.compile(r"(?<![\w.:+-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)")
_LOCAL_PART = r"[\w.!#$%&'*+/=?^`{|}~-]"
_EMAIL = re.compile(rf"(?<!{_LOCAL_PART}){_LOCAL_PART}+(?:@|%40)[\w-]+(?:\.[\w-]+)+")
_SECRETS = re.compile(
    r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"
    r"|\b(?:whsec_|pat-[a-z0-9]+-|xox[a-z]-|sk_)[\w-]{6,}"
    r"|(?<=hooks\.slack\.com/services/)[\w/]+"
    r"|(?<=://)[^/\s:@]{1,200}:\S{1,500}(?=@)"
)


MAX_FIELD_LENGTH: Final = 2000
"""Characters of a field of a log line."""


def mask(text: str) -> str:
    """Return the text with phone numbers, email addresses and likely secrets masked, in time linear to its length."""
    return _mask_short(text) if len(text) <= MAX_FIELD_LENGTH else _mask(text)


def _mask(text: str) -> str:
    text = _SECRETS.sub("***", text)
    text = _EMAIL.sub(lambda match: mask_address(match[0].replace("%40", "@")), text)
    text = _PHONE.sub(lambda match: mask_address("+" + re.sub(r"\D", "", match[0].replace("%2B", "+"))), text)
    return _NATIONAL.sub("***", text)


_mask_short = lru_cache(maxsize=1024)(_mask)


def mask_address(address: str | None) -> str:
    """Return enough of a phone number or an email address to recognize it, but not enough to use it."""
    if not address:
        return ""
    if "@" in address:
        local, _, domain = address.partition("@")
        return f"{local[:1]}***@{domain}"
    return f"{address[:4]}***{address[-2:]}" if len(address) > 7 else "***"


UNMASKED_FIELDS: Final = frozenset(
    (
        "timestamp",
        "level",
        "delivery",
        "action",
        "connection",
        "kind",
        "outcome",
        "state",
        "reason",
        "recipient",
    )
)
"""Fields that contain an ID, a fixed value of the bridge, or an address that is already masked."""


def _mask_fields(_: Any, __: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
    for name, value in fields.items():
        if isinstance(value, str) and name not in UNMASKED_FIELDS:
            fields[name] = _cut(printable(mask(value)), from_end=name == "exception")
        elif isinstance(value, list):
            fields[name] = [_cut(printable(mask(str(item)))) for item in value]
    return fields


def _cut(text: str, from_end: bool = False) -> str:
    """Return the beginning of a long text, or its end: the exception is in the last line of a traceback."""
    if len(text) <= MAX_FIELD_LENGTH:
        return text
    return f"… {text[-MAX_FIELD_LENGTH:]}" if from_end else text[:MAX_FIELD_LENGTH]


def _move_lists_to_stack(_: Any, __: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Show the items of lists below the console line, one per line, in place of a stack trace."""
    lists = [name for name, value in fields.items() if isinstance(value, list)]
    if lists:
        fields["stack"] = "\n".join(f"  {item}" for name in lists for item in fields.pop(name))
    return fields


_JSON: Final = json.JSONEncoder(default=repr)
_QUIET: Final = (
    "uvicorn.access", "uvicorn.error", "twilio.http_client", "httpx", "httpcore", "urllib3", "mail.log", "alembic",
)  # fmt: skip


class LogStream:
    """A stream that ignores write errors, so that a full disk or a closed pipe does not stop the service."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.isatty = stream.isatty

    def write(self, text: str) -> None:
        """Write a line to the stream's buffer."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush the stream, except inside `buffered_logging`."""
        if not _buffering.get():
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()


_buffering: ContextVar[bool] = ContextVar("buffering", default=False)


@contextlib.contextmanager
def buffered_logging() -> Iterator[None]:
    """Write the log lines of the block together.

    In a busy process, each separate write would yield to other threads.
    """
    token = _buffering.set(True)
    try:
        yield
    finally:
        _buffering.reset(token)
        for handler in logging.getLogger().handlers:
            handler.flush()


def _open_stderr() -> TextIO:
    """Reopen stderr with a buffer that a pipe accepts as one write, because several processes write to one log."""
    raw = io.FileIO(sys.stderr.fileno(), "w", closefd=False)
    buffer = io.BufferedWriter(raw, select.PIPE_BUF)  # never splits a line that fits
    return io.TextIOWrapper(buffer, sys.stderr.encoding, "backslashreplace", write_through=True)


def configure_logging(style: str, stream: TextIO | None = None) -> None:
    """Send logs to `stream` (default: stderr) as JSON lines or, with style `console`, as readable text."""
    out: Any = LogStream(stream or _open_stderr())
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _mask_fields,
    ]
    if style == "json":
        renderer: Any = structlog.processors.JSONRenderer(serializer=lambda fields, **_: _JSON.encode(fields))
    else:
        processors.append(_move_lists_to_stack)
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=24)
    structlog.configure(
        processors=[*processors, renderer],
        logger_factory=structlog.WriteLoggerFactory(out),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        foreign_pre_chain=processors,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


LOGIN_RESULTS: Final = ("succeeded", "wrong_token", "too_many", "cross_site")


class Metrics:
    """The Prometheus metrics of the service.

    `registry` has the metrics of the serving process. `worker_registry` has those of the worker, which may be another
    process. `db_registry` has those read from the database, which are absent while it is unavailable.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.db_registry = CollectorRegistry()
        self.worker_registry = CollectorRegistry()
        self.webhook_requests = Counter(
            "bridge_webhook_requests",
            "Webhook requests, by response status",
            ["status"],
            registry=self.registry,
        )
        self.rejected_requests = Counter(
            "bridge_rejected_requests",
            "Requests and connections from outside that were rejected, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.open_connections = Gauge(
            "bridge_open_connections", "Open connections to the HTTP server", registry=self.registry
        )
        self.logins = Counter(
            "bridge_logins",
            "Logins to the dashboard, and refused tokens, by result",
            ["result"],
            registry=self.registry,
        )
        for result in LOGIN_RESULTS:
            self.logins.labels(result)
        self.callbacks = Counter(
            "bridge_callbacks",
            "Callbacks of providers (message statuses, replies), by connection, name and response status",
            ["connection", "callback", "status"],
            registry=self.registry,
        )
        self.unreadable_contact_fields = Counter(
            "bridge_unreadable_contact_fields",
            "Fields of the contact that stored events had a value for, but none that could be read, by field",
            ["field"],
            registry=self.registry,
        )
        self.unreadable_event_fields = Counter(
            "bridge_unreadable_event_fields",
            "Other documented fields of stored events whose value could not be read, by path",
            ["field"],
            registry=self.registry,
        )
        self.attempts = Counter(
            "bridge_attempts", "Attempts, by connection and reason (`succeeded` if the action took effect)",
            ["connection", "reason"], registry=self.worker_registry,
        )  # fmt: skip
        self.attempt_seconds = Histogram(
            "bridge_attempt_duration_seconds",
            "Duration of attempts",
            ["connection"],
            registry=self.worker_registry,
        )
        self.attempts_running = Gauge(
            "bridge_attempts_running", "Attempts that have started and have no result",
            ["connection"], registry=self.worker_registry,
        )  # fmt: skip
        self.attempts_overdue = Gauge(
            "bridge_attempts_overdue", "Running attempts that are past their deadline: their connector hangs",
            ["connection"], registry=self.worker_registry,
        )  # fmt: skip
        self.database_up = Gauge(
            "bridge_database_up",
            "1 if the database can be written and read; otherwise the metrics read from it are absent",
            registry=self.registry,
        )
        self.store_errors = Counter(
            "bridge_store_errors",
            "Transactions of the serving process that failed, by kind (`disk_full`, `read_only`, `unreachable`, ...)",
            ["kind"],
            registry=self.registry,
        )
        self.disk_free = Gauge(
            "bridge_database_disk_free_bytes", "Free bytes on the disk of the SQLite database", registry=None
        )
        """Registered only if the database is SQLite."""
        self.deliveries = Gauge(
            "bridge_deliveries", "Deliveries, by state", ["state"], registry=self.db_registry
        )
        self.unrouted = Gauge("bridge_events_unrouted", "Events not yet routed", registry=self.db_registry)
        self.oldest_due = Gauge(
            "bridge_oldest_due_delivery_age_seconds", "Time since the oldest due delivery became due",
            registry=self.db_registry,
        )  # fmt: skip
        self.paused = Gauge(
            "bridge_connection_paused", "1 if a connection is paused or its circuit breaker is open", ["connection"],
            registry=self.db_registry,
        )  # fmt: skip
        self.workers = Gauge(
            "bridge_workers_alive", "Workers on this database with a heartbeat within the last minute",
            registry=self.db_registry,
        )  # fmt: skip
        self.worker_up = Gauge("bridge_local_worker_up", "1 if the worker process responds", registry=None)
        """Registered only if this process has a worker process."""
        self.rules_reload_ok = Gauge(
            "bridge_rules_last_reload_successful",
            "1 if the rules file on disk is the one in use",
            registry=self.registry,
        )
