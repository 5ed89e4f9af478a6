"""A mail server: accepts everything, delivers nothing, and fails on demand."""

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
from bridge.sandbox.provider import RECORDS_KEPT, Handler, Partner

LARGEST_MAIL = 10 * 1024 * 1024
_TEXTS = {
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
    logging.getLogger(noisy).setLevel(logging.ERROR)  # they hold addresses


@dataclass(frozen=True)
class ReceivedMail:
    """One mail with its envelope; `raw` is what stood between DATA and the dot."""

    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage
    raw: bytes
    at: datetime
    tls: bool
    authenticated: bool


class Mail(Partner):
    """The mail server; `username` and `password`, when set, are asked for before anything is taken."""

    name = "email"

    def __init__(self, clock: Clock, faults: Faults, log: RequestLog) -> None:
        super().__init__(clock, faults)
        self.log = log
        self.username: str | None = None
        self.password: str | None = None
        self._messages: list[ReceivedMail] = []

    @property
    def messages(self) -> list[ReceivedMail]:
        """The mails that were accepted, oldest first."""
        with self.lock:
            return list(self._messages)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """None: it speaks SMTP."""
        return ()

    def failure(self, status: int, message: str | None = None) -> Response:
        """The text of an SMTP reply."""
        return PlainTextResponse(message or _TEXTS.get(status, "Refused"), status)

    def quota_exhausted(self) -> Response:
        """Too many mails for now."""
        return self.failure(452, "4.7.0 Sending quota exceeded")

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """The mails, with their headers and their text."""
        return {"messages": [_as_json(mail) for mail in self.messages]}

    def reset(self) -> None:
        """An empty mailbox, and no password."""
        with self.lock:
            self.username = self.password = None
            self._messages.clear()

    def keep(self, mail: ReceivedMail) -> bool:
        """Take the mail; False when there is no room."""
        with self.lock:
            if len(self._messages) >= RECORDS_KEPT:
                return False
            self._messages.append(mail)
            return True


class MailServer:
    """Mail's sockets: one `Connection` for each client, on the sandbox's own loop."""

    def __init__(self, mail: Mail, tls: ssl.SSLContext | None) -> None:
        self.mail = mail
        self.tls = tls
        self.connections: set[Connection] = set()

    def protocol(self) -> Connection:
        """The protocol for one client that connects."""
        return Connection(self, asyncio.get_running_loop())

    def abort(self) -> None:
        """Cut all connections."""
        for connection in list(self.connections):
            connection.cut()


class Connection(SMTP):
    """One SMTP session."""

    def __init__(self, server: MailServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        script = _Script(server.mail, self)
        self._script = script
        super().__init__(
            script,
            data_size_limit=LARGEST_MAIL,
            enable_SMTPUTF8=True,
            hostname="sandbox.invalid",
            ident="sandbox",
            tls_context=server.tls,
            auth_require_tls=False,
            authenticator=script.authenticate,
            loop=loop,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self.server.connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        self.server.connections.discard(self)
        super().connection_lost(error)

    def cut(self) -> None:
        """Close the TCP connection without another word."""
        transport = self._original_transport or self.transport
        if isinstance(transport, asyncio.Transport):
            transport.abort()

    async def _handle_client(self) -> None:
        """Serve one client; a fault on CONNECT speaks instead of the greeting."""
        with contextlib.suppress(ConnectionError):
            refused = await self._script.greeting()
            if refused is None:
                await super()._handle_client()
            else:
                await self.push(refused)
                self._writer.close()


class _Script:
    """What one session answers. Faults come between a command and its effect."""

    def __init__(self, mail: Mail, connection: Connection) -> None:
        self.mail = mail
        self.connection = connection

    async def greeting(self) -> str | None:
        """What is said instead of the greeting, if anything."""
        fault = self.mail.faults.take("email", "CONNECT", "")
        return None if fault is None else await self._spoiled(fault, None)

    async def handle_MAIL(  # noqa: N802
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """MAIL FROM."""

        def effect() -> str:
            if self.mail.username is not None and not session.authenticated:
                return "530 5.7.0 Authentication required"
            envelope.mail_from = address
            envelope.mail_options.extend(options)
            return "250 2.1.0 OK"

        return await self._play("MAIL", address, effect)

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """RCPT TO."""

        def effect() -> str:
            if "@" not in address:
                return "550 5.1.3 Bad recipient address syntax"
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(options)
            return "250 2.1.5 OK"

        return await self._play("RCPT", address, effect)

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """The mail itself, after the dot."""
        raw = bytes(envelope.original_content or b"")

        def effect() -> str:
            lines = raw.replace(b"\r\n", b"\n")  # texts read as they were written, not as they travelled
            message = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(lines)
            received = ReceivedMail(
                str(envelope.mail_from),
                tuple(envelope.rcpt_tos),
                message,
                raw,
                self.mail.now(),
                session.ssl is not None,
                bool(session.authenticated),
            )
            return "250 2.0.0 OK queued" if self.mail.keep(received) else "452 4.3.1 The sandbox is full"

        return await self._play("DATA", ",".join(envelope.rcpt_tos), effect, raw)

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        """AUTH; a sandbox that asks for no password takes any."""
        fault = self.mail.faults.take("email", "AUTH", "")
        if fault is not None and fault.status is not None:
            return AuthResult(success=False, handled=False, message=_reply(self.mail, fault))
        given = tuple(bytes(part).decode("utf-8", "replace") for part in (data.login, data.password))
        wanted = (self.mail.username, self.mail.password)
        return AuthResult(success=self.mail.username is None or given == wanted, handled=False)

    async def _play(self, verb: str, address: str, effect: Callable[[], str], raw: bytes = b"") -> str:
        """The reply to a command. Its effect comes about even when the client leaves meanwhile."""
        return await asyncio.shield(asyncio.ensure_future(self._serve(verb, address, effect, raw)))

    async def _serve(self, verb: str, address: str, effect: Callable[[], str], raw: bytes) -> str:
        request = self.mail.log.add(RecordedRequest("email", verb, address, {}, {}, raw, self.mail.now()))
        reply: str | None = None
        if not self.mail.faults.quota_left("email", verb, address):
            refused = self.mail.quota_exhausted()
            reply = f"{refused.status_code} {bytes(refused.body).decode()}"
        elif (fault := self.mail.faults.take("email", verb, address)) is not None:
            reply = await self._spoiled(fault, effect)
        if reply is None:
            reply = effect()
        request.status = int(reply[:3])
        return reply

    async def _spoiled(self, fault: Fault, effect: Callable[[], str] | None) -> str | None:
        """Play a fault: its reply, or None when the command goes its usual way after all."""
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.drop == "after" and effect is not None:
            effect()
        if fault.status is not None:
            return _reply(self.mail, fault)
        if fault.hang:
            await asyncio.sleep(HANG_SECONDS)
        if fault.hang or fault.drop is not None:
            self.connection.cut()
            raise ConnectionResetError
        return None


def _reply(mail: Mail, fault: Fault) -> str:
    text = (
        fault.body if isinstance(fault.body, str) else bytes(mail.failure(fault.status or 451).body).decode()
    )
    return f"{fault.status} {text}"


def _as_json(mail: ReceivedMail) -> dict[str, Any]:
    body = mail.message.get_body(preferencelist=("plain", "html"))
    return {
        "sender": mail.sender,
        "recipients": list(mail.recipients),
        "headers": {name: str(value) for name, value in mail.message.items()},
        "text": body.get_content() if body is not None else None,
        "at": mail.at.isoformat(),
    }
