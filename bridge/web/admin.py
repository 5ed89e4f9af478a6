"""Who may see and do what: log page, API and metrics are for who holds BRIDGE_ADMIN_TOKEN.

Programs send it as a bearer token. People type it at /login once and get a cookie that ends after twelve hours, that
no script can read and that no other site's request carries; writes are checked for where they come from besides.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, urlsplit

from itsdangerous import BadSignature, URLSafeSerializer
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.clock import Clock
from bridge.errors import Refused
from bridge.telemetry import log
from bridge.web.headers import SecurityHeaders
from bridge.web.html import html, root_of

COOKIE: Final = "bridge_session"
SESSION: Final = timedelta(hours=12)
FAILURE_SECONDS: Final = 1.0
"""How long a wrong token waits for its answer."""
MAX_FAILURES_AT_ONCE: Final = 20
"""Wrong tokens that may wait; while there are so many, nobody's token is even looked at."""
MAX_BODY: Final = 64 * 1024
_SAFE: Final = ("GET", "HEAD", "OPTIONS")


class Admin:
    """The door: tokens, cookies, and what is behind them."""

    def __init__(
        self, token: str, clock: Clock, *, secret: str | None = None, public_url: str | None = None
    ) -> None:
        self._token = token.encode()
        self._clock = clock
        self._public_host = urlsplit(public_url).netloc if public_url else None
        # A new token ends the sessions of the old one; without BRIDGE_SECRET_KEY a restart ends them all.
        salt = f"bridge.session.{hashlib.sha256(self._token).hexdigest()}"
        self._sessions = URLSafeSerializer(secret or secrets.token_urlsafe(32), salt=salt)
        self._failing = 0

    def guard(self, routes: Sequence[BaseRoute]) -> Sequence[BaseRoute]:
        """These routes, and every path that is nobody's, for admins only; they have to come last."""
        middleware = [Middleware(SecurityHeaders), Middleware(_Guarded, admin=self)]
        return [Mount("", routes=[*routes, Route("/{path:path}", _not_found)], middleware=middleware)]

    def login_routes(self) -> list[Route]:
        """/login for everybody, and /logout."""
        headers = [Middleware(SecurityHeaders)]
        return [
            Route("/login", self._show_login, methods=["GET"], middleware=headers),
            Route("/login", self._login, methods=["POST"], middleware=headers, max_body_size=MAX_BODY),
            Route("/logout", self._logout, methods=["POST"], middleware=headers, max_body_size=MAX_BODY),
        ]

    async def _show_login(self, request: Request) -> Response:
        return _login_page(request, request.query_params.get("next", ""))

    async def _login(self, request: Request) -> Response:
        """Exchange the token for a cookie."""
        async with request.form(max_files=0, max_fields=10) as form:
            token, following = str(form.get("token", "")), str(form.get("next", ""))
        try:
            if self.is_foreign(request):
                raise Refused("origin", "That request came from another site. Log in here.", 403)
            if not await self._admits(token.strip()):
                raise Refused("token", "That is not the token.", 401)
        except Refused as refused:
            log.warning("login refused", kind=refused.kind)
            return _login_page(request, following, refused)
        log.info("logged in")
        # Relative to the root, whatever stands there: no address can lead elsewhere.
        response = RedirectResponse(f"./{following.lstrip('/')}", 303)
        response.set_cookie(
            COOKIE,
            self._sessions.dumps(int((self._clock.now() + SESSION).timestamp())),
            max_age=int(SESSION.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=_is_https(request),
        )
        return response

    async def _logout(self, request: Request) -> Response:
        """Forget the cookie."""
        if self.is_foreign(request):
            return JSONResponse({"error": "that request came from another site"}, 403)
        response = RedirectResponse("./login", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_is_https(request))
        return response

    async def refusal(self, request: Request) -> Response | None:
        """The answer to who may not pass; None for who may."""
        bearer = _bearer(request)
        if bearer is not None:
            try:
                if not await self._admits(bearer):
                    return _unauthorized("that is not the admin token")
            except Refused as refused:
                return JSONResponse({"error": refused.detail}, refused.status, {"Retry-After": "2"})
        elif not self._has_session(request):
            return _ask_to_log_in(request)
        if request.method not in _SAFE and self.is_foreign(request, believed=bearer is not None):
            log.warning("a write from elsewhere was refused", path=request.url.path)
            return JSONResponse({"error": "that request came from another site"}, 403)
        return None

    async def _admits(self, token: str) -> bool:
        """Whether this is the token; a wrong one waits. Raises Refused while too many wrong ones are waiting."""
        if self._failing >= MAX_FAILURES_AT_ONCE:
            raise Refused("busy", "Too many wrong tokens at once: try again in a moment.", 429)
        if secrets.compare_digest(token.encode("utf-8", "surrogatepass"), self._token):
            return True
        self._failing += 1
        try:
            await asyncio.sleep(FAILURE_SECONDS)
        finally:
            self._failing -= 1
        return False

    def _has_session(self, request: Request) -> bool:
        try:
            until = self._sessions.loads(request.cookies.get(COOKIE, ""))
        except BadSignature:
            return False
        return isinstance(until, int) and datetime.fromtimestamp(until, UTC) > self._clock.now()

    def is_foreign(self, request: Request, *, believed: bool = True) -> bool:
        """Whether another site made the browser send this; without a word about it, `believed` decides."""
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        origin = request.headers.get("origin")
        if origin is not None:
            return urlsplit(origin).netloc not in (request.headers.get("host"), self._public_host)
        return not believed


class _Guarded:
    """Middleware that lets nobody pass whom the admin's door refuses."""

    def __init__(self, app: ASGIApp, admin: Admin) -> None:
        self._app = app
        self._admin = admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = await self._admin.refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send)


def _bearer(request: Request) -> str | None:
    """The token in the Authorization header; empty when there is one of another kind."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _ask_to_log_in(request: Request) -> Response:
    if not wants_html(request):
        return _unauthorized("send the admin token: `Authorization: Bearer ...` (BRIDGE_ADMIN_TOKEN)")
    login = f"{root_of(request)}login"
    if request.method not in _SAFE:
        return RedirectResponse(login, 303)
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A link in a chat does not carry the cookie; a page of ours that leads here does.
        return html(request, "continue.html", status=401, target=f"{root_of(request)}{path.lstrip('/')}")
    return RedirectResponse(f"{login}?next={quote(path)}", 303)


def _unauthorized(advice: str) -> Response:
    return JSONResponse({"error": advice}, 401, {"WWW-Authenticate": 'Bearer realm="bridge"'})


def _login_page(request: Request, following: str, refused: Refused | None = None) -> Response:
    return html(
        request,
        "login.html",
        status=refused.status if refused else 200,
        following=following,
        problem=refused.detail if refused else "",
    )


async def _not_found(request: Request) -> Response:
    if wants_html(request):
        return html(request, "error.html", status=404, title="Nothing is here", text="There is no such page.")
    return JSONResponse({"error": "there is no such path"}, 404)


def wants_html(request: Request) -> bool:
    """Whether a browser asks, rather than a program."""
    return "text/html" in request.headers.get("accept", "")


def _is_https(request: Request) -> bool:
    """Whether the browser speaks HTTPS, perhaps to a proxy; a forged word here harms only who forges it."""
    told = (request.url.scheme, request.headers.get("x-forwarded-proto"), request.headers.get("origin"))
    return any(word is not None and word.startswith("https") for word in told)
