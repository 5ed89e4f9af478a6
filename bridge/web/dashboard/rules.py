"""Rules: what runs, what each rule did, why it did not fire, and what waits of it."""

from __future__ import annotations

from datetime import tzinfo
from functools import partial
from typing import Any, Final

from markupsafe import Markup
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.lifecycle import SuppressReason
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.queries import show_delivery
from bridge.store.rule_stats import RuleDays, rule_days
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.charts import ChartSeries, stacked_columns
from bridge.web.dashboard import rules_try, rules_versions
from bridge.web.dashboard.page import Form, done, form, name_of, page, redirect, render_page
from bridge.web.frame import zone_of
from bridge.web.rules_report import rule_report, rules_report
from bridge.web.word_diff import as_text

SHADOW_EXAMPLES: Final = 3
LATEST: Final = 10
"""Latest deliveries of a rule that are shown."""
_SERIES: Final = (
    ("Succeeded", "good", "succeeded"),
    ("Suppressed", "hold", "suppressed"),
    ("Cancelled", "hold", "cancelled"),
    ("Shadow", "wait", "shadow"),
    ("Failed", "bad", "failed"),
)
"""Name, color and state of each part of the chart."""


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
    days = rule_days(service.database, service.counts, name, zone)
    return render_page(
        request,
        service,
        "rule.html",
        title=f"Rule {name}",
        rule=report,
        chart=_chart(days, zone),
        shadow=_shadow_messages(service, name) if report["counts"]["shadow"] else [],
        latest=list_deliveries(service.database, DeliveryFilter(rule=name), limit=LATEST).items,
    )


def _shadow_messages(service: AdminService, name: str) -> list[dict[str, Any]]:
    """Return the latest deliveries that shadow mode kept, with what each would have sent."""
    shadow = DeliveryFilter(rule=name, states=("suppressed",), reason=SuppressReason.SHADOW)
    latest = list_deliveries(service.database, shadow, limit=SHADOW_EXAMPLES).items
    shown = [show_delivery(service.database, item["id"]) for item in latest]
    return [
        item
        | {"shown": [(key, as_text(value)) for key, value in item["params"].items() if value and key != "to"]}
        for item in shown
    ]


def _chart(days: RuleDays, zone: tzinfo) -> Markup | None:
    series = [
        ChartSeries(name, css_class, days.results[state])
        for name, css_class, state in _SERIES
        if state in days.results
    ]
    if not series:
        return None
    return stacked_columns(days.starts, series, "Deliveries in the last 30 days", zone=zone)


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
