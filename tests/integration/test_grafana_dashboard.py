"""deploy/grafana/dashboard.json: every query returns data from a real Prometheus that scrapes a real bridge."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.samples import refresh_sample, sample
from bridge.sandbox import start_sandbox
from tests.acceptance.service_process import ADMIN, eventually, free_port, running_service
from tests.integration.test_prometheus_rules import exported_names, metric_names

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = """
version: 1
messaging: {quiet_hours: none}
rules:
  - name: text
    when: call.busy
    do: [{use: twilio.send_sms, with: {body: "We tried to reach you."}}]
"""
CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: bridge
    authorization: {{type: Bearer, credentials_file: metrics-token}}
    static_configs: [{{targets: ["{target}"]}}]
"""


def queries() -> list[tuple[str, str]]:
    """Return the title and the query of every target, as Grafana sends it."""
    return [
        (
            panel["title"],
            target["expr"].replace("$__rate_interval", "30s").replace("$job", "bridge"),
        )
        for panel in PANELS
        for target in panel["targets"]
    ]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prometheus that has scraped a bridge with one delivered event at least three times."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "bridge").mkdir()
    (folder / "bridge" / "rules.yaml").write_text(RULES)
    port = free_port()
    with start_sandbox() as sandbox, running_service(folder / "bridge", sandbox.environment) as service:
        service.post(refresh_sample(sample("call.busy"), datetime.now(UTC)))
        assert eventually(lambda: len(sandbox.twilio.messages) == 1)
        target = service.url.removeprefix("http://")
        rules = ROOT / "deploy" / "prometheus" / "alerts.yaml"
        (folder / "prometheus.yaml").write_text(CONFIGURATION.format(target=target, rules=rules))
        (folder / "metrics-token").write_text(ADMIN)
        url = f"http://127.0.0.1:{port}"
        options = [
            "--config.file=prometheus.yaml",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
        with subprocess.Popen(["prometheus", *options, "--storage.tsdb.path=data"], cwd=folder) as process:
            try:
                assert eventually(lambda: scrapes(url) >= 3, 60), "Prometheus did not scrape the bridge"
                yield url
            finally:
                process.send_signal(signal.SIGKILL)


def scrapes(url: str) -> int:
    try:
        return int(values(url, 'count_over_time(bridge_build_info{job="bridge"}[1m])')[0])
    except (httpx.TransportError, ValueError, IndexError):  # it is starting
        return 0


def values(url: str, query: str) -> list[float]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=10).json()
    assert answer["status"] == "success", answer
    return [float(item["value"][1]) for item in answer["data"]["result"]]


@pytest.mark.faults
@pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian package prometheus)"
)
def test_every_query_returns_data_and_no_alert_fires(prometheus: str) -> None:
    without_data = [(title, query) for title, query in queries() if not values(prometheus, query)]
    assert without_data == []
    answer: dict[str, Any] = httpx.get(f"{prometheus}/api/v1/rules", timeout=10).json()["data"]
    rules = [rule for group in answer["groups"] for rule in group["rules"]]
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] == "err"] == []
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
    assert values(prometheus, 'bridge_attempts_total{connection="twilio",reason="succeeded"}') == [1]
    assert values(prometheus, "bridge_event_to_first_attempt_seconds_count") == [1]


def test_metrics_of_dashboard_exist() -> None:
    assert metric_names("\n".join(query for _, query in queries())) <= exported_names()


def test_dashboard_has_a_description_for_each_panel_and_no_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert [
        panel["title"]
        for panel in PANELS
        if not panel["title"] or not re.search(r"\w", json.dumps(panel["targets"]))
    ] == []
