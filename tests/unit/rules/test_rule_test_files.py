"""Test files next to the rules file: they are read strictly, run against its rules, and counted in its coverage."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dryrun.rule_tests import run_tests
from bridge.dryrun.test_files import load_test_files
from bridge.rules.files import list_test_files
from bridge.rules.load import load_tests
from bridge.rules.model import Rules
from bridge.rules.report import report
from bridge.samples import sample
from tests.unit.rules.helpers import REGISTRY, rules_of

RULES = """
- name: text
  when: [call.busy, call.no-answer]
  where: {event.direction: outbound}
  do: [{use: phone.send, with: {body: Hello}}]
"""
GOOD = "tests: [{name: one, event: call.busy, expect: {text: [{use: phone.send}]}}]\n"


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    path = tmp_path / "rules.yaml"
    path.write_text("version: 1\nrules:\n" + textwrap.indent(RULES, "  "), "utf-8")
    rules = rules_of(RULES)
    return Rules(rules.text, rules.hash, rules.rules, path=str(path))


def load_and_report(text: str | bytes) -> str:
    loaded = load_tests(text, path="a.tests.yaml", rules=rules_of(RULES), registry=REGISTRY)
    assert loaded.rules is None
    return report(loaded.diagnostics, loaded.texts)


def test_list_test_files_returns_file_of_same_name_and_tests_directory(tmp_path: Path) -> None:
    (tmp_path / "tests" / "deeper.yaml").mkdir(parents=True)
    for name in (
        "rules.tests.yaml",
        "other.tests.yaml",
        "other.yaml",
        "tests/b.yaml",
        "tests/a.yaml",
        "tests/x.json",
    ):
        (tmp_path / name).write_text(GOOD)
    paths = [str(path.relative_to(tmp_path)) for path in list_test_files(tmp_path / "rules.yaml")]
    assert paths == ["rules.tests.yaml", "tests/a.yaml", "tests/b.yaml"]


def test_test_files_run_with_relative_event_files_and_count_in_coverage(rules: Rules, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "mine.json").write_text(json.dumps(sample("call.no-answer")))
    (tmp_path / "tests" / "a.yaml").write_text(GOOD.replace("call.busy", "mine.json"))
    (tmp_path / "rules.tests.yaml").write_text(
        "tests:\n  - {name: two, event: call.busy, expect: {text: []}}\n"
    )
    assert run_tests(rules).coverage.rules == (0, 1)
    rules_with_tests, files = load_test_files(rules, REGISTRY)
    run = run_tests(rules_with_tests)
    assert [file.diagnostics for file in files] == [(), ()]
    assert [(Path(result.path).name, result.line, result.passed) for result in run.results] == [
        ("rules.tests.yaml", 2, False),
        ("a.yaml", 1, True),
    ]
    assert run.coverage.rules == (1, 1)
    assert run.to_json()["tests"][1]["path"].endswith("tests/a.yaml")


def test_invalid_test_file_adds_no_tests_and_does_not_affect_others(rules: Rules, tmp_path: Path) -> None:
    (tmp_path / "rules.tests.yaml").write_text("tests: no\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.yaml").write_text(GOOD)
    rules_with_tests, files = load_test_files(rules, REGISTRY)
    assert [file.usable for file in files] == [False, True]
    assert [test.name for test in rules_with_tests.tests] == ["one"]


def test_load_tests_reports_errors_with_place_and_hint() -> None:
    assert load_and_report(
        "tests:\n  - name: one\n    event: call.buzy\n    expect: {txt: []}\nrules: []\n"
    ) == textwrap.dedent(
        """\
        a.tests.yaml:3:12: no sample `call.buzy`
          3 |     event: call.buzy
            |            ^
          hint: did you mean `call.busy`? (the name of a file ends with .json)
        a.tests.yaml:4:14: no rule `txt`
          4 |     expect: {txt: []}
            |              ^
          hint: did you mean `text`?
        a.tests.yaml:5:1: unknown key `rules`
          5 | rules: []
            | ^
          hint: one of: `version`, `tests`

        3 problems in a.tests.yaml"""
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("version: 1\n", "`tests` is missing"),
        ("version: 2\n" + GOOD, "version 2 is not supported"),
        ("- a\n", "a test file must be a mapping"),
        (GOOD + GOOD, "duplicate key `tests`"),
        (b"tests: \xff\n", "is not valid UTF-8"),
        ("tests: &a [*a]\n", "the anchor"),
        ("tests: " + "[" * 500 + "]" * 500, "nested"),
    ],
)
def test_load_tests_rejects_invalid_file(text: str | bytes, message: str) -> None:
    assert message in load_and_report(text)


LINES = st.sampled_from(
    [
        "tests:",
        "  - name: one",
        "    event: call.busy",
        "    expect: {text: []}",
        "    set: {event.a: 1}",
        "- a",
        "version: 1",
    ]
)


@given(st.text(max_size=60) | st.binary(max_size=60) | st.lists(LINES, max_size=8).map("\n".join))
def test_load_tests_never_raises(text: str | bytes) -> None:
    loaded = load_tests(text, path="a.tests.yaml", rules=rules_of(RULES), registry=REGISTRY)
    assert (loaded.rules is None) == any(diagnostic.level == "error" for diagnostic in loaded.diagnostics)
