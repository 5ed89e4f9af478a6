"""Health check of a container: `python -m bridge.healthcheck [PORT]` exits with 0 if the process there is ready.

It needs only the standard library, because it starts every few seconds. A server is asked at BRIDGE_PORT; a worker,
which does not listen there, at BRIDGE_METRICS_PORT.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final

TIMEOUT_SECONDS: Final = 4.0
"""A little longer than the bridge itself waits for its database."""
_LOCAL: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Addresses of all interfaces -> the one to ask."""


def check(arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Return what is wrong; None if the process is ready."""
    host = environ.get("BRIDGE_HOST", "")
    ports = arguments or [environ.get("BRIDGE_PORT") or "8080", environ.get("BRIDGE_METRICS_PORT", "")]
    for port in filter(None, ports):
        try:
            with closing(
                http.client.HTTPConnection(_LOCAL.get(host, host), int(port), timeout=TIMEOUT_SECONDS)
            ) as connection:
                connection.request("GET", "/readyz")
                response = connection.getresponse()
                answer = response.read(200).decode(errors="replace")
        except ConnectionRefusedError:
            continue
        except (OSError, ValueError, http.client.HTTPException) as error:
            return f"no response on port {port}: {type(error).__name__}"
        return None if response.status == 200 else answer
    return "nothing listens: set BRIDGE_METRICS_PORT for `bridge worker`"


if __name__ == "__main__":
    problem = check(sys.argv[1:], os.environ)
    if problem is not None:
        sys.exit(problem)
