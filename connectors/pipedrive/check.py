"""The check of an account, and its one-time setup."""

from __future__ import annotations

from bridge.errors import ConfigError, PermanentError

from .account import Account
from .deals import REFERENCE_FIELD
from .settings import connector

CHAT_TYPE = "Chat"


@connector.check
def check(account: Account) -> str:
    """Authenticate, read the company, and look for the filters of opt-outs. Writes nothing."""
    account.forget()
    user = account.own_user()
    settings = account.settings
    filters = {
        "PIPEDRIVE_DO_NOT_EMAIL_FILTER": settings.do_not_email_filter,
        "PIPEDRIVE_DO_NOT_CALL_FILTER": settings.do_not_call_filter,
    }
    for variable, number in filters.items():
        if number is not None:
            try:
                next(iter(account.list_all("person", filter_id=number, limit=1)), None)
            except PermanentError as error:
                raise ConfigError(
                    f"{variable}: Pipedrive has no filter {number} that the token's user can see ({error.code})"
                ) from error
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
