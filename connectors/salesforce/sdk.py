"""The parts of simple-salesforce that the connector uses, loaded without its SOAP client and without PyJWT.

`import simple_salesforce` also imports the client of the Metadata API, and with it zeep and lxml, an XML parser in C.
The connector uses REST only. It imports PyJWT too, and with it cryptography, which only logins with a private key need.
While the SDK is imported, other modules take the place of both. The other modules of the connector import the SDK's
names from here.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_METADATA_API = "simple_salesforce.metadata"


class _NoMetadataApi:
    """Stands for the client of the Metadata API, which the SDK creates only for `Salesforce.mdapi`."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("the bridge loads simple-salesforce without the Metadata API: use REST")


def _encode_jwt(*args: Any, **options: Any) -> str:
    """Load PyJWT and return `jwt.encode`."""
    import jwt

    return jwt.encode(*args, **options)


def _import_sdk() -> None:
    replaced: dict[str, dict[str, Any]] = {
        _METADATA_API: {"SfdcMetadataApi": _NoMetadataApi},
        "jwt": {"encode": _encode_jwt},
    }
    placeholders = {name: ModuleType(name) for name in replaced if name not in sys.modules}
    for name, module in placeholders.items():
        vars(module).update(replaced[name])
    sys.modules.update(placeholders)
    try:
        import simple_salesforce  # noqa: F401
    finally:
        for name in placeholders:
            del sys.modules[name]


if "simple_salesforce" not in sys.modules:
    _import_sdk()

from simple_salesforce.api import Salesforce  # noqa: E402
from simple_salesforce.exceptions import SalesforceAuthenticationFailed, SalesforceError  # noqa: E402
from simple_salesforce.format import format_soql  # noqa: E402
from simple_salesforce.login import SalesforceLogin  # noqa: E402

__all__ = [
    "Salesforce",
    "SalesforceAuthenticationFailed",
    "SalesforceError",
    "SalesforceLogin",
    "format_soql",
]
