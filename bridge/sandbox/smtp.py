"""Mock SMTP server: accepts all email, delivers none, and fails on demand."""

from __future__ import annotations

import asyncio
import contextlib
import email.policy
import logging
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from starlette.responses import PlainTextResponse, Response

from bridge.clock import Clock
from bridge.sandbox.faults import HANG_SECONDS, Fault, Faults
from bridge.sandbox.gateway import RecordedRequest, RequestLog
from bridge.sandbox.provider import MAX_RECORDS, Handler, MockProvider

MAX_MESSAGE_BYTES = 10 * 1024 * 1024
_NEEDS_SMTPUTF8 = "553 5.6.7 Non-ASCII addresses need SMTPUTF8"
_REPLY_TEXTS = {
    421: "4.3.2 Service shutting down",
    450: "4.2.0 Mailbox busy, try again later",
    451: "4.7.1 Greylisted, try again later",
    452: "4.3.1 Insufficient system storage",
    530: "5.7.0 Authentication required",
    535: "5.7.8 Authentication credentials invalid",
    550: "5.1.1 Mailbox unavailable",
    552: "5.3.4 Message too big",
    554: "5.7.1 Message rejected",
}

for noisy in ("mail.log", "mail.debug"):
    logging.getLogger(noisy).setLevel(logging.ERROR)  # they contain addresses


@dataclass(frozen=True)
class ReceivedEmail:
    """An email with its envelope. `raw` is the content between DATA and the final dot."""

    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage
    raw: bytes
    received_at: datetime
    tls: bool
    authenticated: bool


class EmailProvider(MockProvider):
    """The email provider. If `username` and `password` are set, clients must authenticate before sending.

    `smtputf8` says whether new connections are offered SMTPUTF8, which non-ASCII addresses need.
    """

    name = "email"

    def __init__(self, clock: Clock, faults: Faults, log: RequestLog) -> None:
        super().__init__(clock, faults)
        self.log = log
        self.username: str | None = None
        self.password: str | None = None
        self.smtputf8 = True
        self._messages: list[ReceivedEmail] = []

    @property
    def messages(self) -> list[ReceivedEmail]:
        """The accepted emails, oldest first."""
        with self.lock:
            return list(self._messages)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return no HTTP routes: the provider uses SMTP."""
        return ()

    def error_response(self, status: int, message: str | None = None) -> Response:
        """Return the text of an SMTP reply, with the reply code as the status."""
        return PlainTextResponse(message or _REPLY_TEXTS.get(status, "Rejected"), status)

    def quota_error_response(self) -> Response:
        """Return the reply to more emails than the quota allows."""
        return self.error_response(452, "4.7.0 Sending quota exceeded")

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the emails with their headers and plain text."""
        return {"messages": [_message_json(message) for message in self.messages]}

    def reset(self) -> None:
        """Remove all emails and the password, and offer SMTPUTF8."""
        with self.lock:
            self.username = self.password = None
            self.smtputf8 = True
            self._messages.clear()

    def store(self, message: ReceivedEmail) -> bool:
        """Store an email. Return False if the sandbox is full."""
        with self.lock:
            if len(self._messages) >= MAX_RECORDS:
                return False
            self._messages.append(message)
            return True


class MockSmtpServer:
    """Creates one `MockSmtpSession` for each client, on the sandbox's event loop."""

    def __init__(self, provider: EmailProvider, tls: ssl.SSLContext | None) -> None:
        self.provider = provider
        self.tls = tls
        self.sessions: set[MockSmtpSession] = set()

    def protocol(self) -> MockSmtpSession:
        """Return the protocol for a new connection."""
        return MockSmtpSession(self, asyncio.get_running_loop())

    def abort(self) -> None:
        """Close all connections."""
        for session in list(self.sessions):
            session.abort_connection()


class MockSmtpSession(SMTP):
    """One SMTP session."""

    def __init__(self, server: MockSmtpServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        handler = _SessionHandler(server.provider, self)
        self._session_handler = handler
        super().__init__(
            handler,
            data_size_limit=MAX_MESSAGE_BYTES,
            enable_SMTPUTF8=server.provider.smtputf8,
            hostname="sandbox.invalid",
            ident="sandbox",
            tls_context=server.tls,
            auth_require_tls=False,
            authenticator=handler.authenticate,
            loop=loop,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the session."""
        self.server.sessions.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Remove the session."""
        self.server.sessions.discard(self)
        super().connection_lost(error)

    def abort_connection(self) -> None:
        """Close the TCP connection without a reply."""
        transport = self._original_transport or self.transport
        if isinstance(transport, asyncio.Transport):
            transport.abort()

    async def _handle_client(self) -> None:
        """Serve one client. A fault on CONNECT replaces the greeting."""
        with contextlib.suppress(ConnectionError):
            error_reply = await self._session_handler.greeting()
            if error_reply is None:
                await super()._handle_client()
            else:
                await self.push(error_reply)
                self._writer.close()


class _SessionHandler:
    """The replies of one session. Faults apply before or after a command is processed."""

    def __init__(self, provider: EmailProvider, connection: MockSmtpSession) -> None:
        self.provider = provider
        self.connection = connection

    async def greeting(self) -> str | None:
        """Return the error reply that replaces the greeting, if any."""
        fault = self.provider.faults.take("email", "CONNECT", "")
        return None if fault is None else await self._apply_fault(fault, None)

    async def handle_MAIL(  # noqa: N802
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Handle MAIL FROM."""

        def process() -> str:
            if self.provider.username is not None and not session.authenticated:
                return "530 5.7.0 Authentication required"
            if not address.isascii() and not envelope.smtp_utf8:
                return _NEEDS_SMTPUTF8
            envelope.mail_from = address
            envelope.mail_options.extend(options)
            return "250 2.1.0 OK"

        return await self._reply_to("MAIL", address, process)

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Handle RCPT TO."""

        def process() -> str:
            if "@" not in address:
                return "550 5.1.3 Bad recipient address syntax"
            if not address.isascii() and not envelope.smtp_utf8:
                return _NEEDS_SMTPUTF8
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(options)
            return "250 2.1.5 OK"

        return await self._reply_to("RCPT", address, process)

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Handle the message content, after the final dot."""
        raw = bytes(envelope.original_content or b"")

        def process() -> str:
            lines = raw.replace(b"\r\n", b"\n")  # undo the line endings of the transfer
            if not lines.partition(b"\n\n")[0].isascii() and not envelope.smtp_utf8:
                return "554 5.6.7 The header has non-ASCII characters, but MAIL had no SMTPUTF8"
            message = BytesParser(
                EmailMessage, policy=email.policy.default.clone(utf8=envelope.smtp_utf8)
            ).parsebytes(lines)
            received = ReceivedEmail(
                str(envelope.mail_from),
                tuple(envelope.rcpt_tos),
                message,
                raw,
                self.provider.now(),
                session.ssl is not None,
                bool(session.authenticated),
            )
            return "250 2.0.0 OK queued" if self.provider.store(received) else "452 4.3.1 The sandbox is full"

        return await self._reply_to("DATA", ",".join(envelope.rcpt_tos), process, raw)

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        """Handle AUTH. Without a configured password, any password is accepted."""
        fault = self.provider.faults.take("email", "AUTH", "")
        if fault is not None and fault.status is not None:
            return AuthResult(success=False, handled=False, message=_fault_reply(self.provider, fault))
        credentials = tuple(bytes(part).decode("utf-8", "replace") for part in (data.login, data.password))
        expected = (self.provider.username, self.provider.password)
        return AuthResult(success=self.provider.username is None or credentials == expected, handled=False)

    async def _reply_to(self, verb: str, address: str, process: Callable[[], str], raw: bytes = b"") -> str:
        """Return the reply to a command. The command is processed even if the client disconnects meanwhile."""
        return await asyncio.shield(asyncio.ensure_future(self._serve(verb, address, process, raw)))

    async def _serve(self, verb: str, address: str, process: Callable[[], str], raw: bytes) -> str:
        request = self.provider.log.add(
            RecordedRequest("email", verb, address, {}, {}, raw, self.provider.now())
        )
        reply: str | None = None
        if not self.provider.faults.spend_quota("email", verb, address):
            response = self.provider.quota_error_response()
            reply = f"{response.status_code} {bytes(response.body).decode()}"
        elif (fault := self.provider.faults.take("email", verb, address)) is not None:
            reply = await self._apply_fault(fault, process)
        if reply is None:
            reply = process()
        request.status = int(reply[:3])
        return reply

    async def _apply_fault(self, fault: Fault, process: Callable[[], str] | None) -> str | None:
        """Apply a fault. Return its reply, or None if the command is to be processed normally."""
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.drop == "after" and process is not None:
            process()
        if fault.status is not None:
            return _fault_reply(self.provider, fault)
        if fault.hang:
            await asyncio.sleep(HANG_SECONDS)
        if fault.hang or fault.drop is not None:
            self.connection.abort_connection()
            raise ConnectionResetError
        return None


def _fault_reply(provider: EmailProvider, fault: Fault) -> str:
    text = (
        fault.body
        if isinstance(fault.body, str)
        else bytes(provider.error_response(fault.status or 451).body).decode()
    )
    return f"{fault.status} {text}"


def _message_json(item: ReceivedEmail) -> dict[str, Any]:
    body = item.message.get_body(preferencelist=("plain", "html"))
    return {
        "sender": item.sender,
        "recipients": list(item.recipients),
        "headers": {name: str(value) for name, value in item.message.items()},
        "text": body.get_content() if body is not None else None,
        "at": item.received_at.isoformat(),
    }
