"""Settings of an email connection, and the connector that the other modules add the action to."""

from __future__ import annotations

import re
from email.headerregistry import Address
from email.utils import getaddresses, parseaddr
from typing import Annotated, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr, model_validator

from bridge.connector import (
    Connector,
    ConnectorGroup,
    ConnectorSettings,
    Email,
    Limits,
    ProviderUrl,
    SecretFile,
    is_loopback,
    normalize_email,
)

_FORM = "write smtp://user:password@host:587 or smtps://user:password@host:465"
_ENCODE = "percent-encode special characters of the password (@ as %40, / as %2F, # as %23, : as %3A)"
_STARTTLS_PORTS = frozenset({25, 587, 2525, 2587})
_TLS_PORTS = frozenset({465, 2465})


class SmtpServer(BaseModel, frozen=True, hide_input_in_errors=True):
    """Address and credentials of the SMTP server."""

    host: str
    port: int
    tls: bool
    """TLS from the first byte (`smtps://`). Otherwise STARTTLS, required except on loopback."""
    user: str | None = None
    password: SecretStr | None = None


def parse_smtp_url(url: str) -> SmtpServer:
    """Parse `smtp://user:password@host:587` or `smtps://...:465`. Raises a ValueError that does not repeat the URL.

    A URL in which a part of the password could be taken for the host is invalid: it would be looked up in DNS.
    """
    match = re.fullmatch(r"(smtps?)://(?:([^:@/]*)(?::([^@]*))?@)?([^@]*)", url, re.DOTALL)
    if match is None or not url.isprintable():
        raise ValueError(f"is not a valid SMTP server URL: {_FORM}, and {_ENCODE}")
    scheme, user, password, address = match.groups()
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"needs a host and a port from 1 to 65535: {_FORM}") from None
    is_host = bool(host and re.fullmatch(r"[A-Za-z0-9._:-]+", host)) and port != 0
    if not host or not is_host or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"is not a valid SMTP server URL: {_FORM}, and {_ENCODE}")
    if bool(user) != bool(password):
        raise ValueError(f"needs both a user and a password, or neither; {_ENCODE}")
    tls = scheme == "smtps"
    _check_port(tls, port, host)
    return SmtpServer(
        host=host,
        port=port or (465 if tls else 587),
        tls=tls,
        user=unquote(user) if user else None,
        password=SecretStr(unquote(password)) if password else None,
    )


def _check_port(tls: bool, port: int | None, host: str) -> None:
    """Reject a scheme that the port's servers do not speak: both sides would wait for the other until the timeout."""
    if is_loopback(host):
        return
    if tls and port in _STARTTLS_PORTS:
        raise ValueError(
            f"port {port} starts without TLS and needs smtp://, which switches to TLS by STARTTLS: write smtp:// with "
            f"port {port}, or smtps:// with port 465"
        )
    if not tls and port in _TLS_PORTS:
        raise ValueError(
            f"port {port} needs smtps://, which is TLS from the first byte: write smtps:// with port {port}, or "
            "smtp:// with port 587"
        )


def header_address(address: str, name: str = "") -> Address:
    """Return a normalized address for a header. Its domain is in ASCII already."""
    local, _, domain = address.rpartition("@")
    return Address(name, local, domain)


def _validate_smtp_url(value: SecretStr) -> SecretStr:
    parse_smtp_url(value.get_secret_value())
    return value


def _validate_sender(value: str) -> str:
    addresses = getaddresses([value])
    name, address = addresses[0] if len(addresses) == 1 else ("", "")
    normalized = normalize_email(address)
    if normalized is None or any(char in name for char in "\r\n"):
        raise ValueError("is not a valid sender: write Harbour Light <hello@harbourlight.example>")
    return str(header_address(normalized, name))


class Settings(ConnectorSettings):
    """Settings: `EMAIL_SMTP_URL`, a secret because it contains the password, and `EMAIL_FROM`.

    Microsoft 365 and Gmail: `EMAIL_OAUTH_...` instead of a user and password in the URL.
    """

    smtp_url: Annotated[SecretStr, AfterValidator(_validate_smtp_url)]
    """SMTP server with credentials: `smtp://user:password@host:587` (STARTTLS) or `smtps://user:password@host:465`."""
    sender: Annotated[str, AfterValidator(_validate_sender)] = Field(alias="from")
    """Sender: `Harbour Light <hello@harbourlight.example>`, or the address alone."""
    reply_to: Email | None = None
    """Address for replies: an inbox that your team reads."""
    return_path: Email | None = None
    """Envelope sender, which receives bounces. Default: the address of `EMAIL_FROM`."""
    oauth_tenant: str | None = Field(None, pattern=r"^[A-Za-z0-9.-]+$")
    """Microsoft 365: directory (tenant) ID of the app registration, or a domain of the tenant."""
    oauth_client_id: str | None = None
    """Application (client) ID of the app that logs in by OAuth."""
    oauth_client_secret: SecretStr | None = None
    """Client secret of that app: its value, not its ID."""
    oauth_refresh_token: SecretStr | None = None
    """Gmail: refresh token that the mailbox's user granted to the app, with the scope `https://mail.google.com/`."""
    oauth_service_account_file: SecretFile | None = None
    """Gmail: path of the JSON key of a service account with domain-wide delegation."""
    oauth_user: Email | None = None
    """Mailbox that logs in by OAuth. Default: the address of `EMAIL_FROM`."""
    oauth_token_url: ProviderUrl | None = None
    """Token endpoint. Default: that of Microsoft Entra or Google."""

    @model_validator(mode="after")
    def _require_one_login(self) -> Self:
        is_app = self.oauth_tenant is not None or self.oauth_refresh_token is not None
        pair = (self.oauth_client_id, self.oauth_client_secret)
        if self.oauth_service_account_file is not None and (is_app or any(pair)):
            raise ValueError(
                "set EMAIL_OAUTH_SERVICE_ACCOUNT_FILE alone, without EMAIL_OAUTH_TENANT, EMAIL_OAUTH_CLIENT_ID, "
                "EMAIL_OAUTH_CLIENT_SECRET and EMAIL_OAUTH_REFRESH_TOKEN"
            )
        if self.oauth_tenant is not None and self.oauth_refresh_token is not None:
            raise ValueError(
                "Microsoft 365 needs EMAIL_OAUTH_TENANT, Gmail EMAIL_OAUTH_REFRESH_TOKEN: set one of them"
            )
        if is_app and not all(pair):
            raise ValueError("OAuth needs EMAIL_OAUTH_CLIENT_ID and EMAIL_OAUTH_CLIENT_SECRET")
        if any(pair) and not is_app:
            raise ValueError(
                "OAuth needs EMAIL_OAUTH_TENANT (Microsoft 365) or EMAIL_OAUTH_REFRESH_TOKEN (Gmail) as well"
            )
        if not self.uses_oauth and (self.oauth_user or self.oauth_token_url):
            raise ValueError(
                "OAuth needs EMAIL_OAUTH_TENANT, EMAIL_OAUTH_REFRESH_TOKEN or EMAIL_OAUTH_SERVICE_ACCOUNT_FILE"
            )
        if self.uses_oauth and not self.oauth_mailbox.isascii():
            raise ValueError(
                "OAuth needs a mailbox with only ASCII before the @: set EMAIL_OAUTH_USER to one"
            )
        server = parse_smtp_url(self.smtp_url.get_secret_value())
        if self.uses_oauth and server.user is not None:
            raise ValueError(
                "remove the user and password from EMAIL_SMTP_URL, or the EMAIL_OAUTH_... settings"
            )
        if self.uses_oauth and not server.tls and server.port == 25 and not is_loopback(server.host):
            raise ValueError(
                "OAuth needs port 587 in EMAIL_SMTP_URL: port 25 is for servers, without a login"
            )
        return self

    @property
    def oauth_mailbox(self) -> str:
        """The mailbox that logs in by OAuth."""
        return self.oauth_user or parseaddr(self.sender)[1]

    @property
    def uses_oauth(self) -> bool:
        """Return whether the connection logs in by OAuth (XOAUTH2) instead of a password."""
        return bool(self.oauth_tenant or self.oauth_refresh_token or self.oauth_service_account_file)


connector = Connector(
    "email",
    settings=Settings,
    limits=Limits(per_second=5, concurrency=4, timeout=25),
    description="Sends email over SMTP, one message to one recipient, or to several colleagues.",
    group=ConnectorGroup.CUSTOMER_MESSAGES,
)
