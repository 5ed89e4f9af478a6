"""Email connector: sends one message to one recipient over SMTP, with one-click unsubscribe."""

from __future__ import annotations

import html
import re
import smtplib
import ssl
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses, parseaddr
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Email,
    Limits,
    Params,
    Success,
    check_deadline,
    failure_from_exception,
    is_loopback,
    normalize_email,
    param,
    per_message,
    remaining_seconds,
)
from bridge.errors import (
    AccountError,
    AuthenticationError,
    ConfigError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    TransientError,
)

CONNECT_TIMEOUT = 5.0
"""Seconds."""
REPLY_TIMEOUT = 10.0
"""Seconds."""
MAX_CONNECTION_AGE = 300.0
"""Seconds. Older connections are not reused: servers close idle connections silently."""
_UNDELIVERABLE_STATUSES = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
"""Enhanced status codes of an address that gets no email: no such mailbox or domain, not an address, moved, a domain
without email. The other codes 5.1.x are about the sender (5.1.7, 5.1.8) or say nothing certain (RFC 3463, RFC 7505)."""
RETRY_AFTER_4XX = timedelta(minutes=2)
"""A 4xx reply, most often from greylisting, asks for the same message again after minutes, not seconds."""

# Lines are folded at 998 characters, SMTP's maximum: at the usual 78 Python encodes a longer unsubscribe link into
# words that email clients cannot follow. 7bit, because not every server accepts 8-bit bodies.
POLICY = policy.SMTP.clone(max_line_length=998, cte_type="7bit")


class SmtpServer(BaseModel, frozen=True, hide_input_in_errors=True):
    """Address and credentials of the SMTP server."""

    host: str
    port: int
    tls: bool
    """TLS from the first byte (`smtps://`). Otherwise STARTTLS, required except on loopback."""
    user: str | None = None
    password: SecretStr | None = None


def parse_smtp_url(url: str) -> SmtpServer:
    """Parse `smtp://user:password@host:587` or `smtps://...:465`. Raises a ValueError that does not repeat the URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("smtp", "smtps"):
        raise ValueError(
            "is not a valid SMTP server URL: write smtp://user:password@host:587 or smtps://...:465"
        )
    if (parts.username is None) != (parts.password is None):
        raise ValueError(
            "needs both a user and a password, or neither; percent-encode special characters (@ as %40)"
        )
    tls = parts.scheme == "smtps"
    return SmtpServer(
        host=host,
        port=port or (465 if tls else 587),
        tls=tls,
        user=unquote(parts.username) if parts.username else None,
        password=SecretStr(unquote(parts.password)) if parts.password else None,
    )


def _validate_smtp_url(value: SecretStr) -> SecretStr:
    parse_smtp_url(value.get_secret_value())
    return value


def _validate_sender(value: str) -> str:
    addresses = getaddresses([value])
    name, address = addresses[0] if len(addresses) == 1 else ("", "")
    normalized = normalize_email(address)
    if normalized is None or any(char in name for char in "\r\n"):
        raise ValueError("is not a valid sender: write Harbour Light <hello@harbourlight.example>")
    return str(_header_address(normalized, name))


class Settings(ConnectorSettings):
    """Settings: `EMAIL_SMTP_URL`, a secret because it contains the password, and `EMAIL_FROM`."""

    smtp_url: Annotated[SecretStr, AfterValidator(_validate_smtp_url)]
    """SMTP server with credentials: `smtp://user:password@host:587` (STARTTLS) or `smtps://user:password@host:465`."""
    sender: Annotated[str, AfterValidator(_validate_sender)] = Field(alias="from")
    """Sender: `Harbour Light <hello@harbourlight.example>`, or the address alone."""
    reply_to: Email | None = None
    """Address for replies: an inbox that your team reads."""
    return_path: Email | None = None
    """Envelope sender, which receives bounces. Default: the address of `EMAIL_FROM`."""


connector = Connector(
    "email",
    settings=Settings,
    limits=Limits(per_second=5, concurrency=4, timeout=25),
    description="Sends email over SMTP, one recipient per message.",
)


# ---------------------------------------------------------------- connection


class SmtpClient:
    """Pool of connections to the SMTP server, with the configured sender addresses."""

    def __init__(self, settings: Settings) -> None:
        name, address = parseaddr(settings.sender)
        self.sender = _header_address(address, name)
        self.reply_to = settings.reply_to
        self.return_path = settings.return_path or self.sender.addr_spec
        self.own_addresses = (self.sender.addr_spec, self.return_path, self.reply_to or "")
        self._server = parse_smtp_url(settings.smtp_url.get_secret_value())
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
                smtp = smtplib.SMTP_SSL(
                    server.host,
                    server.port,
                    local_hostname,
                    timeout=timeout,
                    context=ssl.create_default_context(),
                )
            else:
                smtp = smtplib.SMTP(server.host, server.port, local_hostname, timeout=timeout)
        except smtplib.SMTPConnectError as error:
            raise error_from_reply(error.smtp_code, error.smtp_error, "greeting") from error
        except (OSError, smtplib.SMTPException) as error:
            raise _connection_error(error) from error
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
            limit_reply_time(smtp)
            smtp.ehlo_or_helo_if_needed()
            if not server.tls and not is_loopback(server.host):
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo()
            if server.user is not None and server.password is not None:
                smtp.login(server.user, server.password.get_secret_value())
        except smtplib.SMTPNotSupportedError as error:
            raise AuthenticationError(
                "the SMTP server offers no STARTTLS or no login here: check port and scheme of EMAIL_SMTP_URL"
            ) from error
        except smtplib.SMTPResponseException as error:
            raise error_from_reply(error.smtp_code, error.smtp_error, "login") from error
        except (OSError, smtplib.SMTPException) as error:
            raise _connection_error(error) from error


def limit_reply_time(smtp: smtplib.SMTP) -> None:
    """Limit the wait for the next reply to the attempt's remaining time."""
    check_deadline()
    if smtp.sock is not None:
        smtp.sock.settimeout(max(remaining_seconds(REPLY_TIMEOUT), 0.01))


def _is_alive(smtp: smtplib.SMTP) -> bool:
    try:
        limit_reply_time(smtp)
        return smtp.noop()[0] == 250
    except (OSError, smtplib.SMTPException, TransientError):
        return False


def _connection_error(error: Exception) -> TransientError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TransientError(
            "the SMTP server's certificate is not trusted or not valid for its host name", reason="network"
        )
    return TransientError(f"no connection to the SMTP server: {type(error).__name__}", reason="network")


def error_from_reply(code: int, reply: bytes | str, stage: str) -> DeliveryError:
    """Map a reply code to an exception. Only the enhanced status code is kept: the reply's text repeats addresses."""
    text = reply.decode("ascii", "replace") if isinstance(reply, bytes) else str(reply)
    enhanced = re.search(r"\b[245]\.\d{1,3}\.\d{1,3}\b", text)
    status = f"{code} {enhanced.group()}" if enhanced else str(code)
    message = f"the SMTP server answered {status} to the {stage}"
    if code in (530, 534, 535, 538) or (stage == "login" and code >= 500):
        return AuthenticationError(f"{message}: check user and password in EMAIL_SMTP_URL")
    if 400 <= code < 500:
        return TransientError(message, retry_after=RETRY_AFTER_4XX)
    if stage == "greeting" or not 500 <= code < 600:
        return TransientError(message)
    is_about_recipient = stage in ("recipient address", "message")
    undeliverable = bool(is_about_recipient and enhanced and enhanced.group() in _UNDELIVERABLE_STATUSES)
    return PermanentError(message, code=status, undeliverable=undeliverable)


@connector.client
def client(settings: Settings) -> SmtpClient:
    """Return an SMTP client that verifies certificates and waits for every reply with a timeout."""
    return SmtpClient(settings)


@connector.check
def check(smtp_client: SmtpClient) -> str:
    """Connect, encrypt, log in and verify that the server accepts the sender. Sends nothing."""
    with smtp_client.connection() as smtp:
        limit_reply_time(smtp)
        code, reply = smtp.mail(smtp_client.return_path, utf8_options(smtp, smtp_client.own_addresses))
        if code != 250:
            failure = error_from_reply(code, reply, "sender address")
            if isinstance(failure, PermanentError):
                raise ConfigError(
                    f"{failure.detail}: set EMAIL_FROM or EMAIL_RETURN_PATH to an address that you may send from"
                )
            raise failure
        smtp.rset()
    return f"logged in, sender at {smtp_client.sender.domain} accepted"


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map connection errors. SMTP replies are mapped where they are read; all else happens before submission."""
    if isinstance(error, smtplib.SMTPException):
        return TransientError(
            "the SMTP server closed the connection before the message was submitted", reason="network"
        )
    if isinstance(error, TimeoutError):
        return TransientError(
            "the SMTP server did not answer before the message was submitted", reason="timeout"
        )
    return failure_from_exception(error)


# ---------------------------------------------------------------- sending


class EmailParams(Params):
    """One email to one recipient."""

    to: Email = param("{{ contact.email }}", "Recipient: one email address.", example="ines@okafor.example")
    subject: str = param(
        ...,
        "Subject line. Line breaks become spaces.",
        example="Your question to us",
        min_length=1,
        max_length=300,
    )
    text: str = param(
        ...,
        "Body as plain text. Blank lines separate paragraphs.",
        example="Hello {{ contact.first_name | default('there') }},\n\nhow can we help?",
        min_length=1,
        max_length=100_000,
    )
    html: str | None = param(
        None,
        "Body as HTML. Default: generated from `text`. Values from the event are escaped.",
        example="<p>How can we <b>help</b>?</p>",
        html=True,
        max_length=500_000,
    )
    reply_to: Email | None = param(
        None, "Address for replies, instead of EMAIL_REPLY_TO.", example="support@harbourlight.example"
    )
    unsubscribe: str = param(
        "Unsubscribe",
        "Label of the unsubscribe link at the end of the message. Empty: no link, for messages that need none.",
        example="Unsubscribe",
        max_length=200,
    )


@connector.action(channel="email", idempotency=per_message)
def send(smtp_client: SmtpClient, params: EmailParams, context: Context) -> Success:
    """Send one email."""
    message = compose(smtp_client, params, context)
    others = (params.to, params.reply_to or "")
    needs_utf8 = not "".join((*smtp_client.own_addresses, *others)).isascii()
    payload = re.sub(rb"(?m)^\.", b"..", message.as_bytes(policy=POLICY.clone(utf8=needs_utf8)))
    with smtp_client.connection() as smtp:
        options = utf8_options(smtp, smtp_client.own_addresses, others)
        if smtp.has_extn("dsn"):
            options += ["RET=HDRS", f"ENVID={context.idempotency_token}"]
        _submit(smtp, smtp_client.return_path, params.to, payload, options)
    return Success(id=str(message["Message-ID"]), detail="accepted by the SMTP server")


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
            "the SMTP server does not offer SMTPUTF8: use only ASCII before the @ in EMAIL_FROM, EMAIL_REPLY_TO and "
            "EMAIL_RETURN_PATH"
        )
    raise PermanentError(
        "the SMTP server does not offer SMTPUTF8, which an address with non-ASCII characters before the @ needs",
        code="5.6.7",
    )


def _submit(smtp: smtplib.SMTP, sender: str, recipient: str, payload: bytes, options: Sequence[str]) -> None:
    """Submit one message in SMTP's own steps, because the meaning of a failure depends on the step.

    Until the dot that ends the message has been sent completely, the server has nothing to deliver. Between the dot
    and the reply the outcome is unknown, and SMTP offers no way to look it up.
    """
    limit_reply_time(smtp)
    code, reply = smtp.mail(sender, options)
    if code != 250:
        raise error_from_reply(code, reply, "sender address")
    limit_reply_time(smtp)
    code, reply = smtp.rcpt(recipient, ["NOTIFY=FAILURE"] if smtp.has_extn("dsn") else [])
    if code not in (250, 251):
        raise error_from_reply(code, reply, "recipient address")
    limit_reply_time(smtp)
    code, reply = smtp.docmd("DATA")
    if code != 354:
        raise error_from_reply(code, reply, "message")
    limit_reply_time(smtp)
    smtp.send(payload + b".\r\n")
    try:
        code, reply = smtp.getreply()
    except (OSError, smtplib.SMTPException) as error:
        timed_out = isinstance(error.__context__ or error, TimeoutError)
        raise OutcomeUnknown(
            "the message was submitted, but the SMTP server did not confirm it",
            reason="timeout" if timed_out else "network",
        ) from error
    if not 200 <= code < 600:
        raise OutcomeUnknown("the SMTP server's final reply is not valid SMTP", reason="server_error")
    if code >= 300:
        raise error_from_reply(code, reply, "message")


def compose(smtp_client: SmtpClient, params: EmailParams, context: Context) -> EmailMessage:
    """Return the message, byte-identical for every attempt, so that the recipient's server can drop a second copy."""
    message = EmailMessage(policy=POLICY)
    message["From"] = smtp_client.sender
    message["To"] = _header_address(params.to)
    if reply_to := params.reply_to or smtp_client.reply_to:
        message["Reply-To"] = _header_address(reply_to)
    message["Subject"] = " ".join(params.subject.split())
    message["Date"] = format_datetime(context.first_attempt_at)
    message["Message-ID"] = f"<{context.idempotency_token}@{smtp_client.sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    text, html_body = params.text.rstrip(), params.html or text_to_html(params.text)
    link = context.unsubscribe_url
    if params.unsubscribe and link:
        message["List-Unsubscribe"] = f"<{link}>"
        if link.startswith("https://"):  # RFC 8058 allows one-click unsubscribe for https only
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        text += f"\n\n-- \n{params.unsubscribe}: {link}"
        html_body += f'\n<p><a href="{html.escape(link)}">{html.escape(params.unsubscribe)}</a></p>'
    message.set_content(text + "\n")
    message.add_alternative(html_body + "\n", subtype="html")
    message.set_boundary(f"=_{context.idempotency_token}")
    return message


def text_to_html(text: str) -> str:
    """Return plain text as escaped HTML, with blank lines as paragraph breaks."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n".join("<p>" + html.escape(part).replace("\n", "<br>\n") + "</p>" for part in paragraphs)


def _header_address(address: str, name: str = "") -> Address:
    """Return a normalized address for a header. Its domain is in ASCII already."""
    local, _, domain = address.rpartition("@")
    return Address(name, local, domain)
