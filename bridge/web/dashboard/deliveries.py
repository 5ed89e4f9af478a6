"""Deliveries: the list with its filters, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.events import EVENT_TYPES
from bridge.lifecycle import DeliveryState
from bridge.store.deliveries import DELIVERY_STATES
from bridge.store.delivery_context import alert_texts, people_of
from bridge.store.delivery_list import CappedCount, DeliveryFilter, count_by_state, list_deliveries
from bridge.store.operator_actions import STATES, Action
from bridge.store.queries import REASONS
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import page, page_query, redirect, render_page
from bridge.web.delivery_filter import criteria_of, link_to
from bridge.web.frame import zone_of
from bridge.web.query_params import DeliveryQuery
from bridge.web.validation import InvalidParameter, read_query

_OFFERED: Final[Sequence[Action]] = ("retry", "cancel", "dismiss")
"""Actions on many deliveries; the page leaves out those that are not possible in the states of the filter."""
SPANS: Final = {"1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days", "30d": "last 30 days"}
"""Values of `since` that the page offers."""


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/deliveries", partial(_list, service))]


def _list(service: AdminService, request: Request) -> Response:
    """Show a page of deliveries. Times that were typed in the reader's zone are first turned into instants."""
    query = page_query(request)
    if any(query.get(name) for name in ("from", "to")):
        return redirect(request, link_to("deliveries", _with_instants(request, query)))
    query = QueryParams([(name, value) for name, value in query.multi_items() if name not in ("from", "to")])
    read = read_query(DeliveryQuery, query)
    now = service.database.clock.now()
    matching = read.filter(now)
    listed = list_deliveries(service.database, **read.arguments(now))
    counts = count_by_state(service.database, matching)
    criteria = criteria_of(query)
    return render_page(
        request,
        service,
        "deliveries.html",
        title=_title(matching, counts),
        page=listed,
        people=people_of(service.database, listed.items),
        alert_texts=alert_texts(service.database, listed.items),
        person=_person_name(service, matching),
        counts={state: count for state, count in counts.items() if count.number or not count.is_exact},
        matching=matching,
        criteria=criteria,
        actions=[action for action in _OFFERED if set(matching.possible_states) & set(STATES[action])],
        unfiltered=[pair for pair in criteria if pair[0] != "state"],
        link_to=link_to,
        query=query,
        spans=SPANS,
        reasons=REASONS,
        event_types=EVENT_TYPES,
        states=tuple(DeliveryState),
        connections=_with_current([status.name for status in service.connections()], query.get("connection")),
        rules=_with_current([rule.name for rule in service.rules.current.rules], query.get("rule")),
    )


def _with_instants(request: Request, query: QueryParams) -> list[tuple[str, str]]:
    """Return the criteria with `since` and `until` in place of `from` and `to`. Raise InvalidParameter."""
    kept = [pair for pair in criteria_of(query) if pair[0] not in ("since", "until")]
    for name, parameter in (("from", "since"), ("to", "until")):
        text = query.get(name)
        if not text:
            continue
        try:
            local = datetime.fromisoformat(text)
        except ValueError:
            raise InvalidParameter(f"`{name}` must be a date and a time, such as 2026-03-02T21:30") from None
        instant = local if local.tzinfo else local.replace(tzinfo=zone_of(request))
        kept.append((parameter, instant.isoformat()))
    return kept


def _title(matching: DeliveryFilter, counts: Mapping[DeliveryState, CappedCount]) -> str:
    """Return the title: with the number of deliveries if the filter is for one state."""
    if len(matching.states) != 1:
        return "Deliveries"
    (state,) = matching.states
    number, is_exact = counts[DELIVERY_STATES[state]]
    return f"{number:,}{'' if is_exact else '+'} {state.replace('_', ' ')} · Deliveries"


def _person_name(service: AdminService, matching: DeliveryFilter) -> str:
    if matching.person is None:
        return ""
    person = people_of(service.database, [{"event_id": matching.person}]).get(matching.person)
    return (person.name if person else None) or "this person"


def _with_current(names: list[str], current: str | None) -> list[str]:
    """Return the choices of a filter, with the current one although it may no longer exist."""
    return names if not current or current in names else [*names, current]
