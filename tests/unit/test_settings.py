"""Settings: invalid, renamed and unrecognized variables are reported with advice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from bridge.connector import ConnectorSettings, ProviderUrl
from bridge.errors import ConfigError
from bridge.settings import EnvironmentModel, Settings
from bridge.unrecognized_variables import unrecognized_variables


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (
            "BRIDGE_DATABASE_URL",
            "mysql://user:hush-hush@host/name",
            "write sqlite:///bridge.db or postgresql://",
        ),
        ("BRIDGE_PUBLIC_URL", "hush-hush.example.com", "write https:// and the host"),
        ("BRIDGE_PUBLIC_URL", "https://hush-hush_1.example.com", "without `_`"),
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
        ("BRIDGE_ADMINTOKEN", "BRIDGE_ADMIN_TOKEN"),
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
    assert Settings.load({"BRIDGE_SECRET": "", "BRIDGE_ONLY_TO": ""}).bridge_secret_key == ()


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


# ------------------------------------------------------------ secrets

FIRST, SECOND = "first-secret-of-20-c", "second-secret-of-20c"
OWN_SECRETS = (
    "HEPPU_WEBHOOK_SECRET",
    "BRIDGE_ADMIN_TOKEN",
    "BRIDGE_READ_TOKEN",
    "BRIDGE_METRICS_TOKEN",
    "BRIDGE_SECRET_KEY",
)


@pytest.mark.parametrize("variable", OWN_SECRETS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "needs at least 16 characters, so that it cannot be guessed"),
        ("x" * 15, "needs at least 16 characters"),
        (f"x,{FIRST}", "part 1 has fewer, so that it cannot be guessed; a secret cannot contain a comma"),
        (f"{FIRST},hush", "part 2 has fewer"),
        (f"{FIRST},", "has an empty part"),
        (f",{FIRST}", "has an empty part"),
        (f"{FIRST},,{SECOND}", "has an empty part"),
        (" , ", "has an empty part"),
    ],
)
def test_secret_that_can_be_guessed_is_refused(variable: str, value: str, expected: str) -> None:
    """One character as secret, or a comma in a chosen one, once let anybody sign events."""
    with pytest.raises(ConfigError) as error:
        Settings.load({variable: value})
    message = str(error.value)
    assert message.startswith(f"{variable}: ")
    assert expected in message
    assert "hush" not in message
    assert FIRST not in message


@given(st.lists(st.text("abcdefgh,: ", max_size=24), min_size=1, max_size=3).map(",".join))
def test_accepted_secrets_are_never_short(value: str) -> None:
    for variable, field in (
        ("HEPPU_WEBHOOK_SECRET", "heppu_webhook_secret"),
        ("BRIDGE_ADMIN_TOKEN", "bridge_admin_token"),
    ):
        try:
            settings = Settings.load({variable: value})
        except ConfigError:
            continue
        secrets = [getattr(item, "token", item).get_secret_value() for item in getattr(settings, field)]
        assert all(len(secret) >= 16 for secret in secrets)
        assert bool(secrets) == bool(value.strip())


def test_several_values_are_kept_in_order() -> None:
    settings = Settings.load(
        {"HEPPU_WEBHOOK_SECRET": f"{FIRST} , {SECOND}", "BRIDGE_SECRET_KEY": f"{SECOND},{FIRST}"}
    )
    assert settings.secrets == (FIRST.encode(), SECOND.encode())
    assert settings.secret_keys == (SECOND, FIRST)


def test_tokens_can_have_names() -> None:
    settings = Settings.load({"BRIDGE_ADMIN_TOKEN": f"ada:{FIRST}, ben.k: {SECOND},{FIRST}:{SECOND}"})
    tokens = [(token.name, token.token.get_secret_value()) for token in settings.bridge_admin_token]
    assert tokens == [("ada", FIRST), ("ben.k", SECOND), (FIRST, SECOND)]


def test_short_token_behind_a_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 16 characters"):
        Settings.load({"BRIDGE_ADMIN_TOKEN": "ada-of-the-support-team:short"})


def test_one_token_cannot_have_two_kinds_of_access() -> None:
    with pytest.raises(ConfigError) as error:
        Settings.load({"BRIDGE_ADMIN_TOKEN": f"ada:{FIRST}", "BRIDGE_METRICS_TOKEN": FIRST})
    assert (
        str(error.value)
        == "BRIDGE_METRICS_TOKEN contains a token of BRIDGE_ADMIN_TOKEN: use different tokens"
    )


@pytest.mark.parametrize(
    ("value", "is_weak"),
    [(FIRST, True), ("a" * 40, True), ("0123456789abcdefghijklmnopqrstuv", False), ("ada:" + FIRST, True)],
)
def test_weak_secrets_are_named(value: str, is_weak: bool) -> None:
    settings = Settings.load({"BRIDGE_ADMIN_TOKEN": value})
    assert settings.weak_secrets == (["BRIDGE_ADMIN_TOKEN"] if is_weak else [])


@pytest.mark.parametrize(
    "name", ["Authorization", "cookie", "X-Forwarded-For", "Origin", "Sec-Fetch-Site", "a b", "", "x_y"]
)
def test_auth_header_is_one_that_only_a_proxy_sets(name: str) -> None:
    environ = {"BRIDGE_AUTH_HEADER": name, "BRIDGE_TRUSTED_PROXIES": "10.0.0.5"}
    if not name:
        assert Settings.load(environ).bridge_auth_header is None
        return
    with pytest.raises(
        ConfigError, match="BRIDGE_AUTH_HEADER: write the name of a header that only your proxy sets"
    ):
        Settings.load(environ)


def test_auth_header_needs_a_trusted_proxy() -> None:
    with pytest.raises(ConfigError, match="BRIDGE_AUTH_HEADER needs BRIDGE_TRUSTED_PROXIES"):
        Settings.load({"BRIDGE_AUTH_HEADER": "X-Forwarded-User"})
    environ = {"BRIDGE_AUTH_HEADER": "X-Forwarded-User", "BRIDGE_TRUSTED_PROXIES": "10.0.0.5"}
    assert Settings.load(environ).bridge_auth_header == "x-forwarded-user"


# ------------------------------------------------------------ secrets in files


@pytest.mark.parametrize("variable", [*OWN_SECRETS, "BRIDGE_DATABASE_URL"])
def test_secret_can_be_in_a_file(tmp_path: Path, variable: str) -> None:
    secret = "sqlite:///other.db" if variable == "BRIDGE_DATABASE_URL" else f"{FIRST},{SECOND}"
    file = tmp_path / "secret"
    file.write_text(f"{secret}\n")
    from_file = Settings.load({f"{variable}_FILE": str(file)})
    assert from_file == Settings.load({variable: secret})
    assert unrecognized_variables({f"{variable}_FILE": str(file)}) == {}


def test_required_secret_of_a_connection_can_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b" pat-123\r\n")
    settings = AccountSettings.from_environment({"CRM_EU_TOKEN_FILE": str(tmp_path / "token")}, "CRM_EU_")
    assert settings.token.get_secret_value() == "pat-123"
    assert AccountSettings.variables("CRM_")[-1] == "CRM_TOKEN_FILE"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot read the secret from this file: No such file or directory"),
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"\xff\xfe" * 10, "it is not UTF-8 text"),
        (b"x" * 70_000, "it has more than 64 KiB"),
    ],
)
def test_unreadable_secret_file_is_one_clear_error(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    file = tmp_path / "hush-hush"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        AccountSettings.from_environment({"CRM_TOKEN_FILE": str(file)}, "CRM_")
    message = str(error.value)
    assert message.startswith("CRM_TOKEN_FILE: ")
    assert expected in message
    assert "hush-hush" not in message
    assert "is not set" not in message


def test_secret_and_its_file_cannot_both_be_set(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(FIRST)
    environ = {"CRM_TOKEN": SECOND, "CRM_TOKEN_FILE": str(tmp_path / "token")}
    with pytest.raises(ConfigError, match="set CRM_TOKEN or CRM_TOKEN_FILE, not both"):
        AccountSettings.from_environment(environ, "CRM_")


def test_plain_settings_are_not_read_from_files() -> None:
    assert (
        AccountSettings.from_environment(
            {"CRM_TOKEN": FIRST, "CRM_RETURN_PATH_FILE": "/x"}, "CRM_"
        ).return_path
        is None
    )


class _Desk(ConnectorSettings):
    account_sid: str = Field(pattern=r"^AC[0-9a-f]{4}$")
    """Account SID (`AC...`)."""


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("DESK_ACCOUNT_SID", "hush-hush", "has the wrong form; expected: Account SID (`AC...`)"),
        ("DESK_PER_SECOND", "hush-hush", "must be a number"),
        ("DESK_PER_SECOND", "0", "must be greater than 0"),
        ("DESK_CONCURRENCY", "1.5", "must be a whole number"),
        ("DESK_CONCURRENCY", "0", "must be at least 1"),
    ],
)
def test_wrong_setting_of_a_connection_is_described_in_plain_words(
    variable: str, value: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as error:
        _Desk.from_environment({"DESK_ACCOUNT_SID": "AC0123", variable: value}, "DESK_")
    assert str(error.value) == f"{variable}: {expected}"


class _Hook(ConnectorSettings):
    url: ProviderUrl
    token: SecretStr


def test_whitespace_around_values_is_removed() -> None:
    environ = {"HOOK_URL": "https://hooks.example.com/\r\n", "HOOK_TOKEN": " abc\n", "HOOK_PER_SECOND": " \n"}
    hook = _Hook.from_environment(environ, "HOOK_")
    assert (hook.url, hook.token.get_secret_value(), hook.per_second) == (
        "https://hooks.example.com", "abc", None,
    )  # fmt: skip


@pytest.mark.parametrize("url", ["https://hooks.exam\nple.com", "https://hooks.example.com/a b"])
def test_url_with_whitespace_inside_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="HOOK_URL: contains a space or a line break: copy the URL again"):
        _Hook.from_environment({"HOOK_URL": url, "HOOK_TOKEN": "abc"}, "HOOK_")
