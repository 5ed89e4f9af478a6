"""One word for one thing: retired words and names do not come back, and no class name is defined twice.

If a pattern hits a sentence that is right, rewrite the sentence. If the pattern is wrong, change it here and say why in
the commit message.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WORDS = {
    # Terms of the domain
    r"partners?": "provider",
    r"replicas?": "worker or process",
    r"stand-?ins?": "mock provider or sandbox",
    r"rehears\w+": "dry run",
    r"lanes?": "concurrency key",
    r"effect keys?": "idempotency key",
    r"log page": "dashboard",
    r"write turns?": "write queue",
    r"rejections?": "rejected request",
    r"(delivery )?receipts?": "message status, status callback or incoming event",
    r"verdicts?": "result, resolution or outcome",
    r"complaints?|mistakes?": "diagnostic or error",
    r"event'?s? names?": "event type",
    # English
    r"mend(s|ed|ing)?": "fix",
    r"begun": "started",
    r"anew": "again",
    r"(bring|brings|brought) about": "cause or complete",
    r"reckon\w*": "calculate",
    r"whoever|somebody": "the component",
    r"worth it": "useful",
    r"as good as": "almost",
    r"all the same": "anyway",
    r"after all": "nothing: name what is accepted",
    r"for good": "permanently",
    r"beside": "next to",
    r"misspelt|spelt": "misspelled or spelled",
    r"small letters": "lowercase",
    r"e-mails?|mailed|mails": "email",
    # US spelling
    r"colours?|behaviours?|honour\w*|favour\w*|neighbour\w*|catalogues?|licence|centres?": "the US spelling",
    r"(organ|recogn|normal|serial|real|minim|optim|author|initial|summar)is(e|es|ed|ing|ation)": "the US spelling",
}
"""Retired word -> replacement. Matched as a whole word, in any case."""

NAMES = {
    # Command line
    r"bridge work\b(?!er)|--no-work\b(?!er)": "bridge worker, serve --no-worker",
    r"connectors setup": "connections setup",
    r"--(again|why|partner-id)": "--force, --reason, --external-id",
    r"(check|\"check\",) \"?--running|(plan|\"plan\",).* --old": "check --deployed, plan --baseline",
    # HTTP, metrics, environment
    r"/api/(counts|rejections)": "/api/stats, /api/rejected-requests",
    r"bridge_(receipts_total|rules_ok|oldest_due_seconds|attempt_seconds|workers|worker_up)": "metrics.md",
    r"BRIDGE_(SECRET|LOG|RULES|ONLY_TO)": "docs/reference/settings.md",
    r"EMAIL_BOUNCE_TO|SALESFORCE_QUOTA_SHARE": "docs/reference/settings.md",
    # Database
    r"partner_id|cause_id|held_by|lease_until|paused_(by|why)|unknown_since|reached_at|accepted_as": "the schema",
    r"receipt_at|rate_pauses|counted_since|seen_at": "the schema",
    # Connector API
    r"BadCredentials|CannotTell|QuotaShare|PersonGone|GuardedAdapter|ReceiptState|StandIn": "docs/connectors.md",
    r"known_id|effect_id|apart_by|quiet_from|guard_pools|make_context": "docs/connectors.md",
    r"find_people|with_people|failure_of_(status|network)": "docs/connectors.md",
    r"(?<=context\.)(effect|taken)|(?<=connector\.)failure": "docs/connectors.md",
    # Private names that no reader would guess
    r"WriteTurn|Evenness|Pulse|Rulebook|Gathered": "the term in docs/design.md",
    r"(?<=class )Desk|Preference|Verdict|RehearsedEvent": "the term in docs/design.md",
    r"give_way|claimed_of|take_effect|hold_effects|say_and_wait": "the term in docs/design.md",
}
"""Retired name (a regular expression) -> replacement, or the place that lists it."""

EXEMPT = {
    "tests/unit/test_vocabulary.py": "this list",
    "bridge/rules/retired.py": "names the replacement of each retired word in a rules file",
    "tests/unit/rules/bad/renamed-keys.yaml": "tests those diagnostics",
    "tests/unit/rules/bad/renamed-keys.txt": "tests those diagnostics",
    "tests/unit/rules/bad/renamed-states-and-reasons.yaml": "tests those diagnostics",
    "tests/unit/rules/bad/renamed-states-and-reasons.txt": "tests those diagnostics",
    "bridge/settings.py": "names the replacement of each retired variable",
    "tests/unit/test_settings.py": "tests those errors",
    "tests/acceptance/test_cli_output.py": "tests those errors",
    "deploy/kubernetes/bridge.yaml": "has the words of Kubernetes",
    "deploy/kubernetes/worker.yaml": "has the words of Kubernetes",
    "tests/unit/test_deploy_files.py": "tests those files",
    "LICENSE": "a legal text",
    "requirements.lock": "generated",
    "requirements-dev.lock": "generated",
}
"""Path -> why the file may contain retired words."""


@cache
def sources() -> dict[str, str]:
    """Return the repository's own text files, by path."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("not a git checkout, so the list of files is unknown")
    texts = {}
    for name in listing.stdout.splitlines():
        if name not in EXEMPT and (ROOT / name).is_file():
            texts[name] = (ROOT / name).read_bytes().decode("utf-8", errors="replace")
    return texts


@cache
def lowercase_sources() -> dict[str, str]:
    """Return `sources` in lowercase."""
    return {name: text.lower() for name, text in sources().items()}


def lines_with(pattern: re.Pattern[str], texts: dict[str, str], core: str) -> Iterator[str]:
    """Yield `path:line: text` for every line that matches.

    `core` matches in `texts`, in any surroundings, wherever `pattern` does. It is several times faster, because it
    begins with letters, not with a condition that is checked at every position.
    """
    quick = re.compile(core)
    for name, text in texts.items():
        if quick.search(text):
            for number, line in enumerate(sources()[name].splitlines(), 1):
                if pattern.search(line):
                    yield f"{name}:{number}: {line.strip()[:120]}"


@pytest.mark.parametrize("word", WORDS)
def test_retired_word_is_gone(word: str) -> None:
    pattern = re.compile(rf"(?<![\w-])(?:{word})(?![\w-])", re.IGNORECASE)
    found = list(lines_with(pattern, lowercase_sources(), word))
    assert not found, f"write {WORDS[word]}:\n" + "\n".join(found[:40])


@pytest.mark.parametrize("name", NAMES)
def test_retired_name_is_gone(name: str) -> None:
    found = list(lines_with(re.compile(rf"(?<![\w-])(?:{name})(?!\w)"), sources(), name))
    assert not found, f"use {NAMES[name]}:\n" + "\n".join(found[:40])


def test_is_no_is_not_used_for_invalid() -> None:
    """ "`x` is no duration" is a translation; "there is no" and "is no longer" are English."""
    pattern = re.compile(r"(?<!there )(?<!There )\bis no (?!longer\b|more\b)")
    found = list(lines_with(pattern, sources(), "is no "))
    assert not found, "write is not a valid ..., or is not:\n" + "\n".join(found[:40])


def test_class_name_is_defined_once() -> None:
    """Two classes with one name make a reader look for the difference. The sandbox mirrors other systems."""
    places = defaultdict(list)
    for name, text in sources().items():
        if name.startswith("bridge/") and name.endswith(".py") and not name.startswith("bridge/sandbox/"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(name)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
