"""Opt-outs in Pipedrive: persons whom a filter of the company selects.

A filter says in the company's own terms who wants no messages: a field, a label, the marketing status. Reading it takes
one request per 500 persons, where a search would take one per address.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.connector import EMAIL_CHANNELS, PHONE_CHANNELS, Channel, OptOutFlag, flags_by_address
from bridge.errors import AccountError, LookupInconclusive, PermanentError

from .account import Account, Record
from .persons import match_of
from .settings import connector


@connector.opt_out_flags
def opt_out_flags(
    account: Account, emails: Sequence[str], phones: Sequence[str]
) -> dict[str, list[OptOutFlag]]:
    """Read the persons of the filters, and return the flags of those with these addresses."""
    settings = account.settings
    filters: list[tuple[str, int | None, tuple[Channel, ...]]] = [
        ("PIPEDRIVE_DO_NOT_EMAIL_FILTER", settings.do_not_email_filter, EMAIL_CHANNELS),
        ("PIPEDRIVE_DO_NOT_CALL_FILTER", settings.do_not_call_filter, PHONE_CHANNELS),
    ]
    if not any(number for _, number, _ in filters):
        raise AccountError(
            "Pipedrive has no field for opt-outs of its own",
            fix="set PIPEDRIVE_DO_NOT_EMAIL_FILTER, PIPEDRIVE_DO_NOT_CALL_FILTER or both to filters of persons",
        )
    matches = {}
    flags: dict[str, list[OptOutFlag]] = {}
    for variable, number, channels in filters:
        for person in _persons(account, variable, number) if number else ():
            match = match_of(person)
            matches[match.id] = match
            flags.setdefault(match.id, []).append(OptOutFlag(f"filter {number}", channels))
    return flags_by_address(matches, flags, emails, phones)


def _persons(account: Account, variable: str, number: int) -> list[Record]:
    """Return the persons of a filter. Raise AccountError for a filter that does not exist or selects too many."""
    try:
        return [*account.list_all("person", filter_id=number)]
    except PermanentError as error:
        raise AccountError(
            f"Pipedrive cannot read the filter {number} ({error.code})",
            fix=f"set {variable} to a filter of persons that the token's user can see",
        ) from error
    except LookupInconclusive as error:
        raise AccountError(
            f"the filter {number} selects more than 10,000 persons",
            fix=f"narrow it, or leave {variable} out",
        ) from error
