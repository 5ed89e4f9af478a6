"""BRIDGE_METRICS_PORT: metrics and health checks of `bridge worker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.cli import metrics_server
from bridge.cli.bootstrap import Role, Service, build_service
from bridge.cli.listener import listen, url_of
from bridge.cli.metrics_server import MetricsServer, required_tokens
from bridge.errors import ConfigError, StoreUnavailable
from bridge.settings import Settings

TOKEN = "prometheus-of-the-worker"
RULES = """
version: 1
rules:
  - name: post
    when: call.busy
    do: [{use: slack.post, with: {text: "busy"}}]
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "rules.yaml").write_text(RULES)
    environ = {
        "BRIDGE_DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db",
        "BRIDGE_RULES_FILE": str(tmp_path / "rules.yaml"),
        "SLACK_WEBHOOK_URL": "http://127.0.0.1:9/services/T/B/X",
    }
    service = build_service(Role.WORKER, environ)
    service.start()
    yield service
    service.stop()
    service.close()


class Port:
    """The port of a worker."""

    def __init__(self, service: Service, **environ: str) -> None:
        self.stopping = False
        listener = listen("127.0.0.1", 0, "BRIDGE_METRICS_PORT")
        tokens = required_tokens(Settings.load(environ))
        self._server = MetricsServer(service, tokens, listener, lambda: self.stopping)
        self._url = url_of(listener)

    def __enter__(self) -> Port:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self._url}{path}", timeout=10, **options)


def test_worker_serves_its_metrics_and_probes_on_its_own_port(service: Service) -> None:
    with Port(service) as port:
        response = port.get("/metrics")
        assert response.status_code == 200
        for name in (
            "process_resident_memory_bytes",
            "bridge_build_info",
            'bridge_attempts_total{connection="slack",reason="succeeded"} 0.0',
            'bridge_due_deliveries{connection="slack"} 0.0',
            "bridge_event_to_delivery_seconds_bucket",
            "bridge_rules_info",
            "bridge_prune_last_success_timestamp_seconds",
            "bridge_workers_alive 1.0",
        ):
            assert name in response.text, name
        assert "bridge_webhook_requests" not in response.text, "a worker receives no events"
        assert "bridge_worker_process" not in response.text
        assert "nosniff" in response.headers["x-content-type-options"]
        assert (port.get("/healthz").status_code, port.get("/readyz").status_code) == (200, 200)
        assert port.get("/").status_code == 404, "the dashboard is not served"
        port.stopping = True
        assert (port.get("/healthz").status_code, port.get("/readyz").status_code) == (200, 503)


def test_readiness_and_metrics_report_an_unavailable_database(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("connection refused")

    with Port(service) as port, monkeypatch.context() as patch:
        for name in ("read", "write"):
            patch.setattr(service.database, name, unavailable)
        assert (port.get("/readyz").status_code, port.get("/healthz").status_code) == (503, 200)
        text = port.get("/metrics").text
        assert "bridge_database_up 0.0" in text
        assert "bridge_workers_alive" not in text
    service.database.write_health.note_success(0)


def test_liveness_fails_when_a_thread_has_ended(service: Service) -> None:
    with Port(service) as port:
        assert service.worker is not None
        service.worker.result_writer.stop()
        service.worker.result_writer.join(5)
        assert port.get("/healthz").status_code == 503


def test_metrics_need_a_token_if_one_is_set(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "WRONG_TOKEN_SECONDS", 0.01)
    with Port(service, BRIDGE_METRICS_TOKEN=TOKEN) as port:
        assert port.get("/metrics").status_code == 401
        assert (
            port.get("/metrics", headers={"Authorization": "Bearer wrong-token-of-somebody"}).status_code
            == 401
        )
        assert port.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert port.get("/readyz").status_code == 200, "a probe has no token"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_no_token_is_needed_on_the_loopback_address(host: str) -> None:
    assert required_tokens(Settings.load({"BRIDGE_HOST": host})) is None


def test_address_that_others_reach_needs_a_token() -> None:
    with pytest.raises(ConfigError, match="set BRIDGE_METRICS_TOKEN, or BRIDGE_HOST=127"):
        required_tokens(Settings.load({"BRIDGE_HOST": "0.0.0.0"}))
    assert required_tokens(Settings.load({"BRIDGE_HOST": "0.0.0.0", "BRIDGE_METRICS_TOKEN": TOKEN}))


def test_used_port_names_its_setting() -> None:
    refused = pytest.raises(ConfigError, match="choose another address with BRIDGE_METRICS_PORT")
    with listen("127.0.0.1", 0, "BRIDGE_METRICS_PORT") as listener, refused:
        listen("127.0.0.1", listener.getsockname()[1], "BRIDGE_METRICS_PORT")
