"""BRIDGE_CA_FILE and BRIDGE_HTTPS_PROXY with a real TLS server of a private authority, and a real proxy."""

from __future__ import annotations

import http.server
import json
import smtplib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from bridge.clock import uptime
from bridge.connector import DeadlineAdapter, TokenSource, failure_from_exception, http_client
from bridge.connector.deadline import attempt_deadline
from bridge.connector.egress import Egress, Proxy, configure_egress, use_egress
from bridge.errors import ConfigError, DeliveryError, OutcomeUnknown, PermanentError, TransientError
from bridge.sandbox import start_sandbox
from bridge.settings import Settings
from connectors import http as http_connector
from connectors.email.client import SmtpClient
from connectors.email.settings import Settings as EmailSettings
from connectors.hubspot import account as hubspot
from connectors.hubspot.connection_pool import open_pool
from connectors.hubspot.settings import Settings as HubSpotSettings
from tests.certificates import Authority, create_authority
from tests.connect_proxy import PASSWORD, ConnectProxy, connect_proxy

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Send = Callable[[str], Any]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_authority(tmp_path_factory.mktemp("authority"))


class _Server(http.server.ThreadingHTTPServer):
    """A TLS server that answers every request with JSON, at once or byte by byte."""

    drips = False
    paths: list[str]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.paths.append(f"{self.headers['Host']}{self.path}")
        body = b'{"ok": true, "results": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for part in body[:1], body[1:2], body[2:]:
            self.wfile.write(part)
            if self.server.drips:
                time.sleep(2)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(authority: Authority) -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.paths = []
        server.socket = authority.server_context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def proxy(server: _Server) -> Iterator[ConnectProxy]:
    with connect_proxy(server.server_port) as running:
        yield running


@pytest.fixture(autouse=True)
def egress_of_other_tests() -> Iterator[None]:
    yield
    use_egress(Egress())


def send_by_httpx(url: str) -> Any:
    with http_client() as client:
        return client.get(url).json()


def send_by_requests(url: str) -> Any:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("https://", DeadlineAdapter())
        return session.get(url).json()


def send_by_hubspot(url: str) -> Any:
    account = hubspot.Account(HubSpotSettings(access_token="pat-na1-x", url=url))
    try:
        return json.loads(account.token and open_pool(account.settings).urlopen("GET", url).data)
    finally:
        account.close()


TRANSPORTS = [send_by_httpx, send_by_requests, send_by_hubspot]
every_transport = pytest.mark.parametrize("send", TRANSPORTS)


def failure(send: Send, url: str) -> DeliveryError:
    """Return the error of a request that must fail."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of three libraries
        send(url)
    error = failure_from_exception(raised.value)
    assert error is not None, raised.value
    return error


@every_transport
def test_private_authority_is_trusted_with_the_setting_only(
    send: Send, server: _Server, authority: Authority
) -> None:
    url = f"https://localhost:{server.server_port}"
    assert isinstance(failure(send, url), TransientError)  # provably nothing was sent
    use_egress(Egress(authority.file))
    assert send(url)["ok"]
    assert len(server.paths) == 1


def test_private_authority_does_not_replace_the_public_ones(authority: Authority) -> None:
    use_egress(Egress(authority.file))
    from bridge.connector import tls_context

    subjects = str(tls_context().get_ca_certs())
    assert "Private authority of the tests" in subjects
    assert "DigiCert" in subjects


def test_private_authority_is_trusted_for_email(authority: Authority) -> None:
    with start_sandbox(tls=authority.server_context) as sandbox:
        settings = EmailSettings(smtp_url=f"smtp://localhost:{sandbox.smtp_port}", sender="a@example.com")
        for trusted in (False, True):
            use_egress(Egress(authority.file if trusted else None))
            client = SmtpClient(settings, TokenSource(lambda _: pytest.fail("no token is needed")))
            server = client._server
            smtp = smtplib.SMTP("localhost", sandbox.smtp_port, local_hostname="localhost", timeout=5)
            with smtp:
                from connectors.email.client import _start_tls

                smtp.ehlo()
                if trusted:
                    _start_tls(smtp, server)
                else:
                    with pytest.raises(Exception, match="certificate"):
                        _start_tls(smtp, server)
                    smtp.close()


@every_transport
def test_requests_go_through_the_proxy_with_its_login(
    send: Send, proxy: ConnectProxy, server: _Server, authority: Authority
) -> None:
    use_egress(Egress(authority.file, Proxy(proxy.url)))
    assert send("https://api.example.test")["ok"]
    assert (proxy.tunnels, len(server.paths)) == (["api.example.test:443"], 1)
    assert server.paths[0].startswith("api.example.test")


@every_transport
def test_this_machine_and_excepted_hosts_are_reached_directly(
    send: Send, proxy: ConnectProxy, server: _Server, authority: Authority
) -> None:
    use_egress(Egress(authority.file, Proxy(proxy.url), ("example.test",)))
    assert send(f"https://localhost:{server.server_port}")["ok"]
    failure(send, "https://api.example.test")  # nothing resolves it here
    assert proxy.tunnels == []


@every_transport
def test_refused_tunnel_is_retried_and_its_login_is_not_repeated(
    send: Send, proxy: ConnectProxy, authority: Authority
) -> None:
    use_egress(Egress(authority.file, Proxy(proxy.url.replace("p%40ss", "wrong-password"))))
    error = failure(send, "https://api.example.test")
    assert isinstance(error, TransientError)
    assert error.reason == "network"
    assert "wrong-password" not in str(error)


@every_transport
def test_proxy_that_is_down_is_retried(send: Send, proxy: ConnectProxy, authority: Authority) -> None:
    use_egress(Egress(authority.file, Proxy(proxy.url)))
    proxy.close()
    assert isinstance(failure(send, "https://api.example.test"), TransientError)


@every_transport
def test_attempt_ends_in_time_if_the_proxy_never_answers(
    send: Send, proxy: ConnectProxy, authority: Authority
) -> None:
    use_egress(Egress(authority.file, Proxy(proxy.url)))
    proxy.answers = False
    started = time.monotonic()
    with attempt_deadline(uptime() + 0.5):
        error = failure(send, "https://api.example.test")
    assert time.monotonic() - started < 20  # the proxy never answers
    assert isinstance(error, TransientError), "nothing was sent to the provider"


@every_transport
def test_attempt_ends_in_time_if_the_response_drips_through_the_proxy(
    send: Send, proxy: ConnectProxy, server: _Server, authority: Authority
) -> None:
    use_egress(Egress(authority.file, Proxy(proxy.url)))
    server.drips = True
    with attempt_deadline(uptime() + 1.5):  # the response takes 4 s
        error = failure(send, "https://api.example.test")
    assert isinstance(error, OutcomeUnknown)


@pytest.fixture
def sender() -> Iterator[http_connector.Sender]:
    sender = http_connector.Sender(
        http_connector.Settings.model_validate(
            {"secret": SECRET, "allowed_hosts": "hooks.example.test,private.example.test"}
        )
    )
    yield sender
    sender.close()


def post(sender: http_connector.Sender, url: str) -> int:
    with sender.send("POST", url, b"{}", {}) as response:
        return response.status_code


def test_http_connector_leaves_unknown_names_to_the_proxy_and_keeps_its_list(
    sender: http_connector.Sender, proxy: ConnectProxy, authority: Authority
) -> None:
    use_egress(Egress(authority.file, Proxy(proxy.url)))
    assert post(sender, "https://hooks.example.test/x") == 200
    assert sender.resolve_all() == 2
    with pytest.raises(PermanentError, match="HTTP_ALLOWED_HOSTS"):
        post(sender, "https://elsewhere.example.test/x")
    assert proxy.tunnels == ["hooks.example.test:443"]


def test_http_connector_refuses_a_name_that_is_private_here(
    sender: http_connector.Sender, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_egress(Egress(None, Proxy(proxy.url)))
    addresses = [(2, 1, 6, "", ("10.0.0.8", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: addresses)
    with pytest.raises(PermanentError, match="private address"):
        post(sender, "https://private.example.test/x")
    assert proxy.tunnels == []


@pytest.mark.parametrize(
    ("entry", "host", "direct"),
    [
        ("example.com", "example.com", True),
        ("example.com", "api.example.com", True),
        (".example.com", "api.example.com", True),
        ("*.example.com", "API.example.com.", True),
        ("example.com", "notexample.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "ten.example.com", False),
        ("fd00::/8", "[fd00::1]", True),
        ("other.example", "127.0.0.1", True),
    ],
)
def test_exceptions_of_the_proxy(entry: str, host: str, direct: bool) -> None:
    egress = Egress(None, Proxy("http://proxy:3128"), (entry,))
    assert (egress.proxy_for(host) is None) == direct


def test_settings_reach_the_transports(authority: Authority, proxy: ConnectProxy) -> None:
    configure_egress(
        Settings.load(
            {
                "BRIDGE_CA_FILE": str(authority.file),
                "BRIDGE_HTTPS_PROXY": proxy.url,
                "BRIDGE_NO_PROXY": "10.0.0.0/8, example.org",
            }
        )
    )
    assert send_by_httpx("https://api.example.test")["ok"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BRIDGE_HTTPS_PROXY", f"proxy.example.com:{PASSWORD}", "write http:// or https://"),
        ("BRIDGE_HTTPS_PROXY", f"socks5://u:{PASSWORD}@proxy", "write http:// or https://"),
        ("BRIDGE_CA_FILE", "/nowhere/ca.pem", "is not a file"),
        ("BRIDGE_CA_FILE", __file__, "no certificate in PEM format"),
    ],
)
def test_wrong_setting_is_an_error_without_its_value(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        Settings.load({name: value})
    assert PASSWORD not in str(raised.value)


def test_proxy_is_a_secret_that_can_be_in_a_file(tmp_path: Path, proxy: ConnectProxy) -> None:
    file = tmp_path / "proxy"
    file.write_text(proxy.url)
    settings = Settings.load({"BRIDGE_HTTPS_PROXY_FILE": str(file)})
    assert settings.bridge_https_proxy is not None
    assert settings.bridge_https_proxy.get_secret_value() == proxy.url
    assert "p%40ss" not in repr(settings)
    assert "p%40ss" not in repr(Proxy(proxy.url))
