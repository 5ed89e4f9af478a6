"""E-mail: one message to one person over SMTP, with a way out of the list in one click."""

from __future__ import annotations

import html
import re
import smtplib
import ssl
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email import policy
from email.errors import MessageError
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
    param,
    per_message,
    remaining_seconds,
)
from bridge.errors import (
    AuthenticationError,
    ConfigError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    TransientError,
)

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 10.0
CONNECTION_SECONDS = 300.0
"""A connection older than this is not used again: servers close them without a word."""
GREYLIST_WAIT = timedelta(minutes=2)
"""A server that answers 4xx, greylisting above all, wants the same mail again after minutes, not seconds."""

# Lines are folded at 998, the longest that SMTP allows: at the usual 78 Python encodes an unsubscribe link that is
# longer into words that no mail program can follow. 7bit, because not every server takes 8-bit bodies.
POLICY = policy.SMTP.clone(max_line_length=998, cte_type="7bit")


class Server(BaseModel, frozen=True, hide_input_in_errors=True):
    """Where mail is handed in."""

    host: str
    port: int
    tls: bool
    """TLS from the first byte (`smtps://`); otherwise STARTTLS, which only loopback may go without."""
    user: str | None = None
    password: SecretStr | None = None


def read_url(url: str) -> Server:
    """`smtp://user:password@host:587` or `smtps://...:465`; raises ValueError that holds nothing of the URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("smtp", "smtps"):
        raise ValueError(
            "is no address of a mail server: write smtp://user:password@host:587 or smtps://...:465"
        )
    if (parts.username is None) != (parts.password is None):
        raise ValueError("needs both a user and a password, or neither; write special characters as %40")
    tls = parts.scheme == "smtps"
    return Server(
        host=host,
        port=port or (465 if tls else 587),
        tls=tls,
        user=unquote(parts.username) if parts.username else None,
        password=SecretStr(unquote(parts.password)) if parts.password else None,
    )


def _smtp_url(value: SecretStr) -> SecretStr:
    read_url(value.get_secret_value())
    return value


def _sender(value: str) -> str:
    found = getaddresses([value])
    try:
        [(name, address)] = found
        _address(address, name)
    except (ValueError, PermanentError):
        raise ValueError("is no sender: write Harbour Light <hello@harbourlight.example>") from None
    return value


class Settings(ConnectorSettings):
    """`EMAIL_SMTP_URL` and `EMAIL_FROM`; the URL holds a password."""

    smtp_url: Annotated[SecretStr, AfterValidator(_smtp_url)]
    sender: Annotated[str, AfterValidator(_sender)] = Field(alias="from")
    """`Harbour Light <hello@harbourlight.example>` or the address alone (`EMAIL_FROM`)."""
    reply_to: Email | None = None
    """A mailbox that somebody reads."""
    return_path: Email | None = None
    """The envelope's sender, where bounces go; otherwise that of `EMAIL_FROM`."""


connector = Connector(
    "email",
    settings=Settings,
    limits=Limits(per_second=5, concurrency=4, timeout=25),
    description="Mails people over SMTP, one recipient per mail.",
)


# ---------------------------------------------------------------- the connection


class Mailbox:
    """Connections to the mail server, kept between mails, and whose mail it is."""

    def __init__(self, settings: Settings) -> None:
        name, address = parseaddr(settings.sender)
        self.sender = _address(address, name)
        self.reply_to = settings.reply_to
        self.return_path = _address(settings.return_path or self.sender.addr_spec).addr_spec
        self._server = read_url(settings.smtp_url.get_secret_value())
        self._idle: deque[tuple[smtplib.SMTP, float]] = deque()

    @contextmanager
    def connection(self) -> Iterator[smtplib.SMTP]:
        """A connection that is alive; kept for the next mail when all went well, closed otherwise."""
        smtp, opened = self._kept() or (self._open(), time.monotonic())
        try:
            yield smtp
        except BaseException:
            smtp.close()
            raise
        self._idle.append((smtp, opened))

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop()[0].close()

    def _kept(self) -> tuple[smtplib.SMTP, float] | None:
        """The connection used last, if the server still answers on it: only before a mail is it safe to try."""
        while self._idle:
            try:
                smtp, opened = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if time.monotonic() - opened < CONNECTION_SECONDS and _answers(smtp):
                return smtp, opened
            smtp.close()
        return None

    def _open(self) -> smtplib.SMTP:
        server = self._server
        check_deadline()
        # Without a name smtplib asks DNS for this machine's own, which can take minutes.
        own_name = self.sender.domain
        timeout = max(remaining_seconds(CONNECT_SECONDS), 0.01)
        smtp: smtplib.SMTP
        try:
            if server.tls:
                smtp = smtplib.SMTP_SSL(
                    server.host, server.port, own_name, timeout=timeout, context=ssl.create_default_context()
                )
            else:
                smtp = smtplib.SMTP(server.host, server.port, own_name, timeout=timeout)
        except smtplib.SMTPConnectError as error:
            raise refusal(error.smtp_code, error.smtp_error, "greeting") from error
        except (OSError, smtplib.SMTPException) as error:
            raise _no_connection(error) from error
        try:
            self._greet(smtp)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _greet(self, smtp: smtplib.SMTP) -> None:
        """Encrypt and log in. Nothing of a mail has been said yet, so every failure here proves that none went."""
        server = self._server
        try:
            hurry(smtp)
            smtp.ehlo_or_helo_if_needed()
            if not server.tls and not is_loopback(server.host):
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo()
            if server.user is not None and server.password is not None:
                smtp.login(server.user, server.password.get_secret_value())
        except smtplib.SMTPNotSupportedError as error:
            raise AuthenticationError(
                "the mail server offers no STARTTLS or no login here; check port and scheme of EMAIL_SMTP_URL"
            ) from error
        except smtplib.SMTPResponseException as error:
            raise refusal(error.smtp_code, error.smtp_error, "login") from error
        except (OSError, smtplib.SMTPException) as error:
            raise _no_connection(error) from error


def hurry(smtp: smtplib.SMTP) -> None:
    """Let the next reply take no longer than the attempt may."""
    check_deadline()
    if smtp.sock is not None:
        smtp.sock.settimeout(max(remaining_seconds(REPLY_SECONDS), 0.01))


def _answers(smtp: smtplib.SMTP) -> bool:
    try:
        hurry(smtp)
        return smtp.noop()[0] == 250
    except (OSError, smtplib.SMTPException, TransientError):
        return False


def _no_connection(error: Exception) -> TransientError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TransientError("the mail server's certificate is not valid for its name", reason="network")
    return TransientError(f"no connection to the mail server: {type(error).__name__}", reason="network")


def refusal(code: int, reply: bytes | str, stage: str) -> DeliveryError:
    """What a reply code means. Of the reply's words only the enhanced code is kept: the rest repeats addresses."""
    text = reply.decode("ascii", "replace") if isinstance(reply, bytes) else str(reply)
    enhanced = re.search(r"\b[245]\.\d{1,3}\.\d{1,3}\b", text)
    said = f"{code} {enhanced.group()}" if enhanced else str(code)
    if code in (530, 534, 535, 538) or (stage == "login" and code >= 500):
        return AuthenticationError(f"the mail server answered {said} to the {stage}; check EMAIL_SMTP_URL")
    if 400 <= code < 500:
        return TransientError(f"the mail server answered {said} to the {stage}", retry_after=GREYLIST_WAIT)
    if stage == "greeting" or not 500 <= code < 600:
        return TransientError(f"the mail server answered {said} to the {stage}")
    return PermanentError(f"the mail server answered {said} to the {stage}", code=said)


@connector.client
def client(settings: Settings) -> Mailbox:
    """The mail server; certificates are verified, every reply is waited for with a timeout."""
    return Mailbox(settings)


@connector.check
def check(mailbox: Mailbox) -> str:
    """Connect, encrypt, log in and ask whether the server takes mail from the sender; sends nothing."""
    with mailbox.connection() as smtp:
        hurry(smtp)
        code, reply = smtp.mail(mailbox.return_path)
        if code != 250:
            failure = refusal(code, reply, "sender")
            if isinstance(failure, PermanentError):
                raise ConfigError(
                    f"{failure.detail}; set EMAIL_FROM or EMAIL_RETURN_PATH to an address of yours"
                )
            raise failure
        smtp.rset()
    return f"logged in, mail from {mailbox.sender.domain} is taken"


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """SMTP's refusals are typed where they are read; what is left broke off before the mail was handed over."""
    if isinstance(error, smtplib.SMTPException):
        return TransientError("the mail server hung up before the mail was handed over", reason="network")
    if isinstance(error, TimeoutError):
        return TransientError(
            "the mail server did not answer before the mail was handed over", reason="timeout"
        )
    return failure_from_exception(error)


# ---------------------------------------------------------------- sending


class Mail(Params):
    """One mail to one person."""

    to: Email = param("{{ contact.email }}", "Who gets it: one address.", example="ines@okafor.example")
    subject: str = param(
        ...,
        "The subject. Line breaks become spaces.",
        example="Your question to us",
        min_length=1,
        max_length=300,
    )
    text: str = param(
        ...,
        "The mail as plain text; empty lines make paragraphs.",
        example="Hello {{ contact.first_name | default('there') }},\n\nhow can we help?",
        min_length=1,
        max_length=100_000,
    )
    html: str | None = param(
        None,
        "The mail as HTML, when the text alone is not enough. What an event puts into it is escaped.",
        example="<p>How can we <b>help</b>?</p>",
        html=True,
        max_length=500_000,
    )
    reply_to: Email | None = param(
        None, "Where answers go, instead of EMAIL_REPLY_TO.", example="support@harbourlight.example"
    )
    unsubscribe: str = param(
        "Unsubscribe",
        "The words of the link at the end that takes a person off the list; empty for a mail that needs none.",
        example="Unsubscribe",
        max_length=200,
    )


@connector.action(channel="email", idempotency=per_message)
def send(mailbox: Mailbox, mail: Mail, context: Context) -> Success:
    """Mail a person."""
    message = compose(mailbox, mail, context)
    recipient = message["To"].addresses[0].addr_spec
    payload = re.sub(rb"(?m)^\.", b"..", message.as_bytes(policy=POLICY))
    with mailbox.connection() as smtp:
        _hand_over(smtp, mailbox.return_path, recipient, payload, envelope=context.idempotency_token)
    return Success(id=str(message["Message-ID"]), detail="accepted by the mail server")


def _hand_over(smtp: smtplib.SMTP, sender: str, recipient: str, payload: bytes, *, envelope: str) -> None:
    """One mail in SMTP's own steps, because what a failure proves depends on the step.

    Until the dot that ends the mail has left whole, the server has nothing to send on. Between the dot and the
    reply nobody knows, and SMTP offers no way to ask.
    """
    notify = smtp.has_extn("dsn")
    hurry(smtp)
    code, reply = smtp.mail(sender, ["RET=HDRS", f"ENVID={envelope}"] if notify else [])
    if code != 250:
        raise refusal(code, reply, "sender")
    hurry(smtp)
    code, reply = smtp.rcpt(recipient, ["NOTIFY=FAILURE"] if notify else [])
    if code not in (250, 251):
        raise refusal(code, reply, "recipient")
    hurry(smtp)
    code, reply = smtp.docmd("DATA")
    if code != 354:
        raise refusal(code, reply, "mail")
    hurry(smtp)
    smtp.send(payload + b".\r\n")
    try:
        code, reply = smtp.getreply()
    except (OSError, smtplib.SMTPException) as error:
        late = isinstance(error.__context__ or error, TimeoutError)
        raise OutcomeUnknown(
            "the mail was handed over and the server did not say that it took it",
            reason="timeout" if late else "network",
        ) from error
    if not 200 <= code < 600:
        raise OutcomeUnknown("the mail server's last answer makes no sense", reason="server_error")
    if code >= 300:
        raise refusal(code, reply, "mail")


def compose(mailbox: Mailbox, mail: Mail, context: Context) -> EmailMessage:
    """The mail, the same to the last byte however often it is tried, so that a receiver can drop a second copy."""
    message = EmailMessage(policy=POLICY)
    message["From"] = mailbox.sender
    message["To"] = _address(mail.to)
    if reply_to := mail.reply_to or mailbox.reply_to:
        message["Reply-To"] = _address(reply_to)
    message["Subject"] = " ".join(mail.subject.split())
    message["Date"] = format_datetime(context.first_attempt_at)
    message["Message-ID"] = f"<{context.idempotency_token}@{mailbox.sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    text, rich = mail.text.rstrip(), mail.html or to_html(mail.text)
    link = context.unsubscribe_url
    if mail.unsubscribe and link:
        message["List-Unsubscribe"] = f"<{link}>"
        if link.startswith("https://"):  # RFC 8058 allows one click for https alone
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        text += f"\n\n-- \n{mail.unsubscribe}: {link}"
        rich += f'\n<p><a href="{html.escape(link)}">{html.escape(mail.unsubscribe)}</a></p>'
    message.set_content(text + "\n")
    message.add_alternative(rich + "\n", subtype="html")
    message.set_boundary(f"=_{context.idempotency_token}")
    return message


def to_html(text: str) -> str:
    """Plain text as HTML that says the same: escaped, empty lines as paragraphs."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n".join("<p>" + html.escape(part).replace("\n", "<br>\n") + "</p>" for part in paragraphs)


def _address(address: str, name: str = "") -> Address:
    """One address for a header and the envelope; raises PermanentError for what plain SMTP cannot carry."""
    local, _, domain = address.rpartition("@")
    try:
        if not local.isascii():
            raise ValueError("local part")
        return Address(name, addr_spec=f"{local}@{domain.encode('idna').decode()}")
    except (ValueError, IndexError, MessageError) as error:
        raise PermanentError(
            "the address cannot be mailed: only ASCII before the @, one domain after it"
        ) from error
