"""Time zones and regions: determines where a recipient may be, and so whose quiet hours have to allow a message.

The event's own time zone for its contact is the best source, then a CRM's. Otherwise the phone number gives the
country, and a US area code gives the region. People move and keep their numbers, so every zone of the whole area code
has to allow the message.
The zone table (7 MB in memory) is loaded when the first number is looked up.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache, lru_cache

from bridge.area_codes import STATE_BY_AREA_CODE, STATES, US_STATE_TIME_ZONES
from bridge.contacts.address import address_key
from bridge.contacts.country import area_code_of, parsed_number
from bridge.contacts.parse import Contact
from bridge.contacts.phone import PHONE_PATTERN

_UNKNOWN = "Etc/Unknown"


def zones_of(
    contact: Contact, recipient: str | None, fallback: str, crm_time_zone: str | None = None
) -> tuple[str, ...]:
    """Return the time zones in which a recipient may be; all of them have to allow a message.

    Sources, in this order: the event's time zone for its contact; `crm_time_zone`, the CRM's for the recipient; every
    zone that the phone number allows (for an email, the contact's number); `fallback`. If the recipient is not the
    contact's own address, the event's time zone may be about another person, so it is only added to the others.
    """
    event_zones = (contact.time_zone,) if contact.time_zone else ()
    if event_zones and is_contacts_own_address(contact, recipient):
        return event_zones
    if crm_time_zone is not None:
        return tuple(dict.fromkeys((*event_zones, crm_time_zone)))
    phone = reference_phone(contact, recipient)
    number_zones = _zones_of_number(phone) if phone else ()
    return tuple(dict.fromkeys((*event_zones, *number_zones))) or (fallback,)


def is_contacts_own_address(contact: Contact, recipient: str | None) -> bool:
    """Return True if the recipient is the contact's phone number or email address, or is unknown."""
    return recipient is None or _is_any_of(recipient, contact.phone, contact.email)


def regions_of(contact: Contact, recipient: str | None) -> frozenset[str]:
    """Return the regions a number may belong to, as ISO 3166 codes (`FI`, `US`, `US-FL`); empty if unknown."""
    phone = reference_phone(contact, recipient)
    return _regions_of_number(phone) if phone else frozenset()


def state_of(phone: str) -> str | None:
    """Return the US state of a phone number's area code, such as `CA`, or None if it has none."""
    return STATE_BY_AREA_CODE.get(area_code_of(phone))


def reference_phone(contact: Contact, recipient: str | None) -> str | None:
    """Return the number that locates the recipient: the recipient, or for an email to the contact, their number."""
    if recipient is None or _is_any_of(recipient, contact.email):
        return contact.phone
    return recipient if PHONE_PATTERN.fullmatch(recipient) else None


def _is_any_of(recipient: str, *addresses: str | None) -> bool:
    key = address_key(recipient)
    return any(address is not None and address_key(address) == key for address in addresses)


@lru_cache(maxsize=1024)
def _zones_of_number(phone: str) -> tuple[str, ...]:
    if phone.startswith("+1"):
        return _area_zones().get(area_code_of(phone), US_STATE_TIME_ZONES)
    from phonenumbers.timezone import time_zones_for_number
    from phonenumbers.tzdata import TIMEZONE_DATA

    number = parsed_number(phone)
    if number is None:
        return ()
    zones = time_zones_for_number(number)
    if _UNKNOWN in zones:
        zones = TIMEZONE_DATA.get(str(number.country_code), ())
    return tuple(zones)


@lru_cache(maxsize=1024)
def _regions_of_number(phone: str) -> frozenset[str]:
    from phonenumbers import region_code_for_number, region_codes_for_country_code

    number = parsed_number(phone)
    area_code = area_code_of(phone)
    if area_code in STATE_BY_AREA_CODE:
        return frozenset({"US", f"US-{STATE_BY_AREA_CODE[area_code]}"})
    if phone.startswith("+1") and area_code not in _area_zones():
        return frozenset({"US", *(f"US-{state}" for state in STATES)})
    if number is None or number.country_code is None:
        return frozenset()
    if phone.startswith("+1"):
        region = region_code_for_number(number)
        return frozenset({region}) if region else frozenset()
    return frozenset(region_codes_for_country_code(number.country_code)) - {"001"}


@cache
def _area_zones() -> dict[str, tuple[str, ...]]:
    """Map each area code to all its zones. Some area codes span two zones, which only the next digits separate."""
    from phonenumbers.tzdata import TIMEZONE_DATA

    zones_by_area: defaultdict[str, set[str]] = defaultdict(set)
    for prefix, zones in TIMEZONE_DATA.items():
        if prefix.startswith("1") and len(prefix) >= 4:
            zones_by_area[prefix[1:4]].update(zones)
    return {area: tuple(sorted(zones)) for area, zones in zones_by_area.items()}
