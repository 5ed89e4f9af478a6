"""Pauses of connections as operators see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bridge.lifecycle import PauseCause
from bridge.store.pauses import ALL_CONNECTIONS, INDEFINITELY, ConnectionStatus, Pause

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def status(cause: str | None, until: datetime | None) -> ConnectionStatus:
    row = {"name": "desk", "pause_cause": cause, "paused_until": until, "pause_reason": "why"}
    return ConnectionStatus.from_row(row | {"failures": 0, "successes": 0}, NOW, None)


@pytest.mark.parametrize("cause", [*PauseCause, "of a newer version"])
def test_pause_has_a_label_and_a_hint(cause: str) -> None:
    pause = Pause("desk", cause, NOW, "why")
    assert str(pause) == f"paused by {pause.label}: why"
    assert "`bridge resume desk`" in pause.hint
    assert "{" not in pause.hint


def test_pause_of_all_connections_is_resumed_with_all() -> None:
    pause = Pause(ALL_CONNECTIONS, PauseCause.OPERATOR, None, "wrong text")
    assert str(pause) == "paused by an operator, with all connections: wrong text"
    assert pause.hint == "resume it with `bridge resume --all`"


def test_pause_ends_at_its_time() -> None:
    assert status("quota", NOW + timedelta(seconds=1)).pause == Pause(
        "desk", "quota", NOW + timedelta(seconds=1), "why"
    )
    assert status("quota", NOW).pause is None
    assert status(None, None).pause is None


def test_half_open_circuit_is_paused() -> None:
    assert status("circuit_open", NOW).pause is not None


def test_indefinite_pause_has_no_end() -> None:
    pause = status("auth", INDEFINITELY).pause
    assert pause is not None
    assert pause.until is None


def test_only_the_store_knows_how_an_indefinite_pause_is_stored() -> None:
    package = Path(__file__).parents[2] / "bridge"
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "INDEFINITELY" in path.read_text("utf-8")
    }
    assert users == {"store/pauses.py", "store/connections.py"}
