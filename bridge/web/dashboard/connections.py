"""Connections: whether each account works, since when it does not, what waits for it, and its history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from functools import partial
from typing import Final

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.connector.provider_records import provider_label
from bridge.store.activity import SPANS
from bridge.store.connection_history import Attempts
from bridge.store.held_deliveries import held_deliveries
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.charts import ChartSeries, stacked_columns, strip
from bridge.web.connection_page import ConnectionPage, last_hour, read_connection_list, read_connection_page
from bridge.web.dashboard.page import Form, done, form, name_of, page, page_query, refused, render_page
from bridge.web.frame import plain_frame
from bridge.web.labels import connection_label
from bridge.web.overview import strip_cells
from bridge.web.query_params import string_or_none
from bridge.web.summary import duration_text
from bridge.web.validation import InvalidParameter

_DEFAULT_SPAN: Final = "24h"


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [
        page("/connections", partial(_list, service)),
        page("/connections/{name}", partial(_show, service)),
        form("/connections/{name}/pause", partial(_pause, service)),
        form("/connections/{name}/resume", partial(_resume, service)),
        form("/connections/{name}/probe", partial(_probe, service)),
        form("/connections/{name}/check", partial(_check, service)),
    ]


def _list(service: AdminService, request: Request) -> Response:
    """Show every connection: its state, what waits, and its last 24 hours."""
    connections, starts, period, pauses = read_connection_list(service)
    zone, now = plain_frame(request).zone, service.database.clock.now()
    return render_page(
        request,
        service,
        "connections.html",
        title="Connections",
        connections=connections,
        last_hours={item.name: last_hour(item.attempts, period) for item in connections},
        strips={
            item.name: strip(
                strip_cells(item.name, starts, period, item.attempts, pauses, now, zone),
                f"Attempts over {item.name} in the last 24 hours",
            )
            for item in connections
        },
    )


def _show(service: AdminService, request: Request) -> Response:
    """Show one connection with its history."""
    name, span = name_of(request), page_query(request).get("span", _DEFAULT_SPAN)
    if span not in SPANS:
        raise InvalidParameter(f"`span` must be one of {', '.join(SPANS)}")
    found = read_connection_page(service, name, span)
    zone, overview = plain_frame(request).zone, found.overview
    pause = overview.status.pause
    cells = strip_cells(name, found.starts, found.period, overview.attempts, found.pauses, found.now, zone)
    return render_page(
        request,
        service,
        "connection.html",
        title=f"{connection_label(pause.cause if pause else None).text}: {provider_label(name)}",
        item=overview,
        found=found,
        spans=SPANS,
        span=span,
        strip=strip(cells, f"Attempts over {name}, {SPANS[span].title.lower()}"),
        charts=_charts(found.starts, overview.attempts, duration_text(found.period), zone),
        pauses_of_span=_pause_rows(found),
        held=held_deliveries(service.database, connection=name) if pause is not None else None,
    )


def _charts(starts: Sequence[datetime], attempts: Sequence[Attempts], per: str, zone: tzinfo) -> list[Markup]:
    outcomes = [
        ChartSeries("Succeeded", "good", [item.succeeded for item in attempts]),
        ChartSeries("Rejected", "hold", [item.rejected for item in attempts]),
        ChartSeries("Failed", "bad", [item.failed for item in attempts]),
    ]
    times = ChartSeries(
        "Milliseconds", "tone1", [round((item.mean_seconds or 0) * 1000) for item in attempts]
    )
    return [
        stacked_columns(starts, outcomes, f"Attempts per {per}, by outcome", zone=zone),
        stacked_columns(
            starts, [times], f"Mean milliseconds per attempt, per {per}", zone=zone, has_totals=False
        ),
    ]


def _pause_rows(found: ConnectionPage) -> list[tuple[object, str]]:
    """Return the pauses of the span, each with how long it lasted."""
    return [(item, duration_text(item.duration(found.now))) for item in found.pauses]


def _pause(service: AdminService, request: Request, fields: Form) -> Response:
    """Pause a connection; other operators have to know why."""
    name = name_of(request)
    reason = (string_or_none("reason", fields.get("reason")) or "").strip()
    service.connection(name)
    if not reason:
        return refused(request, f"connections/{name}", "reason_missing")
    service.pause(name, actor_of(request), reason)
    return done(request, f"connections/{name}", "connection_paused")


def _resume(service: AdminService, request: Request, fields: Form) -> Response:  # noqa: ARG001
    """Resume a connection."""
    name = name_of(request)
    service.resume(name, actor_of(request))
    return done(request, f"connections/{name}", "connection_resumed")


def _probe(service: AdminService, request: Request, fields: Form) -> Response:  # noqa: ARG001
    """Try a connection that does not respond at once."""
    name = name_of(request)
    if not service.probe(name, actor_of(request)):
        return refused(request, f"connections/{name}", "circuit_closed")
    return done(request, f"connections/{name}", "connection_probed")


def _check(service: AdminService, request: Request, fields: Form) -> Response:  # noqa: ARG001
    """Log in to the account, without writing to it."""
    name = name_of(request)
    result = service.check_account(name, actor_of(request))
    if result is None:
        return refused(request, f"connections/{name}", "no_account")
    return done(request, f"connections/{name}", "account_works" if result.ok else "account_fails")
