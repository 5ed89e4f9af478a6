"""Starting, reloading and stopping: what `bridge serve` and `bridge sandbox` do and say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from bridge.samples import sample, stamped
from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.commands import NOTHING, RULES, alone, states
from tests.acceptance.service_process import (
    ADMIN,
    BRIDGE,
    SECRET,
    Running,
    clean_environment,
    eventually,
    free_port,
    serving,
)  # fmt: skip


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """Partners of one test alone."""
    with start_sandbox() as running:
        yield running


def test_a_second_serving_process_on_sqlite_says_who_is_there(service: Running) -> None:
    found = service.run("serve", "--port", "0")
    assert found.returncode == 1
    assert f"already served by process {service.process.pid}" in found.stderr


def test_a_taken_port_is_told(tmp_path: Path, service: Running) -> None:
    (tmp_path / "rules.yaml").write_text(NOTHING)
    port = service.url.rsplit(":", 1)[1]
    found = alone(tmp_path, "serve", "--port", port, HEPPU_WEBHOOK_SECRET=SECRET)
    assert (found.returncode, "choose another with --host and --port" in found.stderr) == (1, True)


def test_the_lock_is_free_again_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(NOTHING)
    with serving(tmp_path, {}) as running:
        running.process.kill()
        running.process.wait()
    with serving(tmp_path, {}) as running:
        assert running.stop() == 0


def test_a_bad_rules_file_stops_the_start_with_its_report(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("version: 1\nrules:\n  - name: x\n    wen: call.busy\n    do: []\n")
    found = alone(tmp_path, "serve", HEPPU_WEBHOOK_SECRET=SECRET)
    assert found.returncode == 1
    assert "rules.yaml:4:" in found.stderr
    assert "did you mean `when`?" in found.stderr


def test_without_a_token_the_log_page_has_one_and_everything_behind_it_asks(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(NOTHING)
    with serving(tmp_path, {}, BRIDGE_ADMIN_TOKEN="") as running:
        assert httpx.get(f"{running.url}/metrics").status_code == 401
        assert httpx.get(f"{running.url}/api/events").status_code == 401
        token = eventually(lambda: running.log.read_text().partition("#token=")[2]).split()[0]
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{running.url}/metrics", headers=headers).status_code == 200


def test_no_work_receives_and_leaves_the_rest_to_others(tmp_path: Path, sandbox: RunningSandbox) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    port = free_port()
    environ = clean_environment(HEPPU_WEBHOOK_SECRET=SECRET, BRIDGE_PORT=str(port), BRIDGE_ADMIN_TOKEN=ADMIN)
    with subprocess.Popen(
        [BRIDGE, "serve", "--no-worker"], cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL
    ) as process:
        running = Running(f"http://127.0.0.1:{port}", tmp_path, environ, process)
        assert eventually(lambda: _is_ready(running))
        running.post(stamped(sample("call.busy"), datetime.now(UTC)))
        time.sleep(1)
        assert [item["routed_at"] for item in running.items("events")] == [None]
        assert running.stop() == 0
    with serving(tmp_path, sandbox.environment) as running:
        assert eventually(lambda: running.asked("events")[0]["routed_at"])


def _is_ready(running: Running) -> bool:
    try:
        return httpx.get(f"{running.url}/readyz", timeout=1).is_success
    except httpx.HTTPError:
        return False


def test_new_rules_are_taken_over_while_it_runs_and_open_new_accounts(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(NOTHING)
    with serving(tmp_path, sandbox.environment) as running:
        before = len(sandbox.slack.messages)
        path.write_text(
            "version: 1\nrules: [{name: tell, when: call.busy, do: [{use: slack.post, with: {text: hi}}]}]\n"
        )
        running.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: "rules reloaded" in running.log.read_text())
        running.post(stamped(sample("call.busy"), datetime.now(UTC)))
        assert eventually(lambda: len(sandbox.slack.messages) == before + 1)
        path.write_text("rules: wrong")
        running.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: "rules not reloaded" in running.log.read_text())
        found = running.run("check", "--deployed")
        assert (found.returncode, "did NOT take the file over" in found.stdout) == (1, True)
        running.post(stamped(sample("call.busy"), datetime.now(UTC)))
        assert eventually(lambda: len(sandbox.slack.messages) == before + 2)


def test_rules_with_an_account_that_is_not_set_up_do_not_replace_the_running_ones(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(NOTHING)
    with serving(tmp_path, {}) as running:
        path.write_text(
            "version: 1\nrules: [{name: tell, when: call.busy, do: [{use: slack.post, with: {text: hi}}]}]\n"
        )
        assert eventually(lambda: "rules not reloaded" in running.log.read_text())
        assert "SLACK_WEBHOOK_URL" in running.log.read_text()
        assert running.stop() == 0


def test_a_stop_finishes_what_runs_and_turns_new_events_away(tmp_path: Path, sandbox: RunningSandbox) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    sandbox.fault("hubspot", method="POST", path="*", delay=4.0, times=1)
    with serving(tmp_path, sandbox.environment) as running:
        running.post(stamped(sample("call.completed"), datetime.now(UTC)))
        assert eventually(lambda: "running" in states(running))
        running.process.send_signal(signal.SIGTERM)
        refused = eventually(lambda: _answer(running) == 503)
        assert refused
        assert httpx.get(f"{running.url}/readyz").status_code == 503
        assert running.process.wait(30) == 0
        assert states(running) == ["succeeded"]


def _answer(running: Running) -> int:
    return running.post(stamped(sample("call.completed"), datetime.now(UTC))).status_code


def test_a_second_signal_stops_at_once_and_nothing_is_lost(tmp_path: Path, sandbox: RunningSandbox) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    sandbox.fault("hubspot", method="POST", path="*", delay=8.0, times=1)
    with serving(tmp_path, sandbox.environment) as running:
        running.post(stamped(sample("call.failed"), datetime.now(UTC)))
        assert eventually(lambda: "running" in states(running))
        begun = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: "stopping" in running.log.read_text())
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(5) == 128 + signal.SIGTERM
        assert time.monotonic() - begun < 6
    sandbox.clear_faults()
    with serving(tmp_path, sandbox.environment) as running:
        assert eventually(lambda: states(running) == ["succeeded"], 30)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(NOTHING)
    tmp_path.chmod(0o500)
    found = alone(tmp_path, "serve", HEPPU_WEBHOOK_SECRET=SECRET)
    tmp_path.chmod(0o700)
    assert (found.returncode, "cannot be written" in found.stderr) == (1, True)


# ---------------------------------------------------------------- the sandbox


def test_the_sandbox_prints_an_environment_that_a_bridge_can_use(tmp_path: Path) -> None:
    with subprocess.Popen(
        [BRIDGE, "sandbox", "--port", "0", "--smtp-port", "0", "--json"], cwd=tmp_path, env=clean_environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            lines = list(iter(process.stdout.readline, "}\n"))
            printed = json.loads("".join([*lines, "}"]))
            port = printed["url"].rsplit(":", 1)[1]
            taken = alone(tmp_path, "sandbox", "--port", port, "--smtp-port", "0")
            assert (taken.returncode, "choose others" in taken.stderr) == (1, True)
            (tmp_path / "rules.yaml").write_text(RULES)
            checked = alone(tmp_path, "check", "--online", **printed["environment"])
            assert checked.returncode == 0, checked.stdout
            assert httpx.get(f"{printed['url']}/_sandbox/state").status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.mark.postgres
def test_on_postgresql_one_process_receives_and_another_works(
    tmp_path: Path, sandbox: RunningSandbox, postgres_url: str
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    with serving(tmp_path, sandbox.environment, BRIDGE_DATABASE_URL=postgres_url) as receiver:
        receiver.stop()  # it made the tables
    port = free_port()
    environ = receiver.environ | {"BRIDGE_PORT": str(port)}
    with (
        subprocess.Popen(
            [BRIDGE, "serve", "--no-worker"], cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL
        ) as front,
        subprocess.Popen([BRIDGE, "worker"], cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL) as back,
    ):
        try:
            running = Running(f"http://127.0.0.1:{port}", tmp_path, environ, front)
            assert eventually(lambda: _is_ready(running))
            running.post(stamped(sample("call.busy"), datetime.now(UTC)))
            assert eventually(lambda: len(sandbox.twilio.messages) == 1)
            back.send_signal(signal.SIGHUP)
            time.sleep(0.2)
            back.send_signal(signal.SIGTERM)
            assert (back.wait(30), running.stop()) == (0, 0)
        finally:
            back.kill()
            front.kill()
