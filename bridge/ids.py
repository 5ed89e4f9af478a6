"""Our own ids: a word that says what it names, the time it was made, and enough chance to be unique.

They sort by time, so new rows go to the end of an index, and a page of rows can begin after an id.
"""

from __future__ import annotations

import os
import time


def new_id(prefix: str) -> str:
    """`evt_...` an event, `dlv_...` a delivery, `rej_...` a rejection, `aud_...` an entry of the audit.

    13 hex digits of microseconds since 1970, then 12 of chance: 48 bits for each microsecond.
    """
    return f"{prefix}_{time.time_ns() // 1000:013x}{os.urandom(6).hex()}"
