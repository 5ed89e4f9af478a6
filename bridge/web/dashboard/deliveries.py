"""Deliveries: the list with its filters, one delivery, and the operator actions on it."""

from __future__ import annotations

from functools import partial
from typing import Final, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.store.delivery_list import list_deliveries
from bridge.store.operator_actions import Resolution
from bridge.store.queries import REASONS, STATES
from bridge.store.timeline import timeline
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import (
    Form,
    done,
    form,
    id_of,
    indented_json,
    page,
    page_query,
    query_prefix,
    refused,
    render_page,
)
from bridge.web.labels import STATES as STATE_LABELS
from bridge.web.labels import action_label
from bridge.web.query_params import delivery_filter, one_of, string_or_none

_RESOLVED: Final = {"delivered": "delivered", "retry": "resent", "discard": "discarded"}
"""The message after each resolution."""


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/deliveries", partial(_list, service)),
        page("/deliveries/{id}", partial(_show, service)),
        form("/deliveries/{id}/retry", partial(_change, service, "retry")),
        form("/deliveries/{id}/cancel", partial(_change, service, "cancel")),
        form("/deliveries/{id}/resolve", partial(_resolve, service)),
    ]


def _list(service: AdminService, request: Request) -> Response:
    """Show deliveries, newest first."""
    query = page_query(request)
    filters = delivery_filter(query, service.database.clock.now())
    return render_page(
        request,
        service,
        "deliveries.html",
        title="Deliveries",
        page=list_deliveries(service.database, **filters),
        stats=service.stats(),
        states=STATES,
        selected_states=filters["matching"].states,
        reasons=REASONS,
        selected={name: query.get(name, "") for name in ("connection", "rule", "reason", "event")},
        next_page_query=query_prefix(query),
        state_query=query_prefix(query, ("cursor", "state")),
        connections=[status.name for status in service.connections()],
        rules=[rule.name for rule in service.rules.current.rules],
    )


def _show(service: AdminService, request: Request) -> Response:
    """Show one delivery with its timeline, its parameters and the operator actions that are possible."""
    delivery = service.show("delivery", id_of(request))
    state = STATE_LABELS[delivery["state"]].text
    return render_page(
        request,
        service,
        "delivery.html",
        title=f"{state}: {action_label(delivery['action'])} {delivery['id']}",
        delivery=delivery,
        timeline=timeline(delivery),
        params=indented_json(delivery["params"] | delivery["options"].get("late", {})),
    )


def _change(service: AdminService, action: str, request: Request, fields: Form) -> Response:
    """Retry or cancel a delivery."""
    result = service.change_delivery(action, id_of(request), actor_of(request))
    path = _return_path(result.id, fields)
    if not result.done:
        return refused(request, path, "delivery_changed")
    return done(request, path, {"retry": "retried", "cancel": "cancelled"}[action])


def _resolve(service: AdminService, request: Request, fields: Form) -> Response:
    """Record what an operator found out about a delivery whose outcome was unknown."""
    resolution = one_of("resolution", fields.get("resolution"), get_args(Resolution))
    result = service.change_delivery(
        "resolve",
        id_of(request),
        actor_of(request),
        resolution=resolution,
        external_id=string_or_none("external_id", fields.get("external_id")),
    )
    path = _return_path(result.id, fields)
    return (
        done(request, path, _RESOLVED[resolution])
        if result.done
        else refused(request, path, "delivery_changed")
    )


def _return_path(delivery_id: str, fields: Form) -> str:
    return {"overview": "", "review": "review"}.get(fields.get("return_to", ""), f"deliveries/{delivery_id}")
