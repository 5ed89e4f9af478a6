"""Mock Content API of a Twilio account: its templates, what WhatsApp has decided about them, and their variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import Handler, ProviderRequest
from bridge.sandbox.twilio.errors import api_error
from bridge.sandbox.twilio.messages import ACCOUNT_SID
from bridge.sandbox.twilio.state import AccountState, not_found
from bridge.sandbox.twilio.templates import ContentTemplate

MAX_WHATSAPP_TEMPLATE = 1024
_MAX_VALUE = 1600
_MAX_NAME = 512
_NOT_ONE_LINE = re.compile(r"[\n\t]| {5}")


class ContentApi(AccountState):
    """The part of the account's API that is about templates."""

    def content_routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the endpoints that read templates and approvals."""
        return [
            ("GET", "/v2/Content", self._contents),
            ("GET", "/v1/Content/{content}", self._content),
            ("GET", "/v1/Content/{content}/ApprovalRequests", self._approval),
        ]

    def _contents(self, request: ProviderRequest) -> Response:
        """Filter by name, which Twilio takes for a pattern: `missed` finds `missed_call`."""
        name = request.query.get("ContentName", "")
        if len(name) > _MAX_NAME:
            raise api_error(20001, "ContentName is too long")
        try:
            wanted = re.compile(name)
        except (re.error, RecursionError, OverflowError):
            raise api_error(20001, "ContentName is not a pattern") from None
        languages = set(request.query.getlist("Language"))
        items = [
            template.as_json()
            for template in self.templates.values()
            if wanted.search(template.friendly_name) and (not languages or template.language in languages)
        ]
        url = f"https://content.twilio.com{request.path}"
        meta = {
            "page": 0,
            "page_size": 50,
            "first_page_url": url,
            "previous_page_url": None,
            "next_page_url": None,
            "url": url,
            "key": "contents",
        }
        return JSONResponse({"contents": items, "meta": meta})

    def _content(self, request: ProviderRequest) -> Response:
        return JSONResponse(self._find_template(request).as_json())

    def _approval(self, request: ProviderRequest) -> Response:
        template = self._find_template(request)
        whatsapp = {
            "type": "whatsapp",
            "name": template.friendly_name,
            "category": "UTILITY",
            "content_type": "twilio/text",
            "status": template.status,
            "rejection_reason": "",
            "allow_category_change": True,
        }
        return JSONResponse(
            {
                "sid": template.sid,
                "account_sid": ACCOUNT_SID,
                "whatsapp": whatsapp,
                "url": f"https://content.twilio.com{request.path}",
            }
        )

    def _find_template(self, request: ProviderRequest) -> ContentTemplate:
        template = self.templates.get(request.path_params["content"])
        if template is None:
            raise not_found(request)
        return template

    def rendered_content(self, parameters: Mapping[str, str]) -> tuple[ContentTemplate, str] | None:
        """Return the template of a message and its text; None without one. Raise ProviderError for wrong variables."""
        sid, given = parameters.get("ContentSid"), parameters.get("ContentVariables")
        if not sid:
            if given:
                raise api_error(21654, "ContentSid Required")
            return None
        template = self.templates.get(sid)
        if template is None:
            raise api_error(21655, "The ContentSid is Invalid")
        variables = _variables(given) if given else {}
        return template, template.render(variables)


def _variables(given: str) -> dict[str, str]:
    try:
        variables = json.loads(given)
    except (ValueError, RecursionError):
        variables = None
    if not isinstance(variables, dict) or not all(_is_variable(*item) for item in variables.items()):
        raise api_error(21656, "The ContentVariables Parameter is invalid")
    return variables


def _is_variable(name: str, value: object) -> bool:
    return (
        re.fullmatch(r"[A-Za-z0-9_]{1,16}", name) is not None
        and isinstance(value, str)
        and 0 < len(value) <= _MAX_VALUE
        and not _NOT_ONE_LINE.search(value)
    )
