"""The connector author's API.

    connector = Connector("twilio", settings=Settings, limits=Limits(per_second=10, concurrency=8))

`docs/connectors.md` builds a complete connector. Everything that a connector needs is exported here: a connector file
imports this package, `bridge.errors` and its provider's SDK, nothing else of the bridge.

`bridge.connector.exports` lists the names. It is imported with the first of them, because it imports every module of
the package and the HTTP libraries, and a command that needs one module, such as `bridge.connector.callbacks`, starts
twice as fast without them.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
"""httpx does without its command line if it cannot be imported. It takes 5 MB and a twelfth of the start."""

if TYPE_CHECKING:
    from bridge.connector.exports import *  # noqa: F403
else:

    def __getattr__(name):
        """Return what `bridge.connector.exports` exports under a name."""
        exports = import_module("bridge.connector.exports")
        if name != "__all__" and name not in exports.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(exports, name)
