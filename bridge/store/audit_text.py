"""Sentences for the entries of the audit log, for the dashboard and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bridge.store.timeline import format_details


class ActionText(NamedTuple):
    """An action in words."""

    title: str
    """For a list of actions."""
    sentence: str
    """What the actor did; `{target}` stands for the target."""


ACTIONS: Final[Mapping[str, ActionText]] = {
    "accept": ActionText("Rejected request accepted", "accepted {target} as an event"),
    "backup": ActionText("Backup", "made a backup of {target}"),
    "cancel": ActionText("Delivery cancelled", "cancelled {target}"),
    "check_account": ActionText("Account checked", "checked the account of {target}"),
    "dismiss": ActionText("Failure dismissed", "dismissed {target}"),
    "dismiss_duplicate": ActionText("Duplicate dismissed", "dismissed the possible duplicates {target}"),
    "end_sessions": ActionText("Sessions ended", "ended sessions of the {target}"),
    "erase": ActionText("Contact erased", "erased the data of {target}"),
    "export": ActionText("Contact exported", "exported the data of {target}"),
    "import": ActionText("Opt-outs imported", "imported the opt-outs of {target}"),
    "login": ActionText("Login", "logged in to the {target}"),
    "login_refused": ActionText("Login refused", "was refused a login to the {target}"),
    "logout": ActionText("Logout", "logged out of the {target}"),
    "opt_in": ActionText("Opt-out removed", "opted in {target}"),
    "opt_out": ActionText("Opt-out", "opted out {target}"),
    "pause": ActionText("Pause", "paused {target}"),
    "probe": ActionText("Connection tried", "tried {target} again"),
    "prune": ActionText("Old data deleted", "deleted old data: {target}"),
    "reconcile": ActionText("Missing event added", "added the missing event {target}"),
    "recover": ActionText("Recovery", "resumed {target} automatically"),
    "reload_rules": ActionText("Rules reloaded", "loaded the rules of version {target}"),
    "replay": ActionText("Event replayed", "routed {target} again"),
    "rerender": ActionText("Delivery rendered again", "rendered {target} again"),
    "resolve": ActionText("Review decided", "resolved {target}"),
    "restore": ActionText("Restore", "restored {target}"),
    "resume": ActionText("Resume", "resumed {target}"),
    "retry": ActionText("Retry", "retried {target}"),
    "start": ActionText("Process started", "started the {target}"),
    "stop": ActionText("Process stopped", "stopped the {target}"),
    "undismiss": ActionText("Dismissal undone", "undid the dismissal of {target}"),
}
"""The actions of the audit log."""
_RECIPIENT: Final = {"opt_out": "{target} opted out", "opt_in": "{target} opted in again"}
"""Sentences about what recipients do themselves."""


def sentence_parts(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return the sentence about an entry before and after its target: `("ada paused ", "")`."""
    action = ACTIONS.get(entry["action"])
    verb = action.sentence if action else f"{entry['action'].replace('_', ' ')} {{target}}"
    text = f"{entry['actor'] or 'bridge'} {verb}"
    if entry["actor"] == "recipient":
        text = _RECIPIENT.get(entry["action"], text)
    before, _, after = text.partition("{target}")
    return before, after


def describe_entry(entry: Mapping[str, Any]) -> str:
    """Return an entry as a sentence without the final period: `ada paused twilio (reason: wrong text)`."""
    before, after = sentence_parts(entry)
    details = format_details(entry)
    return f"{before}{entry['target']}{after}" + (f" ({details})" if details else "")
