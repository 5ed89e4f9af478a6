"""Opt-out flags of a CRM: the fields that say that a contact wants no messages, and the params that set them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, get_args

from bridge.connector.action import Success
from bridge.connector.callbacks import Channel, OptOutFlag
from bridge.connector.contacts import (
    ContactLookupParams,
    ContactMatch,
    ContactSource,
    FillableContactSource,
)
from bridge.connector.params import param
from bridge.errors import PermanentError

EMAIL_CHANNELS: Final[tuple[Channel, ...]] = ("email",)
"""The channels that a flag "no emails" covers."""
PHONE_CHANNELS: Final[tuple[Channel, ...]] = tuple(name for name in get_args(Channel) if name != "email")
"""The channels that reach a phone number: a CRM has one flag for all of them."""


class SetOptOutParams(ContactLookupParams):
    """A contact who opted out of a channel."""

    channel: Channel = param(
        "{{ event.channel }}",
        "Channel of the opt-out. `email` sets the flag for email, every other channel the flag for calls.",
        example="sms",
    )
    on_missing: Literal["skip", "error"] = param(
        "skip", "If the CRM has no such contact: `skip` it, or fail with an `error`.", example="error"
    )

    def no_contact(self, detail: str) -> Success:
        """Return the result for a contact that the CRM does not have. Raise PermanentError with `on_missing: error`."""
        if self.on_missing == "error":
            raise PermanentError(detail, code="not_found")
        return Success(detail=f"nothing to update: {detail}")


def find_all_contacts(
    sources: Iterable[ContactSource], emails: Sequence[str], phones: Sequence[str]
) -> dict[str, ContactMatch]:
    """Return every record that may have one of these addresses, by ID.

    All of them count for an opt-out. Resolution would choose one, and a duplicate may be the one with the flag.
    """
    matches: list[ContactMatch] = []
    for source in sources:
        by_email = list(source.by_email(emails)) if emails else []
        other = [
            email for email in emails if not any(match.has_address("email", email) for match in by_email)
        ]
        matches += by_email
        if other and isinstance(source, FillableContactSource):
            matches += source.by_other_email(other)
        matches += source.by_phone(phones) if phones else ()
    return {match.id: match for match in matches}


def addresses_of(match: ContactMatch, emails: Sequence[str], phones: Sequence[str]) -> list[str]:
    """Return those of the given addresses that a record has: a search by phone number may return other records."""
    return [
        *(email for email in emails if match.has_address("email", email)),
        *(phone for phone in phones if match.has_address("phone", phone)),
    ]


def flags_by_address(
    matches: Mapping[str, ContactMatch],
    flags: Mapping[str, Sequence[OptOutFlag]],
    emails: Sequence[str],
    phones: Sequence[str],
) -> dict[str, list[OptOutFlag]]:
    """Return the flags of all records that have an address, by address. `matches` and `flags` are by record ID."""
    result: dict[str, list[OptOutFlag]] = {}
    for record_id, found in flags.items():
        for address in addresses_of(matches[record_id], emails, phones):
            result.setdefault(address, []).extend(found)
    return result
