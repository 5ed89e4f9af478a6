"""The set-up of a Salesforce connection: the org's address, and logins that Salesforce rejects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import AccountError, AuthenticationError, ConfigError, TransientError
from bridge.sandbox import RunningSandbox
from bridge.sandbox.salesforce.sessions import Sessions
from bridge.testing import load_connector
from tests.integration.crm import CrmConnection

TOKEN = "/services/oauth2/token"


def url_setting(value: str) -> str:
    """Return SALESFORCE_URL as the connector reads it."""
    environ = {
        "SALESFORCE_URL": value,
        "SALESFORCE_CONSUMER_KEY": "key",
        "SALESFORCE_CONSUMER_SECRET": "secret",
    }
    read: Any = load_connector("salesforce").settings.from_environment(environ, "SALESFORCE_")
    return str(read.url)


# ---------------------------------------------------------------------------------------------------- address


@pytest.mark.parametrize(
    ("address", "my_domain"),
    [
        ("https://acme.my.salesforce.com", None),
        ("https://ACME.my.salesforce.com/", None),
        ("https://acme--uat.sandbox.my.salesforce.com", None),
        ("acme.my.salesforce.com", "acme"),
        ("http://acme.my.salesforce.com", "acme"),
        ("https://acme.my.salesforce.com/lightning/page/home", "acme"),
        ("https://someone:pa55word@acme.my.salesforce.com", "acme"),
        ("https://acme.lightning.force.com", "acme"),
        ("acme.lightning.force.com/lightning/o/Contact/list?filterName=Recent", "acme"),
        ("https://acme--uat.sandbox.lightning.force.com/", "acme--uat.sandbox"),
        ("https://acme--uat.lightning.force.com", "acme--uat.sandbox"),
        ("https://acme-dev-ed.develop.lightning.force.com", "acme-dev-ed.develop"),
        ("https://acme.my.salesforce-setup.com/lightning/setup/SetupOneHome/home", "acme"),
        ("https://acme--uat.sandbox.my.salesforce-setup.com", "acme--uat.sandbox"),
        ("https://acme--c.vf.force.com/apex/Page", "acme"),
        ("https://acme--uat--c.sandbox.vf.force.com", "acme--uat.sandbox"),
        ("https://acme--c.na139.visual.force.com", "acme"),
        ("https://acme.file.force.com/sfc", "acme"),
        ("https://acme.my.site.com/help/s", "acme"),
        ("acme--uat.sandbox.my.site.com", "acme--uat.sandbox"),
        ("https://acme.my.salesforce-sites.com", "acme"),
        ("https://acme.secure.force.com", "acme"),
        ("https://acme.builder.salesforce-experience.com", "acme"),
        ("https://acme.salesforce.com", "acme"),
    ],
)
def test_each_address_of_an_org_is_accepted_or_corrected(address: str, my_domain: str | None) -> None:
    if my_domain is None:
        assert url_setting(address) == address.rstrip("/").lower()
        return
    with pytest.raises(ConfigError) as caught:
        url_setting(address)
    assert f"https://{my_domain}.my.salesforce.com" in str(caught.value)
    assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://login.salesforce.com",
        "test.salesforce.com",
        "https://login.salesforce.com/services/oauth2/token",
        "https://na139.salesforce.com",
        "https://eu5.salesforce.com",
        "https://www.salesforce.com",
    ],
)
def test_address_that_orgs_share_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(
        ConfigError, match=r"the same for all orgs: .* like https://acme\.my\.salesforce\.com"
    ):
        url_setting(address)


_NAME = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,5})?", fullmatch=True)


@given(
    name=_NAME,
    sandbox=st.none() | st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True),
    form=st.sampled_from(
        ["{0}.lightning.force.com", "{0}.my.salesforce-setup.com", "{0}.my.site.com", "{0}.file.force.com"]
    ),
    scheme=st.sampled_from(["https://", "http://", ""]),
    path=st.sampled_from(["", "/", "/lightning/page/home", "/s?x=1#y"]),
)
def test_corrected_address_is_always_accepted(
    name: str, sandbox: str | None, form: str, scheme: str, path: str
) -> None:
    org = f"{name}--{sandbox}.sandbox" if sandbox else name
    with pytest.raises(ConfigError) as caught:
        url_setting(scheme + form.format(org) + path)
    correct = f"https://{org}.my.salesforce.com"
    assert f"set it to {correct} " in str(caught.value)
    assert url_setting(correct) == correct


@pytest.mark.parametrize("after_login", [False, True])
def test_redirect_of_a_renamed_my_domain_names_the_new_address(
    salesforce: CrmConnection, sandbox: RunningSandbox, after_login: bool
) -> None:
    if after_login:
        salesforce.deliver("log_call")
    sandbox.salesforce.moved_to = "harbourlight-new.my.salesforce.com"
    with pytest.raises(AccountError) as caught:
        salesforce.deliver("log_call")
    assert caught.value.fix == "set SALESFORCE_URL to https://harbourlight-new.my.salesforce.com"


def test_redirect_to_another_host_names_it_and_sends_no_secret_there(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.moved_to = "proxy.example.com"
    with pytest.raises(TransientError, match=r"leads to proxy\.example\.com") as caught:
        salesforce.deliver("log_call")
    assert caught.value.reason != "network"
    assert salesforce.requests() == [f"POST {TOKEN}"]


# ----------------------------------------------------------------------------------------------------- logins


@pytest.mark.parametrize(
    ("change", "detail", "fix"),
    [
        ({"run_as": None}, "no user to run as", "Policies, OAuth Flows"),
        (
            {"client_credentials_enabled": False},
            "does not allow this OAuth flow",
            "Enable Client Credentials",
        ),
        ({"user_approved": False}, "may not use the external client app", "profile or permission set"),
        ({"user_active": False}, "inactive, frozen or locked out", "Setup, Users"),
        ({"org_active": False}, "the org is inactive", "in a browser"),
        ({"ip_restricted": True}, "IP address of this host", "Relax IP restrictions"),
    ],
)
def test_login_rejected_by_a_setting_of_the_org_names_its_page(
    salesforce: CrmConnection, sandbox: RunningSandbox, change: dict[str, Any], detail: str, fix: str
) -> None:
    for name, value in change.items():
        assert hasattr(Sessions(), name)
        setattr(sandbox.salesforce.sessions, name, value)
    with pytest.raises(AccountError) as caught:
        salesforce.deliver("log_call")
    assert type(caught.value) is AccountError  # the credentials are right
    assert detail in caught.value.detail
    assert fix in caught.value.fix
    assert sandbox.salesforce.tasks == []


@pytest.mark.parametrize(
    ("variable", "detail"),
    [
        ("SALESFORCE_CONSUMER_KEY", "no external client app with this consumer key"),
        ("SALESFORCE_CONSUMER_SECRET", "the consumer secret is wrong"),
    ],
)
def test_wrong_key_or_secret_names_the_variable_and_its_page(
    sandbox: RunningSandbox, variable: str, detail: str
) -> None:
    connection = CrmConnection("salesforce", sandbox, {variable: "wrong-and-secret"})
    with pytest.raises(AuthenticationError) as caught:
        connection.connected.check()
    connection.close()
    assert detail in caught.value.detail
    assert f"copy {variable} from Setup, External Client App Manager" in caught.value.fix
    assert "wrong-and-secret" not in f"{caught.value!r} {caught.value.fix}"


@pytest.mark.parametrize(
    ("error", "description", "detail"),
    [
        ("invalid_grant", "user hasn't approved this consumer", "may not use the external client app"),
        ("invalid_grant", "inactive user", "inactive, frozen or locked out"),
        ("invalid_grant", "inactive organization", "the org is inactive"),
        ("invalid_grant", "audience is invalid", "production and sandbox"),
        ("invalid_grant", "invalid assertion", "does not accept the signed login"),
        ("invalid_grant", "request not supported on this domain", "not the org's My Domain URL"),
        ("invalid_grant", "no valid scopes defined", "no scope for the API"),
        ("app_not_found", "External client app is not installed in this org", "belongs to another org"),
        ("invalid_client_id", "client identifier invalid", "no external client app with this consumer key"),
        ("invalid_client", "invalid client credentials", "the consumer secret is wrong"),
        ("invalid_grant", "something new", "something new"),
    ],
)
def test_each_known_error_of_the_token_endpoint_is_told_in_plain_words(
    salesforce: CrmConnection, sandbox: RunningSandbox, error: str, description: str, detail: str
) -> None:
    body = {"error": error, "error_description": description}
    sandbox.fault("salesforce", path=TOKEN, status=400, body=body)
    with pytest.raises(AccountError) as caught:
        salesforce.deliver("log_call")
    assert detail in caught.value.detail
    assert caught.value.fix


def test_user_deactivated_during_a_session_is_named(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_call")
    sandbox.salesforce.sessions.user_active = False
    sandbox.salesforce.expire_sessions()
    with pytest.raises(AccountError, match="inactive, frozen or locked out"):
        salesforce.deliver("log_call")


def test_api_version_that_the_org_lacks_is_named(sandbox: RunningSandbox) -> None:
    connection = CrmConnection("salesforce", sandbox, {"SALESFORCE_API_VERSION": "99.0"})
    with pytest.raises(AccountError, match=r"no API version 99\.0") as caught:
        connection.connected.check()
    connection.close()
    assert "SALESFORCE_API_VERSION" in caught.value.fix


# ---------------------------------------------------------------------------------------------- setup of fields


def run_setup(connection: CrmConnection) -> str:
    assert connection.connector.run_setup is not None
    return str(connection.connector.run_setup(connection.connected.client))


def test_setup_keeps_existing_fields(salesforce: CrmConnection) -> None:
    assert run_setup(salesforce) == "Task.Conversation_Id__c exists; Case.Conversation_Id__c exists"
    assert salesforce.requests()[1:] == [
        "GET /services/data/v66.0/sobjects/Task/describe",
        "GET /services/data/v66.0/sobjects/Case/describe",
    ]


def test_setup_creates_the_fields_and_says_that_they_must_be_granted(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    org = sandbox.salesforce
    for kind in ("Task", "Case"):
        org.remove_field(kind, "Conversation_Id__c")
    created = run_setup(salesforce)
    assert "Activity.Conversation_Id__c created; grant read and edit access" in created
    assert "Case.Conversation_Id__c created; grant read and edit access" in created
    assert "Activity.Conversation_Id__c exists, but is hidden" in run_setup(salesforce)

    for kind in ("Task", "Case"):
        org.grant_field(kind, "Conversation_Id__c")
        field = org.crm.types[kind].fields["Conversation_Id__c"]
        assert field.external_id
        assert field.unique
    assert "exists" in run_setup(salesforce)


def test_setup_without_permission_describes_manual_steps(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.remove_field("Task", "Conversation_Id__c")
    sandbox.salesforce.crm.access.may_customize = False
    with pytest.raises(
        ConfigError,
        match=r"Activity, Fields, add the text field Conversation_Id__c \(255, External ID, unique\)",
    ):
        run_setup(salesforce)


def test_setup_leaves_out_cases_that_the_user_may_not_see(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.deny("Case", "read")
    assert "no field for Case: the integration user has no Read" in run_setup(salesforce)
