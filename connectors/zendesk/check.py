"""Checks of the account, and of the rules against what it has set up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bridge.connector import ActionUse, RuleProblem, did_you_mean
from bridge.errors import AccountError, PermanentError

from .account import AGENT_ROLES, Account
from .fields import STATUS_CATEGORIES, expectation, field_value
from .settings import CLIENTS_PAGE, connector

_NAMED = {"group": "groups", "brand": "brands", "form": "ticket_forms", "status": "custom_statuses"}
"""Param -> kind of record that it names."""


@connector.check
def check(account: Account) -> str:
    """Log in, and read what the actions and their lookups read. Writes nothing."""
    user = account.api.read("/api/v2/users/me", holds="user", kind=dict)
    if user.get("id") is None:
        raise AccountError(
            "Zendesk did not accept the credentials", fix=f"create an OAuth client ({CLIENTS_PAGE})"
        )
    if user.get("role") not in AGENT_ROLES:
        raise AccountError(
            "the user of the connection is not an agent",
            fix="give the user the role of an agent or administrator",
        )
    tickets = account.api.read("/api/v2/tickets", query={"per_page": 1}, holds="tickets", kind=list)
    if tickets:  # audits take the whole scope `read`
        ticket_id = tickets[0].get("id")
        account.api.read(
            "/api/v2/tickets/{}/audits", ticket_id, query={"page[size]": 1}, holds="audits", kind=list
        )
    return f"authenticated at {account.host} as {user.get('name') or 'an unnamed user'} ({user['role']})"


@connector.check_rules
def check_rules(account: Account, uses: Sequence[ActionUse]) -> list[RuleProblem]:
    """Find groups, agents, brands, forms, statuses, custom fields and values that the account does not have."""
    problems = [problem for use in uses for problem in _problems(account, use)]
    if account.uses_api_token:
        problems.append(
            RuleProblem(
                "Zendesk accepts API tokens until April 30, 2027, and deactivates those unused for 30 days",
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
    if isinstance(assignee, str | int) and (text := _not_an_agent(account, str(assignee))):
        yield RuleProblem(text, "", use, ("assignee",))
    for name, value in use.properties("custom_fields").items():
        if problem := _unknown(account, "ticket_fields", name) or _wrong_value(account, name, value):
            yield RuleProblem(*problem, use, ("custom_fields", name))


def _unknown(account: Account, kind: str, name_or_id: str) -> tuple[str, str] | None:
    """Return what is wrong with the name of a record, and a hint."""
    try:
        account.find(kind, name_or_id)
    except PermanentError as error:
        return error.detail, did_you_mean(name_or_id, [name for name, _ in account.named(kind)])
    return None


def _not_an_agent(account: Account, email_or_id: str) -> str:
    """Return what is wrong with an assignee, empty if it is an agent."""
    try:
        user_id = account.find_agent(email_or_id)
        user = account.api.read("/api/v2/users/{}", user_id, holds="user", kind=dict)
    except PermanentError as error:
        return error.detail
    return "" if user.get("role") in AGENT_ROLES else f"the user {user_id} of Zendesk is not an agent"


def _wrong_value(account: Account, name: str, value: Any) -> tuple[str, str] | None:
    """Return what is wrong with the literal value of a custom field."""
    if not isinstance(value, str | int | float | list):
        return None
    field = account.find("ticket_fields", name)
    if field_value(field, value) is not None:
        return None
    return f"the custom field `{name}` does not accept `{value}`", f"it takes {expectation(field)}"
