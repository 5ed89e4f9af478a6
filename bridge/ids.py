"""IDs: prefixed, time-sortable and random.

They sort by creation time, so new rows go to the end of an index, and an ID can serve as a pagination cursor.
"""

from __future__ import annotations

import os
import time


def new_id(prefix: str) -> str:
    """Return a new ID: `evt_` for an event, `dlv_` a delivery, `rej_` a rejected request, `aud_` an audit entry.

    The prefix is followed by 13 hex digits of microseconds since 1970 and 12 random ones: 48 bits per microsecond.
    """
    return f"{prefix}_{time.time_ns() // 1000:013x}{os.urandom(6).hex()}"
