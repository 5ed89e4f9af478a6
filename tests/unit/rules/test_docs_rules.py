"""The rules guide, reference and cookbook: every snippet loads without a diagnostic, and every recipe does its job."""

from __future__ import annotations

import re
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge.connector.discovery import Registry
from bridge.dryrun.rule_tests import run_tests
from bridge.events import EVENT_TYPES, FIELDS, HEPPU_EVENTS, Event
from bridge.rules.fields import DETAIL_FIELDS
from bridge.rules.load import FILE, load
from bridge.rules.model import DELIVERY_FIELDS, Rules
from bridge.rules.operators import OPERATORS
from bridge.rules.parse_messaging import MESSAGING
from bridge.rules.parse_rules import RULE
from bridge.rules.parse_steps import STEP
from bridge.rules.parse_tests import EXPECTATION, TEST
from bridge.rules.report import report
from bridge.rules.route import route
from bridge.rules.template_filters import FILTER_NAMES
from tests.unit.rules.helpers import NOW, event_of

ROOT = Path(__file__).parents[3]
GUIDE, REFERENCE, COOKBOOK, HUBSPOT, TWILIO = (
    (ROOT / "docs" / name).read_text("utf-8")
    for name in ("rules.md", "rules-reference.md", "cookbook.md", "hubspot.md", "twilio.md")
)
REGISTRY = Registry()
SNIPPETS = [
    pytest.param(match[1], id=f"{name} line {page[: match.start()].count(chr(10)) + 1}")
    for name, page in (
        ("guide", GUIDE),
        ("reference", REFERENCE),
        ("cookbook", COOKBOOK),
        ("hubspot", HUBSPOT),
        ("twilio", TWILIO),
        *(
            (name, (ROOT / "docs" / f"{name}.md").read_text("utf-8"))
            for name in ("apprise", "http", "pipedrive", "salesforce", "slack", "teams", "zendesk")
        ),
    )
    for match in re.finditer(r"```yaml\n(.*?)```", page, re.DOTALL)
]
RECIPES = [
    pytest.param(event, recipe, id=f"{event} {title}")
    for event, section in re.findall(r"\n## (\S+)\n(.*?)(?=\n## |\Z)", COOKBOOK, re.DOTALL)
    for title, recipe in re.findall(r"\*\*(.*?)\*\*.*?```yaml\n(.*?)```", section, re.DOTALL)
]
SPECIAL: dict[str, dict[str, Any]] = {
    "text-after-call-without-address": {"metadata__contactEmail": ...},
    "meeting-becomes-a-task": {
        "outcome": "meeting booked",
        "callMetadata__context__campaignType": "outbound_sales",
    },
    "deal-for-qualified-callers": {"callMetadata__custom": {"qualified": True, "budget": 12000}},
    "appointment-becomes-a-meeting": {"callMetadata__custom": {"appointment": "2026-03-05T15:00:00-05:00"}},
    "campaign-was-answered": {"callMetadata__context__campaignType": "spring_rides"},
    "task-after-third-busy-call": {"callMetadata__context__previousAttempts": 2},
    "open-question-becomes-a-task": {"outcome": "ongoing"},
    "open-case": {"outcome": "ongoing"},
    "satisfaction-survey": {"chatMetadata__feedback": ...},
    "notify-team-of-missed-goals": {"chatMetadata__goal__achieved": False},
    "question-becomes-a-task": {"text": "When do you open?"},
    "opt-out-in-words": {"text": "Please don't text me again", "optOut": True},
}
"""What the event of a recipe has to say beyond the sample."""


def rules_of(snippet: str) -> Rules:
    if not snippet.startswith("version"):
        snippet = "version: 1\nrules:\n" + textwrap.indent(snippet, "  ")
    loaded = load(snippet, path="rules.yaml", registry=REGISTRY)
    assert not loaded.diagnostics, report(loaded.diagnostics, loaded.texts)
    assert loaded.rules is not None
    return loaded.rules


def rich(name: str, rule: str) -> Event:
    """The sample with a person who can be reached in every way."""
    changes: dict[str, Any] = {
        "metadata__contactEmail": "ines@okafor.example",
        "metadata__contactPhone": "+12125550167",
        "metadata__ticketId": "7001",
        "metadata__caseId": "500000000000001AAA",
    }
    if name.startswith("call."):
        changes |= {"direction": "outbound", "callMetadata__context__campaignType": "follow_up"}
    return event_of(name, **(changes | SPECIAL.get(rule, {})))


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippet_loads_without_diagnostics(snippet: str) -> None:
    rules = rules_of(snippet)
    results = run_tests(rules).results
    assert [(result.name, result.mismatches) for result in results if not result.passed] == []


@pytest.mark.parametrize(("event", "recipe"), RECIPES)
def test_recipe_fires_for_its_event(event: str, recipe: str) -> None:
    for rule in rules_of(recipe).rules:
        assert event in rule.when
        routing = route(rich(event, rule.name), Rules("", "", (rule,)), NOW)
        assert routing.traces[0].fired, routing.traces[0]
        assert [delivery.render_error for delivery in routing.planned] == [None] * len(rule.do)
        assert routing.planned[0].run_at >= NOW - timedelta(days=1)


def test_every_everyday_task_has_rules_with_tests_or_commands() -> None:
    section = COOKBOOK[COOKBOOK.index("\n## Everyday tasks\n") : COOKBOOK.index("\n## call.completed\n")]
    tasks = re.findall(r"\n### (\d+)\. [^\n]+\n(.*?)(?=\n### |\Z)", section, re.DOTALL)
    assert [int(number) for number, _ in tasks] == list(range(1, 17))
    for number, body in tasks:
        snippets = re.findall(r"```yaml\n(.*?)```", body, re.DOTALL)
        assert snippets or "```console\n$ bridge " in body, number
        assert all(rules_of(snippet).tests for snippet in snippets), number


def test_cookbook_covers_every_event_type() -> None:
    assert {event: sum(param.values[0] == event for param in RECIPES) for event in EVENT_TYPES} == {
        "call.completed": 11,
        "call.failed": 4,
        "call.busy": 5,
        "call.no-answer": 4,
        "chat.completed": 4,
        "chat.resolved": 4,
        "chat.abandoned": 4,
        "sms.received": 4,
        "contact.opted_out": 2,
    }


def test_reference_explains_every_keyword() -> None:
    keys = {key.name for section in (FILE, RULE, STEP, MESSAGING, TEST, EXPECTATION) for key in section.keys}
    words = {*keys, *OPERATORS, *FILTER_NAMES, *DELIVERY_FIELDS, *DETAIL_FIELDS, *EVENT_TYPES} - {"escape"}
    assert [
        word for word in sorted(words) if not re.search(rf"`[^`\n]*\b{re.escape(word)}\b", REFERENCE + GUIDE)
    ] == []


@pytest.mark.parametrize("event_type", HEPPU_EVENTS)
def test_reference_lists_every_field_of_an_event(event_type: str) -> None:
    section = REFERENCE[REFERENCE.index("\n## Event fields\n") : REFERENCE.index("\n## Delivery fields\n")]
    named = {word for code in re.findall(r"`([^`\n]+)`", section) for word in code.split(".")}
    assert {word for field in FIELDS[event_type] for word in field.split(".")} - named == set()


def test_example_error_is_the_real_error() -> None:
    shown = re.search(r"```text\n(.*?)\n```", GUIDE, re.DOTALL)
    assert shown
    text = "version: 1\n\nrules:\n  - name: text-when-not-reached\n    when: call.busy\n    where:\n"
    text += "      event.direction: outbound\n    do:\n      - use: twillio.send_sms\n"
    loaded = load(text, path="rules.yaml", registry=REGISTRY)
    assert report(loaded.diagnostics, loaded.texts) == shown[1]


def test_shipped_rules_load_and_pass_their_own_tests() -> None:
    text = (ROOT / "rules.yaml").read_text("utf-8")
    loaded = load(text, path="rules.yaml", registry=REGISTRY)
    assert loaded.diagnostics == ()
    assert loaded.rules is not None
    assert {event for rule in loaded.rules.rules if rule.enabled for event in rule.when} == set(EVENT_TYPES)
    failed = [result for result in run_tests(loaded.rules).results if not result.passed]
    assert failed == []
