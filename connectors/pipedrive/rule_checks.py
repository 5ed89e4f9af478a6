"""Checks of what the rules write: fields, options, owners, types of activities, pipelines and stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bridge.connector import CONTACT_OWNER, FROM_EVENT, ActionUse, RuleProblem, did_you_mean

from .account import Account
from .deals import REFERENCE_FIELD, find_stage
from .fields import WrongValue
from .owners import find_owner
from .settings import connector

_NEW_CONTACT = {"new_contact": "person"}
_WRITTEN: Mapping[str, Mapping[str, str]] = {
    "log_call": {"properties": "activity", **_NEW_CONTACT},
    "log_chat": {"properties": "activity", **_NEW_CONTACT},
    "upsert_person": {"properties": "person", **_NEW_CONTACT},
    "create_deal": {"properties": "deal", **_NEW_CONTACT},
}
"""Action -> the params that set fields, and the kind of record that these belong to."""
_TYPES = {"log_call": "call_type", "log_chat": "chat_type"}


@connector.check_rules
def check_rules(account: Account, uses: Sequence[ActionUse]) -> list[RuleProblem]:
    """Find what the account does not have, with one request per kind of thing that the rules name."""
    problems = [problem for use in uses for problem in _problems(account, use)]
    if any(use.action.name == "create_deal" for use in uses) and not account.fields("deal").find(
        REFERENCE_FIELD
    ):
        problems.append(
            RuleProblem(
                f"Pipedrive has no deal field `{REFERENCE_FIELD}`",
                "run `bridge connections setup`, which creates it; without it, a deal whose response was lost needs "
                "review",
                level="warning",
            )
        )
    return problems


def _problems(account: Account, use: ActionUse) -> Iterator[RuleProblem]:
    for param, kind in _WRITTEN.get(use.action.name, {}).items():
        for name, value in use.properties(param).items():
            if found := _field_problem(account, kind, name, value):
                yield RuleProblem(*found, use, (param, name))
    owner = use.params.get("owner")
    if owner not in (None, FROM_EVENT, CONTACT_OWNER) and (text := find_owner(account, str(owner)).problem):
        known = [str(user.get("email")) for user in account.users() if user.get("active_flag") is not False]
        yield RuleProblem(text, did_you_mean(str(owner), known) if "@" in str(owner) else "", use, ("owner",))
    pipeline, stage = use.params.get("pipeline"), use.params.get("stage")
    if FROM_EVENT not in (pipeline, stage) and (text := find_stage(account, pipeline, stage).problem):
        place = "pipeline" if "no pipeline" in text else "stage"
        items = account.pipelines() if place == "pipeline" else account.stages()
        wanted = str(pipeline if place == "pipeline" else stage)
        yield RuleProblem(
            text, did_you_mean(wanted, [str(item.get("name")) for item in items]), use, (place,)
        )
    wanted_type = use.params.get(_TYPES.get(use.action.name, ""))
    if isinstance(wanted_type, str):
        names = [str(item.get(key)) for item in account.activity_types() for key in ("name", "key_string")]
        if wanted_type.casefold() not in [name.casefold() for name in names]:
            text = f"Pipedrive has no activity type `{wanted_type}`"
            yield RuleProblem(text, did_you_mean(wanted_type, names), use, (_TYPES[use.action.name],))


def _field_problem(account: Account, kind: str, name: str, value: object) -> tuple[str, str] | None:
    """Return what is wrong with a field or its value, and a hint."""
    fields = account.fields(kind)
    if found := fields.problem(kind, name):
        return found
    field = fields.find(name)
    if field is None or value is None or value is FROM_EVENT:
        return None
    if isinstance(value, list) and FROM_EVENT in value:
        return None
    if field.type == "user" or field.code == "owner_id":
        text = find_owner(account, str(value)).problem
        return (f"the field `{name}` has an unknown user: {text}", "") if text else None
    try:
        field.convert(value, "EUR")
    except WrongValue as error:
        return f"the field `{name}` {error}", ""
    return None
