"""Settings of an HTTP connection: the allowed hosts, the secret targets, and the signing secret."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Annotated, Self

import httpx
from pydantic import AfterValidator, BeforeValidator, SecretStr, model_validator

from bridge.connector import Connector, ConnectorGroup, ConnectorSettings, Limits, is_loopback

HEADER_SUFFIX = "_header"
RESERVED_HEADERS = frozenset(
    {"connection", "content-length", "content-type", "expect", "host", "idempotency-key", "te", "traceparent"}
    | {"trailer", "transfer-encoding", "upgrade", "webhook-id", "webhook-signature", "webhook-timestamp"}
)
"""Headers that belong to the request itself."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
MAX_HEADER_LENGTH = 4000


def _split_secrets(value: object) -> object:
    if not isinstance(value, str):
        return value
    secrets = [part.strip() for part in value.split(",")]
    if not all(_is_signing_secret(secret) for secret in secrets):
        raise ValueError("must be whsec_ followed by 24 to 64 bytes in base64; two are separated by a comma")
    return tuple(SecretStr(secret) for secret in secrets)


def _is_signing_secret(text: str) -> bool:
    try:
        return 24 <= len(base64.b64decode(text.removeprefix("whsec_"), validate=True)) <= 64
    except ValueError:
        return False


def _split_hosts(value: object) -> object:
    if not isinstance(value, str):
        return value
    hosts = tuple(filter(None, map(str.strip, value.lower().split(","))))
    if any("/" in host for host in hosts):
        raise ValueError(
            "write host names only, such as hooks.example.com, without https:// and without a path"
        )
    return hosts


def _check_url(value: SecretStr) -> SecretStr:
    try:
        has_host = bool(httpx.URL(value.get_secret_value()).host)
    except (httpx.InvalidURL, ValueError):  # the second one for a wrong international name
        has_host = False
    if not has_host:
        raise ValueError("must be a whole URL, such as https://hooks.example.com/abc")
    return value


def header_problem(name: str, value: str) -> str:
    """Return what is wrong with a header, without its value; empty if nothing is."""
    if not _HEADER_NAME.fullmatch(name):
        return "is not the name of a header: write letters, digits and -"
    if name.lower() in RESERVED_HEADERS:
        return "is set by the bridge itself: remove it"
    if not (value.isascii() and value.isprintable() and len(value) <= MAX_HEADER_LENGTH):
        return f"has a value that no header can have: write at most {MAX_HEADER_LENGTH} ASCII characters on one line"
    return ""


def _check_targets(values: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Check the URLs and headers of the targets. An error repeats no value."""
    for name, value in values.items():
        target = name.removesuffix(HEADER_SUFFIX)
        variable = f"HTTP_TARGETS_{name.upper()}"
        if target == name:
            _check_target_url(variable, value)
        elif target not in values:
            raise ValueError(f"{variable} needs HTTP_TARGETS_{target.upper()}, the URL that gets the header")
        else:
            header, colon, text = value.get_secret_value().partition(":")
            if not colon:
                raise ValueError(
                    f"{variable}: write the name of the header, a colon and its value, as in X-Key: abc"
                )
            if problem := header_problem(header.strip(), text.strip()):
                raise ValueError(f"{variable}: the header {problem}")
    return values


def _check_target_url(variable: str, value: SecretStr) -> None:
    try:
        url = httpx.URL(value.get_secret_value())
        is_whole = bool(url.host) and url.scheme in ("http", "https") and not url.userinfo
    except (httpx.InvalidURL, ValueError):
        is_whole = False
    if not is_whole:
        raise ValueError(
            f"{variable}: write a whole URL without a user or password, such as https://hooks.example.com/abc"
        )
    if url.scheme == "http" and not is_loopback(url.host):
        raise ValueError(
            f"{variable} must start with https://, because the URL is a secret; http:// is allowed for loopback only"
        )


@dataclass(frozen=True)
class Target:
    """Where a request goes, and the header that authenticates it."""

    url: str
    headers: dict[str, str]

    def __repr__(self) -> str:
        return "Target(...)"


class Settings(ConnectorSettings):
    """Settings: `HTTP_TARGETS_<NAME>` for secret URLs, `HTTP_ALLOWED_HOSTS` for URLs in rules, and `HTTP_SECRET`."""

    targets: Annotated[dict[str, SecretStr], AfterValidator(_check_targets)] = {}
    """A URL that is a secret, by a name of your choice, which rules write as `target:`: `HTTP_TARGETS_ZAPIER`. A header
    that the receiver asks for is in `HTTP_TARGETS_<NAME>_HEADER`, as `X-Key: value`."""
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_split_hosts)] = ()
    """Hosts of URLs in rules, separated by commas, with the port unless it is the default:
    `erp.example.com,10.0.0.8:8443`."""
    secret: Annotated[tuple[SecretStr, ...], BeforeValidator(_split_secrets)] = ()
    """Signing secret (`whsec_...`), with which your service verifies the signature. Without it, requests are not
    signed. During a rotation: the new and the old one, separated by a comma; every request then has both signatures."""
    url: Annotated[SecretStr, AfterValidator(_check_url)] | None = None
    """Secret URL of steps without `target` and `url`."""
    allow_private: bool = False
    """Allow host names that resolve to private addresses. An IP address in a target or in the list of hosts is always
    allowed."""

    @model_validator(mode="after")
    def _require_receiver(self) -> Self:
        if not (self.targets or self.allowed_hosts or self.url):
            raise ValueError(
                "set HTTP_TARGETS_<NAME> to a secret URL, or HTTP_ALLOWED_HOSTS for URLs in rules: no host is allowed "
                "otherwise"
            )
        return self

    def target(self, name: str) -> Target | None:
        """Return a target by its name; None if there is none."""
        url, header = self.targets.get(name.lower()), self.targets.get(name.lower() + HEADER_SUFFIX)
        if url is None or name.lower().endswith(HEADER_SUFFIX):
            return None
        field, _, value = header.get_secret_value().partition(":") if header else ("", "", "")
        return Target(url.get_secret_value(), {field.strip(): value.strip()} if header else {})

    @property
    def target_names(self) -> list[str]:
        """The names that rules can write as `target:`."""
        return [name for name in self.targets if not name.endswith(HEADER_SUFFIX)]

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every allowed host, with the port unless it is the default."""
        secrets = [self.targets[name] for name in self.target_names] + ([self.url] if self.url else [])
        own = [host_of(httpx.URL(secret.get_secret_value())) for secret in secrets]
        return tuple(dict.fromkeys((*self.allowed_hosts, *own)))


def host_of(url: httpx.URL) -> str:
    """Return the host as HTTP_ALLOWED_HOSTS has it: with the port unless it is the default."""
    return url.netloc.decode("ascii").lower()


connector = Connector(
    "http",
    settings=Settings,
    limits=Limits(concurrency=8),
    description="Sends requests to your own services, Zapier, Make and n8n; signed according to Standard Webhooks.",
    group=ConnectorGroup.OTHER,
)
