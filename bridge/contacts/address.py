"""The identity of an address: the one form in which addresses are compared and stored as keys."""

from __future__ import annotations

from bridge.contacts.email import normalize_email


def normalize_address(text: str, country: str | None = None) -> str | None:
    """Return a phone number as E.164 or an email address in canonical form. None for anything else.

    National numbers are read as numbers of `country` (ISO 3166 code, BRIDGE_DEFAULT_COUNTRY).
    """
    if "@" in text:
        return normalize_email(text)
    # Imported here, because it loads the numbering plans.
    from bridge.contacts.phone import normalize_phone

    return normalize_phone(text, country)


def address_key(address: str) -> str:
    """Return the identity of an address: a phone number as it is, an email address in canonical form in lower case.

    The recipient of a delivery, opt-outs, caps, `once`, locks and caches all use it. Phone numbers are normalized
    before. Case is not folded further: `casefold` would make `straße@example.com` and `strasse@example.com`, which
    are two people, one.
    """
    if not address.isascii():
        address = normalize_email(address) or address
    return address.lower()
