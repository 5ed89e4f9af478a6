"""Admin authentication: the dashboard, the API and the metrics require BRIDGE_ADMIN_TOKEN.

Programs send it as a bearer token. Operators enter it once at /login and get a session cookie that expires after
twelve hours. Scripts cannot read the cookie, and requests from other sites do not carry it. The origin of every write
is checked as well.
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
from bridge.web.html import render, root_path

COOKIE: Final = "bridge_session"
SESSION_LIFETIME: Final = timedelta(hours=12)
FAILURE_SECONDS: Final = 1.0
"""Delay of the response to a wrong token."""
MAX_CONCURRENT_FAILURES: Final = 20
"""Wrong tokens that may wait for their response. Above this limit, no token is checked."""
MAX_BODY: Final = 64 * 1024
_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


class AdminAuth:
    """Checks admin tokens and session cookies, and protects the routes that require them."""

    def __init__(
        self, token: str, clock: Clock, *, secret: str | None = None, public_url: str | None = None
    ) -> None:
        self._token = token.encode()
        self._clock = clock
        self._public_host = urlsplit(public_url).netloc if public_url else None
        # A new token invalidates the sessions of the old one. Without BRIDGE_SECRET_KEY a restart ends all sessions.
        salt = f"bridge.session.{hashlib.sha256(self._token).hexdigest()}"
        self._sessions = URLSafeSerializer(secret or secrets.token_urlsafe(32), salt=salt)
        self._pending_failures = 0

    def require_admin(self, routes: Sequence[BaseRoute]) -> Sequence[BaseRoute]:
        """Return a mount that requires authentication for `routes` and for every unknown path. It must come last."""
        middleware = [Middleware(SecurityHeaders), Middleware(AdminAuthMiddleware, auth=self)]
        return [Mount("", routes=[*routes, Route("/{path:path}", _not_found)], middleware=middleware)]

    def login_routes(self) -> list[Route]:
        """Return the routes of /login and /logout, which require no authentication."""
        headers = [Middleware(SecurityHeaders)]
        return [
            Route("/login", self._show_login, methods=["GET"], middleware=headers),
            Route("/login", self._login, methods=["POST"], middleware=headers, max_body_size=MAX_BODY),
            Route("/logout", self._logout, methods=["POST"], middleware=headers, max_body_size=MAX_BODY),
        ]

    async def _show_login(self, request: Request) -> Response:
        return _login_page(request, request.query_params.get("next", ""))

    async def _login(self, request: Request) -> Response:
        """Exchange the token for a session cookie."""
        async with request.form(max_files=0, max_fields=10) as form:
            token, next_path = str(form.get("token", "")), str(form.get("next", ""))
        try:
            if self.is_cross_site(request):
                raise Refused("origin", "The request came from another site. Log in here.", 403)
            if not await self._check_token(token.strip()):
                raise Refused("token", "Invalid admin token.", 401)
        except Refused as error:
            log.warning("login rejected", reason=error.kind)
            return _login_page(request, next_path, error)
        log.info("logged in")
        # Always relative to the root of the service, so that `next` cannot redirect to another site.
        response = RedirectResponse(f"./{next_path.lstrip('/')}", 303)
        response.set_cookie(
            COOKIE,
            self._sessions.dumps(int((self._clock.now() + SESSION_LIFETIME).timestamp())),
            max_age=int(SESSION_LIFETIME.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=_is_https(request),
        )
        return response

    async def _logout(self, request: Request) -> Response:
        """Delete the session cookie."""
        if self.is_cross_site(request):
            return JSONResponse({"error": "the request came from another site"}, 403)
        response = RedirectResponse("./login", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_is_https(request))
        return response

    async def check_request(self, request: Request) -> Response | None:
        """Return the response that rejects an unauthenticated request, or None if the request may pass."""
        token = _bearer_token(request)
        if token is not None:
            try:
                if not await self._check_token(token):
                    return _unauthorized("invalid admin token")
            except Refused as error:
                return JSONResponse({"error": error.detail}, error.status, {"Retry-After": "2"})
        elif not self._has_session(request):
            return _login_required(request)
        if request.method not in _SAFE_METHODS and self.is_cross_site(request, default=token is None):
            log.warning("cross-site write rejected", path=request.url.path)
            return JSONResponse({"error": "the request came from another site"}, 403)
        return None

    async def _check_token(self, token: str) -> bool:
        """Return whether the token is valid, after a delay if it is not.

        Raise Refused while too many wrong tokens are waiting for their response.
        """
        if self._pending_failures >= MAX_CONCURRENT_FAILURES:
            raise Refused("busy", "Too many wrong tokens: try again in a moment.", 429)
        if secrets.compare_digest(token.encode("utf-8", "surrogatepass"), self._token):
            return True
        self._pending_failures += 1
        try:
            await asyncio.sleep(FAILURE_SECONDS)
        finally:
            self._pending_failures -= 1
        return False

    def _has_session(self, request: Request) -> bool:
        try:
            expires_at = self._sessions.loads(request.cookies.get(COOKIE, ""))
        except BadSignature:
            return False
        return isinstance(expires_at, int) and datetime.fromtimestamp(expires_at, UTC) > self._clock.now()

    def is_cross_site(self, request: Request, *, default: bool = False) -> bool:
        """Return whether another site made the browser send this request; `default` if no header says so."""
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        origin = request.headers.get("origin")
        if origin is not None:
            return urlsplit(origin).netloc not in (request.headers.get("host"), self._public_host)
        return default


class AdminAuthMiddleware:
    """Middleware that rejects unauthenticated requests."""

    def __init__(self, app: ASGIApp, auth: AdminAuth) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an authenticated request on, and reject any other."""
        error_response = await self._auth.check_request(Request(scope))
        await (error_response or self._app)(scope, receive, send)


def _bearer_token(request: Request) -> str | None:
    """Return the bearer token, "" for another authorization scheme, or None without an Authorization header."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _login_required(request: Request) -> Response:
    if not prefers_html(request):
        return _unauthorized("send the admin token: `Authorization: Bearer ...` (BRIDGE_ADMIN_TOKEN)")
    login = f"{root_path(request)}login"
    if request.method not in _SAFE_METHODS:
        return RedirectResponse(login, 303)
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A link from another site, such as a chat, does not carry the cookie. A redirect from our own page does.
        return render(request, "continue.html", status=401, target=f"{root_path(request)}{path.lstrip('/')}")
    return RedirectResponse(f"{login}?next={quote(path)}", 303)


def _unauthorized(message: str) -> Response:
    return JSONResponse({"error": message}, 401, {"WWW-Authenticate": 'Bearer realm="bridge"'})


def _login_page(request: Request, next_path: str, error: Refused | None = None) -> Response:
    return render(
        request,
        "login.html",
        status=error.status if error else 200,
        next_path=next_path,
        error=error.detail if error else "",
    )


async def _not_found(request: Request) -> Response:
    if prefers_html(request):
        return render(
            request, "error.html", status=404, title="Not found", message="This page does not exist."
        )
    return JSONResponse({"error": "not found"}, 404)


def prefers_html(request: Request) -> bool:
    """Return whether the client is a browser that accepts HTML."""
    return "text/html" in request.headers.get("accept", "")


def _is_https(request: Request) -> bool:
    """Return whether the browser uses HTTPS, possibly to a proxy. A client that forges headers harms only itself."""
    hints = (request.url.scheme, request.headers.get("x-forwarded-proto"), request.headers.get("origin"))
    return any(hint is not None and hint.startswith("https") for hint in hints)
