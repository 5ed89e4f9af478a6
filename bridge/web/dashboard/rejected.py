"""Rejected requests: webhook requests that the bridge rejected, grouped by cause, each with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.clock import format_duration
from bridge.store.accept_rejected import obstacle_to_accepting
from bridge.store.queries import list_rejected_requests
from bridge.store.rejected_groups import group_rejected_requests
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import (
    Form,
    done,
    form,
    id_of,
    page,
    page_query,
    query_prefix,
    refused,
    render_page,
)
from bridge.web.labels import reason_label
from bridge.web.query_params import page_filter

REMEDIES: Final[Mapping[str, str]] = {
    "signature_wrong": "The secret here (HEPPU_WEBHOOK_SECRET) and the one at Heppu must be the same. "
    "`bridge heppu webhooks list` shows the webhooks; rotate the secret there and set it here.",
    "signature_missing": "Something other than Heppu called the URL, or a proxy removed the header "
    "X-Webhook-Signature-256. Nothing to do if you do not know the sender.",
    "signature_malformed": "A proxy changed the signature header, or something other than Heppu called the URL.",
    "timestamp_off": "Check the clock of this server (`timedatectl`), then accept the requests.",
    "timestamp_missing": "A proxy removed the timestamp header: let it pass all headers, then accept the requests.",
    "not_json": "The body is not JSON, so it cannot become an event: a proxy may have changed it. Report it to Heppu.",
    "no_event": "The body names no event type, so it cannot become an event. Report it to Heppu.",
    "bad_identity": "An ID in the body is not valid, so it cannot become an event. Report it to Heppu.",
    "too_large": "The body is larger than 1 MiB. Ask Heppu to send less, such as no transcripts.",
    "wrong_path": "Set the URL of the webhook at Heppu to the path /webhooks/heppu, then accept the requests.",
    "conflict": "Heppu sent another body for an event that is stored already. It was answered with 200, and the stored "
    "event stands. Accept it if both happened.",
}
"""What to do about each reason."""


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/rejected", partial(_groups, service)),
        page("/rejected/all", partial(_list, service)),
        page("/rejected/{id}", partial(_show, service)),
        form("/rejected/{id}/accept", partial(_accept, service)),
    ]


def remedy_for(reason: str) -> str:
    """Return what to do about a reason; a later version may have others."""
    return REMEDIES.get(reason, "See the explanation of each request.")


def _groups(service: AdminService, request: Request) -> Response:
    """Show the rejected requests by cause, the newest group first, and conflicts apart."""
    groups = group_rejected_requests(service.database)
    return render_page(
        request,
        service,
        "rejected_requests.html",
        title="Rejected requests",
        rejected=[group for group in groups if group.reason != "conflict"],
        conflicts=[group for group in groups if group.reason == "conflict"],
        remedy_for=remedy_for,
        explain=_explain,
    )


def _explain(reason: str, detail: str) -> str:
    """Return the explanation of a request; the difference of a clock as a duration."""
    if reason == "timestamp_off":
        words = detail.split()
        seconds = next((word for word in words if word[:1] in "+-" and word[1:].isdigit()), "")
        if seconds:
            side = "ahead of" if seconds[0] == "+" else "behind"
            return f"the sender's clock is {format_duration(timedelta(seconds=int(seconds[1:])))} {side} this server's"
    return detail


def _list(service: AdminService, request: Request) -> Response:
    """Show every rejected request, newest first."""
    query = page_query(request)
    return render_page(
        request,
        service,
        "rejected_list.html",
        title="All rejected requests",
        page=list_rejected_requests(service.database, **page_filter(query)),
        next_page_query=query_prefix(query),
        explain=_explain,
    )


def _show(service: AdminService, request: Request) -> Response:
    """Show one rejected request. It can be accepted if its signature is valid and it is an event."""
    rejected_request = service.show("rejected_request", id_of(request))
    body = rejected_request["body"]
    return render_page(
        request,
        service,
        "rejected_request.html",
        title=f"Rejected: {reason_label(rejected_request['reason'])} {rejected_request['id']}",
        rejected_request=rejected_request,
        explanation=_explain(rejected_request["reason"], rejected_request["detail"]),
        remedy=remedy_for(rejected_request["reason"]),
        obstacle=obstacle_to_accepting(service.database, rejected_request["id"]),
        body=None if body is None else body.decode("utf-8", "replace"),
    )


def _accept(service: AdminService, request: Request, fields: Form) -> Response:  # noqa: ARG001
    """Accept a rejected request as an event."""
    result = service.accept(id_of(request), actor_of(request))
    path = f"rejected/{result.id}"
    return done(request, path, "accepted") if result.done else refused(request, path, "accept_not_possible")
