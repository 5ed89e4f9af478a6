"""The check of an account, and its one-time setup."""

from __future__ import annotations

from .account import Account
from .deals import REFERENCE_FIELD
from .settings import connector

CHAT_TYPE = "Chat"


@connector.check
def check(account: Account) -> str:
    """Authenticate and read the company. Writes nothing."""
    user = account.own_user()
    domain = f" ({user['company_domain']}.pipedrive.com)" if user.get("company_domain") else ""
    return f"authenticated at {user.get('company_name') or 'a company'}{domain}"


@connector.setup
def setup(account: Account) -> str:
    """Create the field for references of deals and the activity type of chats, unless they exist."""
    account.forget()
    done = []
    if account.fields("deal").find(REFERENCE_FIELD) is None:
        field = {"field_name": REFERENCE_FIELD, "field_type": "varchar"}
        account.api.write("POST", "/api/v2/dealFields", json=field, holds="data", kind=dict)
        done.append(f"created the deal field `{REFERENCE_FIELD}`")
    if all(str(item.get("name")).casefold() != CHAT_TYPE.casefold() for item in account.activity_types()):
        new = {"name": CHAT_TYPE, "icon_key": "bubble"}
        account.api.write("POST", "/api/v1/activityTypes", json=new, holds="data", kind=dict)
        done.append(f"created the activity type `{CHAT_TYPE}`")
    account.forget()
    return "; ".join(done) or "nothing to do: the deal field and the activity type exist"
