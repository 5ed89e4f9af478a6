"""Authentication: the dashboard, the API and the metrics require a token.

Programs send it as a bearer token. Operators enter it once at /login and get a session cookie that expires after
twelve hours, at the logout or with the token. Scripts cannot read the cookie, and requests from other sites do not
carry it. The origin of every write is checked as well.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.errors import Refused
from bridge.store.database import Database
from bridge.store.sessions import Session, create_session, find_session, log_out
from bridge.telemetry import log
from bridge.telemetry.metrics import Metrics
from bridge.web.access import (
    DASHBOARD,
    SAFE_METHODS,
    Access,
    Principal,
    TokenTable,
    required_access,
    session_id,
    set_principal,
)
from bridge.web.html import error_page, prefers_html, render, root_path
from bridge.web.proxy_login import ProxyLogin
from bridge.web.wrong_tokens import WrongTokens

COOKIE: Final = "bridge_session"
HTTPS_COOKIE: Final = "__Host-bridge_session"
"""Name of the cookie over HTTPS. Browsers accept it from this host only, not from another one of the same domain."""
SESSION_LIFETIME: Final = timedelta(hours=12)
_TOKENS: Final = {
    Access.METRICS: "BRIDGE_METRICS_TOKEN or BRIDGE_ADMIN_TOKEN",
    Access.READ: "BRIDGE_READ_TOKEN or BRIDGE_ADMIN_TOKEN",
    Access.ADMIN: "BRIDGE_ADMIN_TOKEN",
}
"""What a request needs -> the settings with a token that opens it."""
MAX_BODY: Final = 64 * 1024


class AdminAuth:
    """Checks tokens and session cookies, and protects the routes that require them."""

    def __init__(
        self,
        tokens: TokenTable,
        database: Database,
        metrics: Metrics,
        wrong_tokens: WrongTokens,
        *,
        public_url: str | None = None,
        proxy_login: ProxyLogin | None = None,
    ) -> None:
        self._tokens = tokens
        self._database = database
        self._logins = metrics.web.logins
        self._wrong_tokens = wrong_tokens
        self._proxy_login = proxy_login or ProxyLogin()
        self._pages: Sequence[Route] = ()
        self._public_host = urlsplit(public_url).netloc if public_url else None

    def require_admin(self, routes: Sequence[BaseRoute]) -> Sequence[BaseRoute]:
        """Return a mount that requires authentication for `routes` and for every unknown path. It must come last."""
        self._pages = [
            route for route in routes if isinstance(route, Route) and "GET" in (route.methods or ())
        ]
        middleware = [Middleware(AdminAuthMiddleware, auth=self)]
        return [Mount("", routes=[*routes, Route("/{path:path}", _not_found)], middleware=middleware)]

    def login_routes(self) -> list[Route]:
        """Return the routes of /login and /logout, which require no authentication."""
        return [
            Route("/login", self._show_login, methods=["GET"]),
            Route("/login", self._login, methods=["POST"], max_body_size=MAX_BODY),
            Route("/logout", self._logout, methods=["POST"], max_body_size=MAX_BODY),
        ]

    async def _show_login(self, request: Request) -> Response:
        query = request.query_params
        return _login_page(request, query.get("next", ""), has_ended="ended" in query)

    async def _login(self, request: Request) -> Response:
        """Exchange the token for a session cookie."""
        async with request.form(max_files=0, max_fields=10) as form:
            token, next_path = str(form.get("token", "")), str(form.get("next", ""))
        try:
            principal, key = await self._check_login(request, token.strip())
        except Refused as error:
            return _login_page(request, next_path, error)
        secret, client = secrets.token_urlsafe(32), self._wrong_tokens.client(request.scope)
        actor = principal.name or DASHBOARD
        session = Session(session_id(key, secret), actor, principal.access.name.lower(), client)
        await asyncio.to_thread(create_session, self._database, session, SESSION_LIFETIME)
        self._logins.labels("succeeded").inc()
        log.info("logged in", actor=actor, peer=client)
        # Always relative to the root of the service, so that `next` cannot redirect to another site.
        response = RedirectResponse(f"./{next_path.lstrip('/')}", 303)
        # A proxy may not say so, but browsers send the origin with a form.
        is_https = _is_https(request) or request.headers.get("origin", "").startswith("https:")
        response.set_cookie(
            HTTPS_COOKIE if is_https else COOKIE,
            secret,
            max_age=int(SESSION_LIFETIME.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=is_https,
        )
        return response

    async def _check_login(self, request: Request, token: str) -> tuple[Principal, bytes]:
        """Return who logs in, and the key of the session. Raise Refused."""
        if self.is_cross_site(request):
            await self._wrong_tokens.report(request.scope, "cross_site")
            raise Refused("cross_site", "The request came from another site. Log in here.", 403)
        found = self._tokens.find(token)
        if found is None:
            await self._wrong_tokens.refuse(request.scope)
            raise Refused("wrong_token", "Invalid admin token.", 401)
        if found[0].access < Access.READ:
            raise Refused("metrics_token", "This token only opens /metrics.", 403)
        return found

    async def _logout(self, request: Request) -> Response:
        """End the session and delete its cookie."""
        if self.is_cross_site(request):
            return JSONResponse({"error": "the request came from another site"}, 403)
        sessions = self._sessions_of(request)
        if sessions:
            await asyncio.to_thread(log_out, self._database, sessions)
        response = RedirectResponse("./login", 303)
        for name in (HTTPS_COOKIE, COOKIE):
            if name in request.cookies:
                response.delete_cookie(name, httponly=True, samesite="strict", secure=name == HTTPS_COOKIE)
        return response

    async def check_request(self, request: Request) -> Response | None:
        """Return the response that rejects an unauthenticated request, or None if the request may pass."""
        token = None
        principal: Principal | Response | None = self._proxy_login.principal(request)
        if principal is None:
            token = _bearer_token(request)
            principal = await (self._by_session(request) if token is None else self._by_token(request, token))
        if isinstance(principal, Response):
            return principal
        if principal.access < required_access(request.scope):
            return _forbidden(request, principal.access)
        if request.method not in SAFE_METHODS and self.is_cross_site(request, default=token is None):
            log.warning("cross-site write rejected", path=request.url.path)
            return JSONResponse({"error": "the request came from another site"}, 403)
        set_principal(request.scope, principal)
        return None

    def _sessions_of(self, request: Request) -> dict[str, Principal]:
        """Return the IDs that the session of the request's cookie can have, each with whose it is; the cookie may lie.

        Over HTTPS, a cookie without the prefix is ignored: another host of the domain could have set it.
        """
        secret = request.cookies.get(HTTPS_COOKIE)
        if not secret and not _is_https(request):
            secret = request.cookies.get(COOKIE)
        return dict(self._tokens.sessions(secret)) if secret else {}

    async def _by_session(self, request: Request) -> Principal | Response:
        """Return whose session the request belongs to, or the response that asks for a login."""
        sessions = self._sessions_of(request)
        found = await asyncio.to_thread(find_session, self._database, sessions) if sessions else None
        return sessions[found] if found else self._login_required(request)

    async def _by_token(self, request: Request, token: str) -> Principal | Response:
        """Return who has the token, or the response that refuses it."""
        found = self._tokens.find(token)
        if found is not None:
            return found[0]
        try:
            await self._wrong_tokens.refuse(request.scope)
        except Refused as error:
            return JSONResponse({"error": error.detail}, error.status, {"Retry-After": "2"})
        return _unauthorized("invalid token")

    def _login_required(self, request: Request) -> Response:
        """Return the response that asks for a login.

        After the login the browser opens the page that it asked for. An action is not carried out then: its page is
        opened, for the operator to confirm it again.
        """
        if not prefers_html(request):
            tokens = _TOKENS[required_access(request.scope)]
            return _unauthorized(f"send a token: `Authorization: Bearer ...` ({tokens})")
        login = f"{root_path(request)}login"
        if request.method not in SAFE_METHODS:
            return RedirectResponse(
                f"{login}?ended=1&next={quote(self._page_of_action(request.url.path))}", 303
            )
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if request.headers.get("sec-fetch-site") == "cross-site":
            # A link from another site, such as a chat, does not carry the cookie. A redirect from our own page does.
            return render(
                request, "continue.html", status=401, target=f"{root_path(request)}{path.lstrip('/')}"
            )
        return RedirectResponse(f"{login}?next={quote(path)}", 303)

    def _page_of_action(self, path: str) -> str:
        """Return the path of the page from which an action starts: the nearest path above it that is a page."""
        while path.strip("/") and not path.startswith("/api/"):
            scope = {"type": "http", "method": "GET", "path": path}
            if any(route.matches(scope)[0] is Match.FULL for route in self._pages):
                return path
            path = path.rpartition("/")[0]
        return ""

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


def _unauthorized(message: str) -> Response:
    return JSONResponse({"error": message}, 401, {"WWW-Authenticate": 'Bearer realm="bridge"'})


def _forbidden(request: Request, access: Access) -> Response:
    opens = "only /metrics" if access is Access.METRICS else "the dashboard and the API without changes"
    if prefers_html(request):
        message = f"You logged in with a token that opens {opens}. Log out, and log in with another token."
        return error_page(request, 403, "Not allowed", message)
    return JSONResponse({"error": f"this token opens {opens}; send another one"}, 403)


def _login_page(
    request: Request, next_path: str, error: Refused | None = None, *, has_ended: bool = False
) -> Response:
    return render(
        request,
        "login.html",
        status=error.status if error else 200,
        next_path=next_path,
        has_ended=has_ended,
        error=error.detail if error else "",
    )


async def _not_found(request: Request) -> Response:
    if prefers_html(request):
        return error_page(request, 404, "Not found", "This page does not exist.")
    return JSONResponse({"error": "not found"}, 404)


def _is_https(request: Request) -> bool:
    """Return whether the browser uses HTTPS, possibly to a proxy. A client that forges headers harms only itself."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
