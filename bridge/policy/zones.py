"""Where a person may be: the time zones and the regions whose hours have to allow a message.

What the event says about its person is best, then what a CRM knows of the person. Else a number tells its country, and
an area code its region; since people move and keep their numbers, every zone of the whole area code has to allow the
message.
The table of zones (7 MB in memory) is loaded when the first number has to be looked at.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from bridge.area_codes import FIFTY_STATES, STATE_OF, STATES
from bridge.events import PHONE_PATTERN, Contact

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

_UNKNOWN = "Etc/Unknown"
_AMERICAN_LENGTH = len("+12125550123")


def zones_of(
    contact: Contact, recipient: str | None, fallback: str, known: str | None = None
) -> tuple[str, ...]:
    """The time zones in which a person may be: all of them have to allow a message.

    What the event says of its own person; else `known`, what a CRM says of the recipient; else every zone that the
    number allows (for a mail, the number of the event's person); else `fallback`. When a rule writes to another address
    than the person's own, what the event says may be about somebody else, so it only adds to the others.
    """
    said = (contact.time_zone,) if contact.time_zone else ()
    if said and is_own(contact, recipient):
        return said
    if known is not None:
        return tuple(dict.fromkeys((*said, known)))
    phone = phone_of(contact, recipient)
    allowed = _zones_of_number(phone) if phone else ()
    return tuple(dict.fromkeys((*said, *allowed))) or (fallback,)


def is_own(contact: Contact, recipient: str | None) -> bool:
    """Whether an address is the person's own, as far as the event says; one that is not known may be."""
    return recipient is None or _folded(recipient) in (_folded(contact.phone), _folded(contact.email))


def regions_of(contact: Contact, recipient: str | None) -> frozenset[str]:
    """The regions a number may belong to, as ISO 3166 codes (`FI`, `US`, `US-FL`); empty when nothing is known."""
    phone = phone_of(contact, recipient)
    return _regions_of_number(phone) if phone else frozenset()


def phone_of(contact: Contact, recipient: str | None) -> str | None:
    """The number to judge by: the recipient itself, or for a mail to the person, the person's number."""
    if recipient is None or _folded(recipient) == _folded(contact.email):
        return contact.phone
    return recipient if PHONE_PATTERN.fullmatch(recipient) else None


def _folded(address: str | None) -> str:
    return (address or "").casefold()


@lru_cache(maxsize=1024)
def _zones_of_number(phone: str) -> tuple[str, ...]:
    if phone.startswith("+1"):
        return _area_zones().get(_area(phone), FIFTY_STATES)
    from phonenumbers.timezone import time_zones_for_number
    from phonenumbers.tzdata import TIMEZONE_DATA

    number = _parsed(phone)
    if number is None:
        return ()
    zones = time_zones_for_number(number)
    if _UNKNOWN in zones:
        zones = TIMEZONE_DATA.get(str(number.country_code), ())
    return tuple(zones)


@lru_cache(maxsize=1024)
def _regions_of_number(phone: str) -> frozenset[str]:
    from phonenumbers import region_code_for_number, region_codes_for_country_code

    number = _parsed(phone)
    area = _area(phone)
    if area in STATE_OF:
        return frozenset({"US", f"US-{STATE_OF[area]}"})
    if phone.startswith("+1") and area not in _area_zones():
        return frozenset({"US", *(f"US-{state}" for state in STATES)})
    if number is None or number.country_code is None:
        return frozenset()
    if phone.startswith("+1"):
        region = region_code_for_number(number)
        return frozenset({region}) if region else frozenset()
    return frozenset(region_codes_for_country_code(number.country_code)) - {"001"}


def _area(phone: str) -> str:
    """The area code of a complete +1 number; a number with a digit too few or too many has no sure area."""
    return phone[2:5] if phone.startswith("+1") and len(phone) == _AMERICAN_LENGTH else ""


@cache
def _area_zones() -> dict[str, tuple[str, ...]]:
    """Area code -> all its zones. Some codes cross a border of zones, which only the next digits would tell."""
    from phonenumbers.tzdata import TIMEZONE_DATA

    zones: defaultdict[str, set[str]] = defaultdict(set)
    for prefix, found in TIMEZONE_DATA.items():
        if prefix.startswith("1") and len(prefix) >= 4:
            zones[prefix[1:4]].update(found)
    return {area: tuple(sorted(found)) for area, found in zones.items()}


def _parsed(phone: str) -> PhoneNumber | None:
    from phonenumbers import NumberParseException, parse

    try:
        return parse(phone)
    except NumberParseException:
        return None
