"""SMTP connections whose replies end within the attempt's deadline and have a limited size."""

from __future__ import annotations

import smtplib
from typing import Any

from bridge.connector import ResponseReader, parts_to_send

REPLY_TIMEOUT = 10.0
"""Seconds to wait for the next byte of a reply."""
MAX_REPLY_BYTES = 64 * 1024
"""The longest replies, those to EHLO, have about 1 KB."""


class LimitedSmtp(smtplib.SMTP):
    """Limits every reply in total: a server may send it byte by byte, or in lines without end."""

    file: ResponseReader | None
    command_encoding: str

    def getreply(self) -> tuple[int, bytes]:
        """Read one reply. IncompleteResponse is the context of the SMTPServerDisconnected that smtplib raises."""
        if self.file is not None:
            self.file.start_response()
        elif self.sock is not None:
            self.file = ResponseReader(self.sock, REPLY_TIMEOUT, MAX_REPLY_BYTES)
        return super().getreply()

    def send(self, s: Any) -> None:
        """Send a command or a message. Raise TransientError if the deadline passes before its last part."""
        data = s.encode(self.command_encoding) if isinstance(s, str) else s
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("please run connect() first")
        for part in parts_to_send(self.sock, data, REPLY_TIMEOUT):
            super().send(part)


class LimitedSmtpOverTls(LimitedSmtp, smtplib.SMTP_SSL):
    """A connection that is encrypted from the start."""
