"""What the layout of every page needs: navigation, what the reader may do, the reader's time zone, and messages.

Pages of the dashboard fill the rest from the database (`bridge.web.dashboard.layout`). Error pages do not, because they
also have to appear if the database is unavailable.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache
from typing import Final, Literal
from zoneinfo import ZoneInfo, available_timezones

from starlette.datastructures import QueryParams
from starlette.requests import Request

from bridge.web.access import Access, Principal

ZONE_COOKIE: Final = "tz"
LAYOUT_PARAMETERS: Final = ("done", "refused", "n", "live")
"""Query parameters of the layout, which any page may have besides its own."""
REFRESH_SECONDS: Final = 30

NAVIGATION: Final = (
    ("", "Overview"),
    ("review", "Review"),
    ("deliveries", "Deliveries"),
    ("events", "Events"),
    ("contacts", "Contacts"),
    ("rules", "Rules"),
    ("connections", "Connections"),
    ("rejected", "Rejected requests"),
    ("audit", "Audit log"),
)
"""Path and title of each entry of the navigation."""


@dataclass(frozen=True)
class Notice:
    """A sentence at the top of a page, with a link to its details."""

    kind: Literal["good", "warn", "bad"]
    text: str
    path: str = ""
    link: str = ""
    """Text of the link to `path`; empty for none."""


@dataclass(frozen=True)
class Frame:
    """Values of the layout for one request."""

    page: str
    """First segment of the path, which names the current entry of the navigation."""
    now: datetime
    zone: tzinfo
    is_logged_in: bool = False
    can_act: bool = False
    """False if the reader's token only reads: pages leave out what changes something."""
    actor: str | None = None
    """Name of the reader's token."""
    status_line: Notice | None = None
    """The most important problem of the service."""
    flash: Notice | None = None
    """The result of the action that led to this page."""
    reviews: str = ""
    """Number of deliveries that need review, such as `3` or `more than 1,000`; empty for none."""
    stop: str | None = None
    """The `StopScope` if an operator stopped sending."""
    allowlist: int | None = None
    """Number of recipients that BRIDGE_RECIPIENT_ALLOWLIST allows. None if it is not set."""
    is_live: bool = False
    """True if the page reloads itself, which the reader switched on."""
    live_query: str = ""
    """The page's query string with or without automatic refresh, whichever it is not now."""

    @property
    def navigation(self) -> tuple[tuple[str, str], ...]:
        """The entries of the navigation."""
        return NAVIGATION

    @property
    def zone_name(self) -> str:
        """Name of the reader's time zone."""
        return str(self.zone)


def plain_frame(request: Request, now: datetime | None = None) -> Frame:
    """Return what is known about a request without the database."""
    principal: Principal | None = request.scope.get("bridge.principal")
    access = principal.access if principal else Access.METRICS
    query = request.query_params
    return Frame(
        page=request.url.path.split("/")[1],
        now=now or datetime.now(UTC),
        zone=zone_of(request),
        is_logged_in=access >= Access.READ,
        can_act=access >= Access.ADMIN,
        actor=principal.name if principal else None,
        is_live=query.get("live") == str(REFRESH_SECONDS),
        live_query=_live_query(query),
    )


def zone_of(request: Request) -> tzinfo:
    """Return the reader's time zone: that of the cookie, or UTC."""
    name = request.cookies.get(ZONE_COOKIE, "")
    return ZoneInfo(name) if name in zone_names() else UTC


@cache
def zone_names() -> tuple[str, ...]:
    """Return the names of the time zones that a reader can choose."""
    return tuple(sorted(name for name in available_timezones() if "/" in name or name == "UTC"))


def _live_query(query: QueryParams) -> str:
    """Return the query string that switches the automatic refresh on or off."""
    kept = [(name, value) for name, value in query.multi_items() if name not in LAYOUT_PARAMETERS]
    if query.get("live") != str(REFRESH_SECONDS):
        kept.append(("live", str(REFRESH_SECONDS)))
    return f"?{QueryParams(kept)}" if kept else "?"
