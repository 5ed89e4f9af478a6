"""Age of the data that quiet hours and phone numbers depend on: time zones, numbering plans and public holidays.

Countries change them several times a year. With old data, a message leaves at the wrong hour, or a new number is not
understood.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

PACKAGES: Final[Mapping[str, str]] = {
    "holidays": "public holidays",
    "phonenumbers": "numbering plans",
    "tzdata": "time zones",
}
MAX_AGE: Final = timedelta(days=365)
_FIRST_PLAUSIBLE_YEAR: Final = 2015
"""Files of reproducible builds are dated 1970 or 1980, which says nothing about their age."""


def outdated_data(now: datetime) -> list[str]:
    """Return a sentence for each package and system file whose data is certainly older than a year."""
    return [*_outdated_packages(now), *_outdated_system_zones(now, zoneinfo.TZPATH)]


def _outdated_packages(now: datetime) -> Iterator[str]:
    """A package is at least as old as its installation."""
    for name, content in PACKAGES.items():
        try:
            file = Path(str(distribution(name).locate_file(f"{name}/__init__.py")))
            installed = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        except (PackageNotFoundError, OSError):
            continue
        if installed.year >= _FIRST_PLAUSIBLE_YEAR and now - installed > MAX_AGE:
            yield f"{name} was installed on {installed:%Y-%m-%d}; upgrade it for the current {content}"


def _outdated_system_zones(now: datetime, folders: Iterable[str]) -> Iterator[str]:
    """The time zones of the operating system precede those of tzdata. Their version has the year of the release."""
    for folder in folders:
        try:
            with (Path(folder) / "tzdata.zi").open(encoding="utf-8") as file:
                version = re.fullmatch(r"# version (\d{4})\w*", file.readline(80).strip())
        except (OSError, UnicodeDecodeError):
            continue
        if version and now >= datetime(int(version[1]) + 2, 1, 1, tzinfo=UTC):
            yield (
                f"the time zones in {folder} are those of {version[1]}; upgrade the system's tzdata, or set "
                "PYTHONTZPATH= (empty) to use the Python package"
            )
        return
