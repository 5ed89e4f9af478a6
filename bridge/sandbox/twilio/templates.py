"""Content templates of a mock Twilio account."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.sandbox.twilio.messages import ACCOUNT_SID

_PLACEHOLDER = re.compile(r"\{\{([A-Za-z0-9_]{1,16})\}\}")


@dataclass
class ContentTemplate:
    """A template in one language. `status` is WhatsApp's decision about it; `unsubmitted` without a request for one."""

    sid: str
    friendly_name: str
    body: str
    variables: dict[str, str] = field(default_factory=dict)
    """The samples, which stand in for variables that a message omits."""
    language: str = "en"
    status: str = "approved"

    def render(self, variables: Mapping[str, str]) -> str:
        """Return the text of a message."""
        values = self.variables | dict(variables)
        return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), self.body)

    def as_json(self) -> dict[str, Any]:
        """Return the template as the Content API shows it."""
        url = f"https://content.twilio.com/v1/Content/{self.sid}"
        approval = f"{url}/ApprovalRequests"
        return {
            "sid": self.sid,
            "account_sid": ACCOUNT_SID,
            "friendly_name": self.friendly_name,
            "language": self.language,
            "variables": self.variables,
            "types": {"twilio/text": {"body": self.body}},
            "date_created": "2026-02-01T10:00:00Z",
            "date_updated": "2026-02-01T10:00:00Z",
            "url": url,
            "links": {"approval_create": f"{approval}/whatsapp", "approval_fetch": approval},
        }


MISSED_CALL = ContentTemplate(
    "HX6b1f0c2d3e4f5a6978b7c6d5e4f3a2b1",
    "missed_call",
    "Hi {{1}}, we tried to call you about your request. Reply here, or write STOP to end messages.",
    {"1": "John"},
)
