"""One connection: its state, what waits, its attempts and its pauses, for its page and the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bridge.store.audit_log import list_audit_entries
from bridge.store.connection_history import (
    Attempts,
    ConnectionOverview,
    PastPause,
    read_connections,
    read_pauses,
)
from bridge.store.hourly_counts import HOUR
from bridge.store.queries import NotFound
from bridge.web.accounts import AccountInfo
from bridge.web.admin_service import AdminService
from bridge.web.overview import strip_periods

MAX_AUDIT = 10


@dataclass(frozen=True)
class ConnectionPage:
    """Everything about one connection in a span."""

    now: datetime
    overview: ConnectionOverview
    """With the attempts of `starts`."""
    starts: Sequence[datetime]
    period: timedelta
    pauses: Sequence[PastPause]
    """Pauses of the span, of the connection and of all connections, newest first."""
    account: AccountInfo | None
    audit: Sequence[dict[str, Any]]
    """The newest operator actions."""


def read_connection_page(service: AdminService, name: str, span: str) -> ConnectionPage:
    """Return a connection with its history of a span. Raise NotFound."""
    database, now = service.database, service.database.clock.now()
    starts, period = strip_periods(span, now)
    pauses = read_pauses(database, starts[0], name)
    overviews = read_connections(database, starts, period, pauses, name)
    if not overviews:
        raise NotFound(f"there is no connection `{name[:80]}`")
    account = service.accounts.describe(name) if service.accounts else None
    audit = list_audit_entries(database, target=name, limit=MAX_AUDIT)
    return ConnectionPage(now, overviews[0], starts, period, pauses, account, audit)


def read_connection_list(
    service: AdminService,
) -> tuple[list[ConnectionOverview], Sequence[datetime], timedelta, list[PastPause]]:
    """Return all connections with the attempts of the last 24 hours, the periods, and the pauses."""
    starts, period = strip_periods("24h", service.database.clock.now())
    pauses = read_pauses(service.database, starts[0])
    return read_connections(service.database, starts, period, pauses), starts, period, pauses


def last_hour(attempts: Sequence[Attempts], period: timedelta) -> Attempts:
    """Return the attempts of the newest periods that make an hour."""
    total = Attempts()
    for item in attempts[-(HOUR // period) :]:
        total = total.plus(item)
    return total
