"""HTML rendering: templates escape every value, and an undefined variable in a template is an error."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from bridge.store.timeline import describe_audit_entry, format_details
from bridge.telemetry import mask_address
from bridge.web import labels, times
from bridge.web.frame import plain_frame


def render(
    request: Request,
    template: str,
    *,
    status: int = 200,
    title: str = "",
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """Return the page rendered from `template` with `values`, among them `frame`: the values of the layout."""
    values.setdefault("frame", plain_frame(request))
    text = _environment().get_template(template).render(root=root_path(request), title=title, **values)
    return HTMLResponse(text, status, headers)


def error_page(
    request: Request, status: int, title: str, message: str, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Return an error page; with navigation and search if the reader is logged in. It does not need the database."""
    return render(request, "error.html", status=status, title=title, message=message, headers=headers)


def root_path(request: Request) -> str:
    """Return the path from this page to the root of the service; relative, so that a proxy can use any prefix."""
    return "../" * (request.url.path.count("/") - 1) or "./"


def prefers_html(request: Request) -> bool:
    """Return whether the client is a browser that accepts HTML."""
    return "text/html" in request.headers.get("accept", "")


def static_routes() -> list[BaseRoute]:
    """Return the routes of the style sheet and scripts, which are public."""
    return [Mount("/static", StaticFiles(packages=[("bridge.web", "static")]))]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bridge.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "action_label": labels.action_label,
        "audit_details": format_details,
        "audit_entry": describe_audit_entry,
        "file_name": labels.file_name,
        "exact_time": times.exact_time_filter,
        "inline_code": labels.inline_code,
        "mask": mask_address,
        "reason_label": labels.reason_label,
        "time": times.time_filter,
        "use_label": labels.use_label,
    }
    environment.globals |= {"connection_label": labels.connection_label, "state_label": labels.state_label}
    return environment
