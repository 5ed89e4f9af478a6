"""`bridge init`: the created files, and the commands that follow it."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from bridge.cli.data import read_data_file
from tests.acceptance.commands import run_bridge

ROOT = Path(__file__).parents[2]
ACCOUNTS = {
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T000/B000/xxxx",
    "HUBSPOT_ACCESS_TOKEN": "pat-na1-0000",
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": "0" * 32,
    "TWILIO_FROM": "+14155550100",
}


def variables(path: Path) -> dict[str, str]:
    """Return the variables in a .env file."""
    lines = path.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_init_creates_rules_and_private_dotenv_with_generated_secrets(tmp_path: Path) -> None:
    result = run_bridge(tmp_path, "init")
    assert (result.returncode, result.stderr) == (0, "")
    assert "bridge check" in result.stdout
    assert "bridge serve" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"rules.yaml", ".env"}
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    created, example = variables(tmp_path / ".env"), variables(ROOT / ".env.example")
    assert created.keys() == example.keys()
    changed = {name for name in created if created[name] != example[name]}
    assert changed == {"BRIDGE_SECRET_KEY", "BRIDGE_ADMIN_TOKEN"}
    assert "Copy this file" not in (tmp_path / ".env").read_text("utf-8")
    run_bridge(tmp_path, "init", "other")
    assert variables(tmp_path / "other" / ".env")["BRIDGE_SECRET_KEY"] != created["BRIDGE_SECRET_KEY"]


@pytest.mark.parametrize("existing", [["rules.yaml"], [".env"], [".env", "rules.yaml"]])
def test_init_never_overwrites_a_file(tmp_path: Path, existing: list[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in existing:
        (folder / name).write_text("mine")
    result = run_bridge(tmp_path, "init", "folder")
    assert (result.returncode, result.stdout) == (1, "")
    for name in existing:
        assert f"folder/{name}" in result.stderr
        assert (folder / name).read_text() == "mine"
    assert {path.name for path in folder.iterdir()} == set(existing)


def test_check_after_init_names_the_missing_settings(tmp_path: Path) -> None:
    run_bridge(tmp_path, "init")
    result = run_bridge(tmp_path, "check")
    assert (result.returncode, result.stderr) == (1, "")
    assert "connection `slack`: SLACK_WEBHOOK_URL is not set" in result.stdout
    assert "not set: HEPPU_WEBHOOK_SECRET" in result.stdout
    result = run_bridge(tmp_path, "check", SLACK_WEBHOOK_URL=ACCOUNTS["SLACK_WEBHOOK_URL"])
    assert (result.returncode, result.stderr) == (0, "")
    assert "rules.yaml is valid: 1 rule, 2 tests" in result.stdout
    assert "2 passed" in run_bridge(tmp_path, "test").stdout


def test_commented_examples_of_starter_rules_are_valid(tmp_path: Path) -> None:
    starter = read_data_file("starter_rules.yaml").decode()
    uncommented = re.sub(r"^  #(-|  )", r"  \1", starter, flags=re.MULTILINE)
    (tmp_path / "rules.yaml").write_text(uncommented, "utf-8")
    result = run_bridge(tmp_path, "check", **ACCOUNTS)
    assert result.returncode == 0, result.stdout
    assert "rules.yaml is valid: 3 rules" in result.stdout


@pytest.mark.parametrize(
    ("copy", "original"), [("demo_rules.yaml", "rules.yaml"), ("env.example", ".env.example")]
)
def test_packaged_copy_equals_the_original(copy: str, original: str) -> None:
    """To update a copy: `cp rules.yaml bridge/cli/data/demo_rules.yaml`, and likewise for `.env.example`."""
    assert read_data_file(copy) == (ROOT / original).read_bytes()
