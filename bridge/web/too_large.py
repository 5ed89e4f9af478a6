"""Counts and logs requests whose body was too large, whichever route refused it."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.web.rejection_log import RejectionLog

REASON: Final = "too_large"


class TooLargeReport:
    """Middleware that reports each response with status 413 as a rejected request."""

    def __init__(self, app: ASGIApp, rejection_log: RejectionLog) -> None:
        self._app = app
        self._rejection_log = rejection_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 413:
                self._rejection_log.report(REASON, "request rejected", scope, status=413, path=scope["path"])
            await send(message)

        await self._app(scope, receive, watch)
