"""Contacts: the search for a person, the opt-out list, and possible duplicates among the contacts of the CRMs."""

from __future__ import annotations

import io
from functools import partial
from typing import Final

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bridge.errors import ConfigError
from bridge.policy import CHANNELS as CHANNEL_NAMES
from bridge.store.opt_out_csv import write_opt_outs
from bridge.store.opt_out_import import ImportReport, import_csv
from bridge.store.opt_out_list import ENTRY_KINDS, export_opt_outs, list_opt_outs
from bridge.store.possible_duplicates import dismiss_possible_duplicate, list_possible_duplicates
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
    render_page,
    respond,
)
from bridge.web.labels import CHANNELS
from bridge.web.query_params import OptOutListQuery, page_filter, string_or_none
from bridge.web.validation import InvalidParameter, read_query

MAX_FILE: Final = 1024 * 1024
"""Bytes of a list that is imported here; `bridge opt-outs import` takes any size."""
_SHOWN_PROBLEMS: Final = 50


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/contacts", partial(_list, service)),
        page("/contacts/opt-outs.csv", partial(_export, service)),
        page("/contacts/import", partial(_show_import, service)),
        _upload("/contacts/import", service),
        form("/contacts/import/confirm", partial(_import, service), max_body=2 * MAX_FILE),
        page("/contacts/duplicates", partial(_duplicates, service)),
        form("/contacts/duplicates/{id}/dismiss", partial(_dismiss, service)),
    ]


def _list(service: AdminService, request: Request) -> Response:
    """Show the opt-out list, newest first."""
    query = page_query(request)
    matching = read_query(OptOutListQuery, query)
    return render_page(
        request,
        service,
        "contacts.html",
        title="Contacts",
        page=list_opt_outs(service.database, **matching.arguments(service.database.clock.now())),
        selected={name: query.get(name, "") for name in ("channel", "kind", "source", "since")},
        channels=CHANNELS,
        channel_names=CHANNEL_NAMES,
        kinds=ENTRY_KINDS,
        next_page_query=query_prefix(query),
        export_query=query_prefix(query, ("cursor", "since", "limit")).rstrip("?&"),
        duplicates=list_possible_duplicates(service.database, limit=1).items,
    )


def _export(service: AdminService, request: Request) -> Response:
    """Download the opt-out list with full addresses, as `bridge opt-outs --csv` prints it."""
    matching = read_query(OptOutListQuery, page_query(request))
    content = io.StringIO()
    write_opt_outs(
        content,
        export_opt_outs(
            service.database, channel=matching.channel, kind=matching.kind, source=matching.source
        ),
    )
    disposition = {"Content-Disposition": 'attachment; filename="opt-outs.csv"', "Cache-Control": "no-store"}
    return Response(content.getvalue(), media_type="text/csv; charset=utf-8", headers=disposition)


def _show_import(service: AdminService, request: Request) -> Response:
    """Ask for a list to import."""
    return render_page(
        request, service, "opt_out_import.html", title="Import opt-outs", report=None, text="", reason=""
    )


def _upload(path: str, service: AdminService) -> Route:
    """Return the route that shows what a file or a pasted list would change, and stores nothing."""

    async def endpoint(request: Request) -> Response:
        async with request.form(max_files=1, max_fields=5, max_part_size=MAX_FILE) as fields:
            file, text, reason = fields.get("file"), fields.get("text"), fields.get("reason")
            content = await file.read(MAX_FILE + 1) if isinstance(file, UploadFile) else b""
        content = content or (text.encode() if isinstance(text, str) else b"")
        reason = reason if isinstance(reason, str) else ""
        return await respond(request, lambda: _preview(service, request, content, reason))

    return Route(path, endpoint, methods=["POST"], max_body_size=2 * MAX_FILE)


def _preview(service: AdminService, request: Request, content: bytes, reason: str) -> Response:
    if len(content) > MAX_FILE:
        raise InvalidParameter("The file is larger than 1 MiB. Import it with `bridge opt-outs import FILE`.")
    if not content.strip():
        raise InvalidParameter("Choose a file, or paste the addresses.")
    report = _run(service, request, content, reason, dry_run=True)
    return render_page(
        request,
        service,
        "opt_out_import.html",
        title="Import opt-outs: preview",
        report=report,
        problems=report.problems[:_SHOWN_PROBLEMS],
        text=_as_text(content),
        reason=reason,
    )


def _import(service: AdminService, request: Request, fields: Form) -> Response:
    """Opt out the addresses of the list that was previewed."""
    report = _run(service, request, fields.get("text", "").encode(), fields.get("reason", ""), dry_run=False)
    return done(request, "contacts", "imported", report.added)


def _run(
    service: AdminService, request: Request, content: bytes, reason: str, *, dry_run: bool
) -> ImportReport:
    try:
        return import_csv(
            service.database,
            io.BufferedReader(io.BytesIO(content)),
            actor_of(request),
            name="dashboard",
            reason=string_or_none("reason", reason),
            dry_run=dry_run,
        )
    except ConfigError as error:
        raise InvalidParameter(str(error)) from None


def _as_text(content: bytes) -> str:
    """Return a file as text for the form that confirms its import."""
    for encoding in ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("utf-8", "replace")


def _duplicates(service: AdminService, request: Request) -> Response:
    """Show the possible duplicates among the contacts of the CRMs, newest first."""
    query = page_query(request)
    return render_page(
        request,
        service,
        "possible_duplicates.html",
        title="Possible duplicates",
        page=list_possible_duplicates(service.database, **page_filter(query)),
        next_page_query=query_prefix(query),
    )


def _dismiss(service: AdminService, request: Request, fields: Form) -> Response:  # noqa: ARG001
    """Remove a pair from the possible duplicates."""
    dismiss_possible_duplicate(service.database, actor_of(request), id_of(request))
    return done(request, "contacts/duplicates", "duplicate_dismissed")
