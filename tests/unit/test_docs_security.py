"""docs/security.md: every claim names a test, and every test that it names exists."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
CLAIMS = re.findall(
    r"^\| (.+\.) \| (.+) \|$", PAGE.partition("## Claims")[2].partition("## Secrets")[0], re.MULTILINE
)


def functions_by_file() -> dict[str, set[str]]:
    """Return the test functions of every test file and of the conformance suite, by the name of the file."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (*ROOT.glob("tests/**/test_*.py"), ROOT / "bridge" / "testing" / "conformance.py"):
        found[path.name] |= set(
            re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
        )
    return found


def test_every_claim_names_tests_that_exist() -> None:
    assert len(CLAIMS) > 40
    tests = functions_by_file()
    missing = []
    for claim, cell in CLAIMS:
        names = re.findall(r"`([\w.]+)::(test_\w+)`", cell)
        assert cell == ", ".join(f"`{file}::{name}`" for file, name in names), claim
        missing += [f"{claim} {file}::{name}" for file, name in names if name not in tests[file]]
    assert missing == []


def test_every_row_below_claims_is_a_claim_with_a_test() -> None:
    section = PAGE.partition("## Claims")[2].partition("## Secrets")[0]
    rows = [
        line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| Claim |")
    ]
    assert len(rows) == len(CLAIMS)
