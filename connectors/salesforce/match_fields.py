"""Fields by which contacts and leads are recognized, without the phone fields that the integration user may not see."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from . import sdk
from .errors import errors_in

T = TypeVar("T")
MATCH_FIELDS: Mapping[str, Sequence[str]] = {
    "Contact": (
        "Email",
        "Phone",
        "MobilePhone",
        "HomePhone",
        "OtherPhone",
        "FirstName",
        "LastName",
        "LastActivityDate",
        "LastModifiedDate",
    ),
    "Lead": (
        "Email",
        "Phone",
        "MobilePhone",
        "FirstName",
        "LastName",
        "Company",
        "LastActivityDate",
        "LastModifiedDate",
    ),
}
OPTIONAL_FIELDS = ("MobilePhone", "HomePhone", "OtherPhone")
"""Fields that a search can do without. A new permission set grants none of them."""
_CACHE_SECONDS = 3600.0


class MatchFields:
    """The match fields of one org. A hidden field is noticed when Salesforce refuses a query, without a request."""

    def __init__(self) -> None:
        self._hidden_until: dict[tuple[str, str], float] = {}

    def of(self, object_type: str) -> list[str]:
        """Return the fields to read of this object type."""
        now = time.monotonic()
        return [
            name
            for name in MATCH_FIELDS[object_type]
            if self._hidden_until.get((object_type, name), 0.0) <= now
        ]

    def run(self, request: Callable[[], T]) -> T:
        """Return the result of a request that reads these fields. Repeat it without optional ones that are hidden."""
        while True:
            try:
                return request()
            except sdk.SalesforceError as error:
                if not self._notice(error):
                    raise

    def _notice(self, error: sdk.SalesforceError) -> bool:
        """Remember the optional field that the error is about. Return False if it is about something else."""
        for code, message, _ in errors_in(error):
            match = re.search(r"No such column '(\w+)' on entity '(\w+)'", message)
            if code == "INVALID_FIELD" and match and match[2] in MATCH_FIELDS:
                name, object_type = match[1], match[2]
                if name in OPTIONAL_FIELDS and name in self.of(object_type):
                    self._hidden_until[object_type, name] = time.monotonic() + _CACHE_SECONDS
                    return True
        return False
