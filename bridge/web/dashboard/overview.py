"""Overview: whether all is well, what needs an operator, what recovered by itself, and how it is going."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta, tzinfo
from functools import partial
from typing import Any, Final

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from bridge.errors import StoreUnavailable
from bridge.store.activity import SPANS, Activity, ActivityTotals
from bridge.store.queries import list_events
from bridge.web.admin_service import AdminService
from bridge.web.charts import ChartSeries, stacked_columns, strip
from bridge.web.dashboard.page import page, page_query, render_page
from bridge.web.frame import plain_frame
from bridge.web.html import root_path
from bridge.web.labels import reason_label
from bridge.web.overview import Overview, read_overview, strip_cells, strip_periods
from bridge.web.summary import duration_text
from bridge.web.validation import InvalidParameter

_LATEST: Final = 8
"""Events on the page."""
_OLD_FILTERS: Final = ("state", "reason", "event", "connection", "rule", "cursor", "limit")
"""Query parameters of the list of deliveries that was here."""
_SHOWN_TYPES: Final = 5
"""Event types with a color of their own; the others share one."""
_COMPARABLE: Final = 20
"""Smaller numbers are not compared with the span before."""


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/", partial(_overview, service))]


def _overview(service: AdminService, request: Request) -> Response:
    """Show the overview. The list of deliveries was here: redirect its filters."""
    query = page_query(request)
    if any(name in query for name in _OLD_FILTERS):
        return RedirectResponse(f"{root_path(request)}deliveries?{request.url.query}", 308)
    span = query.get("span", "24h")
    if span not in SPANS:
        raise InvalidParameter(f"`span` must be one of {', '.join(SPANS)}")
    zone = plain_frame(request).zone
    overview = read_overview(service, span, zone)
    return render_page(
        request,
        service,
        "overview.html",
        title=overview.summary.title.rstrip("."),
        overview=overview,
        summary=overview.summary,
        spans=SPANS,
        span=span,
        numbers=_numbers(overview.activity) if overview.activity else (),
        charts=_charts(overview.activity, span, zone) if overview.activity else (),
        strips=connection_strips(overview, zone),
        strip_title="Last hour" if span == "1h" else "Last 24 hours",
        latest_events=_latest_events(service),
        rules_count=sum(rule.enabled for rule in service.rules.current.rules),
        rules_hash=service.rules.current.hash,
        rules_loaded_at=service.rules.loaded_at,
        webhook_url=f"{request.base_url}webhooks/heppu",
    )


def _latest_events(service: AdminService) -> Sequence[dict[str, Any]] | None:
    try:
        return list_events(service.database, limit=_LATEST).items
    except StoreUnavailable:
        return None


def _numbers(activity: Activity) -> list[tuple[str, int, str, str]]:
    """Return title, number, explanation and link of each number."""
    totals, before = activity.totals, activity.before
    held = ", ".join(
        f"{number:,} {reason_label(reason)}" for reason, number in list(activity.reasons.items())[:3]
    )
    finished = totals.succeeded + totals.failed
    share = f"{totals.failed / finished:.1%} of what was sent" if finished else ""
    return [
        ("Events", totals.events, _compare(totals, before, "events"), "events"),
        ("Succeeded", totals.succeeded, _speed(activity.durations), "deliveries?state=succeeded"),
        ("Suppressed or cancelled", totals.suppressed, held, "deliveries?state=suppressed,cancelled"),
        ("Failed", totals.failed, share, "deliveries?state=failed"),
    ]


def _compare(totals: ActivityTotals, before: ActivityTotals | None, name: str) -> str:
    now, then = getattr(totals, name), getattr(before, name, 0)
    if then < _COMPARABLE:
        return ""
    change = round(100 * (now - then) / then)
    if not change:
        return "as many as in the time before"
    return f"{abs(change)} % {'more' if change > 0 else 'fewer'} than in the time before"


def _speed(durations: Sequence[float]) -> str:
    """Return how long the newest deliveries took."""
    if len(durations) < _COMPARABLE:
        return ""
    half, most = durations[len(durations) // 2], durations[int(len(durations) * 0.95)]
    return f"half within {_seconds(half)}, 95 % within {_seconds(most)}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 10 else duration_text(timedelta(seconds=value))


def _charts(activity: Activity, span: str, zone: tzinfo) -> list[Markup]:
    per = {"1h": "minute", "24h": "hour", "7d": "6 hours", "30d": "day"}[span]
    results = [
        ChartSeries("Succeeded", "good", activity.results["succeeded"]),
        ChartSeries("Suppressed or cancelled", "hold", activity.results["suppressed"]),
        ChartSeries("Failed", "bad", activity.results["failed"]),
    ]
    return [
        stacked_columns(activity.slots, results, f"Deliveries per {per}, by result", zone=zone),
        stacked_columns(
            activity.slots, _event_series(activity.events), f"Events per {per}, by type", zone=zone
        ),
    ]


def _event_series(events: Mapping[str, Sequence[int]]) -> list[ChartSeries]:
    """Return a series for each of the most frequent types, and one for the others."""
    names = list(events)
    series = [
        ChartSeries(name, f"tone{number}", events[name])
        for number, name in enumerate(names[:_SHOWN_TYPES], 1)
    ]
    others = [sum(values) for values in zip(*(events[name] for name in names[_SHOWN_TYPES:]), strict=True)]
    return [*series, ChartSeries("Other types", "hold", others)] if others else series


def connection_strips(overview: Overview, zone: tzinfo) -> dict[str, Markup]:
    """Return the strip of each connection."""
    starts, period = strip_periods("1h" if overview.span == "1h" else "24h", overview.now)
    return {
        item.name: strip(
            strip_cells(item.name, starts, period, item.attempts, overview.pauses or (), overview.now, zone),
            f"Attempts over {item.name}",
        )
        for item in overview.connections or ()
    }
