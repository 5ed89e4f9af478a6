"""Actions with several writes whose worker is killed with `kill -9` between and during them."""

from __future__ import annotations

import pytest

from tests.faults.harness import Deployment, event_body

CONNECTOR = '''
"""A notebook in files, whose worker kills itself at the points that are listed in `kills`."""

import os
import signal
from datetime import timedelta
from pathlib import Path

from bridge.connector import Connector, ConnectorSettings, Context, Params, Success, per_event

FOLDER = Path(__file__).parents[1]
connector = Connector("notebook", settings=ConnectorSettings)


def die_at(point: str) -> None:
    kills = FOLDER / "kills"
    points = kills.read_text().split()
    if point in points:
        points.remove(point)
        kills.write_text(" ".join(points))
        os.kill(os.getpid(), signal.SIGKILL)


def write(name: str) -> str:
    with (FOLDER / name).open("a") as file:
        file.write("line\\n")
        file.flush()
        os.fsync(file.fileno())
    die_at(f"wrote-{name}")
    return f"id of {name}"


def find(name: str) -> str | None:
    return f"id of {name}" if (FOLDER / name).exists() else None


@connector.check
def check(settings: ConnectorSettings) -> str:
    """Check nothing."""
    return "ready"


@connector.action(idempotency=per_event, lookup_delay=timedelta(seconds=0.1))
def note(settings: ConnectorSettings, params: Params, context: Context) -> Success:
    """Write two notes."""
    first = context.step("first", lambda: write("first"), lambda: find("first"))
    die_at("between")
    context.step("second", lambda: write("second"), lambda: find("second"))
    die_at("end")
    return Success(first)
'''
RULES = """\
version: 1
rules:
  - {name: note, when: call.completed, do: [{use: notebook.note}]}
"""


@pytest.mark.faults
def test_killed_worker_continues_where_its_steps_ended(deployment: Deployment) -> None:
    points = ["wrote-first", "between", "wrote-second", "end"]
    (deployment.folder / "connectors").mkdir()
    (deployment.folder / "connectors" / "notebook.py").write_text(CONNECTOR, "utf-8")
    (deployment.folder / "kills").write_text(" ".join(points), "utf-8")
    (deployment.folder / "rules.yaml").write_text(RULES, "utf-8")
    deployment.start().ready()
    deployment.heppu.send([event_body("call.completed")])
    deployment.heppu.wait()
    deployment.wait_until_final(200)
    assert deployment.query("SELECT state, external_id FROM deliveries") == [("succeeded", "id of first")]
    assert (deployment.folder / "kills").read_text("utf-8") == ""
    for name in ("first", "second"):
        assert (deployment.folder / name).read_text("utf-8") == "line\n"
