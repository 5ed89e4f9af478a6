"""Person accounts: in some orgs, a person is an account that has a contact of its own.

Calls are logged on that contact as on any other. Its fields belong to the account, and the bridge does not change them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from bridge.errors import AccountError, DeliveryError, PermanentError

from . import sdk
from .org import Org
from .soql import select

_FLAG = "IsPersonAccount"
"""Field of contacts and accounts, only in orgs with person accounts."""


def business_accounts(org: Org) -> str:
    """Return the SOQL condition for accounts that can have several contacts; empty if all can."""
    return f"{_FLAG} = false" if _FLAG in org.fields("Account") else ""


def refusal(org: Org, errors: Mapping[str, DeliveryError]) -> dict[str, DeliveryError]:
    """Return the errors of contacts that Salesforce refused to change, by ID, in better words for person accounts.

    Salesforce reports missing access. The account is then not the reason, and the connection must not be paused.
    """
    refused = {
        key: error for key, error in errors.items() if isinstance(error, AccountError | PermanentError)
    }
    return {
        record_id: PermanentError(
            "the contact belongs to a person account, whose fields the bridge does not change: change the account "
            "instead",
            code="person_account",
        )
        for record_id in _person_contacts(org, refused)
    }


def _person_contacts(org: Org, ids: Collection[str]) -> list[str]:
    if not ids or _FLAG not in org.fields("Contact"):
        return []
    condition = sdk.format_soql(f"Id IN {{}} AND {_FLAG} = true", list(ids))
    return [str(row["Id"]) for row in org.query(select(("Id",), "Contact", condition))]
