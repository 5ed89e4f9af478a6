"""The Apprise connector: the real library sends to real receivers on this machine."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.connector.egress import Egress, Proxy, use_egress
from bridge.connector.provider_records import RecordLink
from bridge.errors import AccountError, ConfigError, TransientError
from bridge.rules.template_filters import to_plain
from bridge.testing import Connected, Reply, StubServer, connect, event, load_connector
from bridge.testing.connection import build_context

apprise = load_connector("apprise")
notify = apprise.actions["notify"]


@pytest.fixture(scope="module")
def receiver() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def team(receiver: StubServer) -> Iterator[Connected]:
    receiver.requests.clear()
    receiver.otherwise = Reply(200, {})
    with connect(apprise, {"APPRISE_URL": address(receiver)}) as connected:
        yield connected


def address(server: StubServer, path: str = "hooks/secret-of-the-service") -> str:
    return f"{server.url.replace('http', 'json')}/{path}"


def bodies(server: StubServer) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in server.requests]


def test_message_arrives_with_title_kind_and_links(team: Connected, receiver: StubServer) -> None:
    record = RecordLink("Open in HubSpot", "https://app.hubspot.com/contacts/1/record/0-1/77")
    about = event("call.failed", {"metadata.contactName": "Maya Lindqvist"})
    params = {"title": "Failed: {{ contact.name }}", "text": "*As it is* & <b>so</b>", "type": "failure"}
    context = build_context(about, notify, find_crm_record=lambda: record)
    assert team.run("notify", params, event=about, context=context).detail == "sent over JSON"
    [body] = bodies(receiver)
    assert (body["title"], body["type"]) == ("Failed: Maya Lindqvist", "failure")
    assert body["message"].splitlines() == [
        "*As it is* & <b>so</b>",
        "Open event: https://bridge.example.com/events/evt_test",
        f"Open in HubSpot: {record.url}",
    ]


def test_links_can_be_left_out(team: Connected, receiver: StubServer) -> None:
    team.run("notify", {"text": "Hello", "links": False})
    assert bodies(receiver)[0]["message"] == "Hello"


@pytest.mark.parametrize(
    "name",
    [
        "@everyone",
        "x@here",
        "<!channel>",
        "<at>Team</at>",
        "<@U123>",
        "[Bank](https://evil.example)",
        "@maya",
    ],
)
def test_name_of_a_visitor_is_not_a_mention_or_a_link(name: str) -> None:
    assert to_plain(name) != name
    assert to_plain(name).replace("\u200b", "") == name


def test_ordinary_values_are_not_changed() -> None:
    for value in ("ines@okafor.example", "5 < 6", "[sic] (so)", "https://crm.example/a?b=1", "R&D"):
        assert to_plain(value) == value


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500, 503])
def test_refused_message_is_tried_again(team: Connected, receiver: StubServer, status: int) -> None:
    receiver.otherwise = Reply(status, {"error": "no"}, {"Location": f"{receiver.url}/moved"})
    with pytest.raises(TransientError, match=rf"JSON did not take the message \(status {status}\)"):
        team.run("notify", {"text": "Hello"})
    assert [request.path for request in receiver.requests] == ["/hooks/secret-of-the-service"]


def test_lost_confirmation_is_tried_again(team: Connected, receiver: StubServer) -> None:
    receiver.fail(Reply(drop="after"))
    with pytest.raises(TransientError, match="did not take the message;"):
        team.run("notify", {"text": "Hello"})
    team.run("notify", {"text": "Hello"})
    assert len(bodies(receiver)) == 2


def test_receiver_that_hangs_ends_with_the_attempt(team: Connected, receiver: StubServer) -> None:
    receiver.fail(Reply(hang=True))
    started = time.monotonic()
    with pytest.raises(TransientError) as caught:
        team.run("notify", {"text": "Hello"}, seconds=0.3)
    assert time.monotonic() - started < 20  # the receiver hangs for a minute
    assert caught.value.reason in ("timeout", "server_error")


def test_long_text_becomes_one_message(receiver: StubServer) -> None:
    receiver.requests.clear()
    receiver.otherwise = Reply(204)
    url = address(receiver, "long/?overflow=split")
    with connect(apprise, {"APPRISE_URL": url}) as team:
        team.run("notify", {"text": "x" * 100_000})
    [body] = bodies(receiver)
    assert len(body["message"]) <= 32_768


def test_nothing_of_the_address_or_the_message_is_logged(
    team: Connected, receiver: StubServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        team.run("notify", {"text": "Hello Maya"})
        receiver.otherwise = Reply(404, {"error": "Hello Maya"})
        with pytest.raises(TransientError) as caught:
            team.run("notify", {"text": "Hello Maya"})
        assert team.check() == "the URL is one of JSON; only the first message shows whether it works"
    shown = f"{caplog.text} {caught.value!r} {team.settings!r} {vars(team.client)!r}"
    assert "secret-of-the-service" not in shown
    assert "Maya" not in shown


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hidden-part", "must be the URL of one service"),
        ("json://a.example/hidden-part, json://b.example", "must be the URL of one service"),
        ("json://a.example/hidden-part json://b.example", "must be the URL of one service"),
    ],
)
def test_address_that_is_not_one_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        connect(apprise, {"APPRISE_URL": url})
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["nosuch://hidden-part", "discord://hidden-part", "json://"])
def test_address_that_apprise_cannot_read_pauses_the_connection(url: str) -> None:
    with pytest.raises((AccountError, ConfigError)) as caught:
        connect(apprise, {"APPRISE_URL": url})
    assert "APPRISE_URL" in f"{caught.value} {getattr(caught.value, 'fix', '')}"
    assert "hidden" not in str(caught.value)


def test_missing_library_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(notify.run.__globals__, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'heppu-bridge\[apprise\]'"):
        connect(apprise, {"APPRISE_URL": "json://a.example/b"})


def test_proxy_that_the_library_would_not_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    use_egress(Egress(proxy=Proxy("http://proxy.example:3128"), no_proxy=("intranet.example",)))
    try:
        with pytest.raises(AccountError, match="BRIDGE_HTTPS_PROXY"):
            connect(apprise, {"APPRISE_URL": "jsons://a.example/b"})
        for url in ("jsons://chat.intranet.example/b", "json://127.0.0.1/b"):
            connect(apprise, {"APPRISE_URL": url})
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
        connect(apprise, {"APPRISE_URL": "jsons://a.example/b"})
    finally:
        use_egress(Egress())
