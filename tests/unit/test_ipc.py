"""Messages between a server and its worker process."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from bridge.cli import ipc


@pytest.mark.parametrize(
    "message",
    [
        ipc.Start("version: 1\n# é\n"),
        ipc.Wake(["slack", "twilio"]),
        ipc.Reload(),
        ipc.RequestMetrics(),
        ipc.MetricsText('bridge_attempts_total{reason="x"} 1.0\n'),
        ipc.Stop(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_message_is_one_json_line_with_its_type(message: ipc.Message) -> None:
    line = ipc.encode(message)
    assert line.count(b"\n") == 1
    assert json.loads(line)["type"] == type(message).__name__
    assert ipc.decode(line) == message


def test_every_message_can_be_decoded() -> None:
    assert set(ipc._TYPES.values()) == set(get_args(ipc.Message))
