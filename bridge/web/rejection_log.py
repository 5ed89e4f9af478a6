"""Rejected requests: every one is counted, and a few per second of each kind are logged, with the sender's address.

Anyone can send requests that are rejected, so what one of them costs, in the log and in the database, is bounded.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from starlette.types import Scope

from bridge.clock import uptime
from bridge.setting_types import IpNetwork
from bridge.telemetry import log
from bridge.telemetry.metrics import Metrics

LINES_PER_SECOND: Final = 3
"""Log lines per second and kind. The number of further requests follows at the end of the second."""
MAX_PEERS: Final = 1000
"""Different addresses that are counted in one second."""
_MAX_FORWARDED: Final = 20
"""Addresses in `X-Forwarded-For` that are looked at, from the last one: each proxy appends one."""


@dataclass
class _Second:
    """The rejected requests of one kind in the current second."""

    end: float
    logged: int = 0
    not_logged: int = 0
    peers: Counter[str] = field(default_factory=Counter)


class RejectionLog:
    """Counts and logs rejected requests. Runs on the event loop of the server."""

    def __init__(self, metrics: Metrics, trusted_proxies: Sequence[IpNetwork] = ()) -> None:
        self._counter = metrics.web.rejected_requests
        self._trusted_proxies = trusted_proxies
        self._seconds: dict[str, _Second] = {}

    def report(self, kind: str, event: str, scope: Scope, **fields: Any) -> bool:
        """Count a rejected request. Return whether it was logged, as `event` with `fields`.

        `kind` is a word from our code or from a connector's, never from the sender. `scope` contains the client and the
        headers of the request.
        """
        self._counter.labels(kind).inc()
        now = uptime()
        second = self._seconds.get(kind)
        if second is None or now >= second.end:
            self._summarize(kind)
            second = self._seconds[kind] = _Second(now + 1)
        peer = client_address(scope, self._trusted_proxies)
        if second.logged < LINES_PER_SECOND:
            second.logged += 1
            log.warning(event, reason=kind, peer=peer, **fields)
            return True
        if not second.not_logged:
            asyncio.get_running_loop().call_later(1.0, self._summarize, kind, second)
        second.not_logged += 1
        if peer in second.peers or len(second.peers) < MAX_PEERS:
            second.peers[peer] += 1
        return False

    def _summarize(self, kind: str, second: _Second | None = None) -> None:
        """Log how many requests of a second were not logged, unless that has been done."""
        second = second or self._seconds.get(kind)
        if second is None or not second.not_logged:
            return
        log.warning(
            "more requests rejected",
            reason=kind,
            count=second.not_logged,
            peers=[f"{peer}: {count}" for peer, count in second.peers.most_common(5)],
        )
        second.not_logged = 0
        second.peers.clear()


def is_from_proxy(scope: Scope, trusted_proxies: Sequence[IpNetwork]) -> bool:
    """Return whether a trusted proxy sent the request itself, whatever its headers say."""
    client = scope.get("client")
    return client is not None and _is_trusted(_parse_address(client[0]), trusted_proxies)


def client_address(scope: Scope, trusted_proxies: Sequence[IpNetwork]) -> str:
    """Return the address that sent the request.

    If a trusted proxy passed it on, that is the last address in `X-Forwarded-For` that is not a trusted proxy: a client
    can write anything before it.
    """
    client = scope.get("client")
    address: str = client[0] if client else "unknown"
    if not trusted_proxies or not _is_trusted(_parse_address(address), trusted_proxies):
        return address
    lines = [
        value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"x-forwarded-for"
    ]
    for forwarded in reversed(",".join(lines).split(",")[-_MAX_FORWARDED:]):
        parsed = _parse_address(forwarded.strip())
        if parsed is None:
            break
        address = str(parsed)
        if not _is_trusted(parsed, trusted_proxies):
            break
    return address


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address, possibly with a port. An IPv4 address that is written as IPv6 is the IPv4 address."""
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _is_trusted(address: IPv4Address | IPv6Address | None, trusted_proxies: Sequence[IpNetwork]) -> bool:
    return address is not None and any(address in network for network in trusted_proxies)
