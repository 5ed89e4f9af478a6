"""One file per kind of mistake, each with the report that people are shown.

When a text is improved on purpose, `python -m tests.unit.rules.test_rules_diagnostics` writes the reports anew;
read the diff.
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


def reported(path: Path, registry: Registry) -> tuple[str, bool]:
    raw = path.read_bytes()
    loaded = load(raw, path="rules.yaml", registry=registry, environ=ENVIRON)
    shown = report(loaded.problems, raw.decode("utf-8", "replace"), "rules.yaml")
    return shown.replace(str(HERE), "...") + "\n", loaded.rules is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_mistake_is_reported_as_people_can_use_it(path: Path, registry: Registry) -> None:
    shown, refused = reported(path, registry)
    assert shown == path.with_suffix(".txt").read_text("utf-8")
    end = shown.splitlines()[-1]
    assert refused == (" problem" in end or "not set up" in end)


def test_there_is_a_file_for_every_kind_of_mistake() -> None:
    assert len(FILES) >= 60
    assert {path.stem for path in FILES} == {path.stem for path in (HERE / "bad").glob("*.txt")}


if __name__ == "__main__":
    known = Registry([HERE / "connectors"])
    for file in FILES:
        file.with_suffix(".txt").write_text(reported(file, known)[0], "utf-8")
