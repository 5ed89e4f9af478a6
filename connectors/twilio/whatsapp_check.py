"""What the check says about WhatsApp: the sender, and the templates of rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bridge.connector import ActionUse, RuleProblem
from bridge.errors import PermanentError

from .account import Account
from .senders import Sender, replies_note
from .whatsapp import approval_problem

if TYPE_CHECKING:
    from twilio.rest import Client

TEST_SENDER = "+14155238886"
"""The sender of Twilio's Sandbox for WhatsApp, which every account may use and which no list contains."""
MAX_SENDERS = 200


def find_whatsapp_sender(api: Client, number: str) -> Sender:
    """Return what the account knows of a WhatsApp sender."""
    if number == TEST_SENDER:
        return Sender(notes=["Twilio's Sandbox for WhatsApp: only phones that have joined it get messages"])
    senders = api.messaging.v2.channels_senders.list(
        channel="whatsapp", limit=MAX_SENDERS, page_size=MAX_SENDERS
    )
    found = next((item for item in senders if item.sender_id == f"whatsapp:{number}"), None)
    if found is None:
        hint = (
            "register the number under Messaging > Senders > WhatsApp senders, or set one that is registered"
        )
        return Sender("is not a WhatsApp sender of this account", hint)
    status = str(found.status or "").upper()
    if not status.startswith("ONLINE"):
        hint = "its page under Messaging > Senders > WhatsApp senders says what is missing"
        return Sender(f"is a WhatsApp sender that is not online ({status or 'no status'})", hint)
    url = found.webhook.get("callback_url") if isinstance(found.webhook, Mapping) else None
    return Sender(notes=["WhatsApp sender online", *replies_note(url)])


def template_problems(account: Account, use: ActionUse) -> list[RuleProblem]:
    """Return what is wrong with the template of a step: it is missing or not approved, or has other variables."""
    name, language, variables = (use.params.get(name) for name in ("template", "language", "variables"))
    if use.action.channel != "whatsapp" or not isinstance(name, str) or not isinstance(language, str | None):
        return []
    try:
        template = account.templates.find(name, language)
    except PermanentError as error:
        return [RuleProblem(error.detail, "", use, ("template",))]
    problem = template.problem_with(variables if isinstance(variables, Mapping) else {})
    problems = [RuleProblem(problem, "", use, ("variables",))] if problem else []
    if not template.approved:
        problems.append(RuleProblem(approval_problem(template), "", use, ("template",)))
    return problems
