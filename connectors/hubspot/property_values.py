"""Values of rules in the form and the type of HubSpot's properties. What does not fit is left out, with a note.

HubSpot refuses a whole record for one value of the wrong type. A structured result of a call, which a language model
has filled in, must not cost the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from bridge.connector import (
    Context,
    find_option,
    number_text,
    to_boolean,
    to_day,
    to_instant,
    to_items,
    to_number,
    to_text,
)

from .account import Account
from .errors import required_scopes, status_of
from .records import OWNER_PROPERTY

_READ_AGAIN_AFTER = timedelta(minutes=1)
"""Age of the cached options at which they are read again for an option that they do not contain."""


@dataclass(frozen=True)
class FittedValue:
    """A value as HubSpot takes it, and what does not fit."""

    text: str | None = None
    """None: nothing fits."""
    problem: str = ""
    """What the property takes, or which options it lacks; empty if the whole value fits."""


@dataclass(frozen=True)
class FittedProperties:
    """Properties to write, and notes about the values that were left out."""

    values: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def fit_properties(
    account: Account, kind: str, values: Mapping[str, Any], context: Context
) -> FittedProperties:
    """Return the values that fit the account's properties of an object type, as HubSpot takes them.

    The definitions of the properties are read once in ten minutes. A property that the account does not have is
    returned: HubSpot's refusal then names it. The email address of an owner becomes the owner's ID.
    """
    fitted = FittedProperties()
    values = {name: value for name, value in values.items() if value is not None}
    definitions = _definitions(account, kind) if values.keys() - {OWNER_PROPERTY} else {}
    zone = context.contact.time_zone
    for name, value in values.items():
        if name == OWNER_PROPERTY:
            is_address = isinstance(value, str) and "@" in value
            fitted.values[name] = (
                (account.owners.resolve(value).id or value) if is_address else to_text(value)
            )
            continue
        result = fit_value(definitions.get(name), value, zone)
        if result.problem and getattr(definitions.get(name), "type", "") == "enumeration":
            newer = account.property_definitions(kind, max_age=_READ_AGAIN_AFTER)
            result = fit_value(newer.get(name), value, zone)
        if result.text is not None:
            fitted.values[name] = result.text
        if result.problem:
            part = "some options of " if result.text is not None else ""
            fitted.notes.append(f"without {part}`{name}`, which {result.problem}")
    return fitted


def fit_value(definition: Any | None, value: Any, zone: str | None = None) -> FittedValue:
    """Return a value as a property takes it. None as definition: the account has no such property."""
    convert = _CONVERSIONS.get(definition.type) if definition is not None else None
    if definition is None or (convert is None and definition.type != "enumeration"):
        return FittedValue(to_text(value))
    if convert is None:
        return _fit_options(definition, value)
    must_be, to_property = convert
    item = value[0] if isinstance(value, list) and len(value) == 1 else value
    text = to_property(item, zone)
    return FittedValue(text, "" if text is not None else f"takes {must_be}")


def options_of(definition: Any) -> dict[str, str]:
    """Return the options of a property, value -> label; none if they are not in the definition."""
    return {str(option.value): str(option.label) for option in definition.options or ()}


def takes_several(definition: Any) -> bool:
    """Return whether a property takes several options."""
    return bool(definition.field_type == "checkbox")


def _fit_options(definition: Any, value: Any) -> FittedValue:
    options = options_of(definition)
    if not options:  # an external list, such as that of users
        return FittedValue(to_text(value, ";"))
    if not takes_several(definition):
        option = find_option(value, options)
        is_list = isinstance(value, list) and len(value) != 1
        problem = "takes one option, not a list" if is_list else "has no such option"
        return FittedValue(option, "" if option is not None else problem)
    found = [find_option(item, options) for item in to_items(value, options)]
    chosen = list(dict.fromkeys(option for option in found if option is not None))
    return FittedValue(
        ";".join(chosen) if chosen else None, "" if chosen and None not in found else "has no such option"
    )


def _number(value: Any, _zone: str | None) -> str | None:
    number = to_number(value)
    return None if number is None else number_text(number)


def _boolean(value: Any, _zone: str | None) -> str | None:
    truth = to_boolean(value)
    return None if truth is None else to_text(truth)


def _day(value: Any, _zone: str | None) -> str | None:
    day = to_day(value)
    return None if day is None else day.isoformat()


def _instant(value: Any, zone: str | None) -> str | None:
    instant = to_instant(value, ZoneInfo(zone) if zone else None)
    return None if instant is None else instant.isoformat()


_CONVERSIONS: Mapping[str, tuple[str, Callable[[Any, str | None], str | None]]] = {
    "number": ("a number", _number),
    "bool": ("true or false", _boolean),
    "date": ("a date like 2026-03-02", _day),
    "datetime": ("a time like 2026-03-02T15:00:00Z", _instant),
}
"""Type of a property -> what its value must be, and the conversion, which returns None for what it is not."""


def _definitions(account: Account, kind: str) -> Mapping[str, Any]:
    """Return the definitions of the properties, none if the key may not read them: HubSpot then decides."""
    if account.missing_scopes.problem(f"{kind} properties"):
        return {}
    try:
        return account.property_definitions(kind)
    except Exception as error:
        if status_of(error) != 403:
            raise
        account.missing_scopes.report(f"{kind} properties", required_scopes(error))
        return {}
