"""Forms that act on deliveries as the page showed them: `seen` fields, and what is said if one has changed since."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from bridge.store.audit_log import list_audit_entries
from bridge.store.operator_actions import CHANGED, ActionResult
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, refused

RECENT: Final = timedelta(hours=1)
"""An operator action of this age may be what changed a delivery."""


def seen_in(fields: Form, delivery_id: str) -> dict[str, str] | None:
    """Return what the form's page showed of a delivery; None if it does not say."""
    seen = fields.get("seen")
    return None if seen is None else {delivery_id: seen}


def seen_of_all(fields: Form) -> dict[str, str]:
    """Return what the form's page showed of several deliveries: fields `seen` with `ID version`."""
    pairs = (value.partition(" ") for value in fields.getlist("seen"))
    return {delivery_id: version for delivery_id, _, version in pairs}


def refused_action(service: AdminService, request: Request, path: str, result: ActionResult) -> Response:
    """Redirect to `path` after an action that was not possible, and say which operator was faster, if one was."""
    if not result.text.startswith(CHANGED):
        return refused(
            request, path, "expired" if result.text.startswith("it expired") else "delivery_changed"
        )
    entries = list_audit_entries(service.database, target=result.id, limit=1)
    if entries and service.database.clock.now() - entries[0]["created_at"] < RECENT:
        return refused(request, path, entries[0]["id"])
    return refused(request, path, "delivery_changed")
