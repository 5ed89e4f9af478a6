"""Events: the list with its filters, and one event with the trace of each rule and its deliveries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.events import EVENT_TYPES
from bridge.rules.trace import Check, Trace
from bridge.rules.unmet import describe_check, is_disabled, is_for_other_events, unmet_conditions
from bridge.store.event_outcomes import outcomes_by_event
from bridge.store.queries import list_events, stored_body
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import id_of, indented_json, page, page_query, query_prefix, render_page
from bridge.web.labels import STATES
from bridge.web.query_params import EventSelection, event_filter

_MAX_FIELDS: Final = 60
"""Fields of the body that are shown as a table; the JSON below has all."""
_CONVERSATION_EVENTS: Final = 20


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/events", partial(_list, service)),
        page("/events/{id}", partial(_show, service)),
        page("/events/{id}/body", partial(_download, service)),
    ]


@dataclass(frozen=True)
class RuleView:
    """The evaluation of one rule, as the page shows it."""

    trace: Trace
    checks: Sequence[tuple[Check, str]]
    """Each check with its sentence."""
    unmet: Sequence[str]
    """The conditions that were not met, in words."""

    @property
    def is_open(self) -> bool:
        """Whether it is shown open: it fired, or one condition was missing."""
        return self.trace.fired or bool(self.trace.error) or len(self.unmet) == 1


def _list(service: AdminService, request: Request) -> Response:
    """Show events, newest first."""
    query = page_query(request)
    filters = event_filter(query, service.database.clock.now())
    events = list_events(service.database, **filters)
    return render_page(
        request,
        service,
        "events.html",
        title="Events",
        page=events,
        outcomes=outcomes_by_event(service.database, [item["id"] for item in events.items]),
        event_types=EVENT_TYPES,
        selected={
            name: query.get(name, "")
            for name in ("type", "since", "until", "unreadable", "nothing", "unrouted", "person")
        },
        next_page_query=query_prefix(query),
        replay_path=_replay_path(query),
    )


def _replay_path(query: QueryParams) -> str:
    """Return the path of the replay of all that match; empty without a filter."""
    kept = [(name, value) for name, value in query.items() if value and name in EventSelection.model_fields]
    return f"events/replay?{QueryParams(kept)}" if kept else ""


def _show(service: AdminService, request: Request) -> Response:
    """Show one event: what was done, why each rule did or did not fire, and what Heppu sent."""
    event = service.show("event", id_of(request))
    rules = _rule_views(event["trace"] or [])
    conversation = _conversation(service, event)
    query = page_query(request)
    return render_page(
        request,
        service,
        "event.html",
        title=f"Event {event['type']} {event['id']}",
        event=event,
        summary=_summary(event, rules),
        body=indented_json(event["body"]),
        fields=_fields(event["body"] or {})[:_MAX_FIELDS],
        rules=rules,
        disabled_rules=_names(event["trace"], is_disabled),
        other_rules=_names(event["trace"], is_for_other_events),
        conversation=conversation,
        forecast=service.forecast(event["id"]) if query.get("today") and event["body"] else None,
    )


def _conversation(service: AdminService, event: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the other events of the conversation, newest first."""
    events = list_events(
        service.database, conversation=event["conversation_id"], limit=_CONVERSATION_EVENTS
    ).items
    return [item for item in events if item["id"] != event["id"]]


def _summary(event: Mapping[str, Any], rules: Sequence[RuleView]) -> str:
    """Say in a sentence or two what was done with the event, and which rule nearly fired."""
    if not event["routed_at"]:
        return "The event waits to be routed: no rule has been evaluated yet."
    counts: dict[str, int] = {}
    for item in event["deliveries"]:
        counts[item["state"]] = counts.get(item["state"], 0) + 1
    if counts:
        parts = [f"{count} {STATES[state].text.lower()}" for state, count in counts.items()]
        total = len(event["deliveries"])
        sentence = f"{total} {'delivery' if total == 1 else 'deliveries'}: {', '.join(parts)}."
    elif event["trace"] is None:
        sentence = "Why the rules fired or not is no longer stored."
    else:
        sentence = "No rule fired."
    missed = [view for view in rules if not view.trace.fired and len(view.unmet) == 1]
    if missed:
        sentence += f" {missed[0].trace.rule} missed by one condition: {missed[0].unmet[0]}."
    return sentence.replace("`", "")


def _rule_views(records: Sequence[Mapping[str, Any]]) -> list[RuleView]:
    """Return the rules for this type of event: those that fired first, then those that nearly did."""
    traces = [Trace.from_json(record) for record in records]
    views = [
        RuleView(trace, [(check, describe_check(check)) for check in trace.checks], unmet_conditions(trace))
        for trace in traces
        if not is_disabled(trace) and not is_for_other_events(trace)
    ]
    return sorted(views, key=lambda view: (not view.trace.fired, len(view.unmet)))


def _names(records: Sequence[Mapping[str, Any]] | None, matches: Any) -> list[str]:
    traces = [Trace.from_json(record) for record in records or ()]
    return [trace.rule for trace in traces if matches(trace)]


def _fields(body: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the fields of a body as dotted paths with their values; lists as JSON."""
    found: list[tuple[str, str]] = []
    for name, value in body.items():
        if isinstance(value, Mapping):
            found += _fields(value, f"{prefix}{name}.")
        elif value is not None and value != "":
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found.append((prefix + name, text))
    return found


def _download(service: AdminService, request: Request) -> Response:
    """Download the body of an event exactly as it was received."""
    event_id = id_of(request)
    headers = {"Content-Disposition": f'attachment; filename="{event_id}.json"', "Cache-Control": "no-store"}
    content = stored_body(service.database, event_id)
    return Response(content, media_type="application/json", headers=headers)
