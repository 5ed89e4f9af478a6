"""What the page of a delivery shows as its content."""

from __future__ import annotations

import pytest

from bridge.rules.template_filters import to_markdown, to_plain, to_slack
from bridge.web.delivery_content import content_of

NAME = "Maya & [Sons](https://example.com) @channel <b> 1. *x* C:\\bikes"


@pytest.mark.parametrize(
    ("action", "escape"),
    [("slack.post", to_slack), ("teams.post", to_markdown), ("apprise.notify", to_plain)],
)
def test_message_to_the_team_is_shown_without_the_escapes_of_its_values(action: str, escape: object) -> None:
    assert callable(escape)
    params = {"text": f"*Missed:* {escape(NAME)}\n{escape('1. Stay')}", "thread": True}
    delivery = {"action": action, "channel": None, "recipient": None, "options": {}, "params": params}
    content = content_of(delivery)
    assert (content.kind, content.text) == ("post", f"*Missed:* {NAME}\n1. Stay")
    assert content.fields == [("thread", "true")]
