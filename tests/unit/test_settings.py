"""Settings that cannot be right are refused at start, in words that an operator can act on."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigError
from bridge.settings import Settings, not_read


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "BRIDGE_DATABASE_URL",
            "mysql://user:hush-hush@host/name",
            "write sqlite:///bridge.db or postgresql://",
        ),
        ("BRIDGE_PUBLIC_URL", "hush-hush.example.com", "write https:// and the host"),
        ("BRIDGE_ADMIN_TOKEN", "hush-hush", "at least 16 characters"),
        ("BRIDGE_SECRET_KEY", "hush-hush", "at least 16 characters"),
        ("BRIDGE_RECIPIENT_ALLOWLIST", "+14155550123,hush-hush", "write numbers like +14155550123"),
        ("BRIDGE_RECIPIENT_ALLOWLIST", "14155550123", "write numbers like +14155550123"),
        ("BRIDGE_RECIPIENT_ALLOWLIST", "+1 415 555 0123", "write numbers like +14155550123"),
        ("BRIDGE_RETENTION", "soon", "write a number and a unit"),
    ],
)
def test_a_wrong_value_is_named_with_what_to_write(variable: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Settings.load({variable: value})
    message = str(error.value)
    assert message.startswith(f"{variable}: ")
    assert said in message
    assert "hush-hush" not in message


def test_only_to_takes_numbers_and_addresses() -> None:
    settings = Settings.load({"BRIDGE_RECIPIENT_ALLOWLIST": "+14155550123, me@example.com,"})
    assert settings.bridge_recipient_allowlist == ("+14155550123", "me@example.com")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///bridge.db",
        "postgres://u:p@h/n",
        "postgresql://u:p@h/n",
        "postgresql+psycopg://u@/n?host=/run",
    ],
)
def test_both_databases_are_taken(url: str) -> None:
    assert Settings.load({"BRIDGE_DATABASE_URL": url}).bridge_database_url == url


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("BRIDGE_ONLYTO", "BRIDGE_RECIPIENT_ALLOWLIST"),
        ("BRIDGE_DATABSE_URL", "BRIDGE_DATABASE_URL"),
        ("BRIDGE_DB_URL", "BRIDGE_DATABASE_URL"),
        ("BRIDGE_TOKEN", "BRIDGE_ADMIN_TOKEN"),
        ("bridge_rules_file", "BRIDGE_RULES_FILE"),
        ("HEPPU_SECRET", "HEPPU_WEBHOOK_SECRET"),
        ("HEPPU_KEY", "HEPPU_API_KEY"),
        ("HEPU_WEBHOOK_SECRET", "HEPPU_WEBHOOK_SECRET"),
        ("TWILIO_MESSAGING_SERVICE_ID", "TWILIO_MESSAGING_SERVICE_SID"),
    ],
)
def test_a_misspelt_variable_is_told_with_the_nearest_name(misspelt: str, meant: str) -> None:
    found = not_read({misspelt: "hush-hush"}, ["TWILIO_MESSAGING_SERVICE_SID"])
    assert found == {misspelt: f"did you mean {meant}?"}


def test_one_of_ours_that_is_near_nothing_is_told_too() -> None:
    assert not_read({"HEPPU_COLOUR": "x"}) == {"HEPPU_COLOUR": "docs/operations.md lists the variables"}


@pytest.mark.parametrize(
    "name",
    [
        "BRIDGE_RECIPIENT_ALLOWLIST",
        "HEPPU_API_URL",
        "HEPPU_EU_API_KEY",
        "TWILIO_API_KEY",
        "TWILIO_EU_AUTH_TOKEN",
        "HTTP_PROXY",
        "EMAIL_HOST",
        "PATH",
    ],
)
def test_what_is_known_or_may_be_a_platforms_is_not_told(name: str) -> None:
    known = ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "HTTP_SECRET", "HTTP_ALLOWED_HOSTS", "EMAIL_FROM"]
    assert not_read({name: "x", "TWILIO_AUTH_TOKEN": "x"}, known) == {}


def test_an_empty_variable_counts_as_unset() -> None:
    assert not_read({"BRIDGE_ONLYTO": ""}) == {}
