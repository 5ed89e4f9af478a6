"""Settings: environment variables, read once and validated.

A `.env` file in the working directory is read too. Environment variables take precedence over it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self, get_origin

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from bridge.errors import ConfigError
from bridge.secret_settings import FILE_SUFFIX, AccessTokens, Secrets, is_secret, is_weak, read_secret_files
from bridge.setting_types import (
    CertificateFile,
    Country,
    DatabaseUrl,
    Duration,
    ExistingFolder,
    FieldPaths,
    HeaderName,
    Hosts,
    Networks,
    ProxySecret,
    PublicUrl,
    Recipients,
)
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

    An empty variable counts as unset. Whitespace around a value is removed, because platforms that keep settings often
    add a line break. A secret can be in a file, whose path is in the variable with `_FILE` at its end.
    A field that is a dictionary has one variable per key: `HTTP_TARGETS_ZAPIER` is the value of `zapier` in `targets`.
    Errors contain the name of the variable and the reason, never its value.
    """

    model_config = ConfigDict(
        frozen=True, hide_input_in_errors=True, validate_by_name=True, loc_by_alias=False
    )

    @classmethod
    def variable(cls, prefix: str, field: str) -> str:
        """Return the name of the variable for `field`, with `_<NAME>` at its end if it has one per key."""
        name = prefix + (cls.model_fields[field].alias or field).upper()
        return f"{name}_<NAME>" if cls._is_dictionary(field) else name

    @classmethod
    def descriptions(cls) -> dict[str, str]:
        """Return the docstrings of the fields, read only when needed: it takes longer than everything else here."""
        from bridge.attribute_docstrings import attribute_docstrings

        models = [base for base in reversed(cls.__mro__) if issubclass(base, EnvironmentModel)]
        return {name: text for model in models for name, text in attribute_docstrings(model).items()}

    @classmethod
    def _is_dictionary(cls, field: str) -> bool:
        return get_origin(cls.model_fields[field].annotation) is dict

    @classmethod
    def _keyed_variables(cls, environ: Mapping[str, str], prefix: str) -> dict[str, dict[str, str]]:
        """Return the variables of dictionaries that are set, without `_FILE`: field -> key -> variable."""
        found: dict[str, dict[str, str]] = {}
        for field in filter(cls._is_dictionary, cls.model_fields):
            start = cls.variable(prefix, field).removesuffix("<NAME>")
            names = sorted({name.removesuffix(FILE_SUFFIX) for name in environ if environ[name]})
            found[field] = {
                name.removeprefix(start).lower(): name
                for name in names
                if name.startswith(start) and name != start
            }
        return found

    @classmethod
    def secret_variables(cls, prefix: str) -> dict[str, str]:
        """Return the variables that can be read from a file, by field."""
        return {
            field: cls.variable(prefix, field)
            for field, info in cls.model_fields.items()
            if is_secret(info) and f"{field}_file" not in cls.model_fields and not cls._is_dictionary(field)
        }

    @classmethod
    def variables(cls, prefix: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """Return every variable that is read, also those with the path of a file, and those of keys in `environ`."""
        names = [cls.variable(prefix, field) for field in cls.model_fields if not cls._is_dictionary(field)]
        secrets = list(cls.secret_variables(prefix).values())
        for keyed in cls._keyed_variables(environ or {}, prefix).values():
            names += keyed.values()
            secrets += keyed.values()
        return names + [name + FILE_SUFFIX for name in secrets]

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], prefix: str) -> Self:
        """Read the model. Raise ConfigError that names every missing, invalid and renamed variable."""
        environ = {name: value.strip() for name, value in environ.items() if name.startswith(prefix)}
        names = {field: cls.variable(prefix, field) for field in cls.model_fields}
        values: dict[str, Any] = {field: environ[name] for field, name in names.items() if environ.get(name)}
        from_files, file_errors = read_secret_files(cls.secret_variables(prefix), environ)
        messages = [*cls.retired_variables(environ, prefix), *file_errors.values()]
        for field, keyed in cls._keyed_variables(environ, prefix).items():
            names |= {f"{field}.{key}": name for key, name in keyed.items()}
            of_keys, errors = read_secret_files(keyed, environ)
            messages += errors.values()
            values[field] = {key: environ[name] for key, name in keyed.items() if environ.get(name)} | of_keys
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
            key = ".".join(map(str, item["loc"][:2]))
            name = names.get(key) or names.get(field, "")
            if item["type"] == "missing":
                if field not in unreadable:
                    missing.append(name)
                continue
            message = requirement(item) or item["msg"].removeprefix("Value error, ")
            if item["type"] == "string_pattern_mismatch":
                description = cls.descriptions().get(field, "").rstrip(".")
                message = f"has the wrong form; expected: {description}"
            messages.append(f"{name}: {message}" if name else message)
        if missing:
            messages.insert(0, f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set")
        return messages


class Settings(EnvironmentModel):
    """The bridge's own settings; each connector defines the settings of its provider."""

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
    """Port on which `bridge worker` serves `/metrics`, `/healthz` and `/readyz`, at BRIDGE_HOST; if not set, it has no
    port. `bridge serve` has them on BRIDGE_PORT; with `--share-port`, this is a second port that it does not share."""
    bridge_secret_key: Secrets = ()
    """Encrypts unsubscribe links and the tokens of connections, and hashes the opt-outs of erased contacts. To change
    it, put the new value before the old one, separated by a comma: links in emails already sent, and opt-outs already
    hashed, need the old one."""
    bridge_encryption_keys: Secrets = ()
    """Encrypts the bodies of events, their traces and the details of conversations in the database. To change it, put
    the new value before the old one, separated by a comma, then run `bridge db reencrypt`."""
    bridge_default_country: Country | None = None
    """Country whose national phone numbers are understood, as ISO 3166 code (`US`). If not set, numbers need a `+`."""
    bridge_recipient_allowlist: Recipients = ()
    """If set, only these phone numbers and email addresses receive messages."""
    bridge_retention: Duration = timedelta(days=30)
    """How long event bodies and the personal data of finished deliveries are kept."""
    bridge_delete_after: Duration | None = None
    """If set, finished events and deliveries are deleted after this time, for example `400d`; at least
    BRIDGE_RETENTION. What recognizes duplicates is kept."""
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
    def encryption_keys(self) -> tuple[str, ...]:
        """BRIDGE_ENCRYPTION_KEYS: the current value first, then the earlier ones."""
        return tuple(secret.get_secret_value() for secret in self.bridge_encryption_keys)

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
            "bridge_encryption_keys": self.bridge_encryption_keys,
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
