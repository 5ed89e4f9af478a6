"""Replays: of one event and of all that match a filter, each with what would happen before it can be started."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from starlette.datastructures import ImmutableMultiDict, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.clock import parse_timestamp
from bridge.dryrun.explain import PlannedOutcome
from bridge.lifecycle import SuppressReason
from bridge.store.batches import SelectionChanged
from bridge.store.queries import list_events
from bridge.store.replay import TooManyEvents
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.bulk_replay import BulkReplay, ReplayQuery
from bridge.web.dashboard.page import Form, done, form, id_of, page, page_query, refused, render_page
from bridge.web.query_params import EventSelection, string_or_none
from bridge.web.validation import read_query

_PARAMETERS: Final = frozenset(ReplayQuery.model_fields)


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of these pages. They come before those of one event, whose path matches as well."""
    return [
        page("/events/replay", partial(_confirm_all, service)),
        form("/events/replay", partial(_replay_all, service)),
        page("/events/{id}/replay", partial(_confirm_one, service)),
        form("/events/{id}/replay", partial(_replay_one, service)),
    ]


def _confirm_one(service: AdminService, request: Request) -> Response:
    """Show what a replay of one event would do, before it can be started."""
    with service.database.read() as conn:
        previewed_at = service.database.now(conn)
    event = service.show("event", id_of(request))
    forecast = service.forecast(event["id"])
    rule = page_query(request).get("rule", "")
    outcomes = [outcome for outcome in forecast.deliveries if rule in ("", outcome.planned.rule)]
    return render_page(
        request,
        service,
        "event_replay.html",
        title=f"Replay {event['type']} {event['id']}",
        event=event,
        outcomes=outcomes,
        repeated=_repeated(outcomes),
        rules=[item.name for item in service.rules.current.rules],
        rule=rule,
        previewed_at=previewed_at.isoformat(),
    )


def _repeated(outcomes: Sequence[PlannedOutcome]) -> list[PlannedOutcome]:
    """Return the messages that only `force` would send: those that were sent before."""
    return [
        outcome
        for outcome in outcomes
        if outcome.planned.channel and outcome.reason == SuppressReason.DUPLICATE
    ]


def _replay_one(service: AdminService, request: Request, fields: Form) -> Response:
    """Route an event again, unless it was replayed since the page was opened."""
    force, reason = fields.get("force") == "yes", string_or_none("reason", fields.get("reason"))
    event_id = id_of(request)
    previewed_at = parse_timestamp(fields.get("previewed_at"))
    if force and reason is None:
        return refused(request, f"events/{event_id}/replay", "reason_missing")
    if force and previewed_at is None:
        return refused(request, f"events/{event_id}/replay", "not_previewed")
    result = service.replay(
        event_id,
        actor_of(request),
        rule=string_or_none("rule", fields.get("rule")),
        force=force,
        reason=reason,
        previewed_at=previewed_at,
    )
    path = f"events/{result.id}"
    if result.skipped:
        return refused(
            request,
            path,
            "replayed_meanwhile" if "been replayed" in result.skipped else "replay_not_possible",
        )
    return done(request, path, "replayed")


def _parameters(fields: ImmutableMultiDict[str, str]) -> QueryParams:
    return QueryParams([(name, value) for name, value in fields.multi_items() if name in _PARAMETERS])


def _list_path(query: QueryParams) -> str:
    kept = [
        (name, value) for name, value in query.multi_items() if name in EventSelection.model_fields and value
    ]
    return f"events?{QueryParams(kept)}" if kept else "events"


def _confirm_all(service: AdminService, request: Request) -> Response:
    """Show what a replay of all events that match would do, before it can be started."""
    return _preview(service, request, _parameters(page_query(request)))


def _preview(service: AdminService, request: Request, query: QueryParams, problem: str = "") -> Response:
    selection = read_query(ReplayQuery, query)
    bulk = BulkReplay(service, selection, force=selection.force == "yes")
    try:
        preview = bulk.preview()
    except TooManyEvents:
        return _too_many(request, query, bulk)
    return render_page(
        request,
        service,
        "events_replay.html",
        status=409 if problem else 200,
        title=f"Replay {preview.events:,} events?",
        preview=preview,
        problem=problem,
        first=list_events(service.database, ids=preview.first).items if preview.first else [],
        criteria=bulk.frozen(preview),
        shown=[
            (name, value) for name, value in query.items() if name in EventSelection.model_fields and value
        ],
        rules=[item.name for item in service.rules.current.rules],
        rule=selection.rule or "",
        force=bulk.order.force,
        list_path=_list_path(query),
        force_path=f"events/replay?{QueryParams({**query, 'force': 'yes'})}",
    )


def _too_many(request: Request, query: QueryParams, bulk: BulkReplay) -> Response:
    message = "too_many_forced" if bulk.order.force else "too_many_events"
    return refused(request, _list_path(query), message)


def _replay_all(service: AdminService, request: Request, fields: Form) -> Response:
    """Replay all events that match; show the preview again if it would now be another replay."""
    query = _parameters(fields)
    selection = read_query(ReplayQuery, query)
    bulk = BulkReplay(service, selection, force=selection.force == "yes")
    if bulk.order.force and bulk.order.reason is None:
        return _preview(service, request, query, "Enter a reason")
    if selection.expected is None or selection.previewed_at is None:
        return refused(request, _list_path(query), "not_previewed")
    try:
        results = bulk.run(actor_of(request))
    except SelectionChanged as error:
        return _preview(service, request, query, str(error))
    except TooManyEvents:
        return _too_many(request, query, bulk)
    number = sum(not result.skipped for result in results)
    if not number:
        return refused(request, _list_path(query), "replayed_meanwhile")
    return done(request, _list_path(query), "replayed_many", number)
