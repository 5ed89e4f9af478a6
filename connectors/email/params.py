"""Params of `email.send`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from bridge.connector import Email, Params, normalize_email, param

MAX_RECIPIENTS = 20
"""Recipients of one message to the team, `cc` included. More is a mailing list, which has an address of its own."""


def _addresses(value: object) -> object:
    """Return one address or a list of different ones, in canonical form."""
    if not isinstance(value, list | tuple):
        return _address(
            value, "is not one valid email address: write the address alone, like ines@okafor.example"
        )
    if not value:
        raise ValueError("must not be empty")
    if len(value) > MAX_RECIPIENTS:
        raise ValueError(f"can have at most {MAX_RECIPIENTS} addresses")
    problem = (
        "has an item that is not one valid email address: write each address alone, like ines@okafor.example"
    )
    return list(dict.fromkeys(_address(item, problem) for item in value))


def _address(value: object, problem: str) -> str:
    address = normalize_email(value) if isinstance(value, str) else None
    if address is None:
        raise ValueError(problem)
    return address


Recipients = Annotated[str | list[str], BeforeValidator(_addresses)]
"""One email address, or a list of addresses for a message to the team."""


class EmailParams(Params):
    """One email: to one recipient, or to several colleagues whose addresses the rule names."""

    to: Recipients = param(
        "{{ contact.email }}",
        "Recipient: one email address. A message to the team can have a list of addresses.",
        example="ines@okafor.example",
    )
    cc: Recipients | None = param(
        None,
        "Further recipients, for messages to the team: one address or a list.",
        example=["sales@harbourlight.example", "on-call@harbourlight.example"],
        team_only=True,
    )
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
        markup="html",
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

    @property
    def recipients(self) -> list[str]:
        """All addresses that the message goes to, each once."""
        groups = (self.to, self.cc or [])
        return list(
            dict.fromkeys(
                address for group in groups for address in ([group] if isinstance(group, str) else group)
            )
        )
