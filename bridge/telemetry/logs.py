"""Structured logs.

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
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from bridge.printable import printable

if TYPE_CHECKING:
    import structlog


class _Logger:
    """Loads structlog with the first entry: commands that log nothing start faster without it."""

    def __getattr__(self, name: str) -> Any:
        import structlog

        return getattr(structlog.get_logger("bridge"), name)


log = cast("structlog.stdlib.BoundLogger", _Logger())

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


def _load_structlog() -> None:
    """Import structlog without rich, whose tracebacks this log does not use: a service then needs 4 MB less."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


def configure_logging(style: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send logs to `stream` (default: stderr) as JSON lines or, with style `console`, as readable text.

    `level` is the least severe one that is logged. Libraries log warnings and errors only, whatever the level.
    """
    _load_structlog()
    import structlog

    minimum = logging.getLevelNamesMapping()[level.upper()]
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
        wrapper_class=structlog.make_filtering_bound_logger(minimum),
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
    root.setLevel(max(minimum, logging.INFO))
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(minimum, logging.WARNING))
