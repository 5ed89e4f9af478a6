"""Links to the providers: built by connectors from the settings, https only, and never from text of a provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from bridge.connector import Connector, ConnectorSettings, ProviderRecord, UncertainDelivery, WhereToLook
from bridge.connector.discovery import Registry
from bridge.connector.provider_records import safe_url
from bridge.worker.provider_links import ProviderLinks

ACCOUNT_SID = "AC" + "0" * 32
MESSAGE_SID = "SM" + "1" * 32
SETTINGS: dict[str, dict[str, Any]] = {
    "hubspot": {"access_token": "pat-eu1-x", "portal_id": "123"},
    "salesforce": {"url": "https://acme.my.salesforce.com", "consumer_key": "k", "consumer_secret": "s"},
    "twilio": {"account_sid": ACCOUNT_SID, "auth_token": "t", "from": "+12125550100"},
    "email": {"smtp_url": "smtp://127.0.0.1:1025", "from": "Harbour Light <hello@harbourlight.example>"},
}


@dataclass
class FakeAccount:
    connector: Connector
    settings: Any


def links_of(name: str, **changes: Any) -> ProviderLinks:
    connector = Registry().connector(name)
    account = FakeAccount(connector, connector.settings.model_validate(SETTINGS[name] | changes))
    return ProviderLinks({name: account}.get)


def delivery(action: str, **changes: Any) -> dict[str, Any]:
    row = {"params": "{}", "idempotency_key": "key", "conversation": "conv_1"}
    return row | {"action": action, "connection": action.split(".")[0]} | changes


@pytest.mark.parametrize(
    ("action", "external_id", "url"),
    [
        ("hubspot.log_call", "77", "https://app-eu1.hubspot.com/contacts/123/record/0-48/77"),
        ("hubspot.contact", "77", "https://app-eu1.hubspot.com/contacts/123/record/0-1/77"),
        ("hubspot.log_call", "77/../../evil", None),
        ("salesforce.log_call", "00T000000000001AAA", "https://acme.my.salesforce.com/00T000000000001AAA"),
        ("salesforce.log_call", "javascript:alert(1)", None),
        (
            "twilio.send_sms",
            MESSAGE_SID,
            f"https://www.twilio.com/console/sms/logs/{ACCOUNT_SID}/{MESSAGE_SID}",
        ),
        ("twilio.send_sms", "SM1", None),
        ("email.send", "<a@b>", None),
    ],
)
def test_record_url_is_built_from_settings_and_a_valid_id(
    action: str, external_id: str, url: str | None
) -> None:
    name = action.split(".")[0]
    assert links_of(name).record_url(name, action, external_id) == url


def test_hubspot_links_need_the_portal_id() -> None:
    assert links_of("hubspot", portal_id=None).record_url("hubspot", "hubspot.log_call", "77") is None


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (delivery("email.send"), "the Message-ID <2c70e12b7a0646f92279f427c7b38e73@harbourlight.example>"),
        (delivery("twilio.send_sms", params='{"to": "+12125550123"}'), "by the recipient +12125550123."),
        (delivery("twilio.send_sms", params='{"erased":true}'), "by the recipient."),
        (delivery("salesforce.log_call"), "FROM Task WHERE Conversation_Id__c = 'conv_1'"),
        (delivery("salesforce.create_case"), "FROM Case WHERE Conversation_Id__c = 'conv_1'"),
        (delivery("hubspot.log_call"), "the record of conversation conv_1"),
    ],
)
def test_where_to_look_names_what_to_search_for(row: dict[str, Any], text: str) -> None:
    assert text in links_of(row["connection"]).where_to_look(row).text


@pytest.mark.parametrize(
    "url",
    ["http://a.example/1", "javascript:alert(1)", "https://", "https://u:p@a.example/", "https://a.example/ x",
     "https://a.example/\n", "//a.example", "https://[::1", "https://a.example/" + "x" * 500, None],
)  # fmt: skip
def test_unsafe_url_is_no_link(url: str | None) -> None:
    assert safe_url(url) is None


def test_broken_hook_is_no_link_and_breaks_no_page() -> None:
    connector = Connector("lantern", settings=ConnectorSettings)

    @connector.record_url
    def record_url(settings: Any, record: ProviderRecord) -> str:
        raise RuntimeError(record.external_id)

    @connector.where_to_look
    def where_to_look(settings: Any, delivery: UncertainDelivery) -> WhereToLook:
        raise RuntimeError(delivery.action)

    links = ProviderLinks({"lantern": FakeAccount(connector, None)}.get)
    assert links.record_url("lantern", "lantern.post", "1") is None
    assert links.where_to_look(delivery("lantern.post")).text == "Check at Lantern whether it is there."
    assert links.record_url("other", "other.post", "1") is None
