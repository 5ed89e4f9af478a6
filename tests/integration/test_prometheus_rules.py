"""deploy/prometheus: promtool accepts the files; each alert fires when it should and has a runbook entry."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "alerts.yaml"
RUNBOOK = ROOT / "docs" / "runbook.md"
PROCESS = 'job="bridge", instance="a:8080"'
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian package prometheus)"
)


@dataclass(frozen=True)
class Case:
    """When an alert fires: series with their values per minute (or more), and when it is looked at."""

    series: dict[str, str]
    at: str
    labels: dict[str, str]
    interval: str = "1m"


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    text = "".join(f', {label}="{value}"' for label, value in labels.items())
    return {f"{name}{{{PROCESS}{text}}}": values}


HERE, JOB = {"job": "bridge", "instance": "a:8080"}, {"job": "bridge"}
CASES = {
    "BridgeDown": Case(series("up", "1 0x10"), "4m", HERE),
    "BridgeDatabaseDown": Case(series("bridge_database_up", "1 0x10"), "3m", HERE),
    "BridgeEventsRefused": Case(series("bridge_webhook_requests_total", "0+5x10", status="503"), "6m", JOB),
    "BridgeStoreErrors": Case(
        series("bridge_store_errors_total", "0 0 3x10", kind="disk_full"), "5m", {**JOB, "kind": "disk_full"}
    ),
    "BridgeWebhookSlow": Case(
        series("bridge_webhook_duration_seconds_bucket", "0+0x30", le="2.5")
        | series("bridge_webhook_duration_seconds_bucket", "0+60x30", le="5")
        | series("bridge_webhook_duration_seconds_bucket", "0+60x30", le="+Inf"),
        "20m",
        JOB,
    ),
    "BridgeNoEvents": Case(
        series("bridge_last_event_timestamp_seconds", "590000x640")
        | series("bridge_webhook_requests_total", "0+5x40 200x600", status="200"),
        "172h",
        JOB,
        "30m",
    ),
    "BridgeSignaturesWrong": Case(
        series("bridge_rejected_requests_total", "0+1x20", reason="signature_wrong"), "15m", JOB
    ),
    "BridgeRequestsRejected": Case(
        series("bridge_rejected_requests_total", "0+900x20", reason="too_slow"),
        "12m",
        {**JOB, "reason": "too_slow"},
    ),
    "BridgeCallbacksRejected": Case(
        series("bridge_callbacks_total", "0+1x20", connection="twilio", callback="inbound", status="403"),
        "15m",
        {**JOB, "connection": "twilio"},
    ),
    "BridgeTokensGuessed": Case(series("bridge_logins_total", "0+3x20", result="wrong_token"), "15m", JOB),
    "BridgeNoWorker": Case(series("bridge_workers_alive", "1 0x10"), "4m", JOB),
    "BridgeWorkerNotResponding": Case(series("bridge_local_worker_up", "1 0x10"), "4m", HERE),
    "BridgeWorkerRestarting": Case(series("bridge_worker_restarts_total", "0 1 2 3 4 5 5x10"), "10m", HERE),
    "BridgeEventsNotRouted": Case(
        series("bridge_oldest_unrouted_event_age_seconds", "0 360+60x20"), "8m", JOB
    ),
    "BridgeBacklog": Case(
        series("bridge_oldest_due_delivery_age_seconds", "0+60x40", connection="twilio"),
        "25m",
        {**JOB, "connection": "twilio"},
    ),
    "BridgeConnectionPaused": Case(
        series("bridge_connection_paused", "0 1x30", connection="twilio"),
        "20m",
        {**JOB, "connection": "twilio"},
    ),
    "BridgeAttemptsFail": Case(
        series("bridge_attempts_total", "0+3x40", connection="twilio", reason="timeout")
        | series("bridge_attempts_total", "0+1x40", connection="twilio", reason="succeeded"),
        "30m",
        {**JOB, "connection": "twilio"},
    ),
    "BridgeAttemptsOverdue": Case(
        series("bridge_attempts_overdue", "0 2x20", connection="twilio"),
        "10m",
        {**HERE, "connection": "twilio"},
    ),
    "BridgeReviewWaits": Case(series("bridge_deliveries", "0 1x400", state="needs_review"), "5h", JOB),
    "BridgeFieldsUnreadable": Case(
        series("bridge_unreadable_contact_fields_total", "0+1x90", field="phone"),
        "80m",
        {**JOB, "field": "phone"},
    ),
    "BridgeRulesFileInvalid": Case(series("bridge_rules_last_reload_successful", "1 0x20"), "10m", HERE),
    "BridgeRulesDiffer": Case(
        {
            f'bridge_rules_info{{job="bridge", instance="{name}", hash="{name}"}}': "1x30"
            for name in ("a", "b")
        },
        "15m",
        JOB,
    ),
    "BridgeVersionsDiffer": Case(
        {
            f'bridge_build_info{{job="bridge", instance="{name}", version="{name}"}}': "1x90"
            for name in ("a", "b")
        },
        "70m",
        JOB,
    ),
    "BridgeDiskNearlyFull": Case(series("bridge_database_disk_free_bytes", "2e9 9e8x10"), "4m", HERE),
    "BridgeDiskFullSoon": Case(series("bridge_database_disk_free_bytes", "2e10-2e7x700"), "10h", HERE),
    "BridgePruningStopped": Case(
        series("bridge_prune_last_success_timestamp_seconds", "1000x600"), "8h", JOB
    ),
    "BridgeFilesNearLimit": Case(
        series("process_open_fds", "900x20") | series("process_max_fds", "1024x20"), "10m", HERE
    ),
}
HEALTHY = (
    series("up", "1x130")
    | series("bridge_database_up", "1x130")
    | series("bridge_webhook_requests_total", "0+60x130", status="200")
    | series("bridge_webhook_requests_total", "0x130", status="503")
    | series("bridge_store_errors_total", "0x130", kind="disk_full")
    | series("bridge_webhook_duration_seconds_bucket", "0+60x130", le="0.01")
    | series("bridge_webhook_duration_seconds_bucket", "0+60x130", le="+Inf")
    | series("bridge_last_event_timestamp_seconds", "0+60x130")
    | series("bridge_rejected_requests_total", "0x130", reason="signature_wrong")
    | series("bridge_callbacks_total", "0+1x130", connection="twilio", callback="inbound", status="200")
    | series("bridge_callbacks_total", "0x130", connection="twilio", callback="inbound", status="403")
    | series("bridge_logins_total", "0x130", result="wrong_token")
    | series("bridge_workers_alive", "1x130")
    | series("bridge_local_worker_up", "1x130")
    | series("bridge_worker_restarts_total", "0x60 1x70")
    | series("bridge_oldest_unrouted_event_age_seconds", "0x130")
    | series("bridge_oldest_due_delivery_age_seconds", "2x130", connection="twilio")
    | series("bridge_oldest_paused_delivery_age_seconds", "0+60x130", connection="twilio")
    | series("bridge_connection_paused", "0x60 1x10 0x60", connection="twilio")
    | series("bridge_attempts_total", "0+60x130", connection="twilio", reason="succeeded")
    | series("bridge_attempts_total", "0+5x130", connection="twilio", reason="timeout")
    | series("bridge_attempts_overdue", "0x130", connection="twilio")
    | series("bridge_deliveries", "0x130", state="needs_review")
    | series("bridge_deliveries", "40x130", state="failed")
    | series("bridge_unreadable_contact_fields_total", "0x130", field="phone")
    | series("bridge_rules_last_reload_successful", "1x130")
    | series("bridge_rules_info", "1x130", hash="0123")
    | series("bridge_build_info", "1x130", version="1")
    | series("bridge_database_disk_free_bytes", "2e10-1e5x130")
    | series("bridge_prune_last_success_timestamp_seconds", "0+60x130")
    | series("process_open_fds", "60x130")
    | series("process_max_fds", "1024x130")
)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def promtool(*arguments: str, folder: Path = FOLDER) -> str:
    result = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@needs_promtool
def test_promtool_accepts_rules_and_configuration(tmp_path: Path) -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", "alerts.yaml")
    for name in ("alerts.yaml", "prometheus.yaml"):
        shutil.copy(FOLDER / name, tmp_path)
    (tmp_path / "metrics-token").write_text("a token")
    promtool("check", "config", "prometheus.yaml", folder=tmp_path)


@needs_promtool
@pytest.mark.parametrize("evaluation_interval", ["1m", "30m"])
def test_alert_fires_when_it_should(tmp_path: Path, evaluation_interval: str) -> None:
    """Those that look at hours are evaluated less often, because promtool evaluates every rule from the start."""
    by_name = {rule["alert"]: rule for rule in rules()}
    tests = [
        {
            "interval": case.interval,
            "input_series": [{"series": key, "values": values} for key, values in case.series.items()],
            "alert_rule_test": [
                {"eval_time": "0m", "alertname": name, "exp_alerts": []},
                {
                    "eval_time": case.at,
                    "alertname": name,
                    "exp_alerts": [expected(by_name[name], case.labels)],
                },
            ],
        }
        for name, case in CASES.items()
        if case.at.endswith("h") == (evaluation_interval == "30m")
    ]
    check_rules(tmp_path, evaluation_interval, tests)


@needs_promtool
def test_no_alert_fires_for_a_healthy_service(tmp_path: Path) -> None:
    healthy = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in HEALTHY.items()],
        "alert_rule_test": [
            {"eval_time": at, "alertname": rule["alert"], "exp_alerts": []}
            for rule in rules()
            for at in ("5m", "1h12m", "2h")
        ],
    }
    check_rules(tmp_path, "1m", [healthy])


def check_rules(folder: Path, evaluation_interval: str, tests: list[dict[str, Any]]) -> None:
    shutil.copy(RULES, folder)
    document = {"rule_files": ["alerts.yaml"], "evaluation_interval": evaluation_interval, "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    assert "SUCCESS" in promtool("test", "rules", "tests.yaml", folder=folder)


def expected(rule: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """Return the alert of a rule, with the labels in its annotations."""
    annotations = {
        name: re.sub(r"{{ \$labels\.(\w+) }}", lambda match: labels[match[1]], text)
        for name, text in rule["annotations"].items()
    }
    return {"exp_labels": {**labels, **rule["labels"]}, "exp_annotations": annotations}


def test_each_alert_has_a_test_a_severity_and_a_runbook_entry() -> None:
    headings = re.findall(r"^### (\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    names = [rule["alert"] for rule in rules()]
    assert headings == names, "docs/runbook.md has one entry per alert, in the order of alerts.yaml"
    assert set(CASES) == set(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_each_runbook_entry_says_what_it_means_where_to_look_and_what_to_do() -> None:
    entries = re.split(r"^### \w+$", RUNBOOK.read_text("utf-8"), flags=re.MULTILINE)[1:]
    for entry in entries:
        for part in ("**Meaning.**", "**Look at**", "**Do.**"):
            assert part in entry, entry


def test_metrics_of_alerts_exist() -> None:
    assert metric_names("\n".join(rule["expr"] for rule in rules())) <= exported_names()


def metric_names(text: str) -> set[str]:
    """Return the metrics that queries name."""
    return set(re.findall(r"\b(?:bridge|process)_[a-z_]+", text))


def exported_names() -> set[str]:
    """Return every name under which the bridge exports a metric."""
    metrics, names = Metrics(), {"process_open_fds", "process_max_fds"}
    for name in ("resident_memory_bytes", "cpu_seconds_total", "open_fds", "start_time_seconds"):
        names |= {f"process_{name}", f"bridge_worker_process_{name}"}
    for group in (metrics.process, metrics.web, metrics.worker, metrics.database):
        for metric in group.metrics():
            [family] = metric.describe()
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(
                family.type, [""]
            )
            names |= {family.name + suffix for suffix in suffixes}
    return names
