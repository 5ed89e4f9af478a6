"""Public holidays, by country and US state. Their library takes 0.2 s to load: it is loaded at the first look-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache, partial

HolidayNames = Callable[[date], str | None]
"""Function of a date that returns the name of the holiday on it, or None."""


def holidays_of(country: str | None, state: str | None = None) -> HolidayNames | None:
    """Return the public holidays of a country (ISO 3166), or of a US state; None if they are not known."""
    if country is None or not _is_known(country):
        return None
    return partial(_name_on, country, state)


def _name_on(country: str, state: str | None, day: date) -> str | None:
    return _holidays(country, state, day.year).get(day)


@lru_cache(maxsize=1024)
def _holidays(country: str, state: str | None, year: int) -> Mapping[date, str]:
    from holidays import country_holidays

    return dict(country_holidays(country, state, years=year, expand=False, language="en_US"))


@lru_cache(maxsize=512)
def _is_known(country: str) -> bool:
    from holidays import list_supported_countries

    return country in list_supported_countries()
