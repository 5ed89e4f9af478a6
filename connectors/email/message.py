"""The message itself: headers and bodies, byte-identical for every attempt."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from typing import Any

from bridge.connector import Context

from .params import EmailParams
from .settings import header_address

_ADDRESS_HEADERS = frozenset({"from", "to", "cc", "reply-to"})


class MessagePolicy(EmailPolicy):
    """Python's policy, except for encoded words, which mail programs decode only up to 75 characters (RFC 2047).

    Lines are folded at 998 characters, SMTP's maximum: at the usual 78 Python encodes a longer unsubscribe link into
    words that email clients cannot follow. But its encoded words are as long as its lines, and at 78 it loses spaces
    between them, so headers with text that people wrote are folded here.
    """

    def fold_binary(self, name: str, value: Any) -> bytes:
        """Return a header with its line end, encoded words included."""
        if name.lower() == "subject":
            text = _encoded_words(str(value), name)
        elif name.lower() in _ADDRESS_HEADERS:
            text = ",\r\n ".join(_fold_address(address, name) for address in value.addresses)
        else:
            return super().fold_binary(name, value)
        return f"{name}: {text}\r\n".encode()


POLICY = MessagePolicy(linesep="\r\n", max_line_length=998, cte_type="7bit")
"""7bit, because not every server accepts 8-bit bodies."""


def _encoded_words(text: str, name: str) -> str:
    """Return a text as encoded words. An ASCII text stays as it is, unless it looks like encoded words."""
    if text.isascii() and "=?" not in text:
        return text
    return Header(text, "utf-8", maxlinelen=76, header_name=name).encode(linesep="\r\n")


def _fold_address(address: Address, name: str) -> str:
    display_name = address.display_name
    if display_name.isascii() and "=?" not in display_name:
        return str(address)
    return f"{_encoded_words(display_name, name)}\r\n <{address.addr_spec}>"


def compose(sender: Address, reply_to: str | None, params: EmailParams, context: Context) -> EmailMessage:
    """Return the message, byte-identical for every attempt, so that the recipient's server can drop a second copy."""
    message = EmailMessage(policy=POLICY)
    message["From"] = sender
    message["To"] = _header_addresses(params.to)
    if params.cc:
        message["Cc"] = _header_addresses(params.cc)
    if reply_to := params.reply_to or reply_to:
        message["Reply-To"] = header_address(reply_to)
    message["Subject"] = " ".join(params.subject.split())
    message["Date"] = format_datetime(context.first_attempt_at)
    message["Message-ID"] = f"<{context.idempotency_token}@{sender.domain}>"
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


def payload(message: EmailMessage, *, utf8: bool) -> bytes:
    """Return the content between DATA and the final dot; `utf8`: the server was told SMTPUTF8."""
    return re.sub(rb"(?m)^\.", b"..", message.as_bytes(policy=POLICY.clone(utf8=utf8)))


def text_to_html(text: str) -> str:
    """Return plain text as escaped HTML, with blank lines as paragraph breaks."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n".join("<p>" + html.escape(part).replace("\n", "<br>\n") + "</p>" for part in paragraphs)


def _header_addresses(addresses: str | Sequence[str]) -> list[Address]:
    return [header_address(address) for address in _listed(addresses)]


def _listed(addresses: str | Sequence[str]) -> Sequence[str]:
    return (addresses,) if isinstance(addresses, str) else addresses
