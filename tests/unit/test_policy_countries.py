"""`messaging.countries`: texts and calls go to listed countries only."""

from __future__ import annotations

from datetime import UTC, datetime

import phonenumbers
import pytest

from bridge.contacts.country import country_of
from bridge.policy import Allow, DueDelivery, PolicyInputs, Suppress, decide
from bridge.rules.model import MessagingPolicy
from bridge.rules.quiet_hours import NO_WINDOW, every_day

NOON = datetime(2026, 3, 2, 17, 0, tzinfo=UTC)
ALWAYS = every_day(NO_WINDOW)
COSTLY = (
    phonenumbers.PhoneNumberType.PREMIUM_RATE,
    phonenumbers.PhoneNumberType.SHARED_COST,
    phonenumbers.PhoneNumberType.PERSONAL_NUMBER,
)


@pytest.mark.parametrize(
    ("phone", "country"),
    [
        ("+12125550123", "US"),
        ("+14165550123", "CA"),
        ("+14162345678", "CA"),
        ("+17875550123", "PR"),
        ("+18765550123", "JM"),
        ("+18005550123", "US"),
        ("+447400123456", "GB"),
        ("+447781123456", "GG"),
        ("+77012345678", "KZ"),
        ("+79161234567", "RU"),
        ("+390612345678", "IT"),
        ("+35222999999999", "LU"),
    ],
)
def test_country_of_a_number(phone: str, country: str) -> None:
    assert country_of(phone) == country


@pytest.mark.parametrize(
    "phone",
    [
        pytest.param("+19002345678", id="premium rate"),
        pytest.param("+19005550123", id="premium rate, invalid subscriber"),
        pytest.param("+447012345678", id="personal number that charges its caller"),
        pytest.param("+88216123456", id="satellite"),
        pytest.param("+979123456789", id="international premium rate"),
        pytest.param("+15555550123", id="unassigned area code"),
        pytest.param("+1212555", id="too short for an area code"),
        pytest.param("+4479", id="shared calling code, invalid"),
        pytest.param("+9991234", id="unassigned calling code"),
        pytest.param("", id="no number"),
    ],
)
def test_number_without_a_country(phone: str) -> None:
    assert country_of(phone) is None


def test_example_numbers_of_every_country() -> None:
    for region in phonenumbers.SUPPORTED_REGIONS:
        mobile = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
        if mobile is not None:
            e164 = phonenumbers.format_number(mobile, phonenumbers.PhoneNumberFormat.E164)
            assert country_of(e164) == phonenumbers.region_code_for_number(mobile), e164
        for kind in COSTLY:
            costly = phonenumbers.example_number_for_type(region, kind)
            if costly is not None and phonenumbers.number_type(costly) in COSTLY:
                e164 = phonenumbers.format_number(costly, phonenumbers.PhoneNumberFormat.E164)
                assert country_of(e164) is None, e164


def decision(recipient: str, *countries: str, **fields: object) -> object:
    values = {"channel": "sms", "id": "dlv_1", "occurred_at": NOON, "recipient": recipient}
    due = DueDelivery(**(values | fields))  # type: ignore[arg-type]
    policy = MessagingPolicy(quiet_hours=ALWAYS, countries=frozenset(countries))
    return decide(due, PolicyInputs(), policy, NOON)


@pytest.mark.parametrize("channel", ["sms", "whatsapp", "call"])
def test_message_to_another_country_is_suppressed(channel: str) -> None:
    stopped = decision("+18765550123", "US", "CA", channel=channel)
    assert stopped == Suppress(
        "country_not_allowed",
        "messaging.countries: the number is of JM; allowed: CA, US",  # type: ignore[arg-type]
    )
    assert isinstance(decision("+14165550123", "US", "CA", channel=channel), Allow)


def test_message_to_an_unknown_country_is_suppressed() -> None:
    stopped = decision("+88216123456", "US")
    assert isinstance(stopped, Suppress)
    assert stopped.detail == (
        "messaging.countries: the number is of no known country, or one that charges its callers; allowed: US"
    )


def test_emails_team_messages_and_files_without_countries_are_not_limited() -> None:
    assert isinstance(decision("a@example.com", "US", channel="email"), Allow)
    assert isinstance(decision("+18765550123", "US", internal=True), Allow)
    assert isinstance(decision("+18765550123"), Allow)
