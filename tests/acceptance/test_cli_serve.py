"""`bridge serve` and `bridge sandbox`: starting, reloading and stopping."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from bridge import healthcheck
from bridge.samples import refresh_sample, sample
from bridge.sandbox import RunningSandbox
from tests.acceptance.commands import DISABLED_RULE, RULES, delivery_states, run_bridge
from tests.acceptance.service_process import (
    SECRET,
    ServiceProcess,
    bridge_process,
    clean_environment,
    eventually,
    free_port,
    running_service,
)  # fmt: skip


def test_second_server_on_sqlite_names_the_first_process(service: ServiceProcess) -> None:
    result = service.run("serve", "--port", "0")
    assert result.returncode == 1
    assert f"already served by process {service.process.pid}" in result.stderr


def test_port_in_use_exits_with_advice(tmp_path: Path, service: ServiceProcess) -> None:
    (tmp_path / "rules.yaml").write_text(DISABLED_RULE)
    port = service.url.rsplit(":", 1)[1]
    result = run_bridge(tmp_path, "serve", "--port", port, HEPPU_WEBHOOK_SECRET=SECRET)
    assert (result.returncode, "choose another address with --host and --port" in result.stderr) == (1, True)


def test_sqlite_server_lock_is_released_after_kill(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(DISABLED_RULE)
    with running_service(tmp_path, {}) as running:
        running.kill()
    with running_service(tmp_path, {}) as running:
        assert running.stop() == 0


def test_serve_with_invalid_rules_exits_with_report(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("version: 1\nrules:\n  - name: x\n    wen: call.busy\n    do: []\n")
    result = run_bridge(tmp_path, "serve", HEPPU_WEBHOOK_SECRET=SECRET)
    assert result.returncode == 1
    assert "rules.yaml:4:" in result.stderr
    assert "did you mean `when`?" in result.stderr


def test_generated_admin_token_is_in_a_file_and_not_in_the_log(tmp_path: Path) -> None:
    """With JSON logs, which are collected and kept, the token once stood in a log line."""
    (tmp_path / "rules.yaml").write_text(DISABLED_RULE)
    file = tmp_path / "admin-token"
    file.write_text("of an earlier start")
    file.chmod(0o644)
    with running_service(tmp_path, {}, BRIDGE_ADMIN_TOKEN="", BRIDGE_LOG_FORMAT="json") as running:
        assert httpx.get(f"{running.url}/metrics").status_code == 401
        assert httpx.get(f"{running.url}/api/events").status_code == 401
        token = file.read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{running.url}/metrics", headers=headers).status_code == 200
        assert file.stat().st_mode & 0o777 == 0o600
        assert eventually(lambda: str(file) in running.log.read_text())
        assert token not in running.log.read_text()


def test_no_worker_stores_events_without_routing_until_the_delay_of_its_stop_ends(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    with running_service(tmp_path, {}, "--no-worker", BRIDGE_STOP_DELAY="2s") as running:
        running.post(refresh_sample(sample("call.busy"), datetime.now(UTC)))
        environ = {"BRIDGE_PORT": running.url.rpartition(":")[2]}
        assert healthcheck.check([], environ) is None
        running.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: healthcheck.check([], environ) == '{"status":"stopping"}')
        assert _post_status(running) == 200, "load balancers have not noticed yet"
        assert [item["routed_at"] for item in running.items("events")] == [None, None]
        assert running.process.wait(100) == 0
    with running_service(tmp_path, sandbox.environment) as running:
        assert eventually(lambda: running.api_items("events")[0]["routed_at"])


def test_reload_applies_valid_rules_and_keeps_them_on_error(tmp_path: Path, sandbox: RunningSandbox) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(DISABLED_RULE)
    with running_service(tmp_path, sandbox.environment) as running:
        before = len(sandbox.slack.messages)
        path.write_text(
            "version: 1\nrules: [{name: tell, when: call.busy, do: [{use: slack.post, with: {text: hi}}]}]\n"
        )
        running.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: "rules reloaded" in running.log.read_text())
        running.post(refresh_sample(sample("call.busy"), datetime.now(UTC)))
        assert eventually(lambda: len(sandbox.slack.messages) == before + 1)
        path.write_text("rules: wrong")
        running.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: "rules not reloaded" in running.log.read_text())
        result = running.run("check", "--deployed")
        assert (result.returncode, "did NOT load this file" in result.stdout) == (1, True)
        running.post(refresh_sample(sample("call.busy"), datetime.now(UTC)))
        assert eventually(lambda: len(sandbox.slack.messages) == before + 2)


def test_reload_with_missing_settings_keeps_the_previous_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(DISABLED_RULE)
    with running_service(tmp_path, {}) as running:
        path.write_text(
            "version: 1\nrules: [{name: tell, when: call.busy, do: [{use: slack.post, with: {text: hi}}]}]\n"
        )
        assert eventually(lambda: "rules not reloaded" in running.log.read_text())
        assert "SLACK_WEBHOOK_URL" in running.log.read_text()
        assert running.stop() == 0


def test_sigterm_finishes_running_attempts_and_rejects_new_events(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    sandbox.fault("hubspot", method="POST", path="*", delay=4.0, times=1)
    with running_service(tmp_path, sandbox.environment) as running:
        running.post(refresh_sample(sample("call.completed"), datetime.now(UTC)))
        assert eventually(lambda: "running" in delivery_states(running))
        running.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: _post_status(running) == 503)
        assert httpx.get(f"{running.url}/readyz").status_code == 503
        assert running.process.wait(100) == 0
        *later, first = delivery_states(running)
        assert first == "succeeded"
        assert "running" not in later, (
            "events that came before the signal was handled wait for the next start"
        )


def _post_status(running: ServiceProcess) -> int:
    return running.post(refresh_sample(sample("call.completed"), datetime.now(UTC))).status_code


def test_second_signal_exits_immediately_without_losing_deliveries(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    sandbox.fault("hubspot", method="POST", path="*", delay=30.0, times=1)
    with running_service(tmp_path, sandbox.environment) as running:
        running.post(refresh_sample(sample("call.failed"), datetime.now(UTC)))
        assert eventually(lambda: "running" in delivery_states(running))
        running.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: "stopping" in running.log.read_text())
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait() == 128 + signal.SIGTERM, "it did not wait for the attempt"
    sandbox.clear_faults()
    with running_service(tmp_path, sandbox.environment) as running:
        assert eventually(lambda: delivery_states(running) == ["succeeded"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_exits_with_advice(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(DISABLED_RULE)
    tmp_path.chmod(0o500)
    result = run_bridge(tmp_path, "serve", HEPPU_WEBHOOK_SECRET=SECRET)
    tmp_path.chmod(0o700)
    assert (result.returncode, "cannot write" in result.stderr) == (1, True)


# ---------------------------------------------------------------- sandbox


def test_sandbox_json_environment_passes_check_online(tmp_path: Path) -> None:
    options = ("--port", "0", "--smtp-port", "0", "--json")
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with bridge_process(tmp_path, clean_environment(), "sandbox", *options, **output) as process:
        lines = []
        while (line := process.stdout.readline()) and line != "}\n":
            lines.append(line)
        printed = json.loads("".join([*lines, "}"]))
        port = printed["url"].rsplit(":", 1)[1]
        taken = run_bridge(tmp_path, "sandbox", "--port", port, "--smtp-port", "0")
        assert (taken.returncode, "choose other ports" in taken.stderr) == (1, True)
        (tmp_path / "rules.yaml").write_text(RULES)
        checked = run_bridge(tmp_path, "check", "--online", **printed["environment"])
        assert checked.returncode == 0, checked.stdout
        assert httpx.get(f"{printed['url']}/_sandbox/state").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.postgres
def test_postgresql_allows_separate_receiver_and_worker(
    tmp_path: Path, sandbox: RunningSandbox, postgres_url: str
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    with running_service(tmp_path, sandbox.environment, BRIDGE_DATABASE_URL=postgres_url) as running:
        running.stop()  # the tables exist now
    receiver = running_service(tmp_path, sandbox.environment, "--no-worker", BRIDGE_DATABASE_URL=postgres_url)
    port = str(free_port())
    environ = {"BRIDGE_METRICS_PORT": port, "BRIDGE_METRICS_TOKEN": "prometheus-of-this-test"}
    with receiver as running, bridge_process(tmp_path, running.environ | environ, "worker") as worker:
        running.post(refresh_sample(sample("call.busy"), datetime.now(UTC)))
        assert eventually(lambda: len(sandbox.twilio.messages) == 1)
        token = {"Authorization": "Bearer prometheus-of-this-test"}
        counted = 'bridge_attempts_total{connection="twilio",reason="succeeded"} 1.0'
        assert eventually(
            lambda: counted in httpx.get(f"http://127.0.0.1:{port}/metrics", headers=token).text
        )
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        worker.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        worker.send_signal(signal.SIGTERM)
        assert (worker.wait(100), running.stop()) == (0, 0)
