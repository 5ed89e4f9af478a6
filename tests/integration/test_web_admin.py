"""Admin authentication: tokens, login form, session cookies and cross-site requests."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest
import structlog
from pydantic import SecretStr
from starlette.routing import Route

from bridge.clock import Clock
from bridge.errors import Refused
from bridge.secret_settings import AccessToken
from bridge.store.audit_log import list_audit_entries
from bridge.store.connection_status import connection_statuses
from bridge.store.sessions import end_sessions, list_sessions
from bridge.web.access import Access, TokenTable, required_access
from bridge.web.admin import COOKIE, HTTPS_COOKIE
from bridge.web.admin_service import AdminService
from bridge.web.api import api_routes
from bridge.web.dashboard import dashboard_routes
from bridge.web.health import CachedStats
from bridge.web.proxy_login import ProxyLogin
from bridge.web.wrong_tokens import FAILURE_SECONDS, MAX_PENDING_PER_CLIENT
from tests.acceptance.service_process import eventually
from tests.integration.dashboard_site import (
    METRICS_TOKEN,
    NAMED_TOKEN,
    READ_TOKEN,
    TOKEN,
    Site,
    running_site,
)

REASON = {"reason": "moving house"}
READING_POSTS = (
    "/search", "/contacts", "/settings", "/rules/try", "/api/search", "/api/why", "/api/contacts",
    "/api/contacts/export", "/api/rules/check", "/api/rules/plan", "/api/rules/explain",
)  # fmt: skip
"""Their POST keeps an address or a text out of the URL, and changes nothing."""
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
    with running_site(tmp_path, clock, public_url="https://bridge.example.com") as site:
        yield site


@pytest.fixture(autouse=True)
def _short_failure_delay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "slow" not in request.node.name:
        monkeypatch.setattr("bridge.web.wrong_tokens.FAILURE_SECONDS", 0.01)


# ------------------------------------------------------------ tokens


@pytest.mark.parametrize("path", PROTECTED_PATHS)
def test_program_without_token_gets_401_with_advice(site: Site, path: str) -> None:
    response = httpx.get(site.url + path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert "BRIDGE_ADMIN_TOKEN" in response.json()["error"]
    narrower = "BRIDGE_METRICS_TOKEN" if path.startswith("/metrics") else "BRIDGE_READ_TOKEN"
    assert narrower in response.json()["error"]


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
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"{HTTPS_COOKIE}=")
    assert {"Secure", "Path=/", "HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


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
def test_oversized_login_form_is_rejected_counted_and_logged(site: Site, body: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    with structlog.testing.capture_logs() as logs:
        assert httpx.post(f"{site.url}/login", content=body, headers=headers).status_code == 413
    [entry] = [entry for entry in logs if entry["event"] == "request rejected"]
    assert (entry["reason"], entry["status"], entry["path"]) == ("too_large", 413, "/login")
    metrics = httpx.get(f"{site.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    assert 'bridge_rejected_requests_total{reason="too_large"} 1.0' in metrics


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


def test_session_of_a_changed_token_has_ended(site: Site) -> None:
    with site.browser() as browser:
        assert browser.get("/api/events").status_code == 200
        changed = TokenTable({Access.ADMIN: [AccessToken(None, SecretStr("the next admin token"))]})
        site.admin._tokens = changed
        assert browser.get("/api/events").status_code == 303


def test_session_survives_a_restart(site: Site, tmp_path: Path, clock: Clock) -> None:
    with site.browser() as browser:
        cookie = browser.cookies[COOKIE]
    with running_site(tmp_path, clock) as restarted:
        response = httpx.get(f"{restarted.url}/api/events", headers={"Cookie": f"{COOKIE}={cookie}"})
    assert response.status_code == 200


def test_logout_ends_the_session_on_the_server(site: Site) -> None:
    with site.browser() as browser:
        stolen = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
        assert httpx.get(f"{site.url}/api/events", headers=stolen).status_code == 200
        assert browser.post("/logout").status_code == 303
        assert COOKIE not in browser.cookies
        assert browser.get("/api/events").status_code == 303
    assert httpx.get(f"{site.url}/api/events", headers=stolen).status_code == 401
    assert list_sessions(site.database) == []


def test_sessions_are_listed_and_ended_by_the_operator(site: Site) -> None:
    with site.browser() as own, site.browser(token=NAMED_TOKEN) as of_ada:
        assert [session["actor"] for session in list_sessions(site.database)] == ["ada", "dashboard"]
        assert end_sessions(site.database, "root", "ada") == 1
        assert of_ada.get("/api/events").status_code == 303
        assert own.get("/api/events").status_code == 200
        assert end_sessions(site.database, "root") == 1
        assert own.get("/api/events").status_code == 303


def test_database_has_no_secret_of_a_session(site: Site, tmp_path: Path) -> None:
    with site.browser() as browser:
        secret = browser.cookies[COOKIE].encode()
    content = b"".join(path.read_bytes() for path in tmp_path.glob("bridge.db*"))
    assert secret not in content
    assert TOKEN.encode() not in content


def test_cookie_of_another_host_is_ignored_over_https(site: Site) -> None:
    with site.browser() as browser:
        secret = browser.cookies[COOKIE]

    def status(name: str) -> int:
        headers = {"Cookie": f"{name}={secret}", "X-Forwarded-Proto": "https"}
        return httpx.get(f"{site.url}/api/events", headers=headers).status_code

    assert (status(COOKIE), status(HTTPS_COOKIE)) == (401, 200)


# ------------------------------------------------------------ kinds of tokens


def test_metrics_token_opens_the_metrics_only(site: Site) -> None:
    with site.client(METRICS_TOKEN) as client:
        assert client.get("/metrics").status_code == 200
        assert client.get("/metrics/webhooks").status_code == 200
        response = client.get("/api/events")
        assert (response.status_code, "only /metrics" in response.json()["error"]) == (403, True)
        assert client.post("/api/pause").status_code == 403
    login = httpx.post(f"{site.url}/login", data={"token": METRICS_TOKEN})
    assert (login.status_code, "only opens /metrics" in login.text) == (403, True)
    assert "set-cookie" not in login.headers


def test_read_token_shows_everything_and_changes_nothing(site: Site) -> None:
    with site.client(READ_TOKEN) as client, site.browser(token=READ_TOKEN) as browser:
        for path in ("/api/events", "/metrics", "/api/audit"):
            assert client.get(path).status_code == 200
        assert client.post("/api/why", json={"contact": "+12125550167"}).status_code == 200
        assert browser.get("/audit").status_code == 200
        assert browser.post("/search", data={"q": "+12125550167"}).status_code == 200
        assert client.post("/api/connections/desk/pause", json=REASON).status_code == 403
        page = browser.post("/connections/desk/pause")
        assert (page.status_code, "without changes" in page.text) == (403, True)
        assert browser.post("/logout").status_code == 303
    assert all(status.pause is None for status in connection_statuses(site.database))


def test_every_route_that_can_change_something_needs_an_admin_token(site: Site) -> None:
    service = AdminService(site.database, site.rules, CachedStats(site.database))
    changing = 0
    for route in [*api_routes(service), *dashboard_routes(service)]:
        assert isinstance(route, Route)
        for method in route.methods or ():
            needed = required_access({"path": route.path, "method": method})
            if method in ("GET", "HEAD", "OPTIONS"):
                assert needed is Access.READ
            elif route.path not in READING_POSTS:
                changing += 1
                assert needed is Access.ADMIN, (method, route.path)
    assert changing > 20


@pytest.mark.parametrize(
    "path", ["/search/", "//search", "/api/why/", "/API/why", "/metrics", "/api/whyx", "/search/../api/pause"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "X"])
def test_a_path_that_only_looks_harmless_needs_an_admin_token(path: str, method: str) -> None:
    assert required_access({"path": path, "method": method}) is Access.ADMIN


# ------------------------------------------------------------ audit log


def test_name_of_the_token_is_the_actor(site: Site) -> None:
    with site.client(NAMED_TOKEN) as client, site.browser(token=NAMED_TOKEN) as browser:
        client.post("/api/connections/desk/pause", json=REASON)
        browser.post("/connections/desk/resume")
    with site.client() as client, site.browser() as browser:
        client.post("/api/connections/desk/pause", json=REASON)
        browser.post("/connections/desk/resume")
    actors = [entry["actor"] for entry in list_audit_entries(site.database, target="desk")]
    assert actors == ["dashboard", "api", "ada", "ada"]


def test_logins_and_logouts_are_in_the_audit_log_and_counted(site: Site) -> None:
    with site.browser(token=NAMED_TOKEN) as browser:
        browser.post("/logout")
    for _ in range(3):
        httpx.post(f"{site.url}/login", data={"token": "wrong"})
    entries = list_audit_entries(site.database, target="dashboard")
    assert [(entry["action"], entry["actor"]) for entry in entries] == [
        ("login_refused", "unknown"), ("logout", "ada"), ("login", "ada"),
    ]  # fmt: skip
    assert entries[0]["detail"]["count"] == 1, "one entry per minute, however many there are"
    assert entries[2]["detail"] == {"access": "admin", "from": "127.0.0.1"}
    with site.client() as client:
        metrics = client.get("/metrics").text
    assert 'bridge_logins_total{result="wrong_token"} 3.0' in metrics
    assert 'bridge_logins_total{result="succeeded"} 1.0' in metrics
    assert 'bridge_logins_total{result="too_many"} 0.0' in metrics


def test_form_after_session_expiry_redirects_to_login(site: Site) -> None:
    with site.browser(log_in=False) as browser:
        response = browser.post("/api/connections/desk/resume")
        assert response.headers["location"] == "../../../login?ended=1&next="


@pytest.mark.parametrize(
    ("action", "page"),
    [
        ("/stop", "/stop"),
        ("/deliveries/dlv_1/retry", "/deliveries/dlv_1"),
        ("/connections/a%20b/pause", "/connections/a%20b"),
        ("/rules/a/b/cancel", "/rules/a/b/cancel"),
        ("/nothing/here", ""),
    ],
)
def test_login_after_session_expiry_opens_page_of_action(site: Site, action: str, page: str) -> None:
    with site.browser(log_in=False) as browser:
        response = browser.post(action)
        assert response.headers["location"].endswith(f"login?ended=1&next={page}")
        login = browser.get(response.headers["location"].replace("../", ""))
        assert "nothing was changed" in login.text
        fields = {"token": TOKEN, "next": page}
        assert browser.post("/login", data=fields).headers["location"] == f".{page or '/'}"


# ------------------------------------------------------------ login at a proxy


@pytest.fixture
def site_behind_proxy(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    login = ProxyLogin("x-forwarded-user", (ip_network("127.0.0.0/8"),))
    with running_site(tmp_path, clock, proxy_login=login) as site:
        yield site


def test_user_of_a_trusted_proxy_is_the_actor(site_behind_proxy: Site) -> None:
    site = site_behind_proxy
    headers = {
        "X-Forwarded-User": "ada@example.com",
        "Sec-Fetch-Site": "same-origin",
        "Authorization": "Basic eA==",
    }
    assert httpx.post(
        f"{site.url}/connections/desk/pause", headers=headers, data={"reason": "moving house"}
    ).is_redirect
    [entry] = list_audit_entries(site.database, target="desk")
    assert entry["actor"] == "ada@example.com"
    cross_site = {"X-Forwarded-User": "ada@example.com"}
    assert httpx.post(f"{site.url}/api/connections/desk/pause", headers=cross_site).status_code == 403
    with site.client() as client:
        assert client.get("/api/events").status_code == 200, "tokens keep working"


@pytest.mark.parametrize("values", [[], [""], ["ada", "root"], ["ada", "ada"], ["a" * 101], ["a\tb"]])
def test_header_that_names_nobody_is_not_believed(site_behind_proxy: Site, values: list[str]) -> None:
    headers = [("X-Forwarded-User", value) for value in values]
    assert httpx.get(f"{site_behind_proxy.url}/api/events", headers=headers).status_code == 401


def test_header_of_another_sender_is_not_believed(tmp_path: Path, clock: Clock) -> None:
    headers = {"X-Forwarded-User": "ada", "X-Forwarded-For": "10.0.0.5"}
    for login in (None, ProxyLogin("x-forwarded-user", (ip_network("10.0.0.5"),))):
        with running_site(tmp_path, clock, proxy_login=login) as site:
            assert httpx.get(f"{site.url}/api/events", headers=headers).status_code == 401


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
    assert (
        httpx.post(f"{site.url}/api/connections/desk/pause", headers=headers, json=REASON).status_code == 200
    )


def test_bearer_token_needs_no_origin_but_rejects_foreign_origin(site: Site) -> None:
    with site.client() as client:
        assert client.post("/api/connections/desk/pause", json=REASON).status_code == 200
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


def test_right_token_never_waits_for_wrong_ones(site: Site) -> None:
    """Thirty connections with a wrong token once locked out everybody, Prometheus included."""
    stop = threading.Event()

    def guess(_: int) -> list[int]:
        statuses = []
        with httpx.Client(base_url=site.url, headers={"Authorization": "Bearer wrong"}) as client:
            while not stop.is_set():
                statuses.append(client.get("/metrics").status_code)
                stop.wait(0.01)
        return statuses

    with ThreadPoolExecutor(30) as pool, site.client() as client, site.client(METRICS_TOKEN) as prometheus:
        guesses = [pool.submit(guess, number) for number in range(30)]
        try:
            eventually(lambda: client.get("/metrics").text.count('{result="too_many"} 0.0') == 0)
            statuses = [prometheus.get("/metrics").status_code for _ in range(20)]
            logins = [httpx.post(f"{site.url}/login", data={"token": TOKEN}).status_code for _ in range(5)]
        finally:
            stop.set()
        answers = {status for future in guesses for status in future.result()}
    assert (set(statuses), set(logins), answers) == ({200}, {303}, {401, 429})


def test_concurrent_slow_guesses_are_limited_per_client(site: Site) -> None:
    async def statuses() -> list[str]:
        """Return what happens to 12 guesses of each of two clients."""
        wrong_tokens = site.admin._wrong_tokens

        async def guess(client: str) -> str:
            scope = {"type": "http", "client": (client, 1), "headers": []}
            try:
                await wrong_tokens.refuse(scope)
            except Refused:
                return f"{client} busy"
            return f"{client} wrong"

        return await asyncio.gather(*(guess(client) for client in ("a", "b") for _ in range(12)))

    counts = Counter(asyncio.run(statuses()))
    assert counts == {
        "a wrong": MAX_PENDING_PER_CLIENT, "b wrong": MAX_PENDING_PER_CLIENT, "a busy": 2, "b busy": 2,
    }  # fmt: skip
    assert not site.admin._wrong_tokens._pending
