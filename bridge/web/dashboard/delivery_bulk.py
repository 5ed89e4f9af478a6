"""Actions on many deliveries: the confirmation, which says how many and to whom, and the action itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, get_args

from starlette.datastructures import ImmutableMultiDict, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.store.batches import SelectionChanged
from bridge.store.bulk_actions import (
    TooManyDeliveries,
    change_all,
    preview_bulk,
)
from bridge.store.delivery_context import people_of
from bridge.store.delivery_list import DeliveryFilter
from bridge.store.operator_actions import Action
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, done, form, page, page_query, refused, render_page
from bridge.web.dashboard.seen import seen_of_all
from bridge.web.delivery_filter import criteria_of, link_to
from bridge.web.query_params import DeliveryCriteria, one_of
from bridge.web.validation import InvalidParameter, read_query

MAX_CHOSEN: Final = 500
_DONE: Final[Mapping[Action, str]] = {
    "retry": "retried_many", "cancel": "cancelled_many", "dismiss": "dismissed_many", "undismiss": "undismissed_many",
}  # fmt: skip


class _Selection(NamedTuple):
    action: Action
    matching: DeliveryFilter
    ids: list[str]
    """Empty: all that match the criteria."""
    criteria: list[tuple[str, str]]

    @property
    def list_path(self) -> str:
        return link_to("deliveries", self.criteria)


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page. They come before those of one delivery, whose path matches as well."""
    return [
        page("/deliveries/confirm", partial(_confirm, service)),
        form("/deliveries/confirm", partial(_change, service), max_fields=MAX_CHOSEN + 40),
    ]


def _selection(service: AdminService, fields: ImmutableMultiDict[str, Any]) -> _Selection | None:
    """Return what the list or the confirmation has selected; None if nothing was chosen. Raise InvalidParameter.

    `action` is `retry` for the chosen deliveries, and `retry-all` for all that match the filter.
    """
    name, _, scope = fields.get("action", "").partition("-")
    action: Action = one_of("action", name, get_args(Action))
    criteria, ids = criteria_of(fields), fields.getlist("id") or list(seen_of_all(fields))
    if scope != "all":
        if not ids or len(ids) > MAX_CHOSEN:
            return None
        return _Selection(action, DeliveryFilter(ids=ids), ids, criteria)
    if not criteria:
        raise InvalidParameter("filter the deliveries first; an action on all of them is not possible")
    matching = read_query(DeliveryCriteria, QueryParams(criteria)).filter(service.database.clock.now())
    return _Selection(action, replace(matching, ids=None), [], criteria)


def _confirm(service: AdminService, request: Request) -> Response:
    """Say what an action would do, before it is confirmed."""
    selection = _selection(service, page_query(request))
    if selection is None:
        return refused(request, link_to("deliveries", criteria_of(page_query(request))), "nothing_chosen")
    return _preview(service, request, selection)


def _fixed(service: AdminService, selection: _Selection) -> list[tuple[str, str]]:
    """Return the criteria with fixed times, so that deliveries created after the preview do not undo it."""
    matching = selection.matching
    until = matching.until or service.database.clock.now()
    times = {"since": matching.since, "until": until}
    kept = [(name, value) for name, value in selection.criteria if name not in times]
    return kept + [(name, value.isoformat()) for name, value in times.items() if value]


def _preview(service: AdminService, request: Request, selection: _Selection, problem: str = "") -> Response:
    try:
        preview = preview_bulk(service.database, selection.action, selection.matching)
    except TooManyDeliveries:
        return refused(request, selection.list_path, "too_many")
    first = [{"event_id": item.event_id} for item in preview.first]
    return render_page(
        request,
        service,
        "deliveries_confirm.html",
        status=409 if problem else 200,
        title=f"{selection.action.capitalize()} {preview.possible:,} deliveries?",
        preview=preview,
        problem=problem,
        people=people_of(service.database, first),
        action=selection.action,
        ids=selection.ids,
        criteria=selection.criteria,
        fixed=_fixed(service, selection),
        list_path=selection.list_path,
    )


def _change(service: AdminService, request: Request, fields: Form) -> Response:
    """Carry out an action that was confirmed; show the confirmation again if it would now be another one."""
    selection = _selection(service, fields)
    expected = fields.get("expected", "")
    if selection is None or not expected.isdecimal() or len(expected) > 9:
        raise InvalidParameter("open the list of deliveries, and choose what to do there")
    try:
        result = change_all(
            service.database,
            actor_of(request),
            selection.action,
            selection.matching,
            expected=int(expected),
            seen=seen_of_all(fields) or None,
        )
    except SelectionChanged as error:
        return _preview(service, request, selection, str(error))
    except TooManyDeliveries:
        return refused(request, selection.list_path, "too_many")
    return done(request, selection.list_path, _DONE[selection.action], result.done)
