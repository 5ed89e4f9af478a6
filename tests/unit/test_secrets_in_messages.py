"""No message repeats a part of a secret, however the setting that holds it is mistyped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr
from typer.testing import CliRunner

from bridge.cli.db import sqlite_path
from bridge.cli.program import app
from bridge.connector import ConnectorSettings, SecretUrl
from bridge.connector.discovery import Registry
from bridge.errors import BridgeError, ConfigError
from bridge.setting_types import SecretFile
from bridge.settings import EnvironmentModel, Settings
from bridge.store.database import Database
from bridge.telemetry import mask

# No message of the bridge contains four of these characters in a row, and hosts and ports are in lower case below.
LETTERS = "QXZJVK0246"
SPECIAL = "@@##//::?%&=+ []\\;,.'\"é\n"
PIECE = 4

secrets = st.lists(
    st.one_of(
        st.text(LETTERS, min_size=PIECE, max_size=7), st.text(SPECIAL, min_size=1, max_size=2)
    ),
    min_size=2,
    max_size=5,
).map("".join)  # fmt: skip
forms = st.sampled_from(
    [
        "{scheme}://user:{secret}@host:5432/name",
        "{scheme}://user:{secret}@host/name?sslmode=require",
        "{scheme}://user:{secret}@host",
        "{scheme}://user:{secret}@host:port/name",
        "{scheme}://user:{secret}@host:99999/name",
        "{scheme}://user:{secret}@/name",
        "{scheme}://user:{secret}/name",
        "{scheme}://user:{secret}host:5432/name",
        "{scheme}://{secret}@host/name",
        "{scheme}:/user:{secret}@host/name",
        "{scheme}:user:{secret}@host/name",
        "{scheme}//user:{secret}@host/name",
        " {scheme}://user:{secret}@host/name",
        "user:{secret}@host/name",
        "{secret}",
    ]
)
schemes = st.sampled_from(
    ["postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg", "mysql", "sqlite", "sqlite:/",
     "smtp", "smtps", "smpt", "https", "http", "htps", ""]
)  # fmt: skip


def mistype(parts: tuple[str, str, str]) -> tuple[str, str]:
    """Return a URL and the secret in it. Where the form lacks the @ before the host, the secret has none either:
    `user:a@b/name` is a valid URL of the host b."""
    form, scheme, secret = parts
    secret = secret if "@" in form else secret.replace("@", "#")
    return form.format(scheme=scheme, secret=secret), secret


urls = st.tuples(forms, schemes, secrets).map(mistype)


quick = hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class WebhookSettings(ConnectorSettings):
    url: SecretUrl
    token: SecretStr | None = None
    key_file: SecretFile | None = None


MODELS: dict[str, type[EnvironmentModel]] = {
    "": Settings,
    "WEBHOOK_": WebhookSettings,
    **{
        f"{name.upper()}_": Registry().connector(name).settings
        for name in (
            "email",
            "heppu",
            "hubspot",
            "http",
            "pipedrive",
            "salesforce",
            "slack",
            "teams",
            "twilio",
        )
    },
}
parse_smtp_url = sys.modules["bridge_connectors.email.settings"].parse_smtp_url  # loaded by the registry
SETTINGS = [(prefix, field) for prefix, model in MODELS.items() for field in model.model_fields]


def assert_no_piece(message: str, secret: str) -> None:
    pieces = {secret[at : at + PIECE] for at in range(len(secret) - PIECE + 1)}
    pieces = {piece for piece in pieces if set(piece) & set(LETTERS)}
    assert not {piece for piece in pieces if piece in message}, message


def error_of(action: Callable[[], object]) -> str:
    try:
        action()
    except BridgeError as error:
        return f"{error} {error!r} {error.__cause__!r}"
    return ""


@quick
@given(st.sampled_from(SETTINGS), urls)
def test_error_of_a_setting_repeats_no_part_of_its_value(
    setting: tuple[str, str], mistyped: tuple[str, str]
) -> None:
    (prefix, field), (value, secret) = setting, mistyped
    model = MODELS[prefix]
    environ = {model.variable(prefix, field): value}
    assert_no_piece(error_of(lambda: model.from_environment(environ, prefix)), secret)


def open_database(url: str) -> None:
    database = Database(url, pool_size=1)
    host = str(database.engine.url.host or "")
    database.close()
    sqlite_path(url)
    assert host in ("host", "", "/name"), f"the host would be {host}"


@quick
@given(urls)
def test_database_url_is_rejected_unless_host_and_path_are_no_part_of_the_password(
    mistyped: tuple[str, str],
) -> None:
    value, secret = mistyped
    if error_of(lambda: Settings.load({"BRIDGE_DATABASE_URL": value})):
        return
    settings = Settings.load({"BRIDGE_DATABASE_URL": value})
    assert_no_piece(repr(settings), secret)
    assert_no_piece(error_of(lambda: open_database(value)), secret)


@pytest.mark.parametrize("command", [["check"], ["db", "upgrade"], ["events"], ["serve"]])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:QX02@ZJVK#44/QQ22@127.0.0.1:1/name",
        "postgresql://user:QX02ZJVK/QQ22",
        "postgresql://user:QX02ZJVK@127.0.0.1:QQ22/name",
        "postgresql:/user:QX02ZJVK@127.0.0.1/name",
        "sqlite:///postgresql://user:QX02ZJVK@127.0.0.1/name",
    ],
)
def test_commands_do_not_print_a_mistyped_database_password(
    command: list[str], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text("version: 1\nrules: []\n")
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BRIDGE_DATABASE_URL", url)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    for piece in ("QX02", "ZJVK", "QQ22"):
        assert piece not in result.output + repr(result.exception)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("postgresql://user:p@ss@host/name", "percent-encode"),
        ("postgresql://user:pass@host:port/name", "from 1 to 65535"),
        ("postgresql://user:pass@host:70000/name", "from 1 to 65535"),
        ("sqlite:///https://user:pass@host/name", "path of a file"),
    ],
)
def test_database_url_error_says_what_to_change(url: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        Settings.load({"BRIDGE_DATABASE_URL": url})


@quick
@given(urls)
def test_smtp_url_is_rejected_unless_the_host_is_no_part_of_the_password(mistyped: tuple[str, str]) -> None:
    value, secret = mistyped
    try:
        server = parse_smtp_url(value)
    except ValueError as error:
        assert_no_piece(str(error), secret)
    else:
        assert server.host == "host"
        assert_no_piece(repr(server), secret)


@quick
@given(secrets)
def test_encoded_smtp_password_is_read_back(secret: str) -> None:
    server = parse_smtp_url(f"smtp://user:{quote(secret, safe='')}@host:587")
    assert server.password is not None
    assert (server.user, server.password.get_secret_value(), server.host) == ("user", secret, "host")


def test_unknown_option_of_the_database_is_reported_without_its_name() -> None:
    with pytest.raises(ConfigError, match="unknown option after the") as error:
        Database("postgresql://user:pass@host/name?QX02=ZJVK", pool_size=1)
    assert "QX02" not in str(error.value)
    Database(
        "postgresql://user:pass@host/name?sslmode=require&target_session_attrs=read-write", pool_size=1
    ).close()


@pytest.mark.parametrize("password", ["plain", "p#ss", "p/ss", "p?ss", "p ss", "a:b", "p%40ss", "[x]"])
def test_unambiguous_database_password_is_accepted(password: str) -> None:
    url = f"postgresql://user:{password}@host:5432/name"
    assert Settings.load({"BRIDGE_DATABASE_URL": url}).bridge_database_url == url
    database = Database(url, pool_size=1)
    assert (database.engine.url.host, database.engine.url.password) == ("host", password.replace("%40", "@"))
    database.close()


@pytest.mark.parametrize("setting", ["BRIDGE_PUBLIC_URL"])
def test_public_url_with_a_password_is_rejected(setting: str) -> None:
    with pytest.raises(ConfigError, match="must not contain a user or password") as error:
        Settings.load({setting: "https://user:QX02ZJVK@bridge.example.com"})
    assert "QX02" not in str(error.value)


def test_key_pasted_in_place_of_its_file_is_not_repeated() -> None:
    key = "-----BEGIN PRIVATE KEY-----" + "QX02ZJVK" * 200
    environ = {"WEBHOOK_URL": "https://hooks.example.com/x", "WEBHOOK_KEY_FILE": key}
    with pytest.raises(ConfigError, match="WEBHOOK_KEY_FILE: is not a file") as error:
        WebhookSettings.from_environment(environ, "WEBHOOK_")
    assert "QX02" not in str(error.value)


@quick
@given(secrets)
def test_mask_hides_a_password_in_a_url(secret: str) -> None:
    safe = quote(secret, safe="@/#:?")
    assert_no_piece(mask(f"cannot open postgresql://user:{safe}@host/name now"), safe)
