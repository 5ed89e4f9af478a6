"""Audit log: what operators, recipients and the bridge itself did."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import itemgetter
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.store.audit_text import ACTIONS, sentence_parts
from bridge.store.pause_all import AUDIT_TARGET
from bridge.web.access import API, DASHBOARD
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import page, page_query, query_prefix, render_page
from bridge.web.query_params import AuditQuery
from bridge.web.validation import read_query

_PAGES: Final = {"dlv_": "deliveries", "evt_": "events", "rej_": "rejected"}
"""Prefix of an ID -> path of its page."""
_OF_CONNECTIONS: Final = ("pause", "resume", "recover", "probe", "check_account")
"""Actions whose target is a connection."""


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [page("/audit", partial(_list, service))]


def _list(service: AdminService, request: Request) -> Response:
    """Show the audit log, newest entry first."""
    query = page_query(request)
    filters = dict(read_query(AuditQuery, query))
    entries, next_cursor = service.audit(**filters)
    return render_page(
        request,
        service,
        "audit.html",
        title="Audit log",
        entries=[
            {**entry, "parts": sentence_parts(entry), "path": _path(entry), "title": _title(entry)}
            for entry in entries
        ],
        next_cursor=next_cursor,
        next_page_query=query_prefix(query),
        actions=sorted(((name, action.title) for name, action in ACTIONS.items()), key=itemgetter(1)),
        has_unnamed_token=any(entry["actor"] in (DASHBOARD, API) for entry in entries),
        selected={name: filters[name] or "" for name in ("action", "actor", "target")},
        is_later_page=filters["cursor"] is not None,
    )


def _title(entry: Mapping[str, Any]) -> str:
    action = ACTIONS.get(entry["action"])
    return action.title if action else str(entry["action"])


def _path(entry: Mapping[str, Any]) -> str | None:
    """Return the path of the page of an entry's target, if it has one."""
    target = entry["target"]
    if target[:4] in _PAGES:
        return f"{_PAGES[target[:4]]}/{target}"
    if entry["action"] in _OF_CONNECTIONS:
        return "connections" if target == AUDIT_TARGET else f"connections/{target}"
    return "rules" if entry["action"] == "reload_rules" else None
