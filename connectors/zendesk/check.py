"""Checks of the account, and of the rules against what it has set up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bridge.connector import ActionUse, RuleProblem, did_you_mean
from bridge.errors import AccountError, PermanentError

from .account import NOUNS, Account
from .fields import STATUS_CATEGORIES, expectation, field_value
from .settings import CLIENTS_PAGE, connector

_NAMED = {"group": "groups", "brand": "brands", "form": "ticket_forms", "status": "custom_statuses"}
"""Param -> kind of record that it names."""


@connector.check
def check(account: Account) -> str:
    """Log in, and read a user and tickets. Writes nothing."""
    user = account.api.read("/api/v2/users/me", holds="user", kind=dict)
    if user.get("id") is None:
        raise AccountError(
            "Zendesk did not accept the credentials", fix=f"create an OAuth client ({CLIENTS_PAGE})"
        )
    if user.get("role") not in ("agent", "admin"):
        raise AccountError(
            "the user of the connection is not an agent",
            fix="give the user the role of an agent or administrator",
        )
    account.api.read("/api/v2/tickets", query={"per_page": 1}, holds="tickets", kind=list)
    return f"authenticated at {account.host} as an {user['role']}"


@connector.check_rules
def check_rules(account: Account, uses: Sequence[ActionUse]) -> list[RuleProblem]:
    """Find groups, agents, brands, forms, statuses, custom fields and values that the account does not have."""
    problems = [problem for use in uses for problem in _problems(account, use)]
    if account.uses_api_token:
        problems.append(
            RuleProblem(
                "Zendesk accepts API tokens until April 30, 2027, and deletes those that are not used for 30 days",
                f"create an OAuth client ({CLIENTS_PAGE}), and set its ID and secret instead",
                level="warning",
            )
        )
    return problems


def _problems(account: Account, use: ActionUse) -> Iterator[RuleProblem]:
    for name, kind in _NAMED.items():
        value = use.params.get(name)
        if not isinstance(value, str | int) or (name == "status" and str(value).lower() in STATUS_CATEGORIES):
            continue
        if problem := _unknown(account, kind, str(value)):
            yield RuleProblem(*problem, use, (name,))
    assignee = use.params.get("assignee")
    if isinstance(assignee, str):
        try:
            account.find_agent(assignee)
        except PermanentError as error:
            yield RuleProblem(error.detail, "", use, ("assignee",))
    for name, value in use.properties("custom_fields").items():
        if problem := _unknown(account, "ticket_fields", name) or _wrong_value(account, name, value):
            yield RuleProblem(*problem, use, ("custom_fields", name))


def _unknown(account: Account, kind: str, name_or_id: str) -> tuple[str, str] | None:
    """Return what is wrong with the name of a record, and a hint."""
    try:
        account.find(kind, name_or_id)
    except PermanentError:
        names: Mapping[str, Any] = account.names(kind)
        return f"Zendesk has no {NOUNS[kind]} `{name_or_id}`", did_you_mean(name_or_id, names)
    return None


def _wrong_value(account: Account, name: str, value: Any) -> tuple[str, str] | None:
    """Return what is wrong with the literal value of a custom field."""
    if not isinstance(value, str | int | float | list):
        return None
    field = account.find("ticket_fields", name)
    if field_value(field, value) is not None:
        return None
    return f"the custom field `{name}` does not accept `{value}`", f"it takes {expectation(field)}"
