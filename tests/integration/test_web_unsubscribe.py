"""The unsubscribe link, as a reader's browser, a mail program and a stranger use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from bridge.clock import Clock
from bridge.errors import StoreUnavailable
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.store.opt_outs import opt_outs
from bridge.web.html import static_routes
from bridge.web.unsubscribe import unsubscribe_link, unsubscribe_routes
from tests.asgi_server import serving

SECRET = "a secret of at least sixteen"
ADDRESS = "ines@okafor.example"


@pytest.fixture
def database(sqlite_url: str, clock: Clock) -> Iterator[Database]:
    found = Database(sqlite_url, clock)
    upgrade(found)
    yield found
    found.close()


@pytest.fixture
def client(database: Database) -> Iterator[httpx.Client]:
    app = Starlette(routes=[*unsubscribe_routes(database, SECRET), *static_routes()])
    with serving(app) as url, httpx.Client(base_url=url) as client:
        yield client


def link(client: httpx.Client, channel: str = "email", address: str = ADDRESS, secret: str = SECRET) -> str:
    made = unsubscribe_link(str(client.base_url), secret)(channel, address)
    assert made is not None
    return made


def test_opening_the_link_asks_and_changes_nothing(client: httpx.Client, database: Database) -> None:
    page = client.get(link(client))
    assert page.status_code == 200
    assert '<form method="post"><button' in page.text
    assert client.head(link(client)).status_code == 200
    assert opt_outs(database) == []


def test_the_page_names_the_address_only_in_part(client: httpx.Client) -> None:
    page = client.get(link(client))
    assert "i***@okafor.example" in page.text
    assert ADDRESS not in page.text


def test_the_button_opts_out(client: httpx.Client, database: Database) -> None:
    page = client.post(link(client))
    assert (page.status_code, "You are unsubscribed" in page.text) == (200, True)
    [row] = opt_outs(database)
    assert (row["channel"], row["address"], row["source"]) == ("email", ADDRESS, "unsubscribe link")


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"List-Unsubscribe": "One-Click"}},
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
        {"content": b""},
    ],
)
def test_a_mail_programs_one_click_opts_out_without_cookies_or_redirects(
    client: httpx.Client, database: Database, body: dict[str, Any]
) -> None:
    answer = client.post(link(client), **body)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert len(opt_outs(database)) == 1


def test_asking_twice_is_asking_once(client: httpx.Client, database: Database) -> None:
    assert [client.post(link(client)).status_code for _ in range(2)] == [200, 200]
    assert len(opt_outs(database)) == 1


@pytest.mark.parametrize(("channel", "words"), [("sms", "text messages"), ("call", "calls")])
def test_texts_and_calls_have_their_own_links(
    client: httpx.Client, database: Database, channel: str, words: str
) -> None:
    assert words in client.get(link(client, channel, "+12125550167")).text
    client.post(link(client, channel, "+12125550167"))
    assert [(row["channel"], row["address"]) for row in opt_outs(database)] == [(channel, "+12125550167")]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "wrong", ["nonsense", "..", "a.b", "%00", "é", "x" * 5000, "cut", "of another secret"]
)
def test_a_wrong_link_is_a_page_that_says_so(
    client: httpx.Client, database: Database, method: str, wrong: str
) -> None:
    made = {"cut": link(client)[:-3], "of another secret": link(client, secret="another secret here")}
    url = made.get(wrong) or f"/unsubscribe/{wrong}"
    answer = client.request(method, url)
    assert answer.status_code == 404
    if wrong != "..":
        assert "This link does not work" in answer.text
    assert opt_outs(database) == []


def test_what_is_signed_for_something_else_opts_nobody_out(client: httpx.Client, database: Database) -> None:
    assert client.post(link(client, "telepathy")).status_code == 404
    assert opt_outs(database) == []


def test_an_address_cannot_write_into_the_page(client: httpx.Client) -> None:
    page = client.get(link(client, address="<script>alert(1)</script>@evil.example"))
    assert "<script" not in page.text
    page = client.get(link(client, address="x@<img src=x onerror=alert(1)>"))
    assert "<img" not in page.text


def test_the_page_may_run_nothing_be_framed_by_nobody_and_be_kept_nowhere(client: httpx.Client) -> None:
    for answer in (client.get(link(client)), client.post(link(client)), client.get("/unsubscribe/nonsense")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"


def test_when_it_cannot_be_written_the_reader_is_told(
    client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise StoreUnavailable("no disk")

    monkeypatch.setattr(database, "write", broken)
    answer = client.post(link(client))
    assert (answer.status_code, "Try again" in answer.text) == (503, True)


def test_the_style_sheet_is_found_from_the_page(client: httpx.Client) -> None:
    page = client.get(link(client))
    assert 'href="../static/bridge.css"' in page.text
    assert client.get(f"{link(client)}/../../static/bridge.css").status_code == 200


def test_links_need_a_public_address_and_a_secret(database: Database) -> None:
    assert unsubscribe_link(None, SECRET)("email", ADDRESS) is None
    assert unsubscribe_link("https://bridge.example.com", None)("email", ADDRESS) is None
    with serving(Starlette(routes=unsubscribe_routes(database, None))) as url:
        made = unsubscribe_link(url, "whatever secret it is")("email", ADDRESS)
        assert made is not None
        assert httpx.get(made).status_code == 404


def test_a_link_fits_a_line_of_a_mail() -> None:
    made = unsubscribe_link("https://bridge.example.com/hooks/", SECRET)("email", ADDRESS)
    assert made is not None
    assert made.startswith("https://bridge.example.com/hooks/unsubscribe/")
    assert len(made) < 200
