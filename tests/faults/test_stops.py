"""Graceful shutdown under load, immediate exit, and operator commands during load."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from bridge.sandbox import RunningSandbox
from tests.faults.harness import (
    Deployment,
    Report,
    call_events,
    event_body,
    slow_providers,
    wait_for,
)


def _assert_all_succeeded(
    deployment: Deployment, scenario: str, seconds: float, report: Report, note: str = ""
) -> None:
    report(deployment.outcome(scenario, seconds, note))
    assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}
    assert deployment.sandbox.slack.messages == []


@pytest.mark.faults
def test_shutdown_under_load_finishes_attempts_and_rejects_events(
    deployment: Deployment, report: Report
) -> None:
    """Stop and start the next process, twice, as a deployment does. The sender only gets 503 and sends again."""
    process = deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.4):
        deployment.heppu.send(call_events(120), per_second=20)
        for _ in range(2):
            wait_for(lambda: deployment.states()["running"] > 3, 20, "running attempts", deployment.states)
            start = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - start < 8
            assert deployment.states()["running"] == 0, "running attempts must be finished and recorded"
            process = deployment.restart(process).ready()
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(60)
    assert deployment.heppu.responses[503] > 0
    assert deployment.taken_over_attempts() == 0
    _assert_all_succeeded(
        deployment, "stopped under load, twice", seconds, report, f"{deployment.heppu.responses[503]} x 503"
    )


@pytest.mark.faults  # `make test` has one of the same name with one attempt, in tests/acceptance
def test_second_signal_exits_immediately(deployment: Deployment, report: Report) -> None:
    process = deployment.start().ready()
    with slow_providers(deployment.sandbox, 2.0):
        deployment.heppu.send(call_events(12))
        wait_for(lambda: deployment.states()["running"] > 3, 20, "running attempts", deployment.states)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: "a second signal" in process.output, 5, "the shutdown to start")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert deployment.states()["running"] > 0, "it must not wait for running attempts"
    deployment.restart(process).ready()
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(60, skip_waits=True)
    _assert_all_succeeded(
        deployment,
        "stopped immediately",
        seconds,
        report,
        f"{deployment.taken_over_attempts()} attempts taken over",
    )
    assert deployment.taken_over_attempts() > 0


@pytest.mark.faults
def test_shutdown_with_hanging_provider_meets_deadline(deployment: Deployment, report: Report) -> None:
    process = deployment.start().ready()
    deployment.sandbox.fault("twilio", hang=True, times=None)
    deployment.heppu.send([event_body("call.busy") for _ in range(4)])
    wait_for(lambda: deployment.states()["running"] > 2, 20, "running attempts", deployment.states)
    start = time.monotonic()
    assert process.stop() == 0
    seconds_to_stop = time.monotonic() - start
    assert seconds_to_stop < 30
    deployment.sandbox.clear_faults()
    deployment.restart(process).ready()
    seconds = deployment.wait_until_final(90)
    _assert_all_succeeded(
        deployment,
        "stopped while Twilio hangs",
        seconds,
        report,
        f"the shutdown took {seconds_to_stop:.0f} s",
    )


@pytest.mark.faults
def test_commands_can_write_during_load_on_sqlite(
    tmp_path: Path, sqlite_url: str, sandbox: RunningSandbox, report: Report
) -> None:
    """No command may fail with "database is locked"."""
    with Deployment(tmp_path, sqlite_url, sandbox) as deployment:
        process = deployment.start().ready()
        deployment.heppu.send(call_events(400), per_second=50)
        results: list[tuple[str, int, str]] = []

        def run_commands(*commands: tuple[str, ...]) -> None:
            for _ in range(3):
                for command in commands:
                    done = deployment.run_command(*command)
                    results.append((" ".join(command), done.returncode, done.stdout + done.stderr))

        operators = [
            threading.Thread(target=run_commands, args=(("pause", "hubspot"), ("resume", "hubspot"))),
            threading.Thread(
                target=run_commands, args=(("deliveries", "--json"), ("opt-outs", "add", "+16465559999"))
            ),
        ]
        for operator in operators:
            operator.start()
        for operator in operators:
            operator.join(60)
        deployment.heppu.wait()
        assert len(results) == 12
        assert [result for result in results if result[1] != 0 or "locked" in result[2]] == []
        assert all(
            json.loads(text)["items"] for command, _, text in results if command.startswith("deliveries")
        )
        assert "unavailable" not in process.output
        assert deployment.heppu.responses == {200: 400}
        seconds = deployment.wait_until_final(60)
        report(deployment.outcome("12 commands during load", seconds))
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
