"""The connections to the SMTP server: encryption, login, reuse, and the check of the account."""

from __future__ import annotations

import base64
import smtplib
import ssl
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import parseaddr

from bridge.connector import (
    IncompleteResponse,
    Token,
    TokenSource,
    add_private_ca,
    check_deadline,
    failure_from_exception,
    is_loopback,
    remaining_seconds,
)
from bridge.errors import AccountError, AuthenticationError, DeliveryError, PermanentError, TransientError

from .limited_smtp import LimitedSmtp, LimitedSmtpOverTls
from .replies import error_from_reply
from .settings import Settings, SmtpServer, connector, header_address, parse_smtp_url

CONNECT_TIMEOUT = 5.0
"""Seconds."""
MAX_CONNECTION_AGE = 300.0
"""Seconds. Older connections are not reused: servers close idle connections silently."""


class SmtpClient:
    """Pool of connections to the SMTP server, with the configured sender addresses."""

    def __init__(self, settings: Settings, tokens: TokenSource) -> None:
        name, address = parseaddr(settings.sender)
        self.sender = header_address(address, name)
        self.reply_to = settings.reply_to
        self.return_path = settings.return_path or self.sender.addr_spec
        self.own_addresses = (self.sender.addr_spec, self.return_path, self.reply_to or "")
        self._server = parse_smtp_url(settings.smtp_url.get_secret_value())
        self._tokens = tokens if settings.uses_oauth else None
        self._mailbox = settings.oauth_mailbox
        self._idle: deque[tuple[smtplib.SMTP, float]] = deque()

    @contextmanager
    def connection(self) -> Iterator[smtplib.SMTP]:
        """Yield a live connection. Keep it for the next message on success, close it on any exception."""
        smtp, opened_at = self._reuse() or (self._open(), time.monotonic())
        try:
            yield smtp
        except BaseException:
            smtp.close()
            raise
        self._idle.append((smtp, opened_at))

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop()[0].close()

    def _reuse(self) -> tuple[smtplib.SMTP, float] | None:
        """Return the last used connection if the server still answers. Only before a message is it safe to test."""
        while self._idle:
            try:
                smtp, opened_at = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if time.monotonic() - opened_at < MAX_CONNECTION_AGE and _is_alive(smtp):
                return smtp, opened_at
            smtp.close()
        return None

    def _open(self) -> smtplib.SMTP:
        server = self._server
        check_deadline()
        # Without a name, smtplib resolves this machine's own name in DNS, which can take minutes.
        local_hostname = self.sender.domain
        timeout = max(remaining_seconds(CONNECT_TIMEOUT), 0.01)
        smtp: smtplib.SMTP
        try:
            if server.tls:
                smtp = LimitedSmtpOverTls(
                    server.host,
                    server.port,
                    local_hostname,
                    timeout=timeout,
                    context=add_private_ca(ssl.create_default_context()),
                )
            else:
                smtp = LimitedSmtp(server.host, server.port, local_hostname, timeout=timeout)
        except smtplib.SMTPConnectError as error:
            raise error_from_reply(error.smtp_code, error.smtp_error, "greeting") from error
        except (OSError, smtplib.SMTPException) as error:
            raise _connection_error(error, server) from error
        try:
            self._log_in(smtp)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _log_in(self, smtp: smtplib.SMTP) -> None:
        """Encrypt and log in. No message has been submitted yet, so a failure here proves that nothing was sent."""
        server = self._server
        try:
            smtp.ehlo_or_helo_if_needed()
            if not server.tls and not is_loopback(server.host):
                _start_tls(smtp, server)
            if self._tokens is not None:
                _log_in_by_oauth(smtp, self._mailbox, self._tokens)
            elif server.user is not None and server.password is not None:
                _log_in_by_password(smtp, server.user, server.password.get_secret_value())
        except smtplib.SMTPResponseException as error:
            raise error_from_reply(error.smtp_code, error.smtp_error, "login") from error
        except (OSError, smtplib.SMTPException) as error:
            raise _connection_error(error, server) from error


def _start_tls(smtp: smtplib.SMTP, server: SmtpServer) -> None:
    if not smtp.has_extn("starttls"):
        raise AuthenticationError(
            f"the SMTP server offers no STARTTLS on port {server.port}, so the password would be readable on the way",
            fix="check the port of EMAIL_SMTP_URL: smtp:// with 587, smtps:// with 465",
        )
    smtp.starttls(context=add_private_ca(ssl.create_default_context()))
    smtp.ehlo()


def _require_mechanism(smtp: smtplib.SMTP, usable: Sequence[str]) -> None:
    """Raise AuthenticationError if the server offers none of these mechanisms, or no login at all."""
    offered = smtp.esmtp_features.get("auth", "").upper().replace("=", " ").split()
    if not offered:
        raise AuthenticationError(
            "the SMTP server offers no login here",
            fix="check the port of EMAIL_SMTP_URL (587 or 465), or remove user and password if it needs none",
        )
    if any(mechanism in offered for mechanism in usable):
        return
    if "XOAUTH2" in offered:
        raise AuthenticationError(
            "the SMTP server accepts no passwords, only OAuth (XOAUTH2)",
            fix="remove user and password from EMAIL_SMTP_URL and set EMAIL_OAUTH_TENANT (Microsoft 365) or "
            "EMAIL_OAUTH_SERVICE_ACCOUNT_FILE (Gmail)",
        )
    if "XOAUTH2" in usable:
        raise AuthenticationError(
            "the SMTP server does not offer OAuth (XOAUTH2)",
            fix="remove the EMAIL_OAUTH_... settings and write user and password into EMAIL_SMTP_URL",
        )
    raise AuthenticationError(
        f"the SMTP server offers only the login methods {', '.join(sorted(set(offered)))[:100]}",
        fix=f"use a server that offers {' or '.join(usable)}, or a password that needs no other method",
    )


def _log_in_by_password(smtp: smtplib.SMTP, user: str, password: str) -> None:
    """Log in with the best mechanism that the server offers. smtplib itself cannot send other characters than ASCII."""
    if (user + password).isascii():
        _require_mechanism(smtp, ("PLAIN", "LOGIN", "CRAM-MD5"))
        smtp.login(user, password)
        return
    _require_mechanism(smtp, ("PLAIN",))
    credentials = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    code, reply = smtp.docmd("AUTH", f"PLAIN {credentials}")
    if code != 235:
        raise smtplib.SMTPAuthenticationError(code, reply)


def _log_in_by_oauth(smtp: smtplib.SMTP, mailbox: str, tokens: TokenSource) -> None:
    """Log in with a token. If the server refuses a token, it may have been revoked: log in once more with a new one."""
    _require_mechanism(smtp, ("XOAUTH2",))
    token = tokens.current()
    try:
        _authenticate(smtp, mailbox, token)
    except smtplib.SMTPAuthenticationError as error:
        if error.smtp_code != 535:
            raise
        try:
            _authenticate(smtp, mailbox, tokens.current(refused=token))
        except smtplib.SMTPAuthenticationError as second:
            if second.smtp_code != 535:
                raise
            raise AuthenticationError(
                "the SMTP server answered 535 to the login, although the app has a token",
                fix="give the app access to the mailbox of EMAIL_OAUTH_USER (default: EMAIL_FROM): Microsoft 365 needs "
                "the permission SMTP.SendAsApp, the app's service principal in Exchange Online and full access to the "
                "mailbox, and Authenticated SMTP turned on for it",
            ) from error


def _authenticate(smtp: smtplib.SMTP, user: str, token: Token) -> None:
    """Send AUTH XOAUTH2. To the challenge that follows a refusal, the client answers with an empty line."""

    def respond(challenge: bytes | None = None) -> str:
        login = f"user={user}\x01auth=Bearer {token.access.get_secret_value()}\x01\x01"
        return login if challenge is None else ""

    smtp.auth("XOAUTH2", respond)


def _is_alive(smtp: smtplib.SMTP) -> bool:
    try:
        return smtp.noop()[0] == 250
    except (OSError, smtplib.SMTPException, TransientError):
        return False


def _connection_error(error: Exception, server: SmtpServer) -> TransientError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TransientError(
            "the SMTP server's certificate is not trusted or not valid for its host name", reason="network"
        )
    if incomplete := incomplete_reply(error):
        return TransientError(f"no login to the SMTP server: {incomplete}", reason="timeout")
    message = f"no connection to the SMTP server: {type(error).__name__}"
    if isinstance(error, ssl.SSLError) and server.tls:
        message += f" (port {server.port} may need smtp:// in EMAIL_SMTP_URL instead of smtps://)"
    elif isinstance(error, TimeoutError | smtplib.SMTPServerDisconnected) and not server.tls:
        message += f" (port {server.port} may need smtps:// in EMAIL_SMTP_URL instead of smtp://)"
    return TransientError(message, reason="network")


def incomplete_reply(error: Exception) -> IncompleteResponse | None:
    """Return why a reply was not read completely, which smtplib reports as a lost connection."""
    cause = error.__context__ if isinstance(error, smtplib.SMTPServerDisconnected) else error
    return cause if isinstance(cause, IncompleteResponse) else None


def utf8_options(smtp: smtplib.SMTP, own: Sequence[str], others: Sequence[str] = ()) -> list[str]:
    """Return the options of MAIL for these addresses, of which only the part before the @ can be non-ASCII.

    Only a server that offers SMTPUTF8 (RFC 6531) accepts such an address. If it does not, raise AccountError for one
    of the connection's `own` addresses and PermanentError for one of the `others`.
    """
    if "".join((*own, *others)).isascii():
        return []
    if smtp.has_extn("smtputf8"):
        return ["SMTPUTF8", "BODY=8BITMIME"]
    if not "".join(own).isascii():
        raise AccountError(
            "the SMTP server does not offer SMTPUTF8",
            fix="use only ASCII before the @ in EMAIL_FROM, EMAIL_REPLY_TO and EMAIL_RETURN_PATH",
        )
    raise PermanentError(
        "the SMTP server does not offer SMTPUTF8, which an address with non-ASCII characters before the @ needs",
        code="5.6.7",
    )


@connector.client
def client(settings: Settings, tokens: TokenSource) -> SmtpClient:
    """Return an SMTP client that verifies certificates and waits for every reply with a timeout."""
    return SmtpClient(settings, tokens)


@connector.check
def check(smtp_client: SmtpClient) -> str:
    """Connect, encrypt, log in and verify that the server accepts the sender. Sends nothing."""
    with smtp_client.connection() as smtp:
        code, reply = smtp.mail(smtp_client.return_path, utf8_options(smtp, smtp_client.own_addresses))
        if code != 250:
            raise error_from_reply(code, reply, "sender address")
        smtp.rset()
    return f"logged in, sender at {smtp_client.sender.domain} accepted"


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map connection errors. SMTP replies are mapped where they are read; all else happens before submission."""
    if incomplete := incomplete_reply(error):
        return TransientError(f"the message was not submitted: {incomplete}", reason="timeout")
    if isinstance(error, smtplib.SMTPException):
        return TransientError(
            "the SMTP server closed the connection before the message was submitted", reason="network"
        )
    if isinstance(error, TimeoutError):
        return TransientError(
            "the SMTP server did not answer before the message was submitted", reason="timeout"
        )
    return failure_from_exception(error)
