"""What the connector uses of simple-salesforce, loaded without its SOAP client.

`import simple_salesforce` also imports the client of the Metadata API, and with it zeep and lxml, an XML parser in C.
The connector uses REST only. While the SDK is imported, an empty module takes the place of that client. The other
modules of the connector import the SDK's names from here.
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


def _import_without_metadata_api() -> None:
    placeholder = ModuleType(_METADATA_API)
    placeholder.__dict__["SfdcMetadataApi"] = _NoMetadataApi
    sys.modules[_METADATA_API] = placeholder
    try:
        import simple_salesforce  # noqa: F401
    finally:
        del sys.modules[_METADATA_API]


if "simple_salesforce" not in sys.modules:
    _import_without_metadata_api()

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
