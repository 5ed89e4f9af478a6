"""`bridge check` says when time zones, numbering plans and holidays are over a year old."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.cli import data_age
from bridge.cli.data_age import PACKAGES, outdated_data

NOW = datetime(2026, 11, 28, tzinfo=UTC)


class _Installed:
    """A distribution whose files are in a folder of the test."""

    def __init__(self, folder: Path, installed: datetime) -> None:
        self._path = folder / "__init__.py"
        self._path.touch()
        os.utime(self._path, (installed.timestamp(), installed.timestamp()))

    def locate_file(self, _: str) -> Path:
        return self._path


@pytest.mark.parametrize(
    ("installed", "count"),
    [
        (datetime(2025, 11, 27, tzinfo=UTC), 3),
        (datetime(2025, 11, 29, tzinfo=UTC), 0),
        (datetime(1980, 1, 1, tzinfo=UTC), 0),  # of a reproducible build
    ],
)
def test_packages_are_outdated_a_year_after_their_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: datetime, count: int
) -> None:
    monkeypatch.setattr(data_age, "distribution", lambda _: _Installed(tmp_path, installed))
    monkeypatch.setattr("zoneinfo.TZPATH", ())
    found = outdated_data(NOW)
    assert len(found) == count
    assert all(name in text for name, text in zip(PACKAGES, found, strict=False))


@pytest.mark.parametrize(
    ("version", "outdated"), [("2024b", True), ("2025a", False), ("2026f", False), ("of today", False)]
)
def test_time_zones_of_the_system_are_those_that_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, outdated: bool
) -> None:
    (tmp_path / "tzdata.zi").write_text(f"# version {version}\n")
    monkeypatch.setattr("zoneinfo.TZPATH", (str(tmp_path / "missing"), str(tmp_path)))
    monkeypatch.setattr(data_age, "PACKAGES", {"no-such-package": "nothing"})
    found = outdated_data(NOW)
    assert [str(tmp_path) in text and "of 2024" in text for text in found] == [True] * outdated
