"""Delivery: what became of one, what it says, why it exists, what happened, and what an operator can do about it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.connector.action_name import ActionName
from bridge.connector.provider_records import provider_label
from bridge.rules.trace import Check
from bridge.rules.unmet import describe_check
from bridge.store.delivery_context import EventContext, event_context
from bridge.store.delivery_list import list_deliveries
from bridge.store.operator_actions import Action, preview_action, seen_version
from bridge.store.timeline import timeline
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, done, form, id_of, indented_json, page, page_query, render_page
from bridge.web.dashboard.seen import refused_action, seen_in
from bridge.web.delivery_content import content_of
from bridge.web.delivery_filter import Criteria, criteria_of, link_to
from bridge.web.delivery_outcome import When, noun_of, outcome_of, subject_of
from bridge.web.frame import zone_of
from bridge.web.labels import state_label
from bridge.web.query_params import DeliveryCriteria
from bridge.web.validation import read_query

_ACTIONS: Final[Mapping[Action, str]] = {
    "retry": "retried", "cancel": "cancelled", "dismiss": "dismissed", "undismiss": "undismissed",
}  # fmt: skip
"""Each action, and the message after it."""


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/deliveries/{id}", partial(_show, service)),
        *(form(f"/deliveries/{{id}}/{action}", partial(_change, service, action)) for action in _ACTIONS),
    ]


def _show(service: AdminService, request: Request) -> Response:
    """Show one delivery. The query string is the filter of the list that led here."""
    delivery = service.show("delivery", id_of(request))
    database, criteria = service.database, criteria_of(page_query(request))
    event = event_context(database, delivery["event_id"], delivery["rule"]) if delivery["event_id"] else None
    pauses = {status.name: status.pause for status in service.connections() if status.pause}
    pause = None
    if delivery["state"] in ("pending", "retrying"):
        of_all = service.pause_of_all() if delivery["channel"] else None
        pause = pauses.get(delivery["connection"]) or of_all
    previous_id, next_id = _neighbors(service, delivery["id"], criteria)
    to = _person(delivery, event)
    title = subject_of(delivery, to)
    when = When(database.clock.now(), zone_of(request))
    return render_page(
        request,
        service,
        "delivery.html",
        title=f"{state_label(delivery['state'], delivery['message_status']).text}: {title}",
        heading=title,
        delivery=delivery,
        seen=seen_version(delivery),
        event=event,
        to=to or "the recipient",
        noun=noun_of(delivery),
        is_current_rule=service.rules.current.named(delivery["rule"]) is not None,
        checks=_checks(event),
        provider=provider_label(ActionName.parse(delivery["action"]).connector),
        outcome=outcome_of(delivery, when, pause),
        content=content_of(delivery),
        timeline=timeline(delivery),
        obstacles={action: _obstacle(service, action, delivery) for action in _ACTIONS},
        record_url=service.links.record_url(
            delivery["connection"], delivery["action"], delivery["external_id"]
        ),
        where_to_look=service.links.where_to_look(delivery) if delivery["state"] == "needs_review" else None,
        expired=delivery["expires_at"] is not None and delivery["expires_at"] <= when.now,
        params=indented_json(delivery["params"] | delivery["options"].get("late", {})),
        criteria=criteria,
        list_path=link_to("deliveries", criteria),
        previous_path=link_to(f"deliveries/{previous_id}", criteria) if previous_id else "",
        next_path=link_to(f"deliveries/{next_id}", criteria) if next_id else "",
    )


def _person(delivery: Mapping[str, Any], event: EventContext | None) -> str:
    """Return whom a delivery is about, in full: the name, or else the address."""
    name = event.person.name if event else None
    return name or delivery["recipient"] or (event.person.address if event else None) or ""


def _checks(event: EventContext | None) -> list[tuple[Check, str]]:
    """Return the conditions of the rule that created the delivery, each in words."""
    if event is None or event.trace is None:
        return []
    return [(check, describe_check(check)) for check in event.trace.checks]


def _obstacle(service: AdminService, action: Action, delivery: Mapping[str, Any]) -> str | None:
    ((_, problem),) = preview_action(service.database, action, [delivery["id"]])
    return problem


def _neighbors(service: AdminService, delivery_id: str, criteria: Criteria) -> tuple[str | None, str | None]:
    """Return the delivery above and the one below in the list; None without a list, or at its end."""
    if not criteria:
        return None, None
    matching = read_query(DeliveryCriteria, QueryParams(list(criteria))).filter(service.database.clock.now())
    above = list_deliveries(service.database, matching, limit=1, newer_than=delivery_id).items
    below = list_deliveries(service.database, matching, limit=1, cursor=delivery_id).items
    return (above[0]["id"] if above else None), (below[0]["id"] if below else None)


def _change(service: AdminService, action: Action, request: Request, fields: Form) -> Response:
    """Carry out an action on a delivery, unless it has changed since the page was opened."""
    delivery_id = id_of(request)
    result = service.change_delivery(action, delivery_id, actor_of(request), seen_in(fields, delivery_id))
    path = link_to(f"deliveries/{delivery_id}", criteria_of(fields))
    return (
        done(request, path, _ACTIONS[action])
        if result.done
        else refused_action(service, request, path, result)
    )
