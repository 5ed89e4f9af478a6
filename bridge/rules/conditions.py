"""`where` and `if` against one event, with three outcomes: true, false, and unknown when it cannot be told.

A field that is missing, null or of another type makes its condition unknown, whatever the operator: `ne` and
`not` do not match on what is not there. Groups follow Kleene's logic: `all` is false as soon as one part is,
`any` true as soon as one is; what is still open after that is unknown. Only true lets a rule fire.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from bridge.rules.fields import kind_of
from bridge.rules.model import Check, Truth
from bridge.rules.template_filters import RenderError
from bridge.rules.template_runtime import SEEN, Names, storable
from bridge.rules.templates import Template

_LONGEST_FOUND = 80
_JSON = json.JSONEncoder(ensure_ascii=False)


def shown(value: Any) -> str:
    """A JSON value as a trace shows it: short, and on one line."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"an object of {len(value)} field{'' if len(value) == 1 else 's'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        cut = value[:_LONGEST_FOUND]
        return _JSON.encode(storable(cut)) + ("…" if len(value) > len(cut) else "")
    return str(value) if isinstance(value, float) else json.dumps(value)[:_LONGEST_FOUND]


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def run(found: Any, wanted: Any) -> bool | None:
        return compare(found, wanted) if kind_of(found) == kind_of(wanted) else None

    return run


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def run(found: Any, wanted: Any) -> bool | None:
        return compare(found, wanted) if kind_of(found) == "a number" else None

    return run


def _among(found: Any, wanted: list[Any]) -> bool | None:
    alike = [item for item in wanted if kind_of(item) == kind_of(found)]
    return found in alike if alike else None


def _not_among(found: Any, wanted: list[Any]) -> bool | None:
    among = _among(found, wanted)
    return None if among is None else not among


def _contains(found: Any, wanted: Any) -> bool | None:
    if isinstance(found, list):
        return any(kind_of(item) == kind_of(wanted) and item == wanted for item in found)
    return wanted in found if isinstance(found, str) and isinstance(wanted, str) else None


OPERATORS: dict[str, Callable[[Any, Any], bool | None]] = {
    "eq": _compared(lambda found, wanted: bool(found == wanted)),
    "ne": _compared(lambda found, wanted: bool(found != wanted)),
    "in": _among,
    "not_in": _not_among,
    "gt": _ordered(lambda found, wanted: bool(found > wanted)),
    "gte": _ordered(lambda found, wanted: bool(found >= wanted)),
    "lt": _ordered(lambda found, wanted: bool(found < wanted)),
    "lte": _ordered(lambda found, wanted: bool(found <= wanted)),
    "contains": _contains,
    "starts_with": _compared(lambda found, wanted: str(found).startswith(wanted)),
    "ends_with": _compared(lambda found, wanted: str(found).endswith(wanted)),
}
"""Operator -> (found, wanted) -> its answer; None where the two cannot be compared."""


_OPPOSITE: dict[Truth, Truth] = {"true": "false", "false": "true", "unknown": "unknown"}


def combine(kind: str, verdicts: list[Truth]) -> Truth:
    """The verdict of a group (`all`, `any`, `not`) from those of its parts."""
    if kind == "not":
        return _OPPOSITE[combine("all", verdicts)]
    decisive: Truth = "true" if kind == "any" else "false"
    if decisive in verdicts:
        return decisive
    if "unknown" in verdicts:
        return "unknown"
    return "false" if kind == "any" else "true"


@dataclass(frozen=True)
class Condition:
    """One field, one operator: `event.direction` `eq` `outbound`."""

    path: tuple[str, ...]
    operator: str
    wanted: Any
    text: str
    """As the trace shows it."""

    def check(self, names: Names, rows: list[Check], depth: int = 0) -> Truth:
        """Decide, and note why."""
        value, found = self._found(names)
        if self.operator == "exists":
            verdict: Truth = "true" if (value is not None) is self.wanted else "false"
            rows.append(Check(self.text, found, verdict, "", depth))
            return verdict
        if value is None:
            why = f"{'.'.join(self.path)} is {found}"
            rows.append(Check(self.text, found, "unknown", why, depth))
            return "unknown"
        answer = OPERATORS[self.operator](value, self.wanted)
        if answer is None:
            why = f"{self.operator} cannot be decided for {kind_of(value)}"
            rows.append(Check(self.text, found, "unknown", why, depth))
            return "unknown"
        verdict = "true" if answer else "false"
        rows.append(Check(self.text, found, verdict, "", depth))
        return verdict

    def _found(self, names: Names) -> tuple[Any, str]:
        """The field's value and how a trace shows it."""
        seen = names[SEEN]
        found = seen.get(self.path)
        if found is None:
            value, absent = _field(names, self.path)
            found = seen[self.path] = (value, absent or shown(value))
        return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Group:
    """Several conditions: all of them, any of them, or not (all of) them."""

    kind: Literal["all", "any", "not"]
    parts: tuple[Condition | Group, ...]

    def check(self, names: Names, rows: list[Check], depth: int = 0) -> Truth:
        """Decide every part, so that the trace is whole, then the group."""
        place = len(rows)
        verdict = combine(self.kind, [part.check(names, rows, depth + 1) for part in self.parts])
        rows.insert(place, Check(f"{self.kind} of {len(self.parts)}", "", verdict, "", depth))
        return verdict


@dataclass(frozen=True)
class Where:
    """A whole `where`: all of its entries have to be true."""

    parts: tuple[Condition | Group, ...]

    def check(self, names: Names, rows: list[Check]) -> Truth:
        """Decide every entry, and note why."""
        return combine("all", [part.check(names, rows) for part in self.parts])


def check_condition(condition: Template, names: Names, label: str = "if") -> Check:
    """An `if` (or `messaging.consent`) as one row of a trace; what cannot be worked out is unknown."""
    wanted = f"{label} {condition.source}"
    try:
        holds = condition(names)
    except RenderError as error:
        return Check(wanted, "", "unknown", str(error))
    return Check(wanted, "true" if holds else "false", "true" if holds else "false")


def _field(names: Names, path: tuple[str, ...]) -> tuple[Any, str]:
    """The value at a path, or None and how it is absent: `missing` or `null`."""
    value: Any = names
    for depth, key in enumerate(path, start=1):
        if not isinstance(value, dict):
            return None, f"missing ({kind_of(value)} has no fields)"
        if key not in value:
            return None, _missing(key, value)
        value = value[key]
        if value is None:
            return None, "null" if depth == len(path) and path[0] == "event" else "missing"
    return value, ""


def _missing(key: str, among: Any) -> str:
    """`missing`, and the field that may have been meant when it differs only in capitals, `_` and `-`."""
    plain = key.lower().replace("_", "").replace("-", "")
    if len(among) <= 100:
        for other in among:
            if len(other) < 60 and other.lower().replace("_", "").replace("-", "") == plain:
                return f"missing (there is `{other}`)"
    return "missing"
