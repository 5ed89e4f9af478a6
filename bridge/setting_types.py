"""Types of settings: what a value must look like, and the error that says what to write instead.

An error never repeats the value, which can be a secret.
"""

from __future__ import annotations

import re
import ssl
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from bridge.dropped_fields import dropped_path

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
"""A time span: `90s`, `16h`, `2d`, `1w`, or several of these such as `1h30m`."""
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
