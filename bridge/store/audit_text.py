"""Sentences for the entries of the audit log, for the dashboard and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge.store.timeline import format_details

_VERBS: Final[Mapping[str, str]] = {
    "accept": "accepted the rejected request",
    "cancel": "cancelled the delivery",
    "dismiss": "dismissed the failure of",
    "dismiss_duplicate": "dismissed the possible duplicates",
    "end_sessions": "ended sessions of the",
    "erase": "erased the data of",
    "import": "imported the opt-outs of",
    "login": "logged in to the",
    "login_refused": "was refused a login to the",
    "logout": "logged out of the",
    "opt_in": "opted in",
    "opt_out": "opted out",
    "pause": "paused",
    "reconcile": "stored a missed call as the event",
    "replay": "routed again the event",
    "rerender": "rendered again the delivery",
    "resolve": "resolved the delivery",
    "resume": "resumed",
    "retry": "retried the delivery",
    "undismiss": "took back the dismissal of",
}
"""The verb of each action, between actor and target."""


def describe_entry(entry: Mapping[str, Any]) -> str:
    """Return an entry as a sentence without the final period: `ada paused twilio (reason: wrong text)`."""
    verb = _VERBS.get(entry["action"], entry["action"].replace("_", " "))
    details = format_details(entry)
    return f"{entry['actor'] or 'system'} {verb} {entry['target']}" + (f" ({details})" if details else "")
