"""Rules: the active rules, and what waits of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, done, form, name_of, page, render_page


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/rules", partial(_list, service)),
        page("/rules/{name:path}/cancel", partial(_confirm_cancel, service)),
        form("/rules/{name:path}/cancel", partial(_cancel, service)),
    ]


def _list(service: AdminService, request: Request) -> Response:
    """Show the active rules."""
    return render_page(request, service, "rules.html", title="Rules", rules_status=service.rules_status())


def _confirm_cancel(service: AdminService, request: Request, result: Sequence[str] = ()) -> Response:
    """Say what waits of a rule, and offer to cancel it or to apply the active version of the rule."""
    name = name_of(request)
    return render_page(
        request,
        service,
        "cancel_rule.html",
        title=f"Waiting deliveries of {name}",
        waiting=service.waiting_of_rule(name),
        rule=service.rules.current.named(name),
        result=result,
    )


def _cancel(service: AdminService, request: Request, fields: Form) -> Response:
    """Cancel the waiting deliveries of a rule, or apply the active version of the rule to them."""
    name = name_of(request)
    if fields.get("rerender") == "yes":
        return _confirm_cancel(service, request, service.rerender_rule(name, actor_of(request)).lines)
    cancelled = service.cancel_rule(name, actor_of(request)).cancelled
    query = QueryParams({"rule": name, "state": "cancelled"})
    return done(request, f"deliveries?{query}", "rule_cancelled", n=cancelled)
