"""Test tools for connector authors; requires pytest.

    with connect(connector, {"DESK_TOKEN": "t", "DESK_URL": server.url}) as desk:
        result = desk.run("open_ticket", {"subject": "Hello"}, event=event("call.failed"))

`StubServer` is an HTTP server on loopback whose responses a test defines, `start_sandbox` starts mock versions of the
providers that the bridge supports, `event` returns one of Heppu's documented events, `Clock` is a clock that a test
moves, and `ConnectorConformance` is the suite that every connector passes.
"""

import pytest

pytest.register_assert_rewrite(  # so that failing assertions show their values
    "bridge.testing.conformance", "bridge.testing.deadline_tests"
)

from bridge.clock import Clock  # noqa: E402
from bridge.sandbox import RunningSandbox, start_sandbox  # noqa: E402
from bridge.testing.conformance import ConnectorConformance  # noqa: E402
from bridge.testing.connection import Connected, build_context, connect, event, load_connector, run_action  # noqa: E402
from bridge.testing.definition import conformance_errors  # noqa: E402
from bridge.testing.stub_server import Received, Reply, StubServer  # noqa: E402
from bridge.testing.suite_base import FakeProvider  # noqa: E402

__all__ = [
    "Clock",
    "Connected",
    "ConnectorConformance",
    "FakeProvider",
    "Received",
    "Reply",
    "RunningSandbox",
    "StubServer",
    "build_context",
    "conformance_errors",
    "connect",
    "event",
    "load_connector",
    "run_action",
    "start_sandbox",
]
