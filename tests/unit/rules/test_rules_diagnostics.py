"""Reports of invalid rules files: one file in `bad/` per kind of error, with its expected report.

After an intended change of a message, run `python -m tests.unit.rules.test_rules_diagnostics` to rewrite the reports,
and review the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.connector.discovery import Registry
from bridge.rules.load import load
from bridge.rules.report import report

HERE = Path(__file__).parent
FILES = sorted((HERE / "bad").glob("*.yaml"))
ENVIRON = {"PHONE_TOKEN": "secret"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry([HERE / "connectors"])


def load_and_report(path: Path, registry: Registry) -> tuple[str, bool]:
    """Return the report of a file, and whether the file was rejected."""
    raw = path.read_bytes()
    loaded = load(raw, path="rules.yaml", registry=registry, environ=ENVIRON)
    text = report(loaded.diagnostics, loaded.texts)
    return text.replace(str(HERE), "...") + "\n", loaded.rules is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_report_matches_expected_file(path: Path, registry: Registry) -> None:
    text, rejected = load_and_report(path, registry)
    assert text == path.with_suffix(".txt").read_text("utf-8")
    summary = text.splitlines()[-1]
    assert rejected == (" problem" in summary or "not set up" in summary)


def test_every_bad_file_has_a_report() -> None:
    assert len(FILES) >= 60
    assert {path.stem for path in FILES} == {path.stem for path in (HERE / "bad").glob("*.txt")}


if __name__ == "__main__":
    test_registry = Registry([HERE / "connectors"])
    for file in FILES:
        file.with_suffix(".txt").write_text(load_and_report(file, test_registry)[0], "utf-8")
