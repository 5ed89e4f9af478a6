"""The layout's values that come from the database: the status line, the reviews, the message after an action."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from starlette.requests import Request

from bridge.lifecycle import StopScope
from bridge.store.audit_log import find_audit_entry
from bridge.store.audit_text import describe_entry
from bridge.store.pause_all import SendingStop
from bridge.store.pauses import Pause
from bridge.store.queries import count_reviews
from bridge.store.workers import count_alive_workers
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.messages import DONE, REFUSED, Number
from bridge.web.frame import Frame, Notice, plain_frame
from bridge.web.times import relative_time, short_time

FLASH_AGE: Final = timedelta(minutes=2)
"""An audit entry is shown as the result of an action for this long; a bookmark of the page shows none later."""
MAX_REVIEWS: Final = 1000
"""Reviews are counted up to this number."""


def layout_values(request: Request, service: AdminService) -> dict[str, Any]:
    """Return the values of every page: `frame`, `now` and `pauses`."""
    database = service.database
    frame = plain_frame(request, database.clock.now())
    pauses = {status.name: status.pause for status in service.connections() if status.pause}
    stop = service.stop()
    reviews = count_reviews(database, MAX_REVIEWS)
    frame = replace(
        frame,
        status_line=_status_line(service, stop, pauses, frame),
        flash=_flash(request, service, frame.now),
        reviews=f"more than {MAX_REVIEWS:,}" if reviews > MAX_REVIEWS else f"{reviews:,}" if reviews else "",
        stop=stop.scope if stop else None,
        allowlist=len(service.allowlist) or None,
    )
    return {"frame": frame, "now": frame.now, "pauses": pauses}


def _status_line(
    service: AdminService, stop: SendingStop | None, pauses: dict[str, Pause], frame: Frame
) -> Notice | None:
    """Return the most important problem in one line. The overview has the details."""
    if stop is not None:
        is_messages = stop.scope is StopScope.MESSAGES
        what = "Messages to people have been stopped" if is_messages else "Sending has been stopped"
        since = f" since {short_time(stop.since, frame.now, frame.zone)}" if stop.since else ""
        actor = f" by {stop.actor}" if stop.actor else ""
        reason = f": {stop.reason}" if stop.reason else "."
        return Notice("bad", f"{what}{actor}{since}{reason}", "start", "Start sending…")
    if not count_alive_workers(service.database):
        return Notice("bad", "No worker is running: nothing is sent.", "status", "Status")
    if service.rules.load_error:
        return Notice("bad", "The rules file has errors. The previous rules stay active.", "rules", "Rules")
    if pauses:
        names = ", ".join(f"{pause.connection} ({pause.short_label})" for pause in pauses.values())
        count = f"{len(pauses)} connections are paused" if len(pauses) > 1 else "1 connection is paused"
        return Notice("warn", f"{count}: {names}.", "connections", "Connections")
    return None


def _flash(request: Request, service: AdminService, now: datetime) -> Notice | None:
    """Return the message after an action: a fixed text, or the audit entry of the action in words."""
    done, refused = request.query_params.get("done", ""), request.query_params.get("refused", "")
    digits = request.query_params.get("n", "")
    number = Number(digits) if digits.isdecimal() and len(digits) < 10 else Number(0)
    if refused in REFUSED:
        return Notice("bad", REFUSED[refused])
    if done in DONE:
        return Notice("good", DONE[done].format(n=number))
    if refused.startswith("aud_") and len(refused) < 80:
        # The action of another operator, who was faster.
        entry = find_audit_entry(service.database, refused)
        if entry is not None:
            ago = relative_time(entry["created_at"], now)
            return Notice("bad", f"Nothing was changed, because {describe_entry(entry)} {ago}.")
    if done.startswith("aud_") and len(done) < 80:
        entry = find_audit_entry(service.database, done)
        if entry is not None and now - entry["created_at"] < FLASH_AGE:
            return Notice("good", f"{describe_entry(entry)}.")
    return None
