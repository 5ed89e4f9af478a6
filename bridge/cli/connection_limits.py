"""Connection limits: how many connections may be open, and how much memory the requests in flight may hold.

Until a signature is verified, any connection may be a stranger's. At the limit, the server closes the connection that
has kept it waiting longest, because a genuine request is complete within milliseconds.
"""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING, Any, Final

from bridge.web.rejection_log import RejectionLog

if TYPE_CHECKING:
    from bridge.cli.http_limits import BoundedProtocol

MAX_CONNECTIONS: Final = 10_000
MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes of requests that are being received or answered, over all connections."""
RESERVED_FILES: Final = 256
"""File descriptors for everything else: the database, files, the worker, connections that are being closed."""
SWEEP_SECONDS: Final = 0.25
"""Precision of the deadlines."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one. Return the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 1_048_576 if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # some systems allow less than the hard limit
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit


def connections_for(file_limit: int) -> int:
    """Return how many connections a process with this limit of open files may have."""
    return min(MAX_CONNECTIONS, max(file_limit - RESERVED_FILES, file_limit // 2))


class ConnectionLimits:
    """The open connections of one server, and the limits that they share."""

    def __init__(
        self, rejection_log: RejectionLog, max_connections: int = MAX_CONNECTIONS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.rejection_log = rejection_log
        self.max_connections = max_connections
        self.max_bytes = max_bytes
        self.bytes_held = 0
        """Bytes of requests that are being received or answered."""
        self.open: dict[BoundedProtocol, None] = {}
        """In the order in which they were opened, as in the other two."""
        self.unfinished: dict[BoundedProtocol, None] = {}
        """Connections without a complete request: the first ones to close."""
        self.idle: dict[BoundedProtocol, None] = {}
        """Connections whose requests have all been answered."""
        self._sweeper: asyncio.TimerHandle | None = None

    def protocol(self, *args: Any, **kwargs: Any) -> BoundedProtocol:
        """Return the protocol of a new connection, for the `http` setting of uvicorn."""
        from bridge.cli.http_limits import BoundedProtocol

        return BoundedProtocol(self, *args, **kwargs)

    def admit(self, connection: BoundedProtocol) -> bool:
        """Register a new connection, and close another one to make room. Return False if none can be closed."""
        admitted = len(self.open) < self.max_connections or self._evict()
        self.open[connection] = None
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(SWEEP_SECONDS, self._sweep, connection.loop)
        return admitted

    def _evict(self) -> bool:
        victim = next(iter(self.unfinished), None) or next(iter(self.idle), None)
        if victim is None:
            return False
        victim.refuse(
            503, "connection_evicted", f"{self.max_connections} connections are open; this one waited longest"
        )
        return True

    def make_room(self, connection: BoundedProtocol) -> None:
        """Refuse the requests that have held a large share of the memory longest, or else that of `connection`.

        An eighth is freed at once, so that a flood of bodies does not search for room with every packet.
        """
        candidates = [other for other in self.open if other.bytes_held and other.is_evictable]
        average = sum(other.bytes_held for other in candidates) / max(1, len(candidates))
        victims = [other for other in candidates if other.bytes_held >= average] or [connection]
        for victim in victims:
            if self.bytes_held <= self.max_bytes * 7 / 8:
                break
            victim.refuse(503, "memory", f"requests in flight hold more than {self.max_bytes} bytes")

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close every connection whose deadline has passed."""
        now = loop.time()
        for connection in [other for other in self.open if other.deadline <= now]:
            connection.on_deadline()
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self.open else None
