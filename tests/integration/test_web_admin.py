"""Admin authentication: tokens, login form, session cookies and cross-site requests."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from bridge.clock import Clock
from bridge.web.admin import COOKIE, FAILURE_SECONDS, MAX_CONCURRENT_FAILURES, AdminAuth
from tests.integration.dashboard_site import TOKEN, Site, running_site

PROTECTED_PATHS = [
    "/",
    "/api/events",
    "/api/stats",
    "/metrics",
    "/metrics/webhooks",
    "/nothing-here",
    "/events/evt_1",
]


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with running_site(
        tmp_path, clock, secret="a persistent secret", public_url="https://bridge.example.com"
    ) as site:
        yield site


@pytest.fixture(autouse=True)
def _short_failure_delay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "slow" not in request.node.name:
        monkeypatch.setattr("bridge.web.admin.FAILURE_SECONDS", 0.01)


# ------------------------------------------------------------ tokens


@pytest.mark.parametrize("path", PROTECTED_PATHS)
def test_program_without_token_gets_401_with_advice(site: Site, path: str) -> None:
    response = httpx.get(site.url + path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert "BRIDGE_ADMIN_TOKEN" in response.json()["error"]


@pytest.mark.parametrize("path", PROTECTED_PATHS)
def test_browser_without_session_is_redirected_to_login(site: Site, path: str) -> None:
    with site.browser(log_in=False) as browser:
        response = browser.get(f"{path}?a=b&c=d")
        assert response.status_code == 303
        form = browser.get(response.headers["location"], follow_redirects=False)
        assert form.status_code == 200
    location = httpx.URL(response.headers["location"])
    assert location.params["next"] == f"{path}?a=b&c=d"
    assert httpx.URL(site.url + path).join(location).path == "/login"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/login", "/static/bridge.css"])
def test_public_path_requires_no_token(site: Site, path: str) -> None:
    assert httpx.get(site.url + path).status_code == 200


@pytest.mark.parametrize("path", ["/api/events", "/metrics", "/metrics/webhooks"])
def test_valid_token_is_accepted(site: Site, path: str) -> None:
    with site.client() as client:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wrong",
        "Bearer",
        "Basic dXNlcjpwYXNz",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é",
        f"Bearer {TOKEN}x",
    ],
)
def test_invalid_authorization_header_returns_401(site: Site, header: str) -> None:
    response = httpx.get(f"{site.url}/api/events", headers={b"Authorization": header.encode()})
    assert response.status_code == 401


def test_unknown_path_returns_404_to_admins(site: Site) -> None:
    with site.client() as client, site.browser() as browser:
        assert client.get("/nothing").json() == {"error": "not found"}
        page = browser.get("/a/b")
        assert (page.status_code, "This page does not exist" in page.text) == (404, True)
        assert 'href="../"' in page.text


# ------------------------------------------------------------ login form


def test_login_sets_session_cookie(site: Site) -> None:
    with site.browser(log_in=False) as browser:
        response = browser.post("/login", data={"token": f" {TOKEN}\n"})
        cookie = response.headers["set-cookie"]
        assert response.status_code == 303
        assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert TOKEN not in cookie
        assert browser.get("/api/events").status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://bridge.example.com"}, {"X-Forwarded-Proto": "https"}]
)
def test_cookie_is_secure_over_https(site: Site, headers: dict[str, str]) -> None:
    response = httpx.post(f"{site.url}/login", data={"token": TOKEN}, headers=headers)
    assert response.status_code == 303
    assert "Secure" in response.headers["set-cookie"]


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], "é" * 20, "x" * 10_000, "\x00"])
def test_invalid_token_shows_login_again_without_cookie(site: Site, token: str) -> None:
    response = httpx.post(f"{site.url}/login", data={"token": token, "next": "/events?a=b"})
    assert (response.status_code, "Invalid admin token" in response.text) == (401, True)
    assert "set-cookie" not in response.headers
    assert 'name="next" value="/events?a=b"' in response.text


def test_token_in_query_is_ignored(site: Site) -> None:
    response = httpx.get(f"{site.url}/login", params={"token": TOKEN})
    assert "set-cookie" not in response.headers
    assert TOKEN not in response.text


@pytest.mark.parametrize(
    "next_path",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/events/evt_1?x=1",
        "",
    ],
)
def test_login_never_redirects_to_another_site(site: Site, next_path: str) -> None:
    response = httpx.post(f"{site.url}/login", data={"token": TOKEN, "next": next_path})
    target = httpx.URL(f"{site.url}/login").join(response.headers["location"].replace("\\", "/"))
    assert target.host == "127.0.0.1"
    assert target.scheme == "http"


def test_next_parameter_is_escaped_in_login_form(site: Site) -> None:
    page = httpx.get(f"{site.url}/login", params={"next": '"><script>alert(1)</script>'})
    assert "<script>alert" not in page.text


@pytest.mark.parametrize("body", [b"x" * 70_000, b"token=" + b"a" * 70_000])
def test_oversized_login_form_returns_413(site: Site, body: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert httpx.post(f"{site.url}/login", content=body, headers=headers).status_code == 413


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xff\xfe%zz&&&=", "application/x-www-form-urlencoded"),
        (b"&".join(b"a=1" for _ in range(50)), "application/x-www-form-urlencoded"),
        (b"--x\r\nnonsense", "multipart/form-data; boundary=x"),
        (b"--x\r\nnonsense", "multipart/form-data"),
        (b'--x\r\nContent-Disposition: form-data; name="token"; filename="f"\r\n\r\nx\r\n--x--\r\n',
         "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
    ],
)  # fmt: skip
def test_malformed_login_form_is_rejected(site: Site, body: bytes, content_type: str) -> None:
    response = httpx.post(f"{site.url}/login", content=body, headers={"Content-Type": content_type})
    assert response.status_code in (400, 401)


def test_disconnect_during_form_logs_no_error(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    head = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
    head += b"Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="
    with socket.create_connection(("127.0.0.1", httpx.URL(site.url).port or 0)) as connection:
        connection.sendall(head)
        time.sleep(0.1)
    time.sleep(0.1)
    assert httpx.get(f"{site.url}/healthz").status_code == 200
    assert "unexpected error" not in "".join(capsys.readouterr())


# ------------------------------------------------------------ sessions


def test_session_expires_after_twelve_hours(site: Site, clock: Clock) -> None:
    with site.browser() as browser:
        clock.advance(hours=11, minutes=59)
        assert browser.get("/api/events").status_code == 200
        clock.advance(minutes=1)
        assert browser.get("/api/events").status_code == 303


@pytest.mark.parametrize("cookie", ["", "x", "x.y", "é", "MTk5OTk5OTk5OTk.AAAA"])
def test_forged_cookie_is_rejected(site: Site, cookie: str) -> None:
    response = httpx.get(f"{site.url}/api/events", headers={b"Cookie": f"{COOKIE}={cookie}".encode()})
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("token", "secret"), [("another admin token", "a persistent secret"), (TOKEN, "another secret, later")]
)
def test_session_of_another_token_or_secret_is_rejected(
    site: Site, clock: Clock, token: str, secret: str
) -> None:
    other_auth = AdminAuth(token, clock, secret=secret)
    cookie = other_auth._sessions.dumps(int(clock.now().timestamp()) + 3600)
    response = httpx.get(f"{site.url}/api/events", headers={"Cookie": f"{COOKIE}={cookie}"})
    assert response.status_code == 401


def test_logout_deletes_cookie(site: Site) -> None:
    with site.browser() as browser:
        assert browser.post("/logout").status_code == 303
        assert COOKIE not in browser.cookies
        assert browser.get("/api/events").status_code == 303


def test_form_after_session_expiry_redirects_to_login(site: Site) -> None:
    with site.browser(log_in=False) as browser:
        response = browser.post("/api/connections/desk/resume")
        assert (response.status_code, response.headers["location"]) == (303, "../../../login")


# ------------------------------------------------------------ cross-site requests


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {},
    ],
)
def test_cross_site_write_is_rejected(site: Site, headers: dict[str, str]) -> None:
    with site.browser() as browser:
        cookie = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    response = httpx.post(f"{site.url}/api/connections/desk/pause", headers=cookie | headers)
    assert response.status_code == 403
    assert httpx.get(f"{site.url}/api/connections", headers=cookie | headers).status_code == 200


@pytest.mark.parametrize("origin", [None, "https://bridge.example.com"])
def test_same_origin_write_is_accepted(site: Site, origin: str | None) -> None:
    with site.browser() as browser:
        cookie = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    headers = cookie | {"Origin": origin or site.url}
    assert httpx.post(f"{site.url}/api/connections/desk/pause", headers=headers).status_code == 200


def test_bearer_token_needs_no_origin_but_rejects_foreign_origin(site: Site) -> None:
    with site.client() as client:
        assert client.post("/api/connections/desk/pause").status_code == 200
        headers = {"Origin": "https://evil.example"}
        assert client.post("/api/connections/desk/pause", headers=headers).status_code == 403


def test_cross_site_link_is_continued_by_own_page(site: Site) -> None:
    with site.browser(log_in=False) as browser:
        page = browser.get("/deliveries/dlv_1?a=b", headers={"Sec-Fetch-Site": "cross-site"})
        assert 'content="0; url=../deliveries/dlv_1?a=b"' in page.text
        assert browser.get("/deliveries/dlv_1").status_code == 303, "which then redirects to the login"


def test_responses_have_security_headers_and_are_not_cached(site: Site) -> None:
    with site.client() as client, site.browser() as browser:
        for response in (client.get("/api/events"), client.get("/nothing"), browser.get("/nothing"),
                       browser.get("/login"), httpx.get(site.url)):  # fmt: skip
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe-inline" not in policy
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cache-control"] == "no-store"


# ------------------------------------------------------------ brute force


def test_slow_response_only_for_invalid_token(site: Site) -> None:
    def seconds(token: str) -> float:
        start = time.monotonic()
        httpx.post(f"{site.url}/login", data={"token": token})
        return time.monotonic() - start

    assert seconds("wrong") >= FAILURE_SECONDS
    # The best of three, because other processes can slow one request down.
    assert min(seconds(TOKEN) for _ in range(3)) < FAILURE_SECONDS


def test_concurrent_slow_guesses_are_limited(site: Site) -> None:
    def guess(number: int) -> int:
        return httpx.get(
            f"{site.url}/api/events", headers={"Authorization": f"Bearer {number}"}, timeout=30
        ).status_code

    with site.browser() as browser, ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(guess, range(60)))
        assert set(statuses) == {401, 429}
        assert statuses.count(401) >= MAX_CONCURRENT_FAILURES
        assert browser.get("/api/events").status_code == 200, "existing sessions keep working"
