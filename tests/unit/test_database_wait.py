"""A starting service waits for PostgreSQL."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bridge.cli import db
from bridge.errors import StoreUnavailable


class Outage:
    """A database that cannot be reached for a while, on a clock that only waiting moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now, self.ends_at = 100.0, 100.0 + seconds
        self.waits: list[float] = []
        monkeypatch.setattr(db, "uptime", lambda: self.now)
        monkeypatch.setattr(db.time, "sleep", self._sleep)
        monkeypatch.setattr(db.random, "uniform", lambda _, longest: longest)
        monkeypatch.setattr("bridge.store.migrate.upgrade", self._upgrade)

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def _upgrade(self, _: Any) -> str:
        if self.now < self.ends_at:
            raise StoreUnavailable("connection refused")
        return "newest"


def migrate(url: str) -> str:
    database: Any = SimpleNamespace(url=url, is_sqlite=url.startswith("sqlite"))
    return db.migrate(database)


def test_start_waits_longer_after_each_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(monkeypatch, 20)
    assert migrate("postgresql://bridge@localhost/bridge") == "newest"
    assert outage.waits == [0.5, 1, 2, 4, 5, 5, 5]


def test_start_fails_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(monkeypatch, 1000)
    with pytest.raises(StoreUnavailable):
        migrate("postgresql://bridge@localhost/bridge")
    assert 60 <= sum(outage.waits) < 66


def test_sqlite_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    outage = Outage(monkeypatch, 1000)
    with pytest.raises(StoreUnavailable):
        migrate(f"sqlite:///{tmp_path}/bridge.db")
    assert outage.waits == []
