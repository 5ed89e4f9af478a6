"""What a connector's author tests with; needs pytest.

    with connect(connector, {"DESK_TOKEN": "t", "DESK_URL": desk.url}) as desk_account:
        sent = desk_account.run("open_ticket", {"subject": "Hello"}, event=event("call.failed"))

`StubServer` is a partner on loopback, `start_sandbox` the partners that the bridge ships with, `event` one of Heppu's
documented events, `Clock` a clock that a test moves, and `ConnectorConformance` the suite every connector passes.
"""

import pytest

pytest.register_assert_rewrite("bridge.testing.conformance")  # or a failing suite shows no values

from bridge.clock import Clock  # noqa: E402
from bridge.sandbox import RunningSandbox, start_sandbox  # noqa: E402
from bridge.testing.conformance import ConnectorConformance, FakeProvider, conformance_problems  # noqa: E402
from bridge.testing.connection import Connected, build_context, connect, event, load_connector, run_action  # noqa: E402
from bridge.testing.stub_server import Received, Reply, StubServer  # noqa: E402

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
    "conformance_problems",
    "connect",
    "event",
    "load_connector",
    "run_action",
    "start_sandbox",
]
