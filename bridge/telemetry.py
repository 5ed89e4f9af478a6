"""What the bridge tells the people who run it: structured logs and Prometheus metrics.

Log events are fields, never payloads. Whatever is logged goes through `mask`, so that a phone number or an
address that slips into a text does not reach the disk whole.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

log: structlog.stdlib.BoundLogger = structlog.get_logger("bridge")

_PHONE = re.compile(r"(?<![\w.:-])(?:\+|%2B)[1-9]\d{5,14}(?!\d)", re.IGNORECASE)
_NATIONAL = re.compile(r"(?<![\w.:+-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)")
_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+")
_SECRETS = re.compile(
    r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"
    r"|\b(?:whsec_|pat-[a-z0-9]+-|xox[a-z]-|sk_)[\w-]{6,}"
    r"|(?<=hooks\.slack\.com/services/)[\w/]+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


@lru_cache(maxsize=1024)
def mask(text: str) -> str:
    """The text with phone numbers, e-mail addresses and things that look like secrets made unreadable."""
    text = _SECRETS.sub("***", text)
    text = _EMAIL.sub(lambda found: mask_address(found[0].replace("%40", "@")), text)
    text = _PHONE.sub(lambda found: mask_address("+" + re.sub(r"\D", "", found[0].replace("%2B", "+"))), text)
    return _NATIONAL.sub("***", text)


def mask_address(address: str | None) -> str:
    """Enough of a phone number or an e-mail address to recognise it, not enough to use it."""
    if not address:
        return ""
    if "@" in address:
        local, _, domain = address.partition("@")
        return f"{local[:1]}***@{domain}"
    return f"{address[:4]}***{address[-2:]}" if len(address) > 7 else "***"


_WORDS_OF_OURS: Final = frozenset(
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
"""Fields that hold an id, a word of the bridge's own or an address that is masked already."""


def _mask_fields(_: Any, __: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
    for name, value in fields.items():
        if isinstance(value, str) and name not in _WORDS_OF_OURS:
            fields[name] = mask(value)[:2000]
        elif isinstance(value, list):
            fields[name] = [mask(str(item))[:2000] for item in value]
    return fields


def _lists_below(_: Any, __: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """On the console the texts of a list stand below the line, one each, where a stack would stand."""
    lists = [name for name, value in fields.items() if isinstance(value, list)]
    if lists:
        fields["stack"] = "\n".join(f"  {item}" for name in lists for item in fields.pop(name))
    return fields


_JSON: Final = json.JSONEncoder(default=repr)
_QUIET: Final = (
    "uvicorn.access", "uvicorn.error", "twilio.http_client", "httpx", "httpcore", "urllib3", "mail.log", "alembic",
)  # fmt: skip


class LogStream:
    """A stream that cannot fail: a full disk or a closed pipe behind the log must not stop the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, if it can be written."""
        if (held := _held.get()) is not None:
            held.setdefault(self, []).append(text)
            return
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, if it can be flushed."""
        if _held.get() is None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether people look at it."""
        return self._stream.isatty()


MOST_AT_ONCE: Final = 4096
"""Bytes that a pipe takes whole or not at all (POSIX's PIPE_BUF on Linux; macOS promises 512, a line or two)."""
_held: ContextVar[dict[LogStream, list[str]] | None] = ContextVar("held", default=None)


@contextlib.contextmanager
def logged_together() -> Iterator[None]:
    """Write what is logged in here at the end and at once: each write lets other threads of a busy process go first."""
    held: dict[LogStream, list[str]] = {}
    token = _held.set(held)
    try:
        yield
    finally:
        _held.reset(token)
        for stream, lines in held.items():
            for piece in _pieces(lines):
                stream.write(piece)
                stream.flush()


def _pieces(lines: list[str]) -> Iterator[str]:
    """Whole lines together, up to what a pipe takes at once: several processes write to one log."""
    piece, size = "", 0
    for line in lines:
        length = len(line.encode("utf-8", "replace"))
        if piece and size + length > MOST_AT_ONCE:
            yield piece
            piece, size = "", 0
        piece, size = piece + line, size + length
    if piece:
        yield piece


def configure_logging(style: str, stream: TextIO | None = None) -> None:
    """Send logs to `stream` (stderr), as JSON lines or, with style `console`, as text for people."""
    out: Any = LogStream(stream or sys.stderr)
    steps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _mask_fields,
    ]
    if style == "json":
        end: Any = structlog.processors.JSONRenderer(serializer=lambda fields, **_: _JSON.encode(fields))
    else:
        steps.append(_lists_below)
        end = structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=24)
    structlog.configure(
        processors=[*steps, end],
        logger_factory=structlog.WriteLoggerFactory(out),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, end], foreign_pre_chain=steps
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class Metrics:
    """The service's Prometheus metrics: those of who serves, and in `work` those of who works, maybe elsewhere.

    Those in `stored` are read from the database: while it is away, nobody knows them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.stored = CollectorRegistry()
        self.work = CollectorRegistry()
        self.receipts = Counter(
            "bridge_webhook_requests",
            "Webhook requests, by response status",
            ["status"],
            registry=self.registry,
        )
        self.attempts = Counter(
            "bridge_attempts", "Attempts, by connection and reason (`sent` when it took effect)",
            ["connection", "reason"], registry=self.work,
        )  # fmt: skip
        self.attempt_seconds = Histogram(
            "bridge_attempt_duration_seconds", "How long attempts take", ["connection"], registry=self.work
        )
        self.database_up = Gauge(
            "bridge_database_up", "1 while the database answers; what is read from it is absent otherwise",
            registry=self.registry,
        )  # fmt: skip
        self.deliveries = Gauge("bridge_deliveries", "Deliveries, by state", ["state"], registry=self.stored)
        self.unrouted = Gauge("bridge_events_unrouted", "Events not yet routed", registry=self.stored)
        self.oldest_due = Gauge(
            "bridge_oldest_due_delivery_age_seconds", "How long the longest-waiting due delivery waits", registry=self.stored
        )  # fmt: skip
        self.paused = Gauge(
            "bridge_connection_paused", "1 while a connection is paused or its circuit is open", ["connection"],
            registry=self.stored,
        )  # fmt: skip
        self.workers = Gauge(
            "bridge_workers_alive", "Processes that work on this database, seen within the last minute", registry=self.stored
        )  # fmt: skip
        self.worker_up = Gauge("bridge_local_worker_up", "1 while the worker answers", registry=None)
        """In the registry only where there is a worker beside this process."""
        self.rules_ok = Gauge(
            "bridge_rules_last_reload_successful",
            "1 when the rules file on disk is the one that runs",
            registry=self.registry,
        )
