"""The action that sends one email."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.connector import Context, Success, per_message
from bridge.errors import OutcomeUnknown, PermanentError

from .client import SmtpClient, incomplete_reply, utf8_options
from .message import compose, payload
from .params import EmailParams
from .replies import error_from_reply
from .settings import connector


@connector.action(channel="email", idempotency=per_message, text="text")
def send(smtp_client: SmtpClient, params: EmailParams, context: Context) -> Success:
    """Send one email."""
    recipients = params.recipients
    if len(recipients) > 1 and not context.internal:
        raise PermanentError("only a message to the team can have several recipients", code="recipients")
    message = compose(smtp_client.sender, smtp_client.reply_to, params, context)
    others = (*recipients, params.reply_to or "")
    utf8 = not "".join((*smtp_client.own_addresses, *others)).isascii()
    with smtp_client.connection() as smtp:
        options = utf8_options(smtp, smtp_client.own_addresses, others)
        if smtp.has_extn("dsn"):
            options += ["RET=HDRS", f"ENVID={context.idempotency_token}"]
        submission = Submission(smtp, smtp_client.return_path, recipients, options)
        submission.submit(payload(message, utf8=utf8))
    return Success(id=str(message["Message-ID"]), detail=submission.detail)


@dataclass
class Submission:
    """One message on its way, in SMTP's own steps, because the meaning of a failure depends on the step.

    Until the dot that ends the message has been sent completely, the server has nothing to deliver. Between the dot
    and the reply the outcome is unknown, and SMTP offers no way to look it up.
    """

    smtp: smtplib.SMTP
    sender: str
    recipients: Sequence[str]
    options: Sequence[str]
    refused: list[PermanentError] = field(default_factory=list)
    """Why some of several recipients do not get the message."""

    @property
    def detail(self) -> str:
        """What the server accepted, without addresses."""
        if not self.refused:
            return "accepted by the SMTP server"
        codes = ", ".join(error.code for error in self.refused)
        accepted = len(self.recipients) - len(self.refused)
        return f"accepted by the SMTP server for {accepted} of {len(self.recipients)} recipients; refused: {codes}"

    def submit(self, content: bytes) -> None:
        """Submit the message. Raise the error that its step means."""
        code, reply = self.smtp.mail(self.sender, self.options)
        if code != 250:
            raise error_from_reply(code, reply, "sender address")
        for recipient in self.recipients:
            self._add_recipient(recipient)
        if len(self.refused) == len(self.recipients):
            raise self.refused[0]
        code, reply = self.smtp.docmd("DATA")
        if code != 354:
            raise error_from_reply(code, reply, "message")
        self.smtp.send(content + b".\r\n")
        self._read_final_reply()

    def _add_recipient(self, recipient: str) -> None:
        """Add one recipient. If it is rejected permanently, the others get the message; any other error ends it."""
        code, reply = self.smtp.rcpt(recipient, ["NOTIFY=FAILURE"] if self.smtp.has_extn("dsn") else [])
        if code in (250, 251):
            return
        error = error_from_reply(code, reply, "recipient address")
        if not isinstance(error, PermanentError):
            raise error
        self.refused.append(error)

    def _read_final_reply(self) -> None:
        try:
            code, reply = self.smtp.getreply()
        except (OSError, smtplib.SMTPException) as error:
            incomplete = incomplete_reply(error)
            detail = "the message was submitted, but the SMTP server did not confirm it"
            raise OutcomeUnknown(
                f"{detail}: {incomplete}" if incomplete else detail,
                reason="timeout" if incomplete else "network",
            ) from error
        if not 200 <= code < 600:
            raise OutcomeUnknown("the SMTP server's final reply is not valid SMTP", reason="server_error")
        if code >= 300:
            raise error_from_reply(code, reply, "message")
