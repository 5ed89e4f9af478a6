"""Teams connector: posts cards to a channel of Microsoft Teams through a workflow that a webhook request starts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, SecretStr

from bridge.connector import (
    Connector,
    ConnectorGroup,
    ConnectorSettings,
    Context,
    JsonApi,
    Limits,
    Params,
    SecretUrl,
    SerializeBy,
    Success,
    UncertainDelivery,
    WhereToLook,
    json_object,
    param,
    per_event,
)
from bridge.errors import AccountError, AuthenticationError, DeliveryError, OutcomeUnknown, PermanentError

if TYPE_CHECKING:
    import httpx

MAX_MESSAGE_BYTES = 20_000
"""Size of a message as JSON within JSON, as Teams stores it. Its limit is about 28 KB, and the workflow adds to it."""
MAX_FACTS = 20
_MAX_FACT_BYTES = 600
"""Of a title, and of the value of a fact. Together, 20 facts and a title leave room for a text."""
_MAX_LABEL_LENGTH = 60
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}\.) ")

_RETIRED_HOSTS = (".webhook.office.com", "outlook.office.com", "outlook.office365.com")
_WORKFLOW_HOSTS = (".logic.azure.com", ".powerplatform.com", ".powerautomate.com")
_PAGE_HOSTS = ("teams.microsoft.com", "make.powerautomate.com", "flow.microsoft.com", "make.powerapps.com")

_SWITCHED_OFF = ("WorkflowTriggerIsNotEnabled", "WorkflowDisabled", "WorkflowSuspended")
"""Error codes for a workflow that is turned off, suspended, or deleted."""
_NEW_WORKFLOW = "create the workflow again and set TEAMS_WEBHOOK_URL to the new URL"
_TURN_ON = (
    "turn the workflow on in the Workflows app of Teams, or, if it was deleted, create it again and set "
    "TEAMS_WEBHOOK_URL to the new URL"
)
_ANYONE = (
    "in the workflow's trigger, choose that anyone can trigger it, and copy the whole URL, with its sig="
)

Severity = Literal["info", "success", "warning", "critical"]
_STYLES: Mapping[Severity | None, str] = {
    None: "default",
    "info": "accent",
    "success": "good",
    "warning": "warning",
    "critical": "attention",
}


def _starts_a_workflow(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    host = parts.hostname or ""
    if host.endswith(_RETIRED_HOSTS):
        raise ValueError(
            "is the URL of an Office 365 connector, which Microsoft has shut down. In Teams, add the workflow "
            "`Post to a channel when a webhook request is received` to the channel and use its URL"
        )
    if host in _PAGE_HOSTS:
        raise ValueError(
            "is the URL of a page. Open the workflow, and copy the URL from its trigger, which contains sig="
        )
    if host.endswith(_WORKFLOW_HOSTS) and "sig" not in parse_qs(parts.query):
        raise ValueError(f"is not the whole URL of a workflow: {_ANYONE}")
    return url


class Settings(ConnectorSettings):
    """Settings: `TEAMS_WEBHOOK_URL`, a secret, because anyone who knows it can post."""

    webhook_url: Annotated[SecretUrl, AfterValidator(_starts_a_workflow)]
    """Address of the workflow of one channel, with its `sig=`. Another channel is another connection."""


connector = Connector(
    "teams",
    settings=Settings,
    limits=Limits(per_second=4, concurrency=4),
    description="Posts cards to a channel of the team's Microsoft Teams.",
    group=ConnectorGroup.TEAM_MESSAGES,
)


@connector.client
class Workflow:
    """Client of one workflow."""

    def __init__(self, settings: Settings) -> None:
        import httpx

        self._api = JsonApi("Teams", settings.webhook_url, refusal=refusal)
        self._url = httpx.URL(settings.webhook_url.get_secret_value())

    def start(self, message: Mapping[str, Any]) -> None:
        """Start the workflow with a message."""
        headers = {"Content-Type": "application/json; charset=utf-8"}
        self._api.write("POST", "", json=message, headers=headers, may_be_empty=True)

    def probe(self) -> bool:
        """Send a request without the URL's signature, which is refused before the workflow starts.

        Return False if the URL has no signature that could be left out. Raise AccountError if the refusal says
        that the workflow is off or does not exist.
        """
        if "sig" not in self._url.params:
            return False
        unsigned = JsonApi("Teams", str(self._url.copy_remove_param("sig")), refusal=refusal)
        try:
            unsigned.write("POST", "", json={}, may_be_empty=True)
        except (AuthenticationError, PermanentError):
            return True
        finally:
            unsigned.close()
        raise AccountError("the workflow starts without the signature of its URL", fix=_NEW_WORKFLOW)

    def close(self) -> None:
        """Close the HTTP connections."""
        self._api.close()


def refusal(response: httpx.Response) -> DeliveryError | None:
    """Return the error that a response reports; None for an acceptance, and if the HTTP status says it all."""
    status = response.status_code
    if status in (200, 202):
        return None
    if response.is_success:
        return OutcomeUnknown(f"Teams answered {status} instead of 202", reason="server_error")
    error = json_object(response).get("error")
    code = str(error.get("code", "")) if isinstance(error, dict) else ""
    code = code if re.fullmatch(r"[A-Za-z]{1,60}", code) else ""
    if code in _SWITCHED_OFF:
        return AccountError(f"the workflow of the Teams channel is not on ({code})", fix=_TURN_ON)
    if status in (404, 410):
        return AccountError(
            f"the workflow of the Teams channel does not exist ({code or status})", fix=_NEW_WORKFLOW
        )
    if status in (401, 403):
        return AuthenticationError(f"the workflow does not accept this URL ({code or status})", fix=_ANYONE)
    if status == 413:
        return PermanentError("the message is too large for Teams", code="size")
    if status == 400:
        return PermanentError(f"the workflow rejected the message: {code or status}", code=code or "400")
    return None


@connector.check
def check(workflow: Workflow) -> str:
    """Send a request without the URL's signature, which Microsoft refuses before the workflow starts."""
    answers = "Microsoft answers" if workflow.probe() else "the URL is valid"
    return f"{answers}; only the first message shows whether the workflow is on and posts"


class PostParams(Params):
    """A message to the team."""

    text: str = param(
        ...,
        "Text of the card in Markdown: **bold**, _italics_, lists, and links as in [text](https://example.com). "
        "Values from the event are escaped: a visitor's name cannot be a link or a mention. Long texts are shortened.",
        example="A call from {{ contact.name | default('an unknown caller') }} failed: {{ event.conversationId }}",
        markup="markdown",
        min_length=1,
    )
    title: str | None = param(
        None, "Title of the card.", example="Missed call from {{ contact.name }}", markup="markdown"
    )
    facts: dict[Annotated[str, Field(max_length=_MAX_LABEL_LENGTH)], str | None] = param(
        {},
        f"Up to {MAX_FACTS} labels with values, shown as a list of two columns. A fact without a value is left out.",
        example={
            "Phone": "{{ contact.phone | default('') }}",
            "Outcome": "{{ event.outcome | default('') }}",
        },
        markup="markdown",
        max_length=MAX_FACTS,
    )
    severity: Severity | None = param(None, "Color of the card's title.", example="critical")
    links: bool = param(
        True,
        "Add buttons that open the event in the dashboard (with BRIDGE_PUBLIC_URL) and the contact in the CRM (if a "
        "connection has found it).",
        example=False,
    )


@connector.action(idempotency=per_event, dedupe_by=("title", "text"), serialize_by=SerializeBy.NONE)
def post(workflow: Workflow, params: PostParams, context: Context) -> Success:
    """Post a card to the workflow's channel."""
    message, shortened = _message(params, context)
    workflow.start(message)
    note = ", shortened" if shortened else ""
    return Success(detail=f"the workflow has started{note}")


@connector.where_to_look
def where_to_look(settings: Settings, delivery: UncertainDelivery) -> WhereToLook:
    """Name the channel, and the run history for a message that is not in it."""
    del settings, delivery
    return WhereToLook(
        "Look for the message in the channel. If it is missing, the workflow's run history in Power Automate says why.",
        "https://make.powerautomate.com",
    )


def _message(params: PostParams, context: Context) -> tuple[dict[str, Any], bool]:
    """Return the message, and whether something of it was shortened so that Teams accepts its size."""
    title = _cut(params.title or "", _MAX_FACT_BYTES)
    facts = [
        {"title": label, "value": _cut(value, _MAX_FACT_BYTES)}
        for label, value in params.facts.items()
        if value is not None and value.strip()
    ]
    actions = [
        {"type": "Action.OpenUrl", "title": link.label, "url": link.url}
        for link in (context.team_links() if params.links else ())
    ]

    def message(text: str) -> dict[str, Any]:
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "msteams": {"width": "Full"},
            "body": _body(title, text, facts, _STYLES[params.severity]),
            "actions": actions,
        }
        content_type = "application/vnd.microsoft.card.adaptive"
        return {
            "type": "message",
            "attachments": [{"contentType": content_type, "contentUrl": None, "content": card}],
        }

    whole = _paragraphs(params.text)
    text = _cut(whole, MAX_MESSAGE_BYTES - _size(message("")))
    cut_values = {fact["value"] for fact in facts}.difference(params.facts.values())
    return message(text), text != whole or title != (params.title or "") or bool(cut_values)


def _body(title: str, text: str, facts: Sequence[Mapping[str, str]], style: str) -> list[dict[str, Any]]:
    body: list[dict[str, Any]] = []
    heading = {"type": "TextBlock", "size": "Large", "weight": "Bolder", "wrap": True}
    content = {"type": "TextBlock", "text": text, "wrap": True}
    if title:
        body += [_container([heading | {"text": title}], style), content]
    else:
        body.append(_container([content], style) if style != "default" else content)
    if facts:
        body.append({"type": "FactSet", "facts": list(facts)})
    return body


def _container(items: list[dict[str, Any]], style: str) -> dict[str, Any]:
    return {"type": "Container", "style": style, "bleed": style != "default", "items": items}


def _paragraphs(text: str) -> str:
    """Return the text with an empty line between two lines, which Teams would join, unless the second is of a list."""
    lines = [line.rstrip() for line in text.split("\n")]
    parts = [lines[0]]
    for previous, line in pairwise(lines):
        if line:
            parts += ["\n" if previous and _LIST_ITEM.match(line) else "\n\n", line]
    return "".join(parts)


def _cut(text: str, max_bytes: int) -> str:
    """Return the text, shortened with an ellipsis if it takes more bytes, and without half of an escape at its end."""
    if _size(text) <= max_bytes:
        return text
    low, high = 0, min(len(text), max_bytes)
    while low < high:
        middle = (low + high + 1) // 2
        if _size(text[:middle] + "…") <= max_bytes:
            low = middle
        else:
            high = middle - 1
    shortened = text[:low]
    if (len(shortened) - len(shortened.rstrip("\\"))) % 2:
        shortened = shortened[:-1]
    return shortened + "…"


def _size(value: Any) -> int:
    """Return the bytes of a value as JSON in a string of JSON."""
    return len(json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False).encode())
