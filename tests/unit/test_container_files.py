"""The image and compose.yaml: the service reads its rules and code from one folder, and writes to another."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text("utf-8")


def test_rules_and_connectors_are_in_a_folder_that_the_service_cannot_write() -> None:
    """One write to the data folder was once code at the next start, because connectors were imported from there."""
    final_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    copied = re.findall(r"^COPY (?:--\S+ )*\S+ (\S+)$", final_stage, re.MULTILINE)
    assert copied == ["/opt/bridge", "/config/rules.yaml"]
    assert "BRIDGE_RULES_FILE=/config/rules.yaml" in final_stage
    assert "chown" not in final_stage
    assert re.findall(r"--owner=bridge \S+ \S+ (\S+)$", final_stage, re.MULTILINE) == ["/data"]
    assert re.findall(r"^VOLUME (\S+)$", final_stage, re.MULTILINE) == ["/data"]


def test_compose_mounts_folders_and_no_single_file() -> None:
    """A mounted file stays the old one when an editor or git puts a new file in its place."""
    sources = re.findall(r"^ +- (\./\S+):(\S+):ro$", COMPOSE, re.MULTILINE)
    assert sources == [("./config", "/config")]
    assert COMPOSE.count("- ./") == 1


def test_image_runs_as_a_number_and_checks_the_port_in_use() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert "BRIDGE_PORT" in DOCKERFILE.partition("HEALTHCHECK")[2]
