"""What the pages of the dashboard share: their routes, the layout, and the redirect after an action.

A page is `page(path, handler)`, an operator action `form(path, handler)`. Handlers block and run in a thread. A handler
returns `render_page(...)`, or, after an action, `done(...)` or `refused(...)`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.datastructures import ImmutableMultiDict, QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from bridge.errors import BridgeError
from bridge.store.queries import NotFound
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.layout import layout_values
from bridge.web.frame import LAYOUT_PARAMETERS
from bridge.web.html import error_page, render, root_path
from bridge.web.query_params import check_id
from bridge.web.validation import InvalidParameter

MAX_BODY: Final = 64 * 1024
MAX_FIELDS: Final = 20

Form = ImmutableMultiDict[str, str]
"""The fields of a form: `get(name)`, and `getlist(name)` for a name that is repeated."""


def render_page(
    request: Request, service: AdminService, template: str, *, title: str, status: int = 200, **values: Any
) -> Response:
    """Return a page in the layout of the dashboard.

    `title` is unique, with the state or a count first: "Failed: twilio.send_sms to Wen Haddad". Templates also see
    `frame` (see `Frame`), `now`, and `pauses`: the pause of each paused connection by name.
    """
    return render(request, template, status=status, title=title, **layout_values(request, service), **values)


def page(path: str, handler: Callable[[Request], Response]) -> Route:
    """Return the route of a page. The handler may raise NotFound and InvalidParameter."""

    async def endpoint(request: Request) -> Response:
        return await respond(request, lambda: handler(request))

    return Route(path, endpoint, methods=["GET"])


def form(
    path: str,
    handler: Callable[[Request, Form], Response],
    *,
    max_body: int = MAX_BODY,
    max_fields: int = MAX_FIELDS,
) -> BaseRoute:
    """Return the route of an operator action. The handler may raise NotFound and InvalidParameter."""

    async def endpoint(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=max_fields, max_part_size=max_body) as fields:
            values = [(name, value) for name, value in fields.multi_items() if isinstance(value, str)]
        return await respond(request, lambda: handler(request, Form(values)))

    return Route(path, endpoint, methods=["POST"], max_body_size=max_body)


def done(request: Request, path: str, message: str, n: int | None = None) -> Response:
    """Redirect to `path` (from the root of the service, without a leading slash) after an action.

    `message` is a key of `messages.DONE`, whose text may contain the number `n`, or the ID of the audit entry of the
    action, which is shown in words. A text from the URL is never shown.
    """
    return _redirect(request, path, {"done": message} | ({} if n is None else {"n": str(n)}))


def refused(request: Request, path: str, message: str) -> Response:
    """Redirect to `path` after an action that was not possible. `message` is a key of `messages.REFUSED`."""
    return _redirect(request, path, {"refused": message})


def redirect(request: Request, path: str) -> Response:
    """Redirect to another page without a message."""
    return RedirectResponse(f"{root_path(request)}{path}", 303)


def _redirect(request: Request, path: str, parameters: dict[str, str]) -> Response:
    separator = "&" if "?" in path else "?"
    return redirect(request, f"{path}{separator}{QueryParams(parameters)}")


def page_query(request: Request) -> QueryParams:
    """Return the query parameters of the page itself, without those of the layout."""
    items = request.query_params.multi_items()
    return QueryParams([(name, value) for name, value in items if name not in LAYOUT_PARAMETERS])


def id_of(request: Request) -> str:
    """Return the ID in the path. Raise NotFound."""
    return check_id(request.path_params["id"])


def name_of(request: Request) -> str:
    """Return the name in the path. Raise NotFound."""
    return check_id(request.path_params["name"])


def indented_json(value: Any) -> str | None:
    """Return a value as JSON for people, or None if there is none."""
    return None if value is None else json.dumps(value, ensure_ascii=False, indent=2)


def query_prefix(query: QueryParams, without: Sequence[str] = ("cursor",)) -> str:
    """Return the current filters as the start of a query string that takes one more parameter."""
    parameters = [(name, value) for name, value in query.multi_items() if name not in without and value]
    return f"?{QueryParams(parameters)}&" if parameters else "?"


async def respond(request: Request, handler: Callable[[], Response]) -> Response:
    """Run the handler in a thread and return its page, or an error page."""
    try:
        return await asyncio.to_thread(handler)
    except NotFound as error:
        return error_page(request, 404, "Not found", _plain(error))
    except InvalidParameter as error:
        return error_page(request, 400, "Invalid request", _plain(error))


def _plain(error: BridgeError) -> str:
    """Return the message of an error for a page: quotation marks instead of the backticks of the command line."""
    return str(error).replace("`", '"')
