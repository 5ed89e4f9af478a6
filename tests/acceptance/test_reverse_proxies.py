"""deploy/nginx.conf and deploy/Caddyfile, started in front of a real service. Skipped if the program is missing."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.acceptance.commands import DISABLED_RULE
from tests.acceptance.service_process import (
    ADMIN,
    SECRET,
    ServiceProcess,
    eventually,
    free_port,
    running_service,
)
from tests.certificates import Authority, create_authority

DEPLOY = Path(__file__).parents[2] / "deploy"
OWN, STRANGER = "127.0.0.1", "127.0.0.3"
"""Addresses of clients: of the network for which everything is open, and of the internet."""
UNUSED = 1
"""A port at which nothing listens: the first instance, which is down."""
MIB = 1024 * 1024


@dataclass(frozen=True)
class ReverseProxy:
    """A running reverse proxy."""

    name: str
    port: int
    dashboard: str
    """The URL of the dashboard under a path."""
    context: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self, address: str = OWN) -> httpx.Client:
        """Return a client that connects from this address and verifies the certificate."""
        transport = httpx.HTTPTransport(verify=self.context, local_address=address)
        return httpx.Client(base_url=self.url, transport=transport, timeout=20)

    def post(self, body: bytes, address: str = STRANGER, **headers: str) -> httpx.Response:
        """Post a signed body to the webhook."""
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        signed = {
            "Content-Type": "application/json",
            "X-Webhook-Signature-256": f"sha256={signature}",
            "X-Webhook-Timestamp": str(int(time.time())),
        }
        with self.client(address) as client:
            return client.post("/webhooks/heppu", content=body, headers=signed | headers)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("behind-a-proxy")
    (folder / "rules.yaml").write_text(DISABLED_RULE)
    options = {"BRIDGE_TRUSTED_PROXIES": OWN, "BRIDGE_LOG_FORMAT": "json"}
    with running_service(folder, {}, "--no-worker", **options) as running:
        yield running


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    service: ServiceProcess,
    authority: Authority,
) -> Iterator[ReverseProxy]:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: its example in deploy/ was not tested")
    folder = tmp_path_factory.mktemp(name)
    configure = {"nginx": _configure_nginx, "caddy": _configure_caddy}[name]
    port = free_port()
    intranet_port = port if name == "nginx" else free_port()
    command = configure(folder, port, intranet_port, int(service.url.rpartition(":")[2]), authority)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "HOME": str(folder)}, stdout=log, stderr=log
        )
    try:
        started = eventually(lambda: process.poll() is not None or _listens(port), 20)
        assert started, (folder / "log").read_text()
        assert process.poll() is None, (folder / "log").read_text()
        dashboard = f"https://localhost:{intranet_port}/bridge"
        yield ReverseProxy(name, port, dashboard, ssl.create_default_context(cafile=str(authority.file)))
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((OWN, port), timeout=1):
        return True
    return False


def _replace(text: str, **replacements: str) -> str:
    """Replace what a reader of the example has to change. Each must be there."""
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def _configure_nginx(
    folder: Path, port: int, _intranet_port: int, bridge: int, authority: Authority
) -> list[str]:
    site = _replace(
        re.sub(r"^ *listen \[::\].*\n", "", (DEPLOY / "nginx.conf").read_text("utf-8"), flags=re.MULTILINE),
        **{
            "listen 443": f"listen {OWN}:{port}",
            "listen 80": f"listen {OWN}:{free_port()}",
            "server 127.0.0.1:8080;": f"server {OWN}:{UNUSED}; server {OWN}:{bridge};",
            "/etc/ssl/bridge.pem": str(authority.certificate),
            "/etc/ssl/private/bridge.key": str(authority.key),
            "bridge.example.com": "localhost",
            "allow 127.0.0.0/8;": f"allow {OWN};",
            "#@ ": "",
        },
    )
    (folder / "site.conf").write_text(site)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/log; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder}/site.conf; }}\n"
    )
    command = ["nginx", "-p", str(folder), "-c", f"{folder}/nginx.conf"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    return command


def _configure_caddy(
    folder: Path, port: int, intranet_port: int, bridge: int, authority: Authority
) -> list[str]:
    file = folder / "Caddyfile"
    tls = f"\tbind {OWN}\n\ttls {authority.certificate} {authority.key}\n"
    file.write_text(
        _replace(
            (DEPLOY / "Caddyfile").read_text("utf-8"),
            **{
                "{\n\tservers {": "{\n\tadmin off\n\tauto_https off\n\tservers {",
                "{$BRIDGE_SITE:bridge.example.com} {\n": f"https://localhost:{port} {{\n{tls}",
                "#@ intranet.example.com {\n": f"https://localhost:{intranet_port} {{\n{tls}",
                "{$BRIDGE_INSTANCES:127.0.0.1:8080}": f"{OWN}:{UNUSED} {OWN}:{bridge}",
                "remote_ip private_ranges": f"remote_ip {OWN}",
                "#@ ": "",
            },
        )
    )
    options = ["--adapter", "caddyfile", "--config", str(file)]
    checked = subprocess.run(
        ["caddy", "validate", *options],
        env={**os.environ, "HOME": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    return ["caddy", "run", *options]


def event(conversation: str, **fields: object) -> bytes:
    """Return a body that a proxy would change if it parsed it: with spaces, escapes and characters of any script."""
    body = {
        "event": "call.completed",
        "conversationId": conversation,
        "summary": 'Ärger  mit "\u2028" 日本 \\/',
        **fields,
    }
    return b" \r\n" + json.dumps(body, ensure_ascii=False, indent=3).encode() + b"\t\n"


def test_signed_event_passes_byte_for_byte_also_if_the_first_instance_is_down(proxy: ReverseProxy) -> None:
    for number in range(4):
        response = proxy.post(event(f"conv_{proxy.name}_{number}"))
        assert (response.status_code, response.json()) == (200, {"received": True})


def test_largest_event_passes_and_a_larger_one_is_refused(proxy: ReverseProxy) -> None:
    largest = event(f"conv_{proxy.name}_large", text="x")
    largest += b" " * (MIB - len(largest))
    assert proxy.post(largest).status_code == 200
    # A proxy may close the connection while the client still sends.
    with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
        assert proxy.post(largest + b" " * MIB).status_code in (413, 502)


def test_log_names_the_client_and_believes_no_address_that_it_claims(
    proxy: ReverseProxy, service: ServiceProcess
) -> None:
    before = service.log.stat().st_size
    response = proxy.post(
        event("conv_unsigned"),
        **{"X-Webhook-Signature-256": "sha256=" + "0" * 64, "X-Forwarded-For": "203.0.113.9"},
    )
    assert response.status_code == 401

    def new_entries() -> str:
        with service.log.open() as log:
            log.seek(before)
            return log.read()

    assert eventually(lambda: "rejected" in new_entries(), 10), new_entries()
    assert f'"{STRANGER}"' in new_entries()
    assert "203.0.113.9" not in new_entries()


def test_only_the_own_network_reaches_dashboard_api_and_metrics(proxy: ReverseProxy) -> None:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with proxy.client(OWN) as own, proxy.client(STRANGER) as stranger:
        for path in ("/login", "/api/events", "/metrics"):
            assert own.get(path, headers=headers).status_code == 200, path
            assert stranger.get(path, headers=headers).status_code == 403, path
        assert stranger.get("/static/bridge.css").status_code == 200
        assert stranger.get("/unsubscribe/unknown").status_code in (400, 404)


def test_cookie_of_a_login_over_tls_is_secure(proxy: ReverseProxy) -> None:
    with proxy.client() as client:
        page = client.post("/login", data={"token": ADMIN}, headers={"Origin": proxy.url})
        assert page.status_code == 303, page.text
        assert "secure" in page.headers["Set-Cookie"].lower()
        assert client.get("/", headers={"Accept": "text/html"}).status_code == 200


def test_dashboard_works_under_a_path(proxy: ReverseProxy) -> None:
    with proxy.client() as client:
        page = client.get(f"{proxy.dashboard}/login")
        assert page.status_code == 200
        links = re.findall(r'(?:href|src)="([^"#]+\.css[^"]*)"', page.text)
        assert links
        for link in links:
            style = client.get(str(page.url.join(link)))
            assert (style.url.path.startswith("/bridge/"), style.status_code) == (True, 200)
        client.post(
            f"{proxy.dashboard}/login", data={"token": ADMIN}, headers={"Origin": proxy.dashboard[:-7]}
        )
        overview = client.get(f"{proxy.dashboard}/", headers={"Accept": "text/html"})
        assert overview.status_code == 200
        for link in re.findall(r'<a [^>]*href="([^"#]+)"', overview.text)[:8]:
            target = overview.url.join(link)
            assert target.path.startswith("/bridge/"), link
            assert client.get(str(target), headers={"Accept": "text/html"}).status_code == 200, link


def test_slow_bodies_stay_with_nginx(proxy: ReverseProxy, service: ServiceProcess) -> None:
    if proxy.name != "nginx":
        pytest.skip(
            "Caddy passes bodies on while it receives them; the bridge limits their number and time itself"
        )

    def open_connections() -> float:
        response = httpx.get(f"{service.url}/metrics", headers={"Authorization": f"Bearer {ADMIN}"})
        return float(re.findall(r"^bridge_open_connections (\S+)$", response.text, re.MULTILINE)[0])

    before = open_connections()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            plain = stack.enter_context(socket.create_connection((OWN, proxy.port)))
            secure = stack.enter_context(proxy.context.wrap_socket(plain, server_hostname="localhost"))
            secure.sendall(
                b"POST /webhooks/heppu HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf"
            )
        assert proxy.post(event("conv_meanwhile")).status_code == 200
        assert open_connections() < before + 10
