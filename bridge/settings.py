"""Settings: environment variables, read once and validated.

A `.env` file in the working directory is read too. Environment variables take precedence over it.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from bridge.dropped_fields import dropped_path
from bridge.errors import ConfigError
from bridge.secret_settings import FILE_SUFFIX, AccessTokens, Secrets, is_secret, is_weak, read_secret_files
from bridge.validation_messages import requirement


def environment(folder: Path | None = None) -> dict[str, str]:
    """Return the environment variables, plus those in the `.env` file of `folder` (default: the working directory)."""
    from_file = dotenv_values((folder or Path.cwd()) / ".env", interpolate=False)
    return {**{name: value for name, value in from_file.items() if value is not None}, **os.environ}


RETIRED_VARIABLES: Final[Mapping[str, str]] = {
    "BRIDGE_SECRET_KEY": "BRIDGE_SECRET",
    "BRIDGE_LOG_FORMAT": "BRIDGE_LOG",
    "BRIDGE_RULES_FILE": "BRIDGE_RULES",
    "BRIDGE_RECIPIENT_ALLOWLIST": "BRIDGE_ONLY_TO",
    "RETURN_PATH": "BOUNCE_TO",
    "MAX_QUOTA_FRACTION": "QUOTA_SHARE",
}
"""Current name -> retired name; a retired variable that is still set is an error in this release.

Names without BRIDGE_ are those of a connection, without its prefix (such as EMAIL_).
"""


class EnvironmentModel(BaseModel):
    """A pydantic model whose fields are environment variables: PREFIX + name (or alias) of the field in capitals.

    An empty variable counts as unset. A secret can be in a file, whose path is in the variable with `_FILE` at its end.
    Errors contain the name of the variable and the reason, never its value.
    """

    model_config = ConfigDict(
        frozen=True, hide_input_in_errors=True, validate_by_name=True, loc_by_alias=False
    )

    @classmethod
    def variable(cls, prefix: str, field: str) -> str:
        """Return the name of the variable for `field`."""
        return prefix + (cls.model_fields[field].alias or field).upper()

    @classmethod
    def secret_variables(cls, prefix: str) -> dict[str, str]:
        """Return the variables that can be read from a file, by field."""
        return {
            field: cls.variable(prefix, field)
            for field, info in cls.model_fields.items()
            if is_secret(info) and f"{field}_file" not in cls.model_fields
        }

    @classmethod
    def variables(cls, prefix: str) -> list[str]:
        """Return every variable that is read, also those with the path of a file."""
        names = [cls.variable(prefix, field) for field in cls.model_fields]
        return names + [name + FILE_SUFFIX for name in cls.secret_variables(prefix).values()]

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], prefix: str) -> Self:
        """Read the model. Raise ConfigError that names every missing, invalid and renamed variable."""
        names = {field: cls.variable(prefix, field) for field in cls.model_fields}
        values: dict[str, Any] = {field: environ[name] for field, name in names.items() if environ.get(name)}
        from_files, file_errors = read_secret_files(cls.secret_variables(prefix), environ)
        messages = [*cls.retired_variables(environ, prefix), *file_errors.values()]
        try:
            model = cls.model_validate(values | from_files)
        except ValidationError as error:
            messages += cls._error_messages(error, names, unreadable=file_errors)
        if messages:
            raise ConfigError("; ".join(messages)) from None
        return model

    @classmethod
    def retired_variables(cls, environ: Mapping[str, str], prefix: str) -> list[str]:
        """Return a message for each variable that is still set under its old name."""
        messages = []
        for field in cls.model_fields:
            name = cls.variable(prefix, field)
            old_suffix = RETIRED_VARIABLES.get(name.removeprefix(prefix))
            if old_suffix and environ.get(prefix + old_suffix):
                messages.append(f"{prefix}{old_suffix} was renamed: set {name} instead")
        return messages

    @classmethod
    def _error_messages(
        cls, error: ValidationError, names: Mapping[str, str], unreadable: Iterable[str] = ()
    ) -> list[str]:
        missing, messages = [], []
        for item in error.errors(include_input=False, include_url=False):
            field = str(item["loc"][0]) if item["loc"] else ""
            name = names.get(field, "")
            if item["type"] == "missing":
                if field not in unreadable:
                    missing.append(name)
                continue
            message = requirement(item) or item["msg"].removeprefix("Value error, ")
            if item["type"] == "string_pattern_mismatch":
                description = (cls.model_fields[field].description or "").rstrip(".")
                message = f"has the wrong form; expected: {description}"
            messages.append(f"{name}: {message}" if name else message)
        if missing:
            messages.insert(0, f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set")
        return messages


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(value: object) -> timedelta:
    """Parse `90s`, `5m`, `16h`, `7d`, `2w`, or several in a row (`1h30m`). Raise ValueError for anything else."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    if not re.fullmatch(r"(\d{1,6}[smhdw])+", text):
        raise ValueError(
            f"invalid duration `{text[:40]}`: write a number and a unit, like 90s, 5m, 16h or 7d"
        )
    return timedelta(
        seconds=sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", text))
    )


def _split(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


def _check_duration(value: object) -> timedelta:
    try:
        return parse_duration(value)
    except ValueError:  # repeats the value
        raise ValueError("is not a duration: write a number and a unit, like 90s, 5m, 16h or 7d") from None


_SQLITE_URL = re.compile(r"sqlite:///(?P<path>.+)", re.DOTALL)
_POSTGRESQL_URL = re.compile(
    r"postgres(ql)?(\+psycopg)?://"
    r"([^:/@]*(:[^@]*)?@)?"  # as SQLAlchemy reads it: a password ends at the first @
    r"([A-Za-z0-9._,-]*|\[[0-9A-Fa-f:.]+\])"
    r"(:(?P<port>[^/@?]*))?"
    r"(/[^/@?]*)?(\?[^@]*)?",
    re.DOTALL,
)


def _check_database_url(value: str) -> str:
    """Reject every URL in which a part of the password could be taken for the host, the port or the database.

    The driver repeats those three in its errors.
    """
    if sqlite := _SQLITE_URL.fullmatch(value):
        if "://" in sqlite["path"] or ":/" in sqlite["path"]:
            raise ValueError("needs the path of a file after sqlite:///, not another URL")
        return value
    if not re.match(r"postgres(ql)?(\+psycopg)?://", value):
        raise ValueError("write sqlite:///bridge.db or postgresql://user:password@host/name")
    url = _POSTGRESQL_URL.fullmatch(value)
    if url is None:
        raise ValueError(
            "is not a valid URL: write postgresql://user:password@host:5432/name, and percent-encode special "
            "characters of the password (@ as %40, / as %2F)"
        )
    port = url["port"]
    if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
        raise ValueError("needs a port from 1 to 65535, as in postgresql://user:password@host:5432/name")
    return value


def _check_public_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s_]+(/[^\s]*)?", value):  # providers call no host with `_`
        raise ValueError("write https:// and the host, without `_`, like https://bridge.example.com")
    check_no_user_info(value)
    return value


def check_no_user_info(url: str) -> None:
    """Raise ValueError for a URL with a user or password: these URLs stand in messages and logs."""
    if "@" in url:
        raise ValueError("must not contain a user or password")


def _check_file(value: str | Path) -> Path:
    """Accept the path of an existing file. A key that was pasted in its place is too long for the operating system."""
    try:
        if Path(value).is_file():
            return Path(value)
    except (OSError, ValueError):
        pass
    raise ValueError("is not a file: write the path of an existing file, not its content")


def _check_folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError("is not a folder: write the path of an existing folder")
    return value.resolve()


def _check_certificates(value: str | Path) -> Path:
    """Accept the path of a file with certificates in PEM format."""
    path = _check_file(value)
    try:
        ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError):
        raise ValueError("has no certificate in PEM format (-----BEGIN CERTIFICATE-----)") from None
    return path


def _check_proxy(value: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(value.get_secret_value())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.path not in ("", "/") or parts.query:
        raise ValueError(
            "write http:// or https://, the host and the port of the proxy, like http://proxy.example.com:3128, with "
            "user:password@ before the host if it needs them (special characters percent-encoded)"
        )
    return value


ExistingFolder = Annotated[Path, AfterValidator(_check_folder)]
Duration = Annotated[timedelta, BeforeValidator(_check_duration)]
DatabaseUrl = Annotated[str, AfterValidator(_check_database_url)]
PublicUrl = Annotated[str, AfterValidator(_check_public_url)]
CertificateFile = Annotated[Path, BeforeValidator(_check_certificates)]
ProxySecret = Annotated[SecretStr, AfterValidator(_check_proxy)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_split)]
SecretFile = Annotated[Path, BeforeValidator(_check_file)]
"""Path of an existing file with a secret. An error does not repeat the value."""


def _check_recipient(value: str) -> str:
    """Return the address in canonical form, in which it is compared."""
    from bridge.contacts.address import normalize_address

    address = normalize_address(value)
    if address is None:
        raise ValueError(
            "write numbers like +14155550123 and addresses like me@example.com, separated by commas"
        )
    return address


def _check_country(value: str) -> str:
    from bridge.contacts.phone import is_country

    code = value.strip().upper()
    if not is_country(code):
        hint = "; the United Kingdom is GB" if code == "UK" else ""
        raise ValueError(f"write the ISO 3166 code of a country, like US, GB or DE{hint}")
    return code


_OTHER_HEADERS = re.compile(r"authorization|cookie|host|origin|x-forwarded-(for|host|proto)|sec-.*")


def _check_header_name(value: str) -> str:
    name = value.strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name) or _OTHER_HEADERS.fullmatch(name):
        raise ValueError("write the name of a header that only your proxy sets, like X-Forwarded-User")
    return name


HeaderName = Annotated[str, AfterValidator(_check_header_name)]


def _check_networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError:
        raise ValueError(
            "write addresses like 10.0.0.5 and networks like 10.0.0.0/8, separated by commas"
        ) from None


IpNetwork = IPv4Network | IPv6Network
Networks = Annotated[tuple[IpNetwork, ...], BeforeValidator(_check_networks)]
Recipients = Annotated[
    tuple[Annotated[str, AfterValidator(_check_recipient)], ...],
    BeforeValidator(_split),
]
Country = Annotated[str, AfterValidator(_check_country)]
FieldPaths = Annotated[tuple[Annotated[str, AfterValidator(dropped_path)], ...], BeforeValidator(_split)]


class Settings(EnvironmentModel):
    """The bridge's own settings; each connector defines the settings of its provider."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    heppu_webhook_secret: Secrets = ()
    """Secrets that Heppu's signatures are verified with, of at least 16 characters, separated by commas; set two during
    a rotation."""
    heppu_timestamp_tolerance: int = Field(300, ge=1, le=86400)
    """Maximum difference between the timestamp of a request and now, in seconds."""
    bridge_database_url: DatabaseUrl = Field("sqlite:///bridge.db", repr=False)
    """`sqlite:///bridge.db` or `postgresql://user:password@host/name`."""
    bridge_rules_file: Path = Path("rules.yaml")
    """The rules file, read together with the folder `rules.d` next to it, or a folder of rules files."""
    bridge_connectors_dir: ExistingFolder | None = None
    """The folder with your own connectors. Default: `connectors` in the folder of the rules."""
    bridge_host: str = "127.0.0.1"
    """The address to listen on."""
    bridge_port: int = Field(8080, ge=0, le=65535)
    """The port to listen on; 0 picks a free port."""
    bridge_public_url: PublicUrl | None = None
    """The public URL of this service; status callbacks, STOP replies and unsubscribe links need it."""
    bridge_trusted_proxies: Networks = ()
    """Addresses and networks of your reverse proxies, separated by commas. Their `X-Forwarded-For` is believed: logs
    then name the address of the client, not that of the proxy."""
    bridge_ca_file: CertificateFile | None = None
    """File with certificates (PEM) of your own authorities, which are trusted in addition to the public ones when the
    bridge calls a provider."""
    bridge_https_proxy: ProxySecret | None = None
    """Proxy through which providers are called, like `http://user:password@proxy.example.com:3128`. Email does not use
    it."""
    bridge_no_proxy: Hosts = ()
    """Hosts, domains (with their subdomains) and networks that are called without the proxy, separated by commas."""
    bridge_stop_delay: Duration = timedelta(0)
    """Time from SIGTERM until events are no longer accepted, in which `/readyz` already answers 503: for load balancers
    and Kubernetes, 5s to 15s."""
    bridge_admin_token: AccessTokens = ()
    """Gives access to the dashboard, the API and the metrics. Several are separated by commas; one with a name
    (`ada:TOKEN,ben:TOKEN`) puts the name into the audit log. If not set, each `bridge serve` generates its own."""
    bridge_read_token: AccessTokens = ()
    """Like BRIDGE_ADMIN_TOKEN, but only shows: it cannot change anything."""
    bridge_auth_header: HeaderName | None = None
    """Header with the name of the user, if one of BRIDGE_TRUSTED_PROXIES logs users in. They have full access."""
    bridge_metrics_token: AccessTokens = ()
    """Gives access to `/metrics` only: for Prometheus."""
    bridge_metrics_port: int | None = Field(None, ge=0, le=65535)
    """Port on which `bridge worker` serves `/metrics`, `/healthz` and `/readyz`, at BRIDGE_HOST. `bridge serve` has them
    on BRIDGE_PORT. If not set, `bridge worker` has no port."""
    bridge_secret_key: Secrets = ()
    """Encrypts unsubscribe links and hashes the opt-outs of erased contacts. To change it, put the new value before the
    old one, separated by a comma: links in emails already sent, and opt-outs already hashed, need the old one."""
    bridge_default_country: Country | None = None
    """Country whose national phone numbers are understood, as ISO 3166 code (`US`). If not set, numbers need a `+`."""
    bridge_recipient_allowlist: Recipients = ()
    """If set, only these phone numbers and email addresses receive messages."""
    bridge_retention: Duration = timedelta(days=30)
    """How long event bodies and the personal data of finished deliveries are kept."""
    bridge_delete_after: Duration | None = None
    """If set, finished events and deliveries are deleted after this time, for example `400d`; at least BRIDGE_RETENTION.
    What recognizes duplicates is kept."""
    bridge_drop_fields: FieldPaths = ()
    """Fields of events that are never stored, as dotted paths of the body: `summary,metadata.contactName`. Rules do not
    see them either."""
    bridge_require_tests: bool = False
    """If `true`, a rules file whose tests fail is not loaded, and the running rules stay in effect."""
    bridge_log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe entries that are logged."""
    bridge_log_format: Literal["json", "console"] = "console"
    """`console` for humans, `json` for log collectors."""

    @model_validator(mode="after")
    def _require_different_tokens(self) -> Self:
        """Refuse a token with two kinds of access: a program that reads the metrics could then send messages."""
        seen: dict[str, str] = {}
        for field in _TOKENS:
            for token in getattr(self, field):
                name = self.variable("", field)
                if seen.setdefault(token.token.get_secret_value(), name) != name:
                    raise ValueError(
                        f"{name} contains a token of {seen[token.token.get_secret_value()]}: use different tokens"
                    )
        return self

    @model_validator(mode="after")
    def _require_proxies_of_auth_header(self) -> Self:
        if self.bridge_auth_header and not self.bridge_trusted_proxies:
            raise ValueError("BRIDGE_AUTH_HEADER needs BRIDGE_TRUSTED_PROXIES: nobody else is believed")
        return self

    @model_validator(mode="after")
    def _require_retention_before_deletion(self) -> Self:
        if self.bridge_delete_after is not None and self.bridge_delete_after < self.bridge_retention:
            raise ValueError("BRIDGE_DELETE_AFTER must be at least BRIDGE_RETENTION")
        return self

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from `environ`. Raise ConfigError that names the variables."""
        return cls.from_environment(environ, prefix="")

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """Heppu's signing secrets as HMAC keys."""
        return tuple(secret.get_secret_value().encode() for secret in self.heppu_webhook_secret)

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """BRIDGE_SECRET_KEY: the current value first, then the earlier ones."""
        return tuple(secret.get_secret_value() for secret in self.bridge_secret_key)

    @property
    def weak_secrets(self) -> list[str]:
        """The variables with a secret that is valid, but easier to guess than it should be."""
        values = {
            "heppu_webhook_secret": self.heppu_webhook_secret,
            "bridge_secret_key": self.bridge_secret_key,
            **{field: [token.token for token in getattr(self, field)] for field in _TOKENS},
        }
        return [
            self.variable("", field)
            for field, secrets in values.items()
            if any(is_weak(secret.get_secret_value()) for secret in secrets)
        ]


_TOKENS = ("bridge_admin_token", "bridge_read_token", "bridge_metrics_token")


def local_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a service that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
