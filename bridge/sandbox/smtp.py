"""Mock SMTP server: accepts all email, delivers none, and fails on demand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email.policy
import itertools
import logging
import re
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from bridge.sandbox.email_account import EmailProvider, ReceivedEmail
from bridge.sandbox.faults import HANG_SECONDS, Fault, HostileResponse
from bridge.sandbox.gateway import RecordedRequest
from bridge.sandbox.hostile_responses import DRIP_SECONDS

MAX_MESSAGE_BYTES = 10 * 1024 * 1024
_NEEDS_SMTPUTF8 = "553 5.6.7 Non-ASCII addresses need SMTPUTF8"
MAX_LINE_BYTES = 12_288
"""Longest line, that of AUTH with a token (RFC 4954). A line of a message has at most 998 bytes and its end."""
MAX_CONTENT_LINE_BYTES = 1000

for noisy in ("mail.log", "mail.debug"):
    logging.getLogger(noisy).setLevel(logging.ERROR)  # they contain addresses


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

    line_length_limit = MAX_LINE_BYTES

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
            auth_exclude_mechanism={"LOGIN", "PLAIN", "XOAUTH2"} - set(server.provider.mechanisms),
            authenticator=handler.authenticate,
            loop=loop,
        )
        self.command_size_limits["AUTH"] = MAX_LINE_BYTES

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

    async def handle_EHLO(  # noqa: N802
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, replies: list[str]
    ) -> list[str]:
        """Handle EHLO. A server without mechanisms does not offer AUTH."""
        session.host_name = hostname
        return [reply for reply in replies if reply.strip() != "250-AUTH"]

    async def handle_MAIL(  # noqa: N802
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Handle MAIL FROM."""

        def process() -> str:
            if self.provider.username is not None and not session.authenticated:
                return "530 5.7.0 Authentication required"
            if not address.isascii() and not envelope.smtp_utf8:
                return _NEEDS_SMTPUTF8
            if refusal := self.provider.sender_refusal(address):
                return refusal
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
            if max(map(len, raw.split(b"\n")), default=0) > MAX_CONTENT_LINE_BYTES:
                return "500 5.5.2 Line too long"
            if refusal := self.provider.content_refusal(message):
                return refusal
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
        if self.provider.plain_login_refusal is not None:
            return AuthResult(success=False, handled=False, message=self.provider.plain_login_refusal)
        credentials = tuple(bytes(part).decode("utf-8", "replace") for part in (data.login, data.password))
        expected = (self.provider.username, self.provider.password)
        return AuthResult(success=self.provider.username is None or credentials == expected, handled=False)

    async def auth_XOAUTH2(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802
        """Handle AUTH XOAUTH2: `user=...^Aauth=Bearer ...^A^A`. A refusal follows a challenge with the reason."""
        fault = self.provider.faults.take("email", "AUTH", "")
        if fault is not None and fault.status is not None:
            return AuthResult(success=False, handled=False, message=_fault_reply(self.provider, fault))
        initial: Any = await server.challenge_auth("") if len(args) == 1 else _decoded(args[1])
        fields = re.fullmatch(rb"user=([^\x01]+)\x01auth=Bearer ([^\x01]+)\x01\x01", initial or b"")
        if fields is not None and self.provider.tokens.accepts(fields[1].decode(), fields[2].decode()):
            return AuthResult(success=True, auth_data=fields[1].decode())
        await server.challenge_auth('{"status":"400","schemes":"Bearer"}')
        return AuthResult(success=False, handled=False, message="535 5.7.3 Authentication unsuccessful")

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
        fault_reply = None if fault.status is None else _fault_reply(self.provider, fault)
        takes_effect = fault.drop == "after" or (fault.response is not None and fault_reply is None)
        reply = process() if process is not None and takes_effect else "220"
        if fault.response is not None:
            with contextlib.suppress(ConnectionError):
                await self._reply_without_end((fault_reply or reply)[:3], fault.response)
            return fault_reply or reply
        if fault_reply is not None:
            return fault_reply
        if fault.hang:
            await asyncio.sleep(HANG_SECONDS)
        if fault.hang or fault.drop is not None:
            self.connection.abort_connection()
            raise ConnectionResetError
        return None

    async def _reply_without_end(self, code: str, kind: HostileResponse) -> None:
        """Send lines that all announce another one, until the client disconnects. Raise ConnectionError then."""
        writer = self.connection._writer
        line = f"{code}-more to come\r\n".encode()
        parts = [line[index : index + 1] for index in range(len(line))] if kind == "drips" else [line * 1000]
        for part in itertools.cycle(parts):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(DRIP_SECONDS if kind == "drips" else 0)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _fault_reply(provider: EmailProvider, fault: Fault) -> str:
    text = (
        fault.body
        if isinstance(fault.body, str)
        else bytes(provider.error_response(fault.status or 451).body).decode()
    )
    return f"{fault.status} {text}"
