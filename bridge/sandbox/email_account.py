"""Mock email account: what the SMTP server offers, who may send as whom, and the emails it accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any

from starlette.responses import PlainTextResponse, Response

from bridge.clock import Clock
from bridge.sandbox.faults import Faults
from bridge.sandbox.gateway import RequestLog
from bridge.sandbox.oauth_tokens import TokenServer
from bridge.sandbox.provider import MAX_RECORDS, Handler, MockProvider

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
_SETTINGS = {
    "username", "password", "smtputf8", "mechanisms", "plain_login_refusal", "senders", "daily_limit", "blocked",
}  # fmt: skip
_DAY = timedelta(days=1)


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

    What a real account may be like: `smtputf8` and `mechanisms` say what new connections are offered;
    `plain_login_refusal` is the reply to every login with a password, as in a tenant that has switched them off;
    `senders` are the only addresses that the account may send from; after `daily_limit` emails within 24 hours, or
    while it is `blocked`, the account sends nothing to any recipient.
    """

    name = "email"

    def __init__(self, clock: Clock, faults: Faults, log: RequestLog) -> None:
        super().__init__(clock, faults)
        self.log = log

    @property
    def messages(self) -> list[ReceivedEmail]:
        """The accepted emails, oldest first."""
        with self.lock:
            return list(self._messages)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the token endpoints. Everything else uses SMTP."""
        return [
            ("POST", "/{tenant}/oauth2/v2.0/token", lambda request: self.tokens.entra_token(request)),
            ("POST", "/token", lambda request: self.tokens.google_token(request)),
        ]

    def commands(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """Return the command that changes the account."""
        return [("configure", lambda body: self.configure(**body))]

    def configure(self, **changes: Any) -> None:
        """Change settings of the account, such as `daily_limit`. Raise ValueError for an unknown one."""
        unknown = sorted(changes.keys() - _SETTINGS)
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(unknown)}")
        with self.lock:
            for name, value in changes.items():
                setattr(self, name, set(value) if name == "senders" and value is not None else value)

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
        """Remove all emails and tokens, and lift every restriction of the account."""
        with self.lock:
            self.username: str | None = None
            self.password: str | None = None
            self.smtputf8 = True
            self.mechanisms: tuple[str, ...] = ("LOGIN", "PLAIN")
            self.plain_login_refusal: str | None = None
            self.senders: set[str] | None = None
            self.daily_limit: int | None = None
            self.blocked = False
            self.tokens = TokenServer(self.now)
            self._messages: list[ReceivedEmail] = []

    def sender_refusal(self, sender: str) -> str | None:
        """Return the reply to MAIL if the account may not send from this address, or nothing any more today."""
        with self.lock:
            if self.senders is not None and sender not in self.senders:
                return "550 5.7.60 SMTP; Client does not have permissions to send as this sender"
            since = self.now() - _DAY
            sent = sum(message.received_at > since for message in self._messages)
        if self.daily_limit is not None and sent >= self.daily_limit:
            return "550 5.4.5 Daily user sending limit exceeded."
        return None

    def content_refusal(self, message: EmailMessage) -> str | None:
        """Return the reply to the content if the account is blocked, or the `From` header names another sender."""
        if self.blocked:
            return "550 5.1.8 Access denied, bad outbound sender"
        author = parseaddr(str(message.get("From", "")))[1]
        if self.senders is not None and author not in self.senders:
            return "554 5.2.252 SendAsDenied; the account is not allowed to send as this address"
        return None

    def store(self, message: ReceivedEmail) -> bool:
        """Store an email. Return False if the sandbox is full."""
        with self.lock:
            if len(self._messages) >= MAX_RECORDS:
                return False
            self._messages.append(message)
            return True


def _message_json(item: ReceivedEmail) -> dict[str, Any]:
    body = item.message.get_body(preferencelist=("plain", "html"))
    return {
        "sender": item.sender,
        "recipients": list(item.recipients),
        "headers": {name: str(value) for name, value in item.message.items()},
        "text": body.get_content() if body is not None else None,
        "at": item.received_at.isoformat(),
    }
