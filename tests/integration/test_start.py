"""Start of `bridge serve`: which modules it loads, and that it collects no garbage meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]
START = """
import gc, json, os, sys
import uvicorn

collections = []


async def report(server, sockets):
    state = {"modules": list(sys.modules), "collections": len(collections), "collects_now": gc.isenabled()}
    print(json.dumps(state), flush=True)
    os._exit(0)


uvicorn.Server.serve = report
from bridge.cli.program import app


def note_collection(phase, info):
    if "bridge.cli.bootstrap" in sys.modules:
        collections.append(phase)


gc.callbacks.append(note_collection)
sys.argv = ["bridge", "serve", "--port", "0"]
app()
"""


ENVIRON = {
    "HEPPU_WEBHOOK_SECRET": "whsec_" + "s" * 32,
    "HUBSPOT_ACCESS_TOKEN": "pat-na1-00000000",
    "SALESFORCE_URL": "https://acme.my.salesforce.com",
    "SALESFORCE_CONSUMER_KEY": "key",
    "SALESFORCE_CONSUMER_SECRET": "secret",
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": "0" * 32,
    "TWILIO_FROM": "+14155550123",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.example/services/T0/B0/x",
    "EMAIL_SMTP_URL": "smtp://127.0.0.1:25",
    "EMAIL_FROM": "Acme <hello@example.com>",
}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A server with the shipped rules and their connectors, at the moment at which it begins to serve."""
    folder = tmp_path_factory.mktemp("start")
    environ = os.environ | ENVIRON | {
        "BRIDGE_DATABASE_URL": f"sqlite:///{folder}/bridge.db",
        "BRIDGE_RULES_FILE": str(TOP / "rules.yaml"),
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", START], capture_output=True, text=True, timeout=120, cwd=folder, env=environ
    )
    assert run.returncode == 0, run.stdout + run.stderr
    report: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return report


def test_starting_server_collects_no_garbage_until_it_serves(started: dict[str, Any]) -> None:
    assert started["collections"] == 0
    assert started["collects_now"]


CLIENTS = (
    "requests",
    "urllib3",
    "httpx",
    "httpcore",
    "simple_salesforce",
    "twilio.http",
    "twilio.rest",
    "hubspot",
)


def test_server_loads_no_http_client(started: dict[str, Any]) -> None:
    """The worker loads them with the first delivery."""
    assert [name for name in CLIENTS if name in started["modules"]] == []
    loaded = {name.removeprefix("bridge_connectors.") for name in started["modules"]}
    assert {"hubspot.account", "salesforce.session", "slack.webhook", "twilio.account"} <= loaded
