"""Libraries that a worker with every shipped connector does not load, because it has no use for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
UNUSED = ("zeep", "lxml", "requests_toolbelt", "aiohttp", "starlette", "uvicorn", "aiosmtpd")
LOAD_EVERY_CONNECTOR = """
import json, sys
import bridge.cli.worker_process
from bridge.connector.discovery import Registry
registry = Registry()
names = [registry.connector(name).name for name in registry.names()]
from simple_salesforce import Salesforce
try:
    Salesforce(session_id="s", instance="example.my.salesforce.com").mdapi
except RuntimeError as error:
    refusal = str(error)
print(json.dumps({"connectors": names, "modules": list(sys.modules), "refusal": refusal}))
"""


@pytest.fixture(scope="module")
def worker() -> dict[str, list[str]]:
    run = subprocess.run(
        [sys.executable, "-c", LOAD_EVERY_CONNECTOR], capture_output=True, text=True, timeout=60, cwd=TOP
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_worker_loads_neither_xml_parser_nor_other_unused_libraries(worker: dict[str, list[str]]) -> None:
    assert {"email", "hubspot", "salesforce", "slack", "twilio"} <= set(worker["connectors"])
    assert [name for name in UNUSED if name in worker["modules"]] == []


def test_metadata_api_of_salesforce_says_why_it_is_missing(worker: dict[str, list[str]]) -> None:
    assert "without the Metadata API" in worker["refusal"]
    assert "simple_salesforce.metadata" not in worker["modules"]
