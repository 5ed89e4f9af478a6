"""Mock Microsoft Teams: one workflow that posts the card of a webhook request to one channel.

The workflow answers 202 as soon as it has started, and validates the card afterwards: a run that fails is in
`failed_runs`, and the sender learns nothing of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import MAX_RECORDS, Handler, MockProvider, ProviderError, ProviderRequest

WORKFLOW_ID = "5e3f0c1d2b4a49f68a7c9d0e1f2a3b4c"
SIGNATURE = "sandbox-signature-sandbox-signature-sandbox"
MAX_MESSAGE_BYTES = 28_672
CARD = "application/vnd.microsoft.card.adaptive"
_VERSIONS = ("1.0", "1.1", "1.2", "1.3", "1.4", "1.5")
_STYLES = ("default", "emphasis", "accent", "good", "warning", "attention")
_ERROR_CODES = {
    400: "TriggerInputSchemaMismatch",
    401: "DirectApiAuthorizationRequired",
    403: "AuthorizationFailed",
    404: "WorkflowNotFound",
    405: "MethodNotAllowed",
    413: "RequestEntityTooLarge",
    429: "TooManyRequests",
}
State = Literal["on", "off", "deleted"]


@dataclass(frozen=True)
class TeamsMessage:
    """A card in the channel."""

    card: dict[str, Any]
    received_at: datetime

    @property
    def texts(self) -> list[str]:
        """The texts of the card in Markdown, from top to bottom, without its facts."""
        return [item["text"] for item in _elements(self.card["body"]) if item["type"] == "TextBlock"]

    @property
    def facts(self) -> dict[str, str]:
        """The facts of the card."""
        return {
            fact["title"]: fact["value"]
            for item in _elements(self.card["body"])
            if item["type"] == "FactSet"
            for fact in item["facts"]
        }

    @property
    def buttons(self) -> dict[str, str]:
        """The addresses that buttons open, by their label."""
        return {action["title"]: action["url"] for action in self.card.get("actions", ())}

    @property
    def style(self) -> str:
        """The color of the card."""
        return next((item["style"] for item in self.card["body"] if item["type"] == "Container"), "default")


class Teams(MockProvider):
    """A channel with one workflow."""

    name = "teams"

    @property
    def workflow_path(self) -> str:
        """The path and query of the workflow's address."""
        return (
            f"/powerautomate/automations/direct/workflows/{WORKFLOW_ID}/triggers/manual/paths/invoke"
            f"?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={SIGNATURE}"
        )

    @property
    def messages(self) -> list[TeamsMessage]:
        """The messages of the channel, oldest first."""
        with self.lock:
            return list(self._messages)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the route of the workflow's trigger."""
        path = "/powerautomate/automations/direct/workflows/{workflow}/triggers/manual/paths/invoke"
        return [("POST", path, self._start)]

    def commands(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """Return the command that turns the workflow on or off, or deletes it: `{"state": "off"}`."""
        return [("workflow", self._set_state)]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the messages of the channel, and the runs that failed."""
        return {
            "messages": [
                {
                    "texts": message.texts,
                    "facts": message.facts,
                    "buttons": message.buttons,
                    "style": message.style,
                    "at": message.received_at.isoformat(),
                }
                for message in self.messages
            ],
            "failed_runs": [{"reason": reason} for reason in self.failed_runs],
        }

    def reset(self) -> None:
        """Remove all messages and turn the workflow on."""
        with self.lock:
            self._messages: list[TeamsMessage] = []
            self.failed_runs: list[str] = []
            """The errors of failed runs of the workflow."""
            self.state: State = "on"

    def error_response(self, status: int, message: str | None = None) -> Response:
        """Return the error of Power Automate for the status."""
        code = _ERROR_CODES.get(status, "InternalServerError" if status >= 500 else "BadRequest")
        response = JSONResponse({"error": {"code": code, "message": message or f"Error {status}."}}, status)
        if status == 429:
            response.headers["Retry-After"] = "1"
        return response

    def quota_error_response(self) -> Response:
        """Return the response to more than four requests per second."""
        return self.error_response(429)

    def authorize(self, request: ProviderRequest) -> None:
        """Require the signature of the address, and the rest of its query."""
        query = request.query
        if (
            query.get("sig") != SIGNATURE
            or query.get("sp") != "/triggers/manual/run"
            or query.get("sv") != "1.0"
        ):
            raise ProviderError(
                self.error_response(401, "The request must be authenticated only by Shared Access scheme.")
            )

    def _start(self, request: ProviderRequest) -> Response:
        if request.path_params["workflow"] != WORKFLOW_ID:
            raise ProviderError(self.error_response(404))
        if self.state != "on":
            state = "Deleted" if self.state == "deleted" else "Disabled"
            error = {
                "code": "WorkflowTriggerIsNotEnabled",
                "message": f"Could not execute workflow trigger 'manual' of workflow in state '{state}'.",
            }
            return JSONResponse({"error": error}, 400)
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise ProviderError(self.error_response(400, "The request content is not valid JSON."))
        try:
            message = request.json()
        except ValueError:
            raise ProviderError(self.error_response(400, "The request content is not valid JSON.")) from None
        if len(self._messages) >= MAX_RECORDS:
            raise self.storage_full_error()
        problem = _problem_of(message)
        if problem:
            self.failed_runs.append(problem)
        else:
            card = message["attachments"][0]["content"]
            self._messages.append(TeamsMessage(card, self.now()))
        return Response(status_code=202)

    def _set_state(self, body: Any) -> Any:
        state = body.get("state") if isinstance(body, dict) else None
        if state not in ("on", "off", "deleted"):
            raise ValueError("state must be on, off or deleted")
        self.state = state
        return {"state": state}


def _elements(body: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for item in body:
        yield item
        yield from _elements(item.get("items", []))


def _problem_of(message: Any) -> str:
    """Return why the run of the workflow fails; empty if it posts the card."""
    attachments = message.get("attachments") if isinstance(message, dict) else None
    if not isinstance(attachments, list) or not attachments or message.get("type") != "message":
        return "the message has no attachments"
    attachment = attachments[0]
    if not isinstance(attachment, dict) or attachment.get("contentType") != CARD:
        return "the attachment is not an Adaptive Card"
    card = attachment.get("content")
    if not isinstance(card, dict) or card.get("type") != "AdaptiveCard":
        return "Property 'type' must be 'AdaptiveCard'"
    if card.get("version") not in _VERSIONS:
        return "Property 'version' is not supported"
    # The workflow stores the card as a string within JSON.
    if (
        len(json.dumps(json.dumps(message, ensure_ascii=False), ensure_ascii=False).encode())
        > MAX_MESSAGE_BYTES
    ):
        return "MessageSizeExceeded"
    return _card_problem(card)


def _card_problem(card: dict[str, Any]) -> str:
    body = card.get("body")
    if not isinstance(body, list) or not body:
        return "Property 'body' is empty"
    for item in _elements(body):
        kind = item.get("type")
        if kind == "TextBlock":
            if not isinstance(item.get("text"), str) or not item["text"]:
                return "Property 'text' is required"
        elif kind == "FactSet":
            facts = item.get("facts")
            if not isinstance(facts, list) or not all(
                isinstance(fact, dict) and all(isinstance(fact.get(key), str) for key in ("title", "value"))
                for fact in facts
            ):
                return "Property 'facts' is not valid"
        elif kind == "Container":
            if not isinstance(item.get("items"), list) or item.get("style", "default") not in _STYLES:
                return "Property 'items' or 'style' is not valid"
        else:
            return f"Element type '{kind}' is not supported"
    for action in card.get("actions", ()):
        if action.get("type") != "Action.OpenUrl" or not re.fullmatch(
            r"https?://\S+", str(action.get("url"))
        ):
            return "Property 'url' must be an absolute address"
    return ""
