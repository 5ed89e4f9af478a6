"""SMTP replies, mapped to exceptions: what they say about the account, the sender, the recipient or the moment."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from bridge.errors import (
    AccountError,
    AuthenticationError,
    DeliveryError,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)

Stage = Literal["greeting", "login", "sender address", "recipient address", "message"]
"""What the server replied to."""

RETRY_AFTER_4XX = timedelta(minutes=2)
"""A 4xx reply, most often from greylisting, asks for the same message again after minutes, not seconds."""
_UNDELIVERABLE_STATUSES = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
"""Enhanced status codes of an address that gets no email: no such mailbox or domain, not an address, moved, a domain
without email. The other codes 5.1.x are about the sender (5.1.7, 5.1.8) or say nothing certain (RFC 3463, RFC 7505)."""
_ABOUT_THE_MESSAGE = frozenset({"5.3.4", "5.6.7"})
"""Too big, or with characters that the server does not accept: another message from the same sender is fine."""

_ALL: tuple[Stage, ...] = ("greeting", "login", "sender address", "recipient address", "message")
_SENDING: tuple[Stage, ...] = ("sender address", "recipient address", "message")
_FREE_SENDER = "set EMAIL_FROM and EMAIL_RETURN_PATH to addresses that the account may send from"
_SEND_AS = f"{_FREE_SENDER}, or give it the permission Send As on that mailbox"
_UNBLOCK = "find out why the provider blocked the account, and ask its support to lift the block"
_OAUTH = "log in by OAuth (EMAIL_OAUTH_TENANT and the settings after it)"


@dataclass(frozen=True)
class Meaning:
    """One row: the replies that it is about, what they mean, and what the operator does.

    `login` and `account`: no message gets through until the operator has done what `fix` says. `quota` and `rate`:
    later messages get through.
    """

    kind: Literal["login", "account", "quota", "rate"]
    text: str
    """What is wrong, in plain words."""
    fix: str = ""
    statuses: str = ""
    """Regular expression for the enhanced status code. Empty: any, or none."""
    words: str = ""
    """Regular expression for the words of the reply. Empty: any."""
    stages: Collection[str] = _SENDING

    def fits(self, code: int, status: str, words: str, stage: Stage) -> bool:
        """Return whether a reply is one of this row. A 4xx never speaks of a problem that an operator has to solve."""
        return (
            stage in self.stages
            and (code >= 500 or self.kind in ("quota", "rate"))
            and bool(not self.statuses or re.fullmatch(self.statuses, status))
            and bool(not self.words or re.search(self.words, words, re.IGNORECASE))
        )


MEANINGS: Sequence[Meaning] = (
    # Quotas. Most of them count the last 24 hours, so that a later attempt finds room.
    Meaning(
        "quota",
        "the account has sent as much as it may in 24 hours",
        statuses=r"5\.4\.5|5\.1\.90|5\.7\.23[23]",
    ),
    Meaning(
        "quota",
        "the account has sent as much as it may in 24 hours",
        words=r"submission ?quota ?exceeded|daily (message|sending|user sending) (quota|limit)|sending quota exceeded"
        r"|exceeded your messaging limits|maximum credits exceeded",
        stages=_ALL,
    ),
    Meaning(
        "rate",
        "the account sends too fast",
        statuses=r"4\.3\.2",
        words=r"concurrent connections",
        stages=_ALL,
    ),
    Meaning(
        "rate",
        "the account sends too fast",
        words=r"maximum sending rate exceeded|submission rate",
        stages=_ALL,
    ),
    # Login.
    Meaning(
        "login",
        "Microsoft 365 has switched off SMTP logins for this mailbox or tenant",
        "turn on Authenticated SMTP for the mailbox (Microsoft 365 admin center, user, Mail, Manage email apps)",
        words=r"SmtpClientAuthentication is disabled",
        stages=("login",),
    ),
    Meaning(
        "login",
        "the server no longer accepts logins with a password",
        _OAUTH,
        statuses=r"5\.7\.139",
        stages=("login",),
    ),
    Meaning(
        "login",
        "Google wants an app password, or OAuth",
        "create an app password for the mailbox, or set EMAIL_OAUTH_SERVICE_ACCOUNT_FILE",
        statuses=r"5\.7\.(9|14)",
        stages=("login",),
    ),
    # The sender, in the words of the providers. A server may check it only when it knows the recipient.
    Meaning(
        "account",
        "the account may not send from this address",
        _SEND_AS,
        statuses=r"5\.7\.60|5\.2\.252",
    ),
    Meaning(
        "account",
        "the account may not send from this address",
        _SEND_AS,
        words=r"send ?as ?denied|not allowed to send as|permissions? to send as|sender address rejected"
        r"|not owned by user",
    ),
    Meaning(
        "account",
        "the provider has not verified the sender",
        "verify the domain of EMAIL_FROM at the provider; at Amazon SES, also request production access",
        words=r"(address|domain) is not verified|verified sender identity|sender signature|unauthenticated senders",
        stages=("sender address", "message"),
    ),
    Meaning(
        "account",
        "the account may not send email",
        "allow the SMTP user to send (at Amazon SES: ses:SendRawEmail)",
        words=r"not authorized to perform",
        stages=("login", "sender address", "message"),
    ),
    Meaning(
        "login",
        "the server wants a login",
        "write the user and password into EMAIL_SMTP_URL, or set EMAIL_OAUTH_...",
        statuses=r"5\.7\.57",
    ),
    Meaning("account", "the server does not know the account", _UNBLOCK, statuses=r"5\.7\.64"),
    # The account or the tenant as a whole.
    Meaning(
        "account",
        "the provider has blocked the account or the tenant",
        _UNBLOCK,
        statuses=r"5\.7\.50[123]|5\.7\.511|5\.7\.6(0[6-9]|[1-4]\d)|5\.7\.705|5\.7\.708|5\.7\.750",
    ),
    Meaning(
        "account",
        "the provider has blocked the account",
        _UNBLOCK,
        words=r"bad outbound sender|sending (is |has been )?(paused|suspended|disabled)"
        r"|(your|sending|sender'?s?) account (is|has been|was)? ?(suspended|disabled|blocked|banned)",
    ),
    Meaning(
        "account",
        "the sender's address or domain does not exist, or may not send",
        _FREE_SENDER,
        statuses=r"5\.1\.[78]",
    ),
)
"""The first row that fits a reply counts. Providers add texts over time; a reply without a row means what its stage
says."""


def error_from_reply(code: int, reply: bytes | str, stage: Stage) -> DeliveryError:
    """Map a reply to an exception. Only the enhanced status code is kept: the reply's text repeats addresses."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
    enhanced = re.search(r"\b[245]\.\d{1,3}\.\d{1,3}\b", text)
    status = enhanced.group() if enhanced else ""
    answered = f"the SMTP server answered {' '.join(filter(None, (str(code), status)))} to the {stage}"
    words = " ".join(text.split())
    meaning = next((row for row in MEANINGS if row.fits(code, status, words, stage)), None)
    if meaning is not None:
        return _error(meaning, f"{meaning.text}: {answered}")
    if code in (530, 534, 535, 538) or (stage == "login" and code >= 500):
        return AuthenticationError(
            answered, fix="check user and password in EMAIL_SMTP_URL, or EMAIL_OAUTH_..."
        )
    if 400 <= code < 500:
        return TransientError(answered, retry_after=RETRY_AFTER_4XX)
    if stage == "greeting" or not 500 <= code < 600:
        return TransientError(answered)
    if stage == "sender address" and status not in _ABOUT_THE_MESSAGE and code not in (552, 555):
        # MAIL names the sender and nothing of the message, so the next message would be refused as well.
        return AccountError(answered, fix=_FREE_SENDER)
    return PermanentError(
        answered,
        code=" ".join(filter(None, (str(code), status))),
        undeliverable=stage != "sender address" and status in _UNDELIVERABLE_STATUSES,
    )


def _error(meaning: Meaning, detail: str) -> DeliveryError:
    match meaning.kind:
        case "login":
            return AuthenticationError(detail, fix=meaning.fix)
        case "account":
            return AccountError(detail, fix=meaning.fix)
        case "quota":
            return QuotaExhausted(detail)
        case "rate":
            return RateLimited(detail)
