"""Messages between a server and its worker process: one JSON object per line over a socket.

    server to worker   Start, Wake, Reload, RequestMetrics, Stop
    worker to server   Wake, MetricsText

`type` is the name of the message's class, the other keys are its fields. Either process may drop messages that the
other one does not read, except `Start` and `Stop`: both also poll.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final


@dataclass(frozen=True)
class Start:
    """The first message to a worker."""

    rules: str
    """The text of the server's active rules, for the case that the rules file has become invalid."""


@dataclass(frozen=True)
class Wake:
    """The sender has changed rows that the receiver works on."""

    topics: list[str]
    """Topics of `Database.publish`: connections with new deliveries, or `events` for follow-ups of failures."""


@dataclass(frozen=True)
class Reload:
    """Reload the rules file."""


@dataclass(frozen=True)
class RequestMetrics:
    """Send the metrics."""


@dataclass(frozen=True)
class MetricsText:
    """The response to `RequestMetrics`."""

    text: str
    """The metrics in Prometheus' text format."""


@dataclass(frozen=True)
class Stop:
    """Finish running attempts and exit."""


Message = Start | Wake | Reload | RequestMetrics | MetricsText | Stop
_TYPES: Final = {cls.__name__: cls for cls in (Start, Wake, Reload, RequestMetrics, MetricsText, Stop)}


def encode(message: Message) -> bytes:
    """Return the line of a message."""
    return json.dumps({"type": type(message).__name__} | asdict(message)).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Return the message of a line."""
    fields = json.loads(line)
    message: Message = _TYPES[fields.pop("type")](**fields)
    return message
