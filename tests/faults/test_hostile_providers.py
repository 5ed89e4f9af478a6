"""Providers whose responses come byte by byte, have no end or are far too large."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.sandbox import RunningSandbox
from tests.faults.harness import Deployment, Outcome, Report, event_body, wait_for

pytestmark = pytest.mark.faults

RULES = """\
version: 1
rules:
  - name: tell-the-team
    when: call.busy
    do:
      - use: slack.post
        with: {text: "A call was not answered."}
"""
MAX_GROWTH = 64 * 1024 * 1024
"""Bytes by which the worker's memory may grow: a few times the largest response that is read."""


def post(deployment: Deployment, count: int) -> None:
    deployment.heppu.send([event_body("call.busy") for _ in range(count)])
    deployment.heppu.wait()


def test_dripping_responses_do_not_stop_a_connection(
    tmp_path: Path, sqlite_url: str, sandbox: RunningSandbox, report: Report
) -> None:
    """Slack's connection has two threads, and both wait for a response that would take hours."""
    with Deployment(tmp_path, sqlite_url, sandbox, RULES) as deployment:
        server = deployment.start().ready()
        sandbox.fault("slack", response="drips", times=2)
        started = time.monotonic()
        post(deployment, 2)
        wait_for(lambda: len(sandbox.slack.messages) == 2, 10, "both responses to begin", deployment.states)
        post(deployment, 3)
        seconds = deployment.wait_until_final(40)
        assert 18 < time.monotonic() - started < 35
        report(outcome(deployment, "Slack drips two responses", seconds, "the others were posted"))
        assert deployment.states() == {"needs_review": 2, "succeeded": 3}
        details = deployment.query("SELECT DISTINCT detail FROM attempts WHERE reason = 'timeout'")
        assert [row[0].split(";")[0] for row in details] == ["no complete response within 20 s"]
        assert 'bridge_attempts_total{connection="slack",reason="timeout"} 2.0' in server.metrics()
        assert 'bridge_attempts_running{connection="slack"} 0.0' in server.metrics()
        assert not any(entry.get("event") == "attempt taken over" for entry in server.log)


def test_dripping_provider_opens_the_circuit(
    tmp_path: Path, sqlite_url: str, sandbox: RunningSandbox
) -> None:
    limits = {"SLACK_CONCURRENCY": "6", "SLACK_PER_SECOND": "20"}
    with Deployment(tmp_path, sqlite_url, sandbox, RULES, variables=limits) as deployment:
        deployment.start().ready()
        sandbox.fault("slack", response="drips_headers", times=6)
        post(deployment, 6)
        opened = "SELECT 1 FROM connections WHERE name = 'slack' AND pause_cause = 'circuit_open'"
        wait_for(lambda: deployment.query(opened), 30, "the circuit to open", deployment.states)
        post(deployment, 3)
        deployment.wait_until_final(40)
        assert deployment.states() == {"needs_review": 6, "succeeded": 3}


def test_memory_stays_flat_with_huge_responses(
    tmp_path: Path, sqlite_url: str, sandbox: RunningSandbox, report: Report
) -> None:
    limits = {"SLACK_PER_SECOND": "20"}
    with Deployment(tmp_path, sqlite_url, sandbox, RULES, variables=limits) as deployment:
        server = deployment.start().ready()
        post(deployment, 2)
        deployment.wait_until_final(20)
        before = peak_bytes(server.worker_pid)
        for response in ("huge", "endless", "gzip_bomb", "huge_headers"):
            sandbox.fault("slack", response=response)
        post(deployment, 4)
        seconds = deployment.wait_until_final(40)
        growth = peak_bytes(server.worker_pid) - before
        report(outcome(deployment, "Slack sends 700 MB", seconds, f"+{growth // 1024**2} MiB at most"))
        assert growth < MAX_GROWTH
        assert deployment.states() == {"needs_review": 4, "succeeded": 2}
        details = {row[0].split(";")[0] for row in deployment.query("SELECT detail FROM attempts") if row[0]}
        assert "the response exceeds 5 MiB" in details


def outcome(deployment: Deployment, scenario: str, seconds: float, note: str) -> Outcome:
    """Return the row of a scenario whose events are all posted to Slack."""
    lost = len(deployment.heppu.accepted) - len(deployment.sandbox.slack.messages)
    return replace(deployment.outcome(scenario, seconds, note), lost=lost)


def peak_bytes(pid: int) -> int:
    """Return the largest resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
