"""Our own ids: a word that says what it names, then a ULID, so that they sort by time."""

from __future__ import annotations

from ulid import ULID


def new_id(prefix: str) -> str:
    """`evt_...` an event, `dlv_...` a delivery, `rej_...` a rejection, `aud_...` an entry of the audit."""
    return f"{prefix}_{str(ULID()).lower()}"
