"""Settings that cannot be right are refused at start, in words that an operator can act on."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigError
from bridge.settings import Settings


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
        ("BRIDGE_SECRET", "hush-hush", "at least 16 characters"),
        ("BRIDGE_ONLY_TO", "+14155550123,hush-hush", "write numbers like +14155550123"),
        ("BRIDGE_ONLY_TO", "14155550123", "write numbers like +14155550123"),
        ("BRIDGE_ONLY_TO", "+1 415 555 0123", "write numbers like +14155550123"),
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
    settings = Settings.load({"BRIDGE_ONLY_TO": "+14155550123, me@example.com,"})
    assert settings.bridge_only_to == ("+14155550123", "me@example.com")


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
