"""Checks of what the rules write: names, options, types, owners, call outcomes and pipelines of the account."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bridge.connector import (
    CONTACT_OWNER,
    FROM_EVENT,
    ActionUse,
    Location,
    RuleProblem,
    did_you_mean,
    find_option,
    nearest,
    to_items,
    to_text,
)

from .account import Account
from .errors import required_scopes, status_of
from .pipeline_stages import PipelineStages
from .property_values import fit_value, options_of, takes_several
from .records import OWNER_PROPERTY
from .scopes import OWNERS_READ, Scopes

_NEW_CONTACT = {"new_contact": "contacts"}
_WRITTEN: Mapping[str, Mapping[str, str]] = {
    "log_call": {"properties": "calls", **_NEW_CONTACT},
    "log_chat": {"properties": "notes", **_NEW_CONTACT},
    "log_message": _NEW_CONTACT,
    "upsert_contact": {"properties": "contacts", **_NEW_CONTACT},
    "update_contact": {"properties": "contacts"},
    "create_task": {"properties": "tasks", **_NEW_CONTACT},
    "create_ticket": {"properties": "tickets", **_NEW_CONTACT},
    "create_deal": {"properties": "deals", **_NEW_CONTACT},
    "create_meeting": {"properties": "meetings", **_NEW_CONTACT},
    "close_ticket": {"properties": "tickets"},
}
"""Action -> the params that set fields, and the object type that these fields belong to."""
_VALUES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "log_call": {"call_type": ("calls", "hs_activity_type")},
    "create_meeting": {"meeting_type": ("meetings", "hs_activity_type")},
    "create_deal": {"amount": ("deals", "amount"), "close_date": ("deals", "closedate")},
}
"""Action -> the params that are the value of one property, with its object type."""


def written_types(uses: Sequence[ActionUse]) -> list[str]:
    """Return the object types whose fields the rules set."""
    kinds = [kind for use in uses for param, kind in _params_of(use) if use.properties(param)]
    kinds += [kind for use in uses for param, (kind, _) in _values_of(use)]
    return list(dict.fromkeys(kinds))


def property_problems(account: Account, uses: Sequence[ActionUse]) -> Iterator[RuleProblem]:
    """Find properties that the account does not have or does not let anybody write, and values that it refuses.

    The definitions of each object type that the rules write take one request.
    """
    definitions: dict[str, Mapping[str, Any]] = {}
    for kind in written_types(uses):
        try:
            definitions[kind] = account.property_definitions(kind)
        except Exception as error:
            if status_of(error) != 403:
                raise
            scopes = " or ".join(required_scopes(error))
            text = f"the properties of {kind} in the rules are not checked: the key lacks the scope {scopes}"
            yield RuleProblem(text, level="warning")
    for use in uses:
        for param, kind in _params_of(use):
            for name, value in use.properties(param).items() if kind in definitions else ():
                found = _property_problem(kind, definitions[kind], name, value)
                if found:
                    yield RuleProblem(*found, use, (param, name))
        for param, (kind, name) in _values_of(use):
            if kind in definitions:
                found = _property_problem(kind, definitions[kind], name, use.params[param])
                if found:
                    yield RuleProblem(*found, use, (param,))


def reference_problems(account: Account, scopes: Scopes, uses: Sequence[ActionUse]) -> Iterator[RuleProblem]:
    """Find owners, call outcomes, pipelines and stages that the account does not have.

    Without the scope for owners, an owner's ID cannot be looked up, but it works.
    """
    for use in uses:
        for location, owner in _owners_in(use):
            if owner.isdecimal() and scopes.missing(OWNERS_READ):
                continue
            if text := account.owners.verify(owner).problem:
                known = account.owners.emails() if "@" in owner and not scopes.missing(OWNERS_READ) else []
                suggestion = nearest(owner, known)
                yield RuleProblem(text, f"did you mean `{suggestion}`?" if suggestion else "", use, location)
        outcome = use.params.get("disposition")
        if isinstance(outcome, str) and (text := account.call_outcomes.resolve(outcome).problem):
            yield _problem(text, use, ("disposition",))
        if use.action.name in _STAGES and (found := _stage_problem(account, use)):
            yield found
        if use.action.name == "add_to_list" and (found := _list_problem(account, use)):
            yield found


_STAGES: Mapping[str, Callable[[Account], PipelineStages]] = {
    "create_ticket": lambda account: account.ticket_stages,
    "create_deal": lambda account: account.deal_stages,
}


def _values_of(use: ActionUse) -> list[tuple[str, tuple[str, str]]]:
    return [item for item in _VALUES.get(use.action.name, {}).items() if item[0] in use.params]


def _params_of(use: ActionUse) -> Iterator[tuple[str, str]]:
    yield from _WRITTEN.get(use.action.name, {}).items()


def _problem(text: str, use: ActionUse, location: Location) -> RuleProblem:
    text, _, hint = text.partition("; ")
    return RuleProblem(text, hint, use, location)


def _stage_problem(account: Account, use: ActionUse) -> RuleProblem | None:
    """Return what is wrong with the pipeline or the stage, unless one of them comes from the event."""
    pipeline, stage = use.params.get("pipeline"), use.params.get("stage")
    if FROM_EVENT in (pipeline, stage) or pipeline is stage is None:
        return None
    try:
        text = _STAGES[use.action.name](account).resolve(pipeline, stage).problem
    except Exception as error:
        if status_of(error) != 403:
            raise
        return None  # the scope is reported already
    location = "pipeline" if " pipeline `" in text else "stage"
    return _problem(text, use, (location,)) if text else None


def _list_problem(account: Account, use: ActionUse) -> RuleProblem | None:
    """Return why contacts cannot be added to the list, unless its name comes from the event."""
    name = use.params.get("list")
    if name in (None, FROM_EVENT):
        return None
    try:
        text = account.lists.resolve(str(name)).problem
        hint = account.lists.suggestion(str(name)) if " has no list " in text else ""
    except Exception as error:
        if status_of(error) != 403:
            raise
        return None  # the scope is reported already
    text, _, explanation = text.partition("; ")
    return RuleProblem(text, hint or explanation, use, ("list",)) if text else None


def _owners_in(use: ActionUse) -> Iterator[tuple[Location, str]]:
    """Return the owners that a step names, and where: the param `owner`, and HubSpot's property for it."""
    named: dict[Location, Any] = {("owner",): use.params.get("owner")}
    for param, _ in _params_of(use):
        named[param, OWNER_PROPERTY] = use.properties(param).get(OWNER_PROPERTY)
    for location, owner in named.items():
        if owner not in (None, FROM_EVENT, CONTACT_OWNER):
            yield location, str(owner)


def _property_problem(
    kind: str, definitions: Mapping[str, Any], name: str, value: Any
) -> tuple[str, str] | None:
    """Return what is wrong with one property, and a hint."""
    definition = definitions.get(name)
    if definition is None:
        by_label = {str(item.label).lower(): item.name for item in definitions.values()}
        internal = by_label.get(name.lower())
        hint = f"did you mean `{internal}`?" if internal else did_you_mean(name, definitions)
        return f"HubSpot's {kind} have no property `{name}`", hint
    if getattr(definition.modification_metadata, "read_only_value", False):
        return (
            f"the property `{name}` of HubSpot's {kind} is read-only",
            "HubSpot itself sets it; leave it out",
        )
    if value is None or value is FROM_EVENT or name == OWNER_PROPERTY:
        return None
    return _value_problem(definition, name, value)


def _value_problem(definition: Any, name: str, value: Any) -> tuple[str, str] | None:
    """Return why the property does not take a value, without the parts of it that come from the event."""
    if isinstance(value, list):
        value = [item for item in value if item is not FROM_EVENT]
    problem = fit_value(definition, value).problem if value != [] else ""
    if not problem:
        return None
    if definition.type != "enumeration":
        return f"the property `{name}` {problem}, not `{_shown(value)}`", ""
    options = options_of(definition)
    if isinstance(value, list) and not takes_several(definition):
        return f"the property `{name}` {problem}", ""
    items = to_items(value, options) if takes_several(definition) else [value]
    unknown = next(item for item in items if find_option(item, options) is None)
    return f"the property `{name}` has no option `{_shown(unknown)}`", did_you_mean(_shown(unknown), options)


def _shown(value: Any) -> str:
    return to_text(value)[:80]
