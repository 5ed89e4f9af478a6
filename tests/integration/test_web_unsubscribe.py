"""Unsubscribe links, used by a recipient's browser, an email client and an attacker."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from bridge.clock import Clock
from bridge.errors import StoreUnavailable
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.store.opt_out_list import list_opt_outs
from bridge.unsubscribe_links import read_unsubscribe_token, unsubscribe_link
from bridge.web.headers import SecurityHeaders
from bridge.web.html import static_routes
from bridge.web.unsubscribe import unsubscribe_routes
from tests.asgi_server import serving

SECRET = "a secret of at least sixteen"
ADDRESS = "ines@okafor.example"


@pytest.fixture
def database(sqlite_url: str, clock: Clock) -> Iterator[Database]:
    database = Database(sqlite_url, clock)
    upgrade(database)
    yield database
    database.close()


@pytest.fixture
def client(database: Database) -> Iterator[httpx.Client]:
    app = SecurityHeaders(Starlette(routes=[*unsubscribe_routes(database, [SECRET]), *static_routes()]))
    with serving(app) as url, httpx.Client(base_url=url) as client:
        yield client


def link(client: httpx.Client, channel: str = "email", address: str = ADDRESS, secret: str = SECRET) -> str:
    url = unsubscribe_link(str(client.base_url), [secret])(channel, address)
    assert url is not None
    return url


def test_get_asks_and_stores_nothing(client: httpx.Client, database: Database) -> None:
    page = client.get(link(client))
    assert page.status_code == 200
    assert '<form method="post"><button' in page.text
    assert client.head(link(client)).status_code == 200
    assert list_opt_outs(database).items == []


def test_page_masks_address(client: httpx.Client) -> None:
    page = client.get(link(client))
    assert "i***@okafor.example" in page.text
    assert ADDRESS not in page.text


def test_post_stores_opt_out(client: httpx.Client, database: Database) -> None:
    page = client.post(link(client))
    assert (page.status_code, "You are unsubscribed" in page.text) == (200, True)
    [row] = list_opt_outs(database).items
    assert (row["channel"], row["address"], row["source"]) == ("email", ADDRESS, "unsubscribe link")


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"List-Unsubscribe": "One-Click"}},
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
        {"content": b""},
    ],
)
def test_one_click_unsubscribe_needs_no_cookies_or_redirects(
    client: httpx.Client, database: Database, body: dict[str, Any]
) -> None:
    response = client.post(link(client), **body)
    assert response.status_code == 200
    assert "set-cookie" not in response.headers
    assert len(list_opt_outs(database).items) == 1


def test_repeated_post_stores_one_opt_out(client: httpx.Client, database: Database) -> None:
    assert [client.post(link(client)).status_code for _ in range(2)] == [200, 200]
    assert len(list_opt_outs(database).items) == 1


@pytest.mark.parametrize(("channel", "message_name"), [("sms", "text messages"), ("call", "calls")])
def test_links_of_other_channels_store_their_opt_out(
    client: httpx.Client, database: Database, channel: str, message_name: str
) -> None:
    assert message_name in client.get(link(client, channel, "+12125550167")).text
    client.post(link(client, channel, "+12125550167"))
    assert [(row["channel"], row["address"]) for row in list_opt_outs(database).items] == [
        (channel, "+12125550167")
    ]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "token", ["nonsense", "..", "a.b", "%00", "é", "x" * 5000, "truncated", "of another secret"]
)
def test_invalid_link_returns_404_page(
    client: httpx.Client, database: Database, method: str, token: str
) -> None:
    links = {"truncated": link(client)[:-3], "of another secret": link(client, secret="another secret here")}
    url = links.get(token) or f"/unsubscribe/{token}"
    response = client.request(method, url)
    assert response.status_code == 404
    if token != "..":
        assert "This link does not work" in response.text
    assert list_opt_outs(database).items == []


def test_token_for_unknown_channel_is_rejected(client: httpx.Client, database: Database) -> None:
    assert client.post(link(client, "telepathy")).status_code == 404
    assert list_opt_outs(database).items == []


def test_hostile_address_is_escaped(client: httpx.Client) -> None:
    page = client.get(link(client, address="<script>alert(1)</script>@evil.example"))
    assert "<script" not in page.text
    page = client.get(link(client, address="x@<img src=x onerror=alert(1)>"))
    assert "<img" not in page.text


def test_pages_have_security_headers_and_are_not_cached(client: httpx.Client) -> None:
    for response in (
        client.get(link(client)),
        client.post(link(client)),
        client.get("/unsubscribe/nonsense"),
    ):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["cache-control"] == "no-store"


def test_unavailable_database_returns_503_page(
    client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable() -> Any:
        raise StoreUnavailable("no disk")

    monkeypatch.setattr(database, "write", unavailable)
    response = client.post(link(client))
    assert (response.status_code, "Try again" in response.text) == (503, True)


def test_page_links_style_sheet(client: httpx.Client) -> None:
    page = client.get(link(client))
    assert 'href="../static/bridge.css"' in page.text
    assert client.get(f"{link(client)}/../../static/bridge.css").status_code == 200


def test_link_requires_public_url_and_secret(database: Database) -> None:
    assert unsubscribe_link(None, [SECRET])("email", ADDRESS) is None
    assert unsubscribe_link("https://bridge.example.com", [])("email", ADDRESS) is None
    with serving(Starlette(routes=unsubscribe_routes(database, []))) as url:
        link_without_secret = unsubscribe_link(url, ["another secret"])("email", ADDRESS)
        assert link_without_secret is not None
        assert httpx.get(link_without_secret).status_code == 404


def test_link_of_an_earlier_key_works_during_a_rotation(database: Database) -> None:
    keys = ["the new key of the service", SECRET]
    with serving(Starlette(routes=unsubscribe_routes(database, keys))) as url:
        of_old, of_new = (unsubscribe_link(url, each)("email", ADDRESS) for each in ([SECRET], keys))
        assert [httpx.get(str(link)).status_code for link in (of_old, of_new)] == [200, 200]
    token = str(of_new).rpartition("/")[2]
    assert read_unsubscribe_token(keys[:1], token) == ("email", ADDRESS), "new links use the new key"
    assert read_unsubscribe_token([SECRET], token) is None


def test_link_does_not_reveal_the_address() -> None:
    url = unsubscribe_link("https://bridge.example.com", [SECRET])("email", ADDRESS)
    assert url is not None
    token = url.rpartition("/")[2]
    readable = [
        base64.urlsafe_b64decode(token[start : len(token) - (len(token) - start) % 4]) for start in range(4)
    ]
    assert not [text for text in readable if b"okafor" in text or b"email" in text]


def test_link_fits_one_line_of_an_email() -> None:
    url = unsubscribe_link("https://bridge.example.com/hooks/", [SECRET])("email", ADDRESS)
    assert url is not None
    assert url.startswith("https://bridge.example.com/hooks/unsubscribe/")
    assert len(url) < 200
