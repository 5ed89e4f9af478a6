"""One person: addresses, whether they may be contacted now, why they got no message, and everything that happened.

The person is named by the ID of an event about them, so that no phone number or email address stands in a URL. A person
about whom there is no event is shown as the response to a POST.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.contacts.typed_address import InvalidAddress, read_typed_address
from bridge.dryrun.permission import Permission
from bridge.policy import channels_of
from bridge.policy.local_time import local_time
from bridge.policy.opt_outs import NOUNS
from bridge.store.contact_details import PersonDetails, describe_contact, find_contact
from bridge.store.contact_export import export_json
from bridge.store.contact_report import ReportFilter
from bridge.store.contact_timeline import ContactTimeline, missing_messages, read_timeline
from bridge.store.erase import erase
from bridge.store.erase_preview import preview_erase
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.store.rejected_groups import recent_rejected_requests
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import (
    Form,
    done,
    form,
    id_of,
    page,
    page_query,
    redirect,
    refused,
    render_page,
)
from bridge.web.labels import CHANNELS
from bridge.web.query_params import PersonQuery, one_of, string_or_none
from bridge.web.validation import InvalidParameter, read_query

_REASONS: Final = 10
"""Newest events for which the page says why they led to no message."""
FILTERS: Final[Mapping[ReportFilter, str]] = {
    "all": "all",
    "messages": "to the person",
    "records": "records and alerts",
    "stopped": "suppressed or failed",
}


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        form("/contacts/opt-out", partial(_change_opt_out, service, True)),
        form("/contacts/opt-in", partial(_change_opt_out, service, False)),
        form("/contacts", partial(_show_address, service)),
        page("/contacts/{id}", partial(_show, service)),
        page("/contacts/{id}/export", partial(_export, service)),
        page("/contacts/{id}/erase", partial(_confirm_erase, service)),
        form("/contacts/{id}/erase", partial(_erase, service)),
    ]


def _show(service: AdminService, request: Request) -> Response:
    """Show the person of an event."""
    details = find_contact(
        service.database, id_of(request), service.rules.current.messaging.time_zone, service.hash_address
    )
    query = read_query(PersonQuery, page_query(request))
    timeline = read_timeline(
        service.database,
        details,
        time_zone=service.rules.current.messaging.time_zone,
        shown=query.shown,
        limit=query.limit,
        cursor=query.cursor,
    )
    return _render(service, request, details, timeline, query)


def _show_address(service: AdminService, request: Request, fields: Form) -> Response:
    """Show a person by an address, about whom there need not be an event."""
    return show_address(service, request, _typed_address(service, fields.get("address", "")))


def show_address(service: AdminService, request: Request, address: str) -> Response:
    """Show the person with this address: on the page of an event about them, or, if there is none, here."""
    details = describe_contact(
        service.database, [address], service.rules.current.messaging.time_zone, service.hash_address
    )
    if details.event_id is not None:
        return redirect(request, f"contacts/{details.event_id}")
    response = _render(service, request, details, ContactTimeline([], None, []), PersonQuery())
    response.headers["Cache-Control"] = "no-store"
    return response


def _render(
    service: AdminService,
    request: Request,
    details: PersonDetails,
    timeline: ContactTimeline,
    query: PersonQuery,
) -> Response:
    rules, now = service.rules.current, service.database.clock.now()
    newest = timeline
    if details.event_id is not None and (query.cursor or query.shown != "all"):
        newest = read_timeline(service.database, details, time_zone=rules.messaging.time_zone, limit=_REASONS)
    channels = {
        rule.name: {step.action.channel for step in rule.steps if not step.internal} for rule in rules.rules
    }
    reasons = {
        channel: missing_messages(newest.events[:_REASONS], channel, channels)
        for address in details.addresses
        for channel in channels_of(address)
        if any(channel in each for each in channels.values())
    }
    allowed = service.permissions(details.event, details.addresses)
    name = details.contact.name
    return render_page(
        request,
        service,
        "contact.html",
        title=f"Contact: {name or 'no name'}",
        details=details,
        name=name,
        local_time=local_time(now, details.zones),
        permissions=allowed,
        lead=_lead(allowed),
        reasons=reasons,
        timeline=timeline,
        filters=FILTERS,
        shown=query.shown,
        channels=CHANNELS,
        nouns=NOUNS,
        record_url=lambda connection, external_id: service.links.record_url(
            connection, f"{connection}.contact", external_id
        ),
        rejected=recent_rejected_requests(service.database) if details.event_id is None else [],
        undo=_parse_undo(query.undo),
    )


def _lead(allowed: Sequence[Permission]) -> str:
    """Say first what matters most: on which channels the person must not be contacted, and why."""
    stopped = [item for item in allowed if item.answer == "no"]
    if not stopped:
        return ""
    names = [NOUNS[item.channel] for item in stopped]
    listed = ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]
    return f"No {listed}: {stopped[0].detail.partition(';')[0].removeprefix('opt-out: ')}.".replace("`", "")


def _parse_undo(undo: str | None) -> dict[str, Any] | None:
    """Return the form that takes the last change back: the channels, and whether it was an opt-out."""
    action, _, channels = (undo or "").partition(":")
    names = [name for name in channels.split(",") if name in CHANNELS]
    return {"opted_out": action == "out", "channels": names} if names else None


def _change_opt_out(service: AdminService, opted_out: bool, request: Request, fields: Form) -> Response:
    """Opt an address out of channels, or in again. An opt-in needs a reason, because it may have to be proved."""
    address = _typed_address(service, fields.get("address", ""), allow_impossible=not opted_out)
    allowed = channels_of(address)
    channels = [one_of("channel", name, allowed) for name in fields.getlist("channel") if name] or allowed
    reason = string_or_none("reason", fields.get("reason"))
    event_id = string_or_none("event", fields.get("event"))
    path = f"contacts/{event_id}" if event_id else "contacts"
    if not opted_out and reason is None:
        return refused(request, path, "reason_missing")
    actor = actor_of(request)
    save_opt_out(
        service.database,
        *(OptOutChange(channel, address, opted_out, "dashboard", actor, reason) for channel in channels),
    )
    if event_id:
        path += f"?undo={'out' if opted_out else 'in'}:{','.join(channels)}"
    return done(request, path, "opted_out" if opted_out else "opted_in")


def _export(service: AdminService, request: Request) -> Response:
    """Download everything that is stored about the person."""
    details = find_contact(service.database, id_of(request), "UTC")
    if not details.addresses:
        raise InvalidParameter("nothing that names this person is stored any more")
    content = "".join(export_json(service.database, details.addresses, service.hash_address))
    disposition = {"Content-Disposition": 'attachment; filename="contact.json"', "Cache-Control": "no-store"}
    return Response(content, media_type="application/json", headers=disposition)


def _confirm_erase(service: AdminService, request: Request) -> Response:
    """Show what an erasure would delete, and ask for the end of the address."""
    details = find_contact(service.database, id_of(request), "UTC")
    return render_page(
        request,
        service,
        "contact_erase.html",
        title="Erase a contact",
        details=details,
        preview=preview_erase(service.database, details.addresses),
    )


def _erase(service: AdminService, request: Request, fields: Form) -> Response:
    """Erase the person's addresses, if the end of the address was typed."""
    details = find_contact(service.database, id_of(request), "UTC")
    path = f"contacts/{id_of(request)}/erase"
    if not details.addresses or (fields.get("ending") or "").strip().lower() != _ending(details):
        return refused(request, path, "ending_wrong")
    results = [
        erase(service.database, actor_of(request), address, service.erase_keys)
        for address in details.addresses
    ]
    in_progress = sum(result.in_progress for result in results)
    total = sum(result.events + result.deliveries for result in results)
    return done(request, "contacts", "erased_in_part" if in_progress else "erased", total)


def _ending(details: PersonDetails) -> str:
    """Return what has to be typed: the last four digits of the number, or the part of the email before the @."""
    for address in details.addresses:
        return address.partition("@")[0] if "@" in address else address[-4:]
    return ""


def _typed_address(service: AdminService, text: str, *, allow_impossible: bool = True) -> str:
    try:
        return read_typed_address(
            string_or_none("address", text) or "",
            service.database.default_country,
            allow_impossible=allow_impossible,
        )
    except InvalidAddress as error:
        raise InvalidParameter(f"The address {error}.") from None
