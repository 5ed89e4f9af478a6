"""External ID fields, without which a lost response would create a record twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bridge.errors import AccountError

from . import sdk
from .account_errors import PERMISSION_SET
from .errors import errors_in

_NAMES = {"Case": "a case", "Event": "an event"}


def is_field_missing(error: sdk.SalesforceError, field: str) -> bool:
    """Return whether Salesforce refused a request because it does not know the field, or hides it."""
    return any(
        code in ("NOT_FOUND", "INVALID_FIELD", "INVALID_ARGUMENT_TYPE") and field in message
        for code, message, _ in errors_in(error)
    )


@contextmanager
def require_external_id(object_type: str, field: str) -> Iterator[None]:
    """Raise AccountError if Salesforce refuses the request because it does not know the external ID field."""
    try:
        yield
    except sdk.SalesforceError as error:
        if not is_field_missing(error, field):
            raise
        raise AccountError(
            f"{object_type}.{field} is missing or hidden from the integration user, so {_NAMES[object_type]} could be "
            "created twice",
            fix="run `bridge connections setup salesforce`, then grant Read and Edit access to the field in "
            f"{PERMISSION_SET}",
        ) from error
