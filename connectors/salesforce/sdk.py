"""The parts of simple-salesforce that the connector uses, loaded on first use, without its SOAP client and PyJWT.

`import simple_salesforce` also imports the client of the Metadata API, and with it zeep and lxml, an XML parser in C.
The connector uses REST only. It imports PyJWT too, and with it cryptography, which only logins with a private key need.
While the SDK is imported, other modules take the place of both. The other modules of the connector read the SDK's names
from here (`sdk.format_soql`): the first of them imports the SDK, so that only a process that sends has it in memory.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simple_salesforce.api import Salesforce
    from simple_salesforce.exceptions import SalesforceAuthenticationFailed, SalesforceError
    from simple_salesforce.format import format_soql
    from simple_salesforce.login import SalesforceLogin

__all__ = [
    "Salesforce",
    "SalesforceAuthenticationFailed",
    "SalesforceError",
    "SalesforceLogin",
    "format_soql",
]

_METADATA_API = "simple_salesforce.metadata"
_import_lock = threading.RLock()


def load() -> None:
    """Import the SDK, unless it is loaded."""
    with _import_lock:
        if "simple_salesforce" not in sys.modules:
            _import_sdk()
        module = import_module("simple_salesforce")
        globals().update({name: getattr(module, name) for name in __all__})


def is_loaded() -> bool:
    """Return whether the SDK is loaded. As long as it is not, it has raised no exception."""
    return "SalesforceError" in globals()


def __getattr__(name: str) -> Any:
    """Import the SDK with the first of its names."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load()
    return globals()[name]


class _NoMetadataApi:
    """Stands for the client of the Metadata API, which the SDK creates only for `Salesforce.mdapi`."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("the bridge loads simple-salesforce without the Metadata API: use REST")


class _LaterJwt(ModuleType):
    """Stands for PyJWT, and imports it on use.

    Another thread that imports PyJWT at that moment gets this module, too. The lock makes it wait until the real one
    can be imported.
    """

    def __getattr__(self, name: str) -> Any:
        with _import_lock:
            return getattr(import_module("jwt"), name)


def _import_sdk() -> None:
    metadata = ModuleType(_METADATA_API)
    vars(metadata)["SfdcMetadataApi"] = _NoMetadataApi
    placeholders = {
        name: module
        for name, module in ((_METADATA_API, metadata), ("jwt", _LaterJwt("jwt")))
        if name not in sys.modules
    }
    sys.modules.update(placeholders)
    try:
        import simple_salesforce  # noqa: F401
    finally:
        for name in placeholders:
            del sys.modules[name]
