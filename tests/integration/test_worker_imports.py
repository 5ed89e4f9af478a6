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

from bridge.cli.program import MODULES
from bridge.connector.discovery import Registry
from bridge.samples import sample
from bridge.signing import read_event
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, store_events
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
from bridge.unsubscribe_links import unsubscribe_link
unsubscribe_link("https://bridge.example.com", ["a secret of 16 characters"])
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
import atexit, gc, json, sys
from bridge.cli import main
def collections():
    return sum(generation["collections"] for generation in gc.get_stats())
before = collections()
atexit.register(
    lambda: print(json.dumps([list(sys.modules), gc.get_freeze_count(), collections() - before]), file=sys.stderr)
)
sys.argv = ["bridge", *sys.argv[1:]]
main()
"""
STORE = ("sqlalchemy", "pydantic")
UNUSED_BY_LISTS = (
    "httpx", "requests", "urllib3", "alembic", "jinja2", "email_validator", "starlette", "cryptography", "structlog",
    "phonenumbers", "sqlalchemy.dialects.postgresql", "bridge.attribute_docstrings", "bridge.connector.exports",
    "bridge.policy", "bridge.rules.model",
)  # fmt: skip
COMMAND_MODULES = {f"bridge.cli.{name}" for name in MODULES.values()}
MAX_MODULES = 75
"""Of the bridge, in a command that lists events or deliveries: one in seven of all."""


def loaded_by(folder: Path, *arguments: str, **variables: str) -> list[str]:
    """Return the modules that a command loads. What it loaded is not garbage, so it must not look for any."""
    environ = os.environ | {"BRIDGE_DATABASE_URL": f"sqlite:///{folder}/bridge.db"} | variables
    run = subprocess.run(
        [sys.executable, "-c", RUN_COMMAND, *arguments],
        capture_output=True, text=True, timeout=60, cwd=folder, env=environ,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    modules, frozen, collections = json.loads(run.stderr.splitlines()[-1])
    assert collections == 0
    assert frozen > 0 or arguments == ("--version",)
    return list(modules)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a database, and the ID of its only event."""
    folder = tmp_path_factory.mktemp("store")
    database = Database(f"sqlite:///{folder}/bridge.db")
    upgrade(database)
    body = json.dumps(sample("call.busy")).encode()
    event = read_event(body, database.clock.now())
    assert store_events(database, [IncomingEvent(event, body)]) == ["stored"]
    database.close()
    return folder, event.id


def test_version_loads_neither_options_nor_database(tmp_path: Path) -> None:
    modules = loaded_by(tmp_path, "--version")
    assert [name for name in (*STORE, *UNUSED_BY_LISTS, "typer") if name in modules] == []
    assert len([name for name in modules if name.startswith("bridge.")]) <= 3


@pytest.mark.parametrize("arguments", [["events"], ["events", "--json"], ["deliveries"]])
def test_lists_load_neither_connectors_nor_rules_nor_other_commands(
    store: tuple[Path, str], arguments: list[str]
) -> None:
    modules = loaded_by(store[0], *arguments)
    assert set(STORE) <= set(modules)
    assert [name for name in UNUSED_BY_LISTS if name in modules] == []
    assert COMMAND_MODULES & set(modules) == {"bridge.cli.inspect_commands", "bridge.cli.connection_commands"}
    assert len([name for name in modules if name.startswith("bridge.")]) <= MAX_MODULES


def test_show_loads_numbering_plans_for_the_contact_but_no_rules(store: tuple[Path, str]) -> None:
    folder, event_id = store
    modules = loaded_by(folder, "show", event_id)
    assert [name for name in UNUSED_BY_LISTS if name in modules] == ["phonenumbers"]
    assert len([name for name in modules if name.startswith("bridge.")]) <= MAX_MODULES


def test_commands_load_no_plugins_of_pydantic(store: tuple[Path, str], tmp_path: Path) -> None:
    """Looking for them reads the metadata of every installed package."""
    (tmp_path / "unwanted_plugin.py").write_text("plugin = None")
    (tmp_path / "unwanted-1.0.dist-info").mkdir()
    (tmp_path / "unwanted-1.0.dist-info" / "METADATA").write_text("Name: unwanted\nVersion: 1.0\n")
    (tmp_path / "unwanted-1.0.dist-info" / "entry_points.txt").write_text(
        "[pydantic]\nunwanted = unwanted_plugin:plugin\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    assert "unwanted_plugin" not in loaded_by(store[0], "events", PYTHONPATH=path)
