"""Results of commands: computed once, printed as text or as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.cli.output import Record, Result, Table, as_items, render

ITEMS = [{"id": "dlv_1", "rule": "text"}]


@pytest.mark.parametrize(
    ("result", "record", "text"),
    [
        (Record({"version": "1"}, "The version is 1."), {"version": "1"}, "The version is 1."),
        (Table(ITEMS, {"Rule": "rule"}, empty="none", next_cursor="dlv_1"), as_items(ITEMS, "dlv_1"), "--cursor dlv_1"),
        (Table([], {"Rule": "rule"}, empty="none", footer=["below"]), as_items([]), "none\nbelow"),
    ],
)  # fmt: skip
def test_result_is_rendered_as_text_or_json(
    result: Result, record: object, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    render(result, as_json=True)
    assert json.loads(capsys.readouterr().out) == record
    from bridge.cli.output import console

    console.cache_clear()
    render(result, as_json=False)
    assert text in capsys.readouterr().out
    console.cache_clear()


def test_check_and_replay_compute_before_they_print() -> None:
    folder = Path(__file__).parents[2] / "bridge" / "cli"
    for name in ("check.py", "replay.py"):
        assert "as_json" not in (folder / name).read_text("utf-8")
