"""Rendering pages: everything that comes from outside is escaped, and what a template misspells is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from bridge.store.timeline import describe_audit_entry, format_details
from bridge.telemetry import mask_address


def html(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """The page that `template` makes of `values`."""
    text = _environment().get_template(template).render(root=root_of(request), **values)
    return HTMLResponse(text, status)


def root_of(request: Request) -> str:
    """The way from this page to the service's root: relative, so that a proxy may put it under any path."""
    return "../" * (request.url.path.count("/") - 1) or "./"


def static_routes() -> list[BaseRoute]:
    """The style sheet and the scripts; they hold nothing that a stranger may not see."""
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
        "act": describe_audit_entry,
        "ago": ago,
        "details": format_details,
        "instant": instant,
        "machine": machine,
        "mask": mask_address,
    }
    return environment


def instant(value: datetime | None) -> str:
    """An instant for people, UTC, to the second."""
    return "" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def machine(value: datetime | None) -> str:
    """An instant as `<time datetime>` wants it."""
    return "" if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def ago(value: datetime, now: datetime) -> str:
    """How far an instant is from now, in words; what is further than a day is told by its date."""
    seconds = (now - value).total_seconds()
    distance = abs(seconds)
    if distance >= 86_400:
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    if distance < 1:
        return "now"
    size, unit = next(pair for pair in ((3600, "h"), (60, "min"), (1, "s")) if distance >= pair[0])
    words = f"{int(distance // size)} {unit}"
    return f"{words} ago" if seconds > 0 else f"in {words}"
