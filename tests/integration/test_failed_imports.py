"""Errors mean the same if no library can be imported, for example because there are no more file descriptors."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.lazy import LoadedModule

from .engine import Engine, raising

TOP = Path(__file__).parents[2]
CLASSIFY = """
import json, resource, sys
from bridge.connector import failure_from_exception
from bridge.connector.discovery import Registry

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
refused = ConnectionRefusedError("refused")
def without_files(classify):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        failure = classify(refused)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return [type(failure).__name__, failure.detail]
def import_requests(error):
    try:
        import requests
    except OSError as failed:
        failed.detail = "nothing can be imported"
        return failed
assert {"httpx", "requests", "urllib3", "simple_salesforce"}.isdisjoint(sys.modules)
results = {"import": without_files(import_requests), "function": without_files(failure_from_exception)}
registry = Registry()
connectors = [registry.connector(name) for name in registry.names()]
assert {"requests", "simple_salesforce"}.isdisjoint(sys.modules)
print(json.dumps(results | {connector.name: without_files(connector.classify) for connector in connectors}))
"""


def test_refused_connection_is_recognized_without_the_libraries() -> None:
    run = subprocess.run(
        [sys.executable, "-c", CLASSIFY], capture_output=True, text=True, timeout=60, cwd=TOP
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout)
    assert results.pop("import") == ["OSError", "nothing can be imported"]
    assert {"function", "email", "hubspot", "salesforce", "twilio"} <= set(results)
    assert {tuple(result) for result in results.values()} == {
        ("TransientError", "no connection: ConnectionRefusedError")
    }


def test_class_of_a_module_that_is_not_loaded_has_no_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = LoadedModule("a_module_of_this_test")
    assert not isinstance(ValueError(), (missing.Error, missing.OtherError, KeyError))
    monkeypatch.setitem(sys.modules, "a_module_of_this_test", sys)
    assert not isinstance(ValueError(), missing.Error)  # as while it is being imported
    monkeypatch.setattr(sys, "Error", ValueError, raising=False)
    assert isinstance(ValueError(), (missing.Error, missing.OtherError))


def test_client_that_cannot_be_opened_has_sent_nothing(engine: Engine) -> None:
    """Without a lookup, an unknown outcome would need an operator."""
    engine.connector.build_client = raising(OSError(errno.EMFILE, "Too many open files"))
    delivery_id = engine.deliver("mail")
    engine.run_due()
    delivery = engine.show(delivery_id)
    assert (delivery["state"], delivery["detail"]) == (
        "retrying",
        "the client cannot be opened: connection lost: OSError",
    )
    engine.connector.build_client = None
    engine.run_for(minutes=5)
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert [item for item, _ in engine.provider.messages] == [delivery_id]
