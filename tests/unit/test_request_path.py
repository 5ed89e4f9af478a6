"""IDs in the paths of requests: none of them leads to another endpoint."""

from __future__ import annotations

from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.connector.request_path import MAX_ID_LENGTH, fill_path
from bridge.errors import PermanentError


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("../users/1", "is a path"),
        ("1/../../x?y=1#z", "is a path"),
        ("1/comments", "is a path"),
        ("..\\users", "is a path"),
        (".", "is a path"),
        ("..", "is a path"),
        ("", "is empty"),
        ("  ", "is empty"),
        (None, "is empty"),
        ("1\r\nX-Other: 2", "has characters"),
        ("1\x00", "has characters"),
        ("\ud800", "has characters"),
        ("1" * (MAX_ID_LENGTH + 1), "more than 500"),
    ],
)
def test_hostile_id_is_a_permanent_error_that_does_not_repeat_it(value: str | None, problem: str) -> None:
    with pytest.raises(PermanentError) as raised:
        fill_path("/tickets/{}", [value])
    assert problem in raised.value.detail
    assert "/tickets/{}" in raised.value.detail
    if value and value.strip("."):
        assert value not in raised.value.detail


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (17, "/tickets/17"),
        ("T-17", "/tickets/T-17"),
        ("a?b#c&d=e", "/tickets/a%3Fb%23c%26d%3De"),
        ("%2e%2e", "/tickets/%252e%252e"),
        ("Zoë 1", "/tickets/Zo%C3%AB%201"),
    ],
)
def test_id_is_percent_encoded(value: str | int, path: str) -> None:
    assert fill_path("/tickets/{}", [value]) == path


@given(
    st.text(max_size=40)
    | st.sampled_from(["..", "./x", "%2e%2e%2f", "?x", "#x", "..;/", "\u2025", "\uff0e\uff0e"])
)
def test_id_stays_one_segment_of_the_path(value: str) -> None:
    try:
        path = fill_path("/tickets/{}/notes", [value])
    except PermanentError:
        return
    sent = httpx.URL("https://desk.example/api").copy_with(raw_path=b"/api" + path.encode("ascii"))
    assert (sent.host, sent.query, sent.fragment) == ("desk.example", b"", "")
    before, between, after = sent.raw_path.decode().rpartition("/notes")[0].rpartition("/")
    assert (before, between) == ("/api/tickets", "/")
    assert unquote(after) == value


@pytest.mark.parametrize(
    "path", ["/tickets/../users", "/tickets/1?x=1", "tickets", "//tickets", "/tickets/a b", "/%2e%2e"]
)
def test_path_that_was_built_by_hand_is_refused(path: str) -> None:
    with pytest.raises(PermanentError, match="passes IDs as arguments"):
        fill_path(path, [])


@pytest.mark.parametrize(
    "path", ["", "/", "/me", "/items({})", "/users/{}.json", "/v1/users:search", "/tickets/"]
)
def test_path_of_a_connector_is_accepted(path: str) -> None:
    assert fill_path(path, [1] * path.count("{}")) == path.replace("{}", "1")


def test_missing_id_is_a_bug_of_the_connector() -> None:
    with pytest.raises(TypeError, match="2 placeholders for 1"):
        fill_path("/tickets/{}/notes/{}", [1])
