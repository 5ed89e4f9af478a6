"""Libraries that a worker with every shipped connector, and commands, do not load: they have no use for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest

from bridge.connector.discovery import Registry
from bridge.store.database import Database
from bridge.store.migrate import upgrade

TOP = Path(__file__).parents[2]
UNUSED = (
    "zeep", "lxml", "requests_toolbelt", "aiohttp", "starlette", "uvicorn", "aiosmtpd", "jwt", "cryptography", "rich",
)  # fmt: skip
LOAD_EVERY_CONNECTOR = """
import json, sys
import bridge.cli.worker_process
from bridge.telemetry import configure_logging
configure_logging("console")
from bridge.connector.discovery import Registry
registry = Registry()
names = [registry.connector(name).name for name in registry.names()]
from bridge_connectors.salesforce import sdk
sdk.SalesforceError  # imports the SDK
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


def test_thread_that_imports_pyjwt_meanwhile_gets_the_real_one() -> None:
    """While simple-salesforce is imported, `import jwt` finds a placeholder."""
    Registry().connector("salesforce")
    sdk = import_module("bridge_connectors.salesforce.sdk")
    real, placeholder = import_module("jwt"), sdk._LaterJwt("jwt")
    read = threading.Event()
    found: list[object] = []

    def read_attribute() -> None:
        read.set()
        found.append(placeholder.decode)

    with sdk._import_lock:
        sys.modules["jwt"] = placeholder
        thread = threading.Thread(target=read_attribute)
        thread.start()
        read.wait()
        thread.join(timeout=0.05)
        sys.modules["jwt"] = real
    thread.join()
    assert found == [real.decode]


RUN_COMMAND = """
import atexit, json, sys
from bridge.cli import main
atexit.register(lambda: print(json.dumps(list(sys.modules)), file=sys.stderr))
sys.argv = ["bridge", *sys.argv[1:]]
main()
"""
HTTP = ("httpx", "requests", "urllib3")
STORE = ("sqlalchemy", "pydantic")


def loaded_by(folder: Path, *arguments: str) -> list[str]:
    environ = os.environ | {"BRIDGE_DATABASE_URL": f"sqlite:///{folder}/bridge.db"}
    run = subprocess.run(
        [sys.executable, "-c", RUN_COMMAND, *arguments],
        capture_output=True, text=True, timeout=60, cwd=folder, env=environ,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stderr.splitlines()[-1])


def test_version_loads_neither_options_nor_database(tmp_path: Path) -> None:
    modules = loaded_by(tmp_path, "--version")
    assert [name for name in (*STORE, *HTTP, "typer", "structlog") if name in modules] == []
    assert len([name for name in modules if name.startswith("bridge.")]) <= 3


@pytest.mark.parametrize("command", ["events", "deliveries"])
def test_lists_load_neither_connectors_nor_rules_nor_migrations(tmp_path: Path, command: str) -> None:
    url = f"sqlite:///{tmp_path}/bridge.db"
    database = Database(url)
    upgrade(database)
    database.close()
    modules = loaded_by(tmp_path, command)
    assert set(STORE) <= set(modules)
    unused = (
        *HTTP,
        "alembic",
        "jinja2",
        "email_validator",
        "starlette",
        "cryptography",
        "structlog",
        "bridge.attribute_docstrings",
        "bridge.connector.exports",
        "bridge.policy",
        "bridge.rules.model",
    )
    assert [name for name in unused if name in modules] == []
