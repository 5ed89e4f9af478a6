"""Settings: everything that comes from the environment, read once and checked.

A `.env` file in the working directory is read too; what the environment itself says wins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from bridge.errors import ConfigError


def environment(folder: Path | None = None) -> dict[str, str]:
    """The environment's variables, completed by the `.env` file of `folder` (default: where we are)."""
    stored = dotenv_values((folder or Path.cwd()) / ".env", interpolate=False)
    return {**{name: value for name, value in stored.items() if value is not None}, **os.environ}


class EnvironmentModel(BaseModel):
    """A pydantic model whose fields are environment variables: PREFIX + the field's name (or alias), in capitals.

    An empty variable counts as unset. Errors name the variable and what is wrong, never its value.
    """

    model_config = ConfigDict(
        frozen=True, hide_input_in_errors=True, validate_by_name=True, validate_by_alias=True
    )

    @classmethod
    def variable(cls, prefix: str, field: str) -> str:
        """The name of the variable that fills `field`."""
        return prefix + (cls.model_fields[field].alias or field).upper()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], prefix: str) -> Self:
        """Read the model; raises ConfigError that names every variable that is missing or wrong."""
        names = {field: cls.variable(prefix, field) for field in cls.model_fields}
        values: dict[str, Any] = {field: environ[name] for field, name in names.items() if environ.get(name)}
        try:
            return cls.model_validate(values, by_name=True)
        except ValidationError as error:
            raise ConfigError("; ".join(_problems(error, names, cls))) from None


def _problems(error: ValidationError, names: Mapping[str, str], model: type[BaseModel]) -> list[str]:
    aliases = {model.model_fields[field].alias or field: name for field, name in names.items()}
    missing, found = [], []
    for item in error.errors(include_input=False, include_url=False):
        place = str(item["loc"][0]) if item["loc"] else ""
        name = names.get(place) or aliases.get(place) or ""
        if item["type"] == "missing":
            missing.append(name)
        else:
            message = item["msg"].removeprefix("Value error, ")
            found.append(f"{name}: {message}" if name else message)
    if missing:
        found.insert(0, f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set")
    return found


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(value: object) -> timedelta:
    """`90s`, `5m`, `16h`, `7d`, `2w` or several in a row (`1h30m`) as a duration; raises ValueError."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    if not re.fullmatch(r"(\d{1,6}[smhdw])+", text):
        raise ValueError(f"`{text[:40]}` is no duration: write a number and a unit, like 90s, 5m, 16h or 7d")
    return timedelta(
        seconds=sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", text))
    )


def _split(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


def _shaped(pattern: str, wanted: str) -> AfterValidator:
    """A check of a text that answers in words what a pattern would answer with itself."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(wanted)
        return value

    return AfterValidator(check)


SHORTEST_SECRET = 16
"""Characters of a secret that nobody guesses."""


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < SHORTEST_SECRET:
        raise ValueError(f"needs at least {SHORTEST_SECRET} characters, or it can be guessed")
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Secret = Annotated[SecretStr, AfterValidator(_long_enough)]
DatabaseUrl = Annotated[
    str,
    _shaped(
        r"(sqlite:///.+|postgres(ql)?(\+psycopg)?://.+)",
        "write sqlite:///bridge.db or postgresql://user:password@host/name",
    ),
]
PublicUrl = Annotated[
    str,
    _shaped(r"https?://[^/\s]+(/[^\s]*)?", "write https:// and the host, like https://bridge.example.com"),
]
Recipients = Annotated[
    tuple[
        Annotated[
            str,
            _shaped(
                r"\+[0-9]{6,15}|[^@\s]+@[^@\s]+",
                "write numbers like +14155550123 and addresses like me@example.com, separated by commas",
            ),
        ],
        ...,
    ],
    BeforeValidator(_split),
]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_split)]


class Settings(EnvironmentModel):
    """The bridge's own settings; those of a partner stand in its connector."""

    heppu_webhook_secret: Secrets = ()
    """Any of these may have signed an event: two while a secret is being changed."""
    heppu_timestamp_tolerance: int = Field(300, ge=1, le=86400)
    """How many seconds the timestamp header may be away from now, in either direction."""
    bridge_database_url: DatabaseUrl = "sqlite:///bridge.db"
    bridge_rules_file: Path = Path("rules.yaml")
    bridge_host: str = "127.0.0.1"
    bridge_port: int = Field(8080, ge=0, le=65535)
    bridge_public_url: PublicUrl | None = None
    """Where partners reach this service; receipts, STOP and unsubscribe links need it."""
    bridge_admin_token: Secret | None = None
    bridge_secret_key: Secret | None = None
    bridge_recipient_allowlist: Recipients = ()
    """When set, only these numbers and addresses are ever written to."""
    bridge_retention: Duration = timedelta(days=30)
    bridge_log_format: Literal["json", "console"] = "console"

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Settings:
        """Read from `environ`; raises ConfigError that names the variables."""
        return cls.from_environment(environ, prefix="")

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """Heppu's signing secrets as the bytes that key the HMAC."""
        return tuple(secret.get_secret_value().encode() for secret in self.heppu_webhook_secret)


_OURS = ("BRIDGE_", "HEPPU_")
_OTHER_HEPPU = re.compile(r"HEPPU_(\w+_)?API_(KEY|URL)")
"""What `bridge heppu`, and the connections of the connector of that name, read."""


def not_read(environ: Mapping[str, str], known: Iterable[str] = ()) -> dict[str, str]:
    """Variables that look like settings but that nobody reads -> what to do; a misspelt one must not go unnoticed.

    One that begins as ours do is always among them; of others, which may be a platform's, only those that are one
    slip away from a setting, or from one of `known`, that is not set.
    """
    names = {
        *(Settings.variable("", field) for field in Settings.model_fields),
        *("HEPPU_API_KEY", "HEPPU_API_URL"),
        *known,
    }
    found = {}
    for name in sorted(environ):
        if not environ[name] or name in names or _OTHER_HEPPU.fullmatch(name):
            continue
        ours = name.upper().startswith(_OURS)
        near = next(iter(get_close_matches(name.upper(), names, 1, 0.75 if ours else 0.9)), None)
        if near and (ours or not environ.get(near)):
            found[name] = f"did you mean {near}?"
        elif ours:
            found[name] = "docs/operations.md lists the variables"
    return found
