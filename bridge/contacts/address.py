"""The identity of an address: the one form in which addresses are compared and stored as keys."""

from __future__ import annotations


def address_key(address: str) -> str:
    """Return the identity of a normalized address: a phone number as it is, an email address in lower case.

    The recipient of a delivery, opt-outs, caps, `once`, locks and caches all use it. Case is not folded further:
    `casefold` would make `straße@example.com` and `strasse@example.com`, which are two people, one.
    """
    return address.lower()
