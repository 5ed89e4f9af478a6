"""Stop and start: the pages on which an operator stops sending, and starts it again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.clock import format_duration
from bridge.lifecycle import StopScope
from bridge.policy.opt_outs import NOUNS
from bridge.store.bulk_actions import TooManyDeliveries
from bridge.store.held_deliveries import MAX_COUNTED, cancel_held, held_deliveries
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, done, form, page, refused, render_page
from bridge.web.query_params import one_of, string_or_none

_AGES: Final[Mapping[str, timedelta]] = {
    format_duration(age): age
    for age in (timedelta(hours=1), timedelta(hours=6), timedelta(hours=24), timedelta(days=3))
}
"""Ages beyond which held deliveries can be cancelled before sending starts again."""


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [
        page("/stop", partial(_confirm_stop, service)),
        form("/stop", partial(_stop, service)),
        page("/start", partial(_confirm_start, service)),
        form("/start", partial(_start, service)),
    ]


def _confirm_stop(service: AdminService, request: Request) -> Response:
    """Ask what to stop and why, and show what waits and what can no longer be stopped."""
    return render_page(
        request,
        service,
        "stop.html",
        title="Stop sending",
        stop=service.stop(),
        held=held_deliveries(service.database),
        scopes=StopScope,
    )


def _stop(service: AdminService, request: Request, fields: Form) -> Response:
    """Stop sending."""
    reason = (string_or_none("reason", fields.get("reason")) or "").strip()
    scope = StopScope(one_of("scope", fields.get("scope", StopScope.MESSAGES), list(StopScope)))
    if not reason:
        return refused(request, "stop", "reason_missing")
    service.pause_all(actor_of(request), reason, scope)
    return done(request, "", "stopped")


def _confirm_start(service: AdminService, request: Request) -> Response:
    """Show what leaves when sending starts again."""
    stop = service.stop()
    only_messages = stop is not None and stop.scope is StopScope.MESSAGES
    return render_page(
        request,
        service,
        "start.html",
        title="Start sending",
        stop=stop,
        held=held_deliveries(service.database, list(_AGES.values()), only_messages=only_messages),
        ages=_AGES,
        nouns=NOUNS,
        max_counted=MAX_COUNTED,
    )


def _start(service: AdminService, request: Request, fields: Form) -> Response:
    """Start sending again, after cancelling the held deliveries that are too old, if the operator says so."""
    stop = service.stop()
    if stop is None:
        return refused(request, "start", "not_stopped")
    actor, age = actor_of(request), string_or_none("cancel_older", fields.get("cancel_older"))
    if age is None:
        service.resume_all(actor)
        return done(request, "", "started")
    one_of("cancel_older", age, list(_AGES))
    try:
        cancelled = cancel_held(service.database, actor, _AGES[age], stop.scope).done
    except TooManyDeliveries:
        return refused(request, "start", "too_many_to_cancel")
    service.resume_all(actor)
    return done(request, "", "started_without_old", cancelled)
