"""Params with `truncate`: a longer text is cut, and the result says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest

from bridge.connector import (
    BatchItem,
    Connector,
    ConnectorSettings,
    Context,
    Params,
    Success,
    param,
    per_event,
    shorten,
)
from bridge.testing import connect

connector = Connector("lantern", settings=ConnectorSettings)


class Comment(Params):
    text: str | None = param("{{ event.summary }}", "Comment.", example="Called again", truncate=10)


@connector.action(idempotency=per_event)
def comment(client: object, params: Comment, context: Context) -> Success:
    """Comment."""
    return Success(id=params.text, detail="posted")


@connector.action(idempotency=per_event, batch=10)
def comments(client: object, items: Sequence[BatchItem[Comment]]) -> list[Success]:
    """Comment on several tickets."""
    return [Success(id=item.params.text) for item in items]


@pytest.mark.parametrize(
    ("text", "sent", "detail"),
    [
        ("Call back", "Call back", "posted"),
        ("Call back!", "Call back!", "posted"),
        ("  Call back!  ", "Call back!", "posted"),
        ("Call back today", "Call back…", "posted; text cut to 10 characters"),
    ],
)
def test_longer_text_is_cut_and_the_result_says_so(text: str, sent: str, detail: str) -> None:
    with connect(connector, {}) as connected:
        assert connected.run("comment", {"text": text}) == Success(id=sent, detail=detail)


@pytest.mark.parametrize("markup", ["html", "slack"])
def test_text_with_tags_is_not_cut(markup: Literal["html", "slack"]) -> None:
    with pytest.raises(TypeError, match="cut a tag"):
        param(None, "Text.", truncate=10, markup=markup)


def test_each_delivery_of_a_batch_has_its_own_note() -> None:
    with connect(connector, {}) as connected:
        results = connected.run_batch(
            "comments", [({"text": text}, None, None) for text in ("short", "much too long")]
        )
    assert results == [Success(id="short"), Success(id="much too …", detail="text cut to 10 characters")]


@pytest.mark.parametrize(("length", "expected"), [(0, ""), (1, "…"), (2, "a…"), (3, "abc"), (4, "abc")])
def test_shorten_never_exceeds_the_length(length: int, expected: str) -> None:
    assert shorten("abc", length) == expected
