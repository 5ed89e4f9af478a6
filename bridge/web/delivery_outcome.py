"""The outcome of a delivery: one sentence that says what became of it, and one that says what happens next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from bridge.connector.action_name import ActionName
from bridge.connector.provider_records import provider_label
from bridge.lifecycle import SuppressReason
from bridge.policy.opt_outs import NOUNS
from bridge.store.pauses import Pause
from bridge.web.labels import action_label
from bridge.web.times import relative_time

_ENDS = (".", "!", "?", "…")


@dataclass(frozen=True)
class When:
    """Puts instants into words for the reader: `in 7 h (28 Nov 13:00 UTC)`."""

    now: datetime
    zone: tzinfo

    def __call__(self, value: datetime) -> str:
        """Return an instant, relative if it is near, and absolute in the reader's time zone."""
        local = f"{value.astimezone(self.zone):%d %b %H:%M %Z}"
        if abs((value - self.now).total_seconds()) >= 86_400:
            return local
        return f"{relative_time(value, self.now, self.zone)} ({local})"


@dataclass(frozen=True)
class Outcome:
    """What became of a delivery."""

    sentence: str
    next_step: str = ""
    """What happens next without an operator; empty if nothing does."""


def noun_of(delivery: Mapping[str, Any]) -> str:
    """Return what a delivery is, in lowercase unless it is a name: `text message`, `HubSpot: log call`."""
    nouns = {str(channel): noun for channel, noun in NOUNS.items()}
    return nouns.get(delivery["channel"] or "") or action_label(delivery["action"], delivery["connection"])


def subject_of(delivery: Mapping[str, Any], person: str) -> str:
    """Return the heading of a delivery: `Text message to Wen Haddad`, `HubSpot: log call for Wen Haddad`."""
    noun = noun_of(delivery)
    link = "to" if delivery["channel"] else "for"
    return f"{noun[:1].upper()}{noun[1:]}" + (f" {link} {person}" if person else "")


def outcome_of(delivery: Mapping[str, Any], when: When, pause: Pause | None) -> Outcome:
    """Return what became of a delivery. `when` words instants for the reader; `pause` is that of its connection."""
    provider = provider_label(ActionName.parse(delivery["action"]).connector)
    detail = sentence(delivery["detail"])
    match delivery["state"]:
        case "pending" | "retrying":
            return _waiting(delivery, when, pause, provider, detail)
        case "running":
            return Outcome("An attempt is running.", "Its result is recorded within half a minute.")
        case "succeeded":
            return Outcome(_succeeded(delivery, provider, detail))
        case "needs_review":
            return Outcome(
                f"It is unknown whether it took effect. {detail}".strip(),
                "Nothing. It is not sent again unless you decide to.",
            )
        case "failed":
            dismissed = f" Dismissed {when(delivery['dismissed_at'])}." if delivery["dismissed_at"] else ""
            return Outcome(f"It failed. {detail}".strip() + dismissed, "Nothing, unless you retry it.")
        case "suppressed":
            return Outcome(f"It was not sent. {detail or _reason(delivery['reason'])}")
    return Outcome(f"It was not sent. {detail}".strip())


def _waiting(
    delivery: Mapping[str, Any], when: When, pause: Pause | None, provider: str, detail: str
) -> Outcome:
    expires = f" It expires {when(delivery['expires_at'])}." if delivery["expires_at"] else ""
    if pause is not None:
        what = "messages to people are" if pause.only_messages else f"{delivery['connection']} is"
        waits = f"It waits: {what} paused by {pause.label}."
        return Outcome(
            f"{waits} {detail}".strip(), f"It resumes when {delivery['connection']} is resumed.{expires}"
        )
    at = "now" if delivery["run_at"] <= when.now else when(delivery["run_at"])
    if delivery["outcome_unknown_since"] is not None:
        return Outcome(
            f"It is unknown whether the last attempt took effect. {detail}".strip(),
            f"{provider} will be asked {at}. It is sent again only if {provider} has no trace of it.",
        )
    if delivery["state"] == "retrying":
        return Outcome(
            f"The last attempt failed. {detail}".strip(), f"The next attempt starts {at}.{expires}"
        )
    first = detail or ("It is waiting for a free worker." if at == "now" else "It is scheduled for later.")
    return Outcome(
        f"It has not been sent yet. {first}", f"The policy is checked again, and it is sent {at}.{expires}"
    )


def _succeeded(delivery: Mapping[str, Any], provider: str, detail: str) -> str:
    if not delivery["channel"]:
        return f"{provider} confirmed it. {detail}".strip()
    text = {
        "delivered": "It reached the recipient.",
        "undelivered": f"{provider} accepted it, but it did not reach the recipient.",
        "failed": f"{provider} accepted it, but could not send it.",
        "sent": f"{provider} sent it; its arrival has not been reported yet.",
    }.get(delivery["message_status"] or "", f"{provider} accepted it; no delivery report has arrived yet.")
    return f"{text} {detail}".strip()


def _reason(reason: str | None) -> str:
    return next((item.description for item in SuppressReason if item == reason), "")


def sentence(text: str | None) -> str:
    """Return an explanation as a sentence."""
    if not text:
        return ""
    text = text.replace("`", "")
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith(_ENDS) else ".")
