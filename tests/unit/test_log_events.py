"""Log lines: each has a fixed event, and the level of the settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from bridge.settings import Settings
from tests.unit.test_docs_reference import GENERATOR

WRITER = """
import logging
from bridge.telemetry import configure_logging, log
configure_logging("json", LEVEL)
for level in ("debug", "info", "warning", "error"):
    getattr(log, level)(f"{level} of the bridge")
    getattr(logging.getLogger("some_library"), level)(f"{level} of a library")
    getattr(logging.getLogger("httpx"), level)(f"{level} of httpx")
"""


def test_event_of_each_log_line_is_a_fixed_string() -> None:
    """The fields have what varies: an event with a name or number in it cannot be searched or counted."""
    events, variable = GENERATOR.log_events()
    assert [item.place for item in variable] == []
    assert len(events) > 50
    for event in events:
        assert len(event.event) <= 75, event.event
        assert not re.search(r"[{}]|\.$", event.event), event.event


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", {"bridge": ["debug", "info", "warning", "error"], "library": ["info", "warning", "error"]}),
        ("info", {"bridge": ["info", "warning", "error"], "library": ["info", "warning", "error"]}),
        ("error", {"bridge": ["error"], "library": ["error"]}),
    ],
)
def test_log_level_applies_to_the_bridge_and_to_libraries(level: str, expected: dict[str, list[str]]) -> None:
    code = WRITER.replace("LEVEL", repr(level))
    result = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=60, check=True
    )
    events = [json.loads(line)["event"] for line in result.stderr.splitlines()]
    assert [event.split()[0] for event in events if event.endswith("of the bridge")] == expected["bridge"]
    assert [event.split()[0] for event in events if event.endswith("of a library")] == expected["library"]
    assert [event for event in events if event in ("debug of httpx", "info of httpx")] == []


def test_invalid_log_level_names_the_valid_ones() -> None:
    from bridge.errors import ConfigError

    with pytest.raises(ConfigError, match=r"BRIDGE_LOG_LEVEL.*debug"):
        Settings.load({"BRIDGE_LOG_LEVEL": "verbose"})
