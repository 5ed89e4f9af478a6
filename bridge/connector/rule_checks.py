"""Checks of the loaded rules against an account: names and values that only the provider knows.

`bridge check --online` calls them once per connection, so that a misspelled property, an unknown option or a missing
permission is found before the first event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from bridge.connector.action import Action


class _FromEvent:
    def __repr__(self) -> str:
        return "FROM_EVENT"


FROM_EVENT: Final = _FromEvent()
"""Takes the place of a value that contains a template: it is known only when an event arrives."""


class Place(NamedTuple):
    """A place in a rules file, counted from 1."""

    line: int
    """Line, from 1."""
    column: int
    """Column, from 1."""
    path: str = ""
    """The rules file."""


Location = tuple[str | int, ...]
"""The way to a value within the params: `("properties", "jobtitle")`."""


@dataclass(frozen=True)
class ActionUse:
    """One step of the loaded rules that uses an action on the connection."""

    action: Action
    """The action."""
    params: Mapping[str, Any]
    """What the rule writes under `with:`, not validated; FROM_EVENT where a template stands. Defaults are left out."""
    rule: str | None = None
    """None for an alert."""
    places: Mapping[Location, Place] = field(default_factory=dict)
    """Where each value under `with:` stands; the place of the step itself at `()`."""

    def place_of(self, location: Location) -> Place:
        """Return the place of a value, or of the nearest value around it."""
        while location and location not in self.places:
            location = location[:-1]
        return self.places.get(location, Place(0, 0))

    def properties(self, param: str = "properties") -> Mapping[str, Any]:
        """Return the fields that a param of type `Properties` sets: name -> value (FROM_EVENT, if from a template)."""
        entries = self.params.get(param)
        if not isinstance(entries, Mapping):
            return {}
        return {
            name: entry.get("value") if isinstance(entry, Mapping) else entry
            for name, entry in entries.items()
        }


@dataclass(frozen=True)
class RuleProblem:
    """Something in the rules that the account will refuse, and what to do about it."""

    text: str
    """What is wrong, as a clause without a period."""
    hint: str = ""
    """What to do: `did_you_mean(...)`; empty if there is nothing to add."""
    use: ActionUse | None = None
    """The step that has the problem. None: the problem is the account's, such as a permission that it lacks."""
    location: Location = ()
    """The value under `with:` that has the problem."""
    level: Literal["error", "warning"] = "error"
    """A warning does not fail the check: the rules work without it."""
