"""Wrong tokens: each is answered after a delay, counted, logged and recorded in the audit log, all within bounds.

A right token is compared before any of this, so wrong ones never delay or refuse it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from typing import Final

from starlette.types import Scope

from bridge.clock import uptime
from bridge.errors import Refused, StoreUnavailable
from bridge.setting_types import IpNetwork
from bridge.store.database import Database
from bridge.store.sessions import record_refused_login
from bridge.telemetry.metrics import Metrics
from bridge.web.rejection_log import RejectionLog, client_address

FAILURE_SECONDS: Final = 1.0
"""Delay of the response to a wrong token."""
MAX_PENDING_PER_CLIENT: Final = 10
"""Wrong tokens of one address that may wait for their response; a further one is refused immediately."""
MAX_PENDING: Final = 500
"""Wrong tokens of all addresses that may wait."""
AUDIT_SECONDS: Final = 60.0
"""Minimum time between two audit entries about refused logins, each of which says how many there were."""


class WrongTokens:
    """Handles the wrong tokens of a process. Runs on its event loop."""

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        rejection_log: RejectionLog,
        trusted_proxies: tuple[IpNetwork, ...] = (),
    ) -> None:
        self._database = database
        self._counter = metrics.web.logins
        self._rejection_log = rejection_log
        self._trusted_proxies = trusted_proxies
        self._pending: Counter[str] = Counter()
        self._refused = 0
        self._refused_since: datetime | None = None
        self._recorded_at = -AUDIT_SECONDS

    def client(self, scope: Scope) -> str:
        """Return the address that sent the request."""
        return client_address(scope, self._trusted_proxies)

    async def refuse(self, scope: Scope) -> None:
        """Report a wrong token and return after the delay. Raise Refused at once if too many are waiting."""
        client = self.client(scope)
        busy = self._pending[client] >= MAX_PENDING_PER_CLIENT or self._pending.total() >= MAX_PENDING
        if busy:
            await self.report(scope, "too_many")
            raise Refused("busy", "Too many wrong tokens: try again in a moment.", 429)
        self._pending[client] += 1
        try:
            await self.report(scope, "wrong_token")
            await asyncio.sleep(FAILURE_SECONDS)
        finally:
            self._pending[client] -= 1
            if not self._pending[client]:
                del self._pending[client]

    async def report(self, scope: Scope, result: str) -> None:
        """Count, log and record a refused login or token."""
        self._counter.labels(result).inc()
        self._rejection_log.report(result, "login rejected", scope)
        self._refused += 1
        self._refused_since = self._refused_since or self._database.clock.now()
        if uptime() - self._recorded_at < AUDIT_SECONDS:
            return
        count, since = self._refused, self._refused_since
        self._recorded_at, self._refused, self._refused_since = uptime(), 0, None
        try:
            await asyncio.to_thread(record_refused_login, self._database, self.client(scope), count, since)
        except StoreUnavailable:
            self._refused, self._refused_since = self._refused + count, since
