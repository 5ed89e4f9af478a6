"""`bridge demo`: its output equals that in the README on every machine, and it leaves no files behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.demo_report import find_failures
from bridge.sandbox import start_sandbox
from tests.acceptance.service_process import BRIDGE, clean_environment, eventually

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


@contextmanager
def demo(folder: Path, *options: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo in a separate process group, with its temporary files in `folder`."""
    environ = clean_environment(TMPDIR=str(folder), COLUMNS="110", **variables)
    with subprocess.Popen(
        [BRIDGE, "demo", *options], cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if group_is_alive(process.pid):
                os.killpg(process.pid, signal.SIGKILL)


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def comparable_lines(text: str) -> list[str]:
    """Return lines without trailing blanks and cut at 100 characters, because the width of tables varies."""
    lines = (line.rstrip().rstrip("…")[:100] for line in text.splitlines())
    return [line for line in lines if line and not set(line) <= {" ", "─"}]


def test_demo_output_equals_readme_with_any_accounts_in_environment_and_dotenv(tmp_path: Path) -> None:
    """It also leaves no files and no processes behind."""
    (tmp_path / ".env").write_text("BRIDGE_RECIPIENT_ALLOWLIST=+15550100\nTWILIO_URL=http://127.0.0.1:9\n")
    hostile = {
        "HUBSPOT_URL": "http://127.0.0.1:9",
        "BRIDGE_RECIPIENT_ALLOWLIST": "+15550100",
        "BRIDGE_PORT": "1",
    }
    with demo(tmp_path, **hostile) as process:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, out + err
        assert not group_is_alive(process.pid)
    assert [path.name for path in tmp_path.iterdir()] == [".env"]
    shown = next(
        block for block in re.findall(r"```text\n(.*?)```", README, re.DOTALL) if "Events sent" in block
    )
    printed = comparable_lines(out)
    missing = [line for line in comparable_lines(shown) if line not in printed]
    assert missing == []
    assert "README.md" in out
    assert err == ""


@pytest.mark.faults
def test_interrupted_demo_cleans_up(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert eventually(lambda: list(tmp_path.glob("bridge-demo-*/bridge.db")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == 143
        assert eventually(lambda: not group_is_alive(process.pid))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_demo_keep_runs_until_interrupted(tmp_path: Path) -> None:
    with demo(tmp_path, "--keep") as process:
        assert process.stderr is not None
        lines = []
        while (line := process.stderr.readline()) and "Ctrl-C" not in line:
            lines.append(line)
        assert any("/login#token=" in line for line in lines)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(100) == 0
        assert eventually(lambda: not group_is_alive(process.pid))
    assert list(tmp_path.iterdir()) == []


def delivery(action: str, state: str = "succeeded") -> dict[str, Any]:
    return {
        "action": action,
        "state": state,
        "rule": "some-rule",
        "detail": "no such number",
        "reason": "rejected",
    }


@pytest.mark.parametrize(
    ("deliveries", "failure"),
    [
        ([delivery("twilio.send_sms")], "twilio.send_sms: the bridge reports 1, the provider has 0"),
        ([], "slack.post was not received"),
        ([delivery("email.send", "failed")], "email.send of some-rule is failed: no such number"),
    ],
)
def test_demo_reports_mismatch_between_bridge_and_provider(
    deliveries: list[dict[str, Any]], failure: str
) -> None:
    with start_sandbox() as sandbox:
        assert failure in find_failures(sandbox, deliveries)
