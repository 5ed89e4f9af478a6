"""Settings: invalid, renamed and unrecognized variables are reported with advice."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from bridge.errors import ConfigError
from bridge.settings import EnvironmentModel, Settings, unrecognized_variables


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
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
        ("BRIDGE_RECIPIENT_ALLOWLIST", "+14155550123,hush-hush@", "write numbers like +14155550123"),
        ("BRIDGE_DEFAULT_COUNTRY", "hush-hush", "write the ISO 3166 code of a country"),
        ("BRIDGE_DEFAULT_COUNTRY", "UK", "the United Kingdom is GB"),
        ("BRIDGE_DEFAULT_COUNTRY", "+1", "write the ISO 3166 code of a country"),
        ("BRIDGE_RETENTION", "soon", "write a number and a unit"),
    ],
)
def test_invalid_value_error_names_variable_and_advice(variable: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        Settings.load({variable: value})
    message = str(error.value)
    assert message.startswith(f"{variable}: ")
    assert expected in message
    assert "hush-hush" not in message


def test_recipient_allowlist_accepts_numbers_and_addresses() -> None:
    listed = "+14155550123, +44 (0)7911 123456, me@EXAMPLE.com,"
    settings = Settings.load({"BRIDGE_RECIPIENT_ALLOWLIST": listed})
    assert settings.bridge_recipient_allowlist == ("+14155550123", "+447911123456", "me@example.com")


def test_default_country_accepts_any_case_and_is_optional() -> None:
    assert Settings.load({"BRIDGE_DEFAULT_COUNTRY": "gb"}).bridge_default_country == "GB"
    assert Settings.load({}).bridge_default_country is None


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///bridge.db",
        "postgres://u:p@h/n",
        "postgresql://u:p@h/n",
        "postgresql+psycopg://u@/n?host=/run",
    ],
)
def test_database_url_accepts_sqlite_and_postgresql(url: str) -> None:
    assert Settings.load({"BRIDGE_DATABASE_URL": url}).bridge_database_url == url


@pytest.mark.parametrize(
    ("misspelled", "expected"),
    [
        ("BRIDGE_RECIPIENTS_ALLOWLIST", "BRIDGE_RECIPIENT_ALLOWLIST"),
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
def test_unrecognized_variables_suggests_the_nearest_name(misspelled: str, expected: str) -> None:
    advice = unrecognized_variables({misspelled: "hush-hush"}, ["TWILIO_MESSAGING_SERVICE_SID"])
    assert advice == {misspelled: f"did you mean {expected}?"}


def test_unrecognized_variables_reports_own_prefix_without_match() -> None:
    assert unrecognized_variables({"HEPPU_COLOUR": "x"}) == {
        "HEPPU_COLOUR": "docs/operations.md lists the variables"
    }


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
def test_unrecognized_variables_ignores_known_and_foreign_names(name: str) -> None:
    known = ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "HTTP_SECRET", "HTTP_ALLOWED_HOSTS", "EMAIL_FROM"]
    assert unrecognized_variables({name: "x", "TWILIO_AUTH_TOKEN": "x"}, known) == {}


def test_unrecognized_variables_ignores_empty_values() -> None:
    assert unrecognized_variables({"BRIDGE_RECIPIENTS_ALLOWLIST": ""}) == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("BRIDGE_SECRET", "BRIDGE_SECRET_KEY"),
        ("BRIDGE_LOG", "BRIDGE_LOG_FORMAT"),
        ("BRIDGE_RULES", "BRIDGE_RULES_FILE"),
        ("BRIDGE_ONLY_TO", "BRIDGE_RECIPIENT_ALLOWLIST"),
    ],
)
def test_retired_variable_error_names_the_new_variable(old: str, new: str) -> None:
    for environ in ({old: "hush-hush"}, {old: "hush-hush", new: ""}):
        with pytest.raises(ConfigError) as error:
            Settings.load(environ)
        assert str(error.value) == f"{old} was renamed: set {new} instead"


def test_retired_variable_is_an_error_even_if_the_new_variable_is_set() -> None:
    with pytest.raises(ConfigError, match="BRIDGE_LOG was renamed"):
        Settings.load({"BRIDGE_LOG": "json", "BRIDGE_LOG_FORMAT": "json"})


def test_empty_retired_variable_is_ignored() -> None:
    assert Settings.load({"BRIDGE_SECRET": "", "BRIDGE_ONLY_TO": ""}).bridge_secret_key is None


class AccountSettings(EnvironmentModel):
    token: SecretStr
    return_path: str | None = None
    max_quota_fraction: float = 1.0


@pytest.mark.parametrize("prefix", ["EMAIL_", "EMAIL_EU_", "SALESFORCE_"])
def test_retired_variable_of_a_connection_has_its_prefix(prefix: str) -> None:
    for old, new in (("BOUNCE_TO", "RETURN_PATH"), ("QUOTA_SHARE", "MAX_QUOTA_FRACTION")):
        with pytest.raises(ConfigError) as error:
            AccountSettings.from_environment({prefix + "TOKEN": "x", prefix + old: "0.5"}, prefix)
        assert str(error.value) == f"{prefix}{old} was renamed: set {prefix}{new} instead"


def test_retired_and_missing_variables_are_reported_together() -> None:
    with pytest.raises(ConfigError) as error:
        AccountSettings.from_environment({"EMAIL_BOUNCE_TO": "a@b.example"}, "EMAIL_")
    assert (
        str(error.value)
        == "EMAIL_BOUNCE_TO was renamed: set EMAIL_RETURN_PATH instead; EMAIL_TOKEN is not set"
    )
