"""Action that sends WhatsApp messages, and its lookup.

WhatsApp takes free text for 24 hours after the person's last message; before and after that, it takes templates only,
which Meta has approved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from bridge.connector import Context, Params, PhoneNumber, Success, param, per_message
from bridge.errors import ConfigError, LookupInconclusive, PermanentError

from .account import Account
from .messages import (
    LOOKUP_DELAY,
    MAX_BODY_LENGTH,
    create_message,
    find_message,
    is_same_text,
    status_of,
    validity_param,
)
from .settings import Settings, connector
from .templates import MAX_LENGTH, Template

WINDOW = timedelta(hours=24)
"""How long after the person's last message WhatsApp takes free text."""
WINDOW_MARGIN = timedelta(minutes=2)
"""Time that a message may need to WhatsApp: free text is not sent so shortly before the end of the window."""

_NO_CONTENT = (
    "write `body` for people who have written in the last 24 hours, `template` for all others, or both"
)
_NO_SENDER = (
    "no WhatsApp sender is set: set TWILIO_WHATSAPP_FROM, or TWILIO_MESSAGING_SERVICE_SID with a WhatsApp sender in "
    "its sender pool"
)


def _one_line(value: object) -> object:
    """Return the text of a variable on one line, as WhatsApp demands it."""
    text = re.sub(r"\s+", " ", value).strip() if isinstance(value, str) else value
    if text in (None, ""):
        raise ValueError(
            "must not be empty, because Twilio refuses it: write `| default('...')` after the value"
        )
    return text


def _placeholder(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]{1,16}", name):
        raise ValueError("is not the name of a placeholder: 1 to 16 letters, digits or _, without braces")
    return name


Variables = dict[
    Annotated[str, AfterValidator(_placeholder)],
    Annotated[str, BeforeValidator(_one_line), Field(max_length=MAX_BODY_LENGTH)],
]


class WhatsAppParams(Params):
    """One WhatsApp message."""

    to: PhoneNumber = param("{{ contact.phone }}", "Recipient, in E.164 format.", example="+14155550123")
    body: str | None = param(
        None,
        "Free text. WhatsApp takes it for 24 hours after the person's last message.",
        example="Thanks, {{ contact.first_name | default('there') }}. We call you back today.",
        min_length=1,
        max_length=MAX_BODY_LENGTH,
    )
    template: str | None = param(
        None,
        "Name or SID (`HX...`) of a content template. With `body`, it is for people who have not written in the last "
        "24 hours; WhatsApp must have approved it for those.",
        example="missed_call",
        pattern=r"^(HX[0-9a-fA-F]{32}|[A-Za-z0-9_][A-Za-z0-9_ .-]{0,511})$",
        must_be="the name of a content template (letters, digits and _) or its SID (HX and 32 hexadecimal digits)",
    )
    variables: Variables = param(
        {},
        "Values of the template's placeholders, by their names without braces. Line breaks become spaces.",
        example={"1": "{{ contact.first_name | default('there') }}"},
        max_length=100,
    )
    language: str | None = param(
        None, "Language of the template, if several have its name.", example="en", max_length=20
    )
    sender: PhoneNumber | None = param(
        None, "WhatsApp sender, instead of TWILIO_WHATSAPP_FROM.", example="+12125550109"
    )
    validity: int = validity_param(
        "How long the message may wait at Twilio, in seconds. Shortened if the delivery expires or quiet hours start "
        "earlier. WhatsApp itself keeps a message for a phone that is off."
    )

    @model_validator(mode="after")
    def _require_content(self) -> Self:
        if self.body is None and self.template is None:
            raise ValueError(_NO_CONTENT)
        if self.template is None and (self.variables or self.language):
            raise ValueError("`variables` and `language` belong to a template: write `template` as well")
        return self


@dataclass(frozen=True)
class _Content:
    """What is sent: free text or a template."""

    text: str
    detail: str
    options: Mapping[str, str] = field(default_factory=dict)


@connector.action(channel="whatsapp", text="body", idempotency=per_message, lookup_delay=LOOKUP_DELAY)
def send_whatsapp(account: Account, params: WhatsAppParams, context: Context) -> Success:
    """Send one WhatsApp message: free text within 24 hours of the person's last message, otherwise a template."""
    sender = params.sender or account.settings.whatsapp_sender
    service = account.settings.messaging_service_sid if sender is None else None
    if sender is None and service is None:
        raise ConfigError(_NO_SENDER)
    content = _content(account, params, is_open=_is_window_open(params, sender, context))
    message = create_message(
        account,
        context,
        validity=params.validity,
        to=f"whatsapp:{params.to}",
        from_=f"whatsapp:{sender}" if sender else None,
        messaging_service_sid=service,
        **content.options,
    )
    return Success(id=message.sid, detail=content.detail, message_status=status_of(message))


@send_whatsapp.check_params
def check_content(settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Say if a rule has neither free text nor a template, or if nothing names a WhatsApp sender."""
    given = {
        name for name in ("body", "template", "sender") if params.get(name, "from a template") is not None
    }
    if not given & {"body", "template"}:
        return _NO_CONTENT
    if not (settings.whatsapp_sender or settings.messaging_service_sid or "sender" in given):
        return _NO_SENDER
    return None


@send_whatsapp.lookup
def find_whatsapp(account: Account, params: WhatsAppParams, context: Context) -> Success | None:
    """Return the delivery's message if it is among Twilio's newest messages to this recipient.

    Whether it was free text or the template is not known: the window may have closed since.
    """
    contents = []
    if params.body is not None:
        contents.append(_Content(params.body, "free text"))
    if params.template is not None:
        try:
            contents.append(_content(account, params.model_copy(update={"body": None}), is_open=True))
        except PermanentError as error:
            raise LookupInconclusive(f"the template cannot be compared: {error.detail}") from error

    def ours(text: str) -> _Content | None:
        return next((content for content in contents if is_same_text(text, content.text)), None)

    message = find_message(
        account, context, f"whatsapp:{params.to}", lambda text: bool(text) and ours(text) is not None
    )
    if message is None:
        return None
    content = ours(message.body)
    return Success(
        id=message.sid, detail=content.detail if content else "", message_status=status_of(message)
    )


def _is_window_open(params: WhatsAppParams, sender: str | None, context: Context) -> bool:
    """Return whether the person's last message to the sender is so recent that WhatsApp takes free text."""
    last = context.last_inbound_at(params.to, sender)
    return last is not None and context.now < last + WINDOW - WINDOW_MARGIN


def _content(account: Account, params: WhatsAppParams, *, is_open: bool) -> _Content:
    """Return free text if the window is open, otherwise the template. Raise PermanentError if neither can be sent."""
    if is_open and params.body is not None:
        return _Content(params.body, "free text", {"body": params.body})
    if params.template is None:
        raise PermanentError(
            "the person has not written by WhatsApp in the last 24 hours, so WhatsApp takes no free text: add a "
            "`template` to the rule, or send a text instead under `on_failure`",
            code="outside_window",
        )
    template = account.templates.find(params.template, params.language)
    problem = template.problem_with(params.variables)
    if problem:
        raise PermanentError(problem, code="template_variables")
    if not is_open and not template.approved:
        raise PermanentError(approval_problem(template), code="template_not_approved")
    text = template.fill(params.variables)
    if len(text) > MAX_LENGTH:
        raise PermanentError(
            f"the template `{template.name}` has {len(text):,} characters with its variables, and WhatsApp takes "
            f"{MAX_LENGTH:,}: shorten them with `| truncate(200)`",
            code="too_long",
        )
    options = {"content_sid": template.sid}
    if params.variables:
        options["content_variables"] = json.dumps(params.variables)
    language = f" ({template.language})" if template.language else ""
    return _Content(text, f"template {template.name}{language}", options)


def approval_problem(template: Template) -> str:
    """Return that WhatsApp has not approved a template, and what to do."""
    what = {
        "unsubmitted": "was not submitted to WhatsApp: submit it for approval in the Content Template Builder",
        "paused": "is paused by WhatsApp because of its quality: wait, or use another one",
    }.get(template.approval, f"is {template.approval} at WhatsApp: wait for its approval, or use another one")
    return f"the template `{template.name}` {what}"
