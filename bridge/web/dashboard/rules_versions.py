"""Versions of the rules: every text that routed an event, and how it differs from another one."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.store.rule_versions import (
    SAMPLED_EVENTS,
    list_versions,
    previous_version,
    show_version,
    version_use,
)
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import page, page_query, query_prefix, render_page
from bridge.web.query_params import check_id
from bridge.web.word_diff import line_diff

PAGE_SIZE: Final = 25


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [
        page("/rules/versions", partial(_list, service)),
        page("/rules/versions/{hash}", partial(_show, service)),
    ]


def _list(service: AdminService, request: Request) -> Response:
    """Show the versions, newest first."""
    query = page_query(request)
    items, next_cursor = list_versions(
        service.database, limit=PAGE_SIZE, cursor=check_id(query["cursor"]) if query.get("cursor") else None
    )
    return render_page(
        request,
        service,
        "rules_versions.html",
        title="Versions of the rules",
        items=items,
        use=version_use(service.database),
        sampled=SAMPLED_EVENTS,
        active=service.rules.current.hash,
        next_cursor=next_cursor,
        next_page_query=query_prefix(query),
    )


def _show(service: AdminService, request: Request) -> Response:
    """Show the text of one version, and its difference from another one: by default, the one before."""
    database = service.database
    version = show_version(database, check_id(request.path_params["hash"]))
    wanted = page_query(request).get("against")
    other_hash = wanted if wanted else previous_version(database, version)
    other = show_version(database, check_id(other_hash)) if other_hash else None
    return render_page(
        request,
        service,
        "rules_version.html",
        title=f"Rules version {version.hash[:12]}",
        version=version,
        other=other,
        diff=line_diff(other.text, version.text) if other else None,
        active=service.rules.current.hash,
    )
