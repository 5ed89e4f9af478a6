"""`make audit`: what it says and when it fails, with pip-audit's answers made up."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit.py"
spec = importlib.util.spec_from_file_location("audit", SCRIPT)
assert spec is not None
assert spec.loader is not None
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

CLEAN = {"name": "idna", "version": "3.20", "vulns": []}
VULNERABLE = {
    "name": "lxml",
    "version": "6.0.0",
    "vulns": [{"id": "PYSEC-2026-1", "aliases": ["CVE-2026-41066"], "fix_versions": ["6.1.0"]}],
}
UNKNOWN = {"name": "idna", "skip_reason": "Dependency not found on PyPI"}


def answer(monkeypatch: pytest.MonkeyPatch, *packages: dict[str, Any], stderr: str = "") -> None:
    stdout = json.dumps({"dependencies": packages}) if packages else ""
    result = subprocess.CompletedProcess([], 0, stdout, stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: result)


@pytest.mark.parametrize("allow_offline", [True, False])
def test_vulnerable_package_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], allow_offline: bool
) -> None:
    answer(monkeypatch, CLEAN, VULNERABLE)
    assert audit.main(allow_offline) == 1
    assert capsys.readouterr().out == "lxml 6.0.0: PYSEC-2026-1, fixed in 6.1.0\n"
    answer(monkeypatch, UNKNOWN, VULNERABLE)
    assert audit.main(allow_offline) == 1


def test_accepted_vulnerability_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(audit.ACCEPTED, "CVE-2026-41066", "no XML is parsed")
    answer(monkeypatch, CLEAN, VULNERABLE)
    assert audit.main(False) == 0
    assert capsys.readouterr().out == "audit: no known vulnerability in 2 packages\n"


def test_unreachable_database_is_never_reported_as_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for packages, stderr, reason in [
        ((), "ConnectionError: no route to host", "no response from PyPI (ConnectionError"),
        (
            (UNKNOWN, UNKNOWN),
            "No known vulnerabilities found",
            "2 of 2 packages are unknown to the database: idna",
        ),
        ((CLEAN, UNKNOWN), "", "1 of 2 packages are unknown"),
    ]:
        answer(monkeypatch, *packages, stderr=stderr)
        assert audit.main(True) == 0
        assert f"audit skipped: {reason}" in capsys.readouterr().out
        assert audit.main(False) == 1
        assert f"audit failed: {reason}" in capsys.readouterr().out


def test_lookup_is_bounded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*_: Any, timeout: float, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip-audit", timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert audit.main(True) == 0
    assert "audit skipped: no response from PyPI within 120 seconds" in capsys.readouterr().out
