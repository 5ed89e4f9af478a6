"""Time zones: whether a zone exists, and whether it says where a person lives.

The IANA database lists the zones of each country (`zone.tab`) and the older names of each zone (links, such as
`US/Eastern`). A zone without a country, such as `UTC` or `Etc/GMT+5`, is the setting of a server or the default of a
form. It says nothing about when it is night for the contact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

_ABBREVIATION: Final = re.compile(r"[A-Z]{3}(\d[A-Z]{3})?", re.ASCII)
"""`EST`, `CET`, `EST5EDT`: an offset that many countries share, although the database links it to a city of one."""
_MAX_LENGTH: Final = 64


def normalize_time_zone(value: object) -> str | None:
    """Return the name of the IANA time zone, or None if it does not exist."""
    return _existing_zone(value) if isinstance(value, str) and len(value) <= _MAX_LENGTH else None


def residence_time_zone(value: object) -> str | None:
    """Return the name of the IANA time zone, or None if it does not say where a person lives.

    A zone counts if a country has it. Case does not matter, and blanks may replace underscores (`america/new york`).
    """
    if not isinstance(value, str) or len(value) > _MAX_LENGTH:
        return None
    return _residence_zones().get(value.strip().lower().replace(" ", "_"))


@lru_cache(maxsize=1024)
def _existing_zone(name: str) -> str | None:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):  # an unknown zone; an invalid name; the name of a folder
        return None


@cache
def _residence_zones() -> Mapping[str, str]:
    """Map the lowercase name of every zone of a country, current or old, to its name."""
    database = resources.files("tzdata") / "zoneinfo"
    zones = {fields[2] for fields in _rows((database / "zone.tab").read_text("utf-8"), "\t")}
    links = {
        fields[2]: fields[1]
        for fields in _rows((database / "tzdata.zi").read_text("utf-8"), " ")
        if fields[0] == "L"
    }
    for name in links:
        target = name
        while target in links and target not in zones:
            target = links[target]
        if target in zones and not _ABBREVIATION.fullmatch(name):
            zones.add(name)
    return {name.lower(): name for name in zones}


def _rows(text: str, separator: str) -> list[list[str]]:
    return [line.split(separator) for line in text.splitlines() if line and not line.startswith("#")]
