"""Check and setup of a HubSpot account: what the key may do, and the unique properties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge.connector import ActionUse, RuleProblem
from bridge.errors import ConfigError

from .account import Account
from .errors import required_scopes, status_of
from .property_checks import property_problems, reference_problems
from .scopes import (
    CONTACTS_READ,
    DEAL_PROPERTIES_WRITE,
    PROPERTIES_READ,
    PROPERTIES_WRITE,
    Scopes,
    actions_by_scope,
    features_of,
)
from .settings import KEYS_PAGE, connector
from .unique_properties import UNIQUE_PROPERTIES

_KINDS_OF_ACTIONS = {
    "log_call": ("calls", "contacts"),
    "log_chat": ("notes", "contacts"),
    "log_message": ("communications", "emails", "contacts"),
    "create_task": ("tasks", "contacts"),
    "create_ticket": ("tickets", "contacts"),
    "create_deal": ("deals", "contacts"),
    "create_meeting": ("meetings", "contacts"),
    "upsert_contact": ("contacts",),
}
"""Action -> the object types whose unique properties keep it from writing anything twice."""


@connector.check
def check(account: Account) -> str:
    """Log in, and check the settings. Writes nothing."""
    try:
        account.objects.get_page("contacts", limit=1)
    except Exception as error:
        if status_of(error) != 403 or not required_scopes(error):
            raise  # a missing scope is named together with all others, by `check_rules`
    if account.settings.do_not_call_property is not None:
        account.require_boolean_property(account.settings.do_not_call_property)
    return "key accepted"


@connector.check_rules
def check_rules(account: Account, uses: Sequence[ActionUse]) -> list[RuleProblem]:
    """Find the scopes and unique properties that these actions lack, and what the account will refuse."""
    scopes = Scopes(account)
    return [
        *_scope_problems(scopes, uses),
        *_missing_unique_properties(account, scopes, uses),
        *property_problems(account, uses),
        *reference_problems(account, scopes, uses),
    ]


@connector.setup
def setup(account: Account) -> str:
    """Create the unique properties that prevent duplicate records, for every object type that the key may read."""
    notes = []
    for kind in UNIQUE_PROPERTIES:
        try:
            notes.append(account.unique_properties.ensure(kind))
        except Exception as error:
            scopes = required_scopes(error)
            if status_of(error) != 403 or not scopes or PROPERTIES_WRITE in scopes:
                raise
            notes.append(f"no property for {kind}, because the key lacks the scope {' or '.join(scopes)}")
    return "; ".join(notes)


def _scope_problems(scopes: Scopes, uses: Sequence[ActionUse]) -> Iterator[RuleProblem]:
    required = actions_by_scope(uses) or {CONTACTS_READ: ["messaging.crm_opt_outs"]}
    for scope, actions in required.items():
        if name := scopes.missing(scope):
            text = f"the key lacks the scope {name} (for {', '.join(actions)}): add it in HubSpot under {KEYS_PAGE}"
            yield RuleProblem(text)
        elif not scopes.is_known(scope):
            text = f"HubSpot does not tell if this key has the scope {scope} (for {', '.join(actions)})"
            yield RuleProblem(text, level="warning")
    for feature in features_of(uses):
        if feature.scope not in required and scopes.missing(feature.scope):
            yield RuleProblem(f"without the scope {feature.scope}, {feature.without}", level="warning")


def _missing_unique_properties(
    account: Account, scopes: Scopes, uses: Sequence[ActionUse]
) -> Iterator[RuleProblem]:
    actions = {use.action.name for use in uses}
    kinds = dict.fromkeys(kind for action in actions for kind in _KINDS_OF_ACTIONS.get(action, ()))
    if kinds and (scope := scopes.missing(PROPERTIES_READ)):
        text = f"the unique properties are not checked: the key lacks the scope {scope} ({KEYS_PAGE})"
        yield RuleProblem(text, level="warning")
        return
    missing = []
    for kind in (kind for kind in UNIQUE_PROPERTIES if kind in kinds):
        try:
            exists = account.unique_properties.exists(kind)
        except ConfigError as error:
            yield RuleProblem(str(error))
            continue
        except Exception as error:
            if status_of(error) != 403:
                raise
            exists = True  # the scope for it is reported already
        missing += [] if exists else [f"{kind}.{UNIQUE_PROPERTIES[kind][0]}"]
    if not missing:
        yield from [RuleProblem("unique properties exist", level="warning")] if kinds else []
        return
    text = f"missing {', '.join(missing)}: run `bridge connections setup hubspot`"
    yield RuleProblem(text, level="warning")
    for_setup = [PROPERTIES_WRITE, *([DEAL_PROPERTIES_WRITE] if "deals" in kinds else [])]
    for scope in filter(None, map(scopes.missing, for_setup)):
        yield RuleProblem(f"the setup needs the scope {scope} ({KEYS_PAGE})", level="warning")
