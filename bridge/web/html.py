"""HTML rendering: templates escape every value, and an undefined variable in a template is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from bridge.clock import format_timestamp
from bridge.store.timeline import describe_audit_entry, format_details
from bridge.telemetry import mask_address


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return the page rendered from `template` with `values`."""
    text = _environment().get_template(template).render(root=root_path(request), **values)
    return HTMLResponse(text, status)


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
        "audit_details": format_details,
        "audit_entry": describe_audit_entry,
        "iso8601": iso8601,
        "mask": mask_address,
        "relative_time": relative_time,
        "timestamp": format_timestamp,
    }
    return environment


def iso8601(value: datetime | None) -> str:
    """Return a time in the format of `<time datetime>`."""
    return "" if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def relative_time(value: datetime, now: datetime) -> str:
    """Return a time relative to now, such as `5 min ago` or `in 2 h`; the date if it is more than a day away."""
    seconds = (now - value).total_seconds()
    distance = abs(seconds)
    if distance >= 86_400:
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    if distance < 1:
        return "now"
    size, unit = next(pair for pair in ((3600, "h"), (60, "min"), (1, "s")) if distance >= pair[0])
    duration = f"{int(distance // size)} {unit}"
    return f"{duration} ago" if seconds > 0 else f"in {duration}"
