"""Rules: what runs, what each rule did, why it did not fire, and what waits of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import Any, Final

from markupsafe import Markup
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.rule_stats import RuleDays, rule_days
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.charts import ChartSeries, stacked_columns
from bridge.web.dashboard import rules_try, rules_versions
from bridge.web.dashboard.page import Form, done, form, name_of, page, redirect, render_page
from bridge.web.frame import zone_of
from bridge.web.rules_report import rule_report, rules_report

CHART_DAYS: Final = 30
LATEST: Final = 10
"""Latest deliveries of a rule that are shown."""
_SERIES: Final = (
    ("Succeeded", "good", ("succeeded",)),
    ("Waiting", "wait", ("pending", "running", "retrying")),
    ("Suppressed or cancelled", "hold", ("suppressed", "cancelled")),
    ("Shadow", "hold shadow", ("shadow",)),
    ("Needs review", "warn", ("needs_review",)),
    ("Failed", "bad", ("failed",)),
)
"""Name, color and states of each part of the chart."""


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of the pages about rules. Those of a single rule come last: a rule may have any name."""
    return [
        page("/rules", partial(_list, service)),
        *rules_try.routes(service),
        *rules_versions.routes(service),
        page("/rules/{name:path}/cancel", partial(_confirm_cancel, service)),
        form("/rules/{name:path}/cancel", partial(_cancel, service)),
        page("/rules/{name:path}", partial(_show, service)),
    ]


def _list(service: AdminService, request: Request) -> Response:
    """Show the active rules with what each did, and the errors of the file on disk."""
    report = rules_report(service)
    errors = sum(item["level"] == "error" for item in report["diagnostics"])
    title = "Rules"
    if report["load_error"]:
        title = f"{errors or 1} {'error' if errors in (0, 1) else 'errors'} in the rules file"
    return render_page(request, service, "rules.html", title=title, report=report, errors=errors)


def _show(service: AdminService, request: Request) -> Response:
    """Show one rule. A rule that is no longer active leads to what waits of it."""
    name = name_of(request)
    if service.rules.current.named(name) is None:
        service.waiting_of_rule(name)
        return redirect(request, f"rules/{name}/cancel")
    report = rule_report(service, name)
    zone = zone_of(request)
    starts = _days(service.database.clock.now(), zone)
    days = rule_days(service.database, name, starts)
    return render_page(
        request,
        service,
        "rule.html",
        title=f"Rule {name}",
        rule=report,
        chart=_chart(days, starts, zone),
        days=days,
        latest=list_deliveries(service.database, DeliveryFilter(rule=name), limit=LATEST).items,
    )


def _days(now: datetime, zone: tzinfo) -> list[datetime]:
    """Return the starts of the last days in the reader's zone, and the end of today."""
    today = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return [today + timedelta(days=day) for day in range(1 - CHART_DAYS, 2)]


def _chart(days: RuleDays, starts: list[datetime], zone: tzinfo) -> Markup | None:
    series = [
        ChartSeries(name, css_class, [_sum(days.days[start], states) for start in starts[:-1]])
        for name, css_class, states in _SERIES
    ]
    shown = [one for one in series if any(one.values)]
    if not shown:
        return None
    return stacked_columns(starts[:-1], shown, f"Deliveries in the last {CHART_DAYS} days", zone=zone)


def _sum(counts: Mapping[str, int], states: tuple[str, ...]) -> int:
    return sum(counts.get(state, 0) for state in states)


def _confirm_cancel(service: AdminService, request: Request) -> Response:
    """Say what waits of a rule, and offer to cancel it or to apply the active version of the rule."""
    name = name_of(request)
    waiting = service.waiting_of_rule(name)
    return render_page(
        request,
        service,
        "cancel_rule.html",
        title=f"{waiting.total:,} waiting of {name}",
        waiting=waiting,
        rule=service.rules.current.named(name),
    )


def _cancel(service: AdminService, request: Request, fields: Form) -> Response:
    """Cancel the waiting deliveries of a rule, or apply the active version of the rule to them."""
    name = name_of(request)
    if fields.get("rerender") == "yes":
        report = service.rerender_rule(name, actor_of(request))
        return done(request, f"rules/{name}/cancel", "rule_rerendered", n=report.rendered)
    cancelled = service.cancel_rule(name, actor_of(request)).cancelled
    query: dict[str, Any] = {"rule": name, "state": "cancelled"}
    return done(request, f"deliveries?{QueryParams(query)}", "rule_cancelled", n=cancelled)
