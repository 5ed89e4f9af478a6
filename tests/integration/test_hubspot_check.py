"""Check and setup of a HubSpot account: the scopes of the key, the unique properties, and account errors."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest

from bridge.errors import AccountError, ConfigError
from bridge.sandbox import RunningSandbox
from bridge.sandbox.hubspot.schema import PropertyDefinition
from bridge.sandbox.hubspot.scopes import ALL_SCOPES
from bridge.testing import load_connector
from tests.integration.crm import CrmConnection

SCOPES_OF_LOGS = (
    "crm.objects.contacts.read",
    "crm.objects.contacts.write",
    "crm.objects.companies.read",
    "crm.objects.deals.read",
    "tickets",
    "crm.objects.owners.read",
)


@pytest.fixture
def hubspot(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    """A connection to an account without setup."""
    connection = CrmConnection("hubspot", sandbox)
    yield connection
    connection.close()


def problems(hubspot: CrmConnection, *actions: str) -> list[str]:
    found = hubspot.connected.check_rules(*((action, {}) for action in actions))
    return [f"{problem.level}: {problem.text}" for problem in found]


def test_setup_creates_the_unique_properties_that_the_actions_of_the_rules_need(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    [missing] = problems(hubspot, "log_call", "create_task")
    assert missing == (
        "warning: missing calls.heppu_conversation_id, tasks.heppu_key, contacts.heppu_phone: run `bridge connections "
        "setup hubspot`"
    )
    assert "calls.heppu_conversation_id created" in hubspot.connected.setup()
    assert "calls.heppu_conversation_id exists" in hubspot.connected.setup()
    assert problems(hubspot, "log_call", "create_task") == ["warning: unique properties exist"]
    types = sandbox.hubspot.crm.types
    for kind in ("calls", "notes", "tasks", "contacts", "tickets", "communications", "emails"):
        assert any(definition.unique and definition.custom for definition in types[kind].properties.values())


def test_setup_leaves_out_an_object_type_that_the_key_may_not_read(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.missing_scopes = {"tickets"}
    result = hubspot.connected.setup()
    assert "calls.heppu_conversation_id created" in result
    assert "no property for tickets, because the key lacks the scope tickets" in result


@pytest.mark.parametrize("scope", SCOPES_OF_LOGS)
@pytest.mark.parametrize("is_private_app", [False, True], ids=["service key", "private app"])
def test_every_scope_of_the_actions_is_found_missing(
    hubspot: CrmConnection, sandbox: RunningSandbox, scope: str, is_private_app: bool
) -> None:
    sandbox.hubspot.is_private_app = is_private_app
    hubspot.connected.setup()
    sandbox.hubspot.missing_scopes = {scope}
    hubspot.connected.check()
    [problem] = [text for text in problems(hubspot, "log_call", "log_chat") if scope in text]
    if scope.startswith("crm.objects.contacts."):
        assert problem == (
            f"error: the key lacks the scope {scope} (for log_call, log_chat): add it in HubSpot under Development > "
            "Keys > Service keys"
        )
    else:
        assert problem.startswith(f"warning: without the scope {scope}, ")


def test_a_scope_that_only_tickets_need_is_an_error_only_with_tickets(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.missing_scopes = {"tickets"}
    assert "error: the key lacks the scope tickets (for close_ticket)" in "".join(
        problems(hubspot, "log_call", "close_ticket")
    )


@pytest.mark.parametrize(
    ("is_private_app", "expected"),
    [
        (False, "warning: HubSpot does not tell if this key has the scope subscriptions-status-write"),
        (True, "error: the key lacks the scope subscriptions-status-write"),
    ],
)
def test_scope_that_no_request_can_test_is_not_called_granted(
    hubspot: CrmConnection, sandbox: RunningSandbox, is_private_app: bool, expected: str
) -> None:
    sandbox.hubspot.is_private_app = is_private_app
    sandbox.hubspot.missing_scopes = {"subscriptions-status-write"}
    assert any(text.startswith(f"{expected} (for set_opt_out)") for text in problems(hubspot, "set_opt_out"))


def test_unique_properties_that_the_key_may_not_read_are_not_called_present(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.missing_scopes = {"crm.schemas.contacts.read"}
    found = problems(hubspot, "log_call")
    assert "unique properties exist" not in "".join(found)
    assert any("not checked: the key lacks the scope crm.schemas.contacts.read" in text for text in found)


@pytest.mark.parametrize("status", [200, 207, 400, 404, 405, 415, 422])
def test_any_answer_but_a_refusal_shows_that_the_key_has_the_scope(
    hubspot: CrmConnection, sandbox: RunningSandbox, status: int
) -> None:
    hubspot.connected.setup()
    sandbox.fault("hubspot", path="*/contacts/batch/update", status=status, body={}, times=None)
    assert problems(hubspot, "log_call") == ["warning: unique properties exist"]


def test_check_changes_nothing(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    hubspot.connected.setup()
    before = sandbox.hubspot.records()
    properties = {name: set(kind.properties) for name, kind in sandbox.hubspot.crm.types.items()}
    hubspot.requests()
    hubspot.connected.check()
    problems(hubspot, *hubspot.connector.actions)
    assert len(hubspot.requests()) <= 24
    assert sandbox.hubspot.records() == before
    assert {name: set(kind.properties) for name, kind in sandbox.hubspot.crm.types.items()} == properties


def test_every_action_states_its_scopes() -> None:
    actions = load_connector("hubspot").actions
    scopes = importlib.import_module("bridge_connectors.hubspot.scopes")
    assert all("crm.objects.contacts.read" in action.needs for action in actions.values())
    assert {scope for action in actions.values() for scope in action.needs} <= {*ALL_SCOPES}
    assert {name for feature in scopes.FEATURES for name in feature.actions} <= set(actions)


def test_non_unique_property_is_reported(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    hubspot.connected.setup()
    properties = sandbox.hubspot.crm.types["calls"].properties
    existing = properties["heppu_conversation_id"]
    properties["heppu_conversation_id"] = type(existing)(**(vars(existing) | {"unique": False}))
    expected = "property heppu_conversation_id of calls is not unique: archive it"
    assert expected in "".join(problems(hubspot, "log_call"))
    with pytest.raises(ConfigError, match=expected):
        hubspot.connected.setup()


def test_missing_property_without_schema_scope_pauses_and_names_the_setup_command(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.missing_scopes = {"crm.schemas.contacts.write"}
    with pytest.raises(AccountError) as caught:
        hubspot.deliver("log_call")
    assert "HubSpot has no property heppu_conversation_id for calls" in caught.value.detail
    assert "run `bridge connections setup hubspot` once with a key that has it" in caught.value.fix
    # A contact is created without the unique property, which only prevents duplicates while the index lags.
    assert len(sandbox.hubspot.contacts) == 1


def test_account_with_ten_unique_properties_pauses_the_connection(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    calls = sandbox.hubspot.crm.types["calls"].properties
    for number in range(10):
        calls[f"other_{number}"] = PropertyDefinition(f"other_{number}", unique=True, custom=True)
    with pytest.raises(AccountError) as caught:
        hubspot.deliver("log_call")
    assert caught.value.detail.startswith("HubSpot has no property heppu_conversation_id for calls")
    assert "calls can have ten unique properties: delete one" in caught.value.fix


def test_missing_scope_of_an_action_pauses_the_connection(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.missing_scopes = {"crm.objects.contacts.write"}
    with pytest.raises(AccountError) as caught:
        hubspot.deliver("log_call")
    assert caught.value.reason == "account"
    assert caught.value.pause_reason == (
        "the HubSpot key lacks the scope crm.objects.contacts.write; add it in HubSpot under Development > Keys > "
        "Service keys"
    )
