"""Stopping in order under load, stopping at once, and people's commands beside a busy service."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.sandbox import RunningSandbox
from tests.faults.harness import Deployment, Outcome, calls, happening, slow, wait_for

Report = Callable[[Outcome], None]


def _judge(deployment: Deployment, scenario: str, seconds: float, report: Report, note: str = "") -> None:
    report(deployment.outcome(scenario, seconds, note))
    assert (deployment.lost(), deployment.doubled()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}
    assert deployment.sandbox.slack.messages == []


def test_a_stop_under_load_ends_what_runs_and_turns_events_away(
    deployment: Deployment, report: Report
) -> None:
    """As a deployment does: stop, start the next one, twice; the sender only sees 503 and sends again."""
    process = deployment.start().ready()
    with slow(deployment.sandbox, 0.4):
        deployment.heppu.send(calls(120), per_second=20)
        for _ in range(2):
            wait_for(lambda: deployment.states()["running"] > 3, 20, "attempts under way", deployment.states)
            begin = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - begin < 8
            assert deployment.states()["running"] == 0, "what ran was ended and written down"
            process = deployment.restart(process).ready()
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(60)
    assert deployment.heppu.answers[503] > 0
    assert deployment.cut_short() == 0
    _judge(deployment, "stopped under load, twice", seconds, report, f"{deployment.heppu.answers[503]} x 503")


def test_a_second_signal_stops_at_once(deployment: Deployment, report: Report) -> None:
    process = deployment.start().ready()
    with slow(deployment.sandbox, 2.0):
        deployment.heppu.send(calls(12))
        wait_for(lambda: deployment.states()["running"] > 3, 20, "attempts under way", deployment.states)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: "a second signal" in process.output, 5, "the stop to begin")
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM
        assert time.monotonic() - begin < 1.5
    deployment.restart(process).ready()
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(60, hurry=True)
    _judge(deployment, "stopped at once", seconds, report, f"{deployment.cut_short()} attempts cut short")
    assert deployment.cut_short() > 0


@pytest.mark.faults
def test_a_stop_while_a_partner_hangs_ends_within_its_deadline(
    deployment: Deployment, report: Report
) -> None:
    process = deployment.start().ready()
    deployment.sandbox.fault("twilio", hang=True, times=None)
    deployment.heppu.send([happening("call.busy") for _ in range(4)])
    wait_for(lambda: deployment.states()["running"] > 2, 20, "attempts under way", deployment.states)
    begin = time.monotonic()
    assert process.stop() == 0
    took = time.monotonic() - begin
    assert took < 30
    deployment.sandbox.clear_faults()
    deployment.restart(process).ready()
    seconds = deployment.wait_until_final(90)
    _judge(deployment, "stopped while Twilio hangs", seconds, report, f"the stop took {took:.0f} s")


def test_commands_write_beside_a_busy_service_on_sqlite(
    tmp_path: Path, sqlite_url: str, sandbox: RunningSandbox, report: Report
) -> None:
    """ "database is locked" is what people fear of SQLite; nobody may ever read it."""
    with Deployment(tmp_path, sqlite_url, sandbox) as deployment:
        process = deployment.start().ready()
        deployment.heppu.send(calls(400), per_second=50)
        answers: list[tuple[str, int, str]] = []

        def people(*commands: tuple[str, ...]) -> None:
            for _ in range(3):
                for command in commands:
                    done = deployment.bridge(*command)
                    answers.append((" ".join(command), done.returncode, done.stdout + done.stderr))

        desks = [
            threading.Thread(target=people, args=(("pause", "hubspot"), ("resume", "hubspot"))),
            threading.Thread(
                target=people, args=(("deliveries", "--json"), ("opt-outs", "add", "+16465559999"))
            ),
        ]
        for desk in desks:
            desk.start()
        for desk in desks:
            desk.join(60)
        deployment.heppu.wait()
        assert len(answers) == 12
        assert [answer for answer in answers if answer[1] != 0 or "locked" in answer[2]] == []
        assert all(
            json.loads(text)["items"] for command, _, text in answers if command.startswith("deliveries")
        )
        assert "cannot be used" not in process.output
        assert deployment.heppu.answers == {200: 400}
        seconds = deployment.wait_until_final(60)
        report(deployment.outcome("12 commands beside it", seconds))
        assert (deployment.lost(), deployment.doubled()) == ([], [])
