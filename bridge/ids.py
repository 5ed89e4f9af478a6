"""IDs: prefixed, time-sortable and random.

They sort by creation time, so new rows go to the end of an index, and an ID can serve as a pagination cursor.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def new_id(prefix: str) -> str:
    """Return a new ID: `evt_` for an event, `dlv_` a delivery, `rej_` a rejected request, `aud_` an audit entry.

    The prefix is followed by 13 hex digits of microseconds since 1970 and 12 random ones: 48 bits per microsecond.
    """
    return f"{prefix}_{time.time_ns() // 1000:013x}{os.urandom(6).hex()}"


def id_at(prefix: str, instant: datetime) -> str:
    """Return the lowest ID that could be made at this instant: a cursor between two rows."""
    return f"{prefix}_{(instant - _EPOCH) // _MICROSECOND:013x}{'0' * 12}"


def time_of_id(record_id: str) -> datetime:
    """Return when an ID was made, by the clock of the process that made it; the epoch if it is not such an ID."""
    try:
        return _EPOCH + int(record_id.partition("_")[2][:13], 16) * _MICROSECOND
    except (ValueError, OverflowError):
        return _EPOCH
