"""Files of tests beside the rules file: strictly read, run against its rules, counted in its coverage."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dryrun.rule_tests import run_tests
from bridge.dryrun.test_files import files_beside, with_tests_beside
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
    found = rules_of(RULES)
    return Rules(found.text, found.hash, found.rules, path=str(path))


def complaints(text: str | bytes) -> str:
    found = load_tests(text, path="a.tests.yaml", rules=rules_of(RULES), registry=REGISTRY)
    assert found.rules is None
    shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
    return report(found.problems, shown, "a.tests.yaml")


def test_the_files_are_the_one_of_the_same_name_and_those_in_the_folder_tests(tmp_path: Path) -> None:
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
    found = [str(path.relative_to(tmp_path)) for path in files_beside(tmp_path / "rules.yaml")]
    assert found == ["rules.tests.yaml", "tests/a.yaml", "tests/b.yaml"]


def test_their_tests_run_look_for_files_where_they_stand_and_count_in_the_coverage(
    rules: Rules, tmp_path: Path
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "mine.json").write_text(json.dumps(sample("call.no-answer")))
    (tmp_path / "tests" / "a.yaml").write_text(GOOD.replace("call.busy", "mine.json"))
    (tmp_path / "rules.tests.yaml").write_text(
        "tests:\n  - {name: two, event: call.busy, expect: {text: []}}\n"
    )
    assert run_tests(rules).coverage.rules == (0, 1)
    widened, files = with_tests_beside(rules, REGISTRY)
    found = run_tests(widened)
    assert [file.problems for file in files] == [(), ()]
    assert [(Path(result.path).name, result.line, result.passed) for result in found.results] == [
        ("rules.tests.yaml", 2, False),
        ("a.yaml", 1, True),
    ]
    assert found.coverage.rules == (1, 1)
    assert found.to_json()["tests"][1]["path"].endswith("tests/a.yaml")


def test_a_file_with_a_mistake_adds_nothing_and_the_next_is_read_all_the_same(
    rules: Rules, tmp_path: Path
) -> None:
    (tmp_path / "rules.tests.yaml").write_text("tests: no\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.yaml").write_text(GOOD)
    widened, files = with_tests_beside(rules, REGISTRY)
    assert [file.usable for file in files] == [False, True]
    assert [test.name for test in widened.tests] == ["one"]


def test_a_mistake_is_told_with_its_place_and_what_was_meant() -> None:
    assert complaints(
        "tests:\n  - name: one\n    event: call.buzy\n    expect: {txt: []}\nrules: []\n"
    ) == textwrap.dedent(
        """\
        a.tests.yaml:3:12: no sample `call.buzy`
          3 |     event: call.buzy
            |            ^
          hint: did you mean `call.busy`? (a file's name ends with .json)
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
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("version: 1\n", "there are no `tests`"),
        ("version: 2\n" + GOOD, "version 2 is not known"),
        ("- a\n", "a file of tests must be a mapping"),
        (GOOD + GOOD, "duplicate key `tests`"),
        (b"tests: \xff\n", "is not UTF-8"),
        ("tests: &a [*a]\n", "the anchor"),
        ("tests: " + "[" * 500 + "]" * 500, "nested"),
    ],
)
def test_it_is_read_as_strictly_as_the_rules(text: str | bytes, words: str) -> None:
    assert words in complaints(text)


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
def test_nothing_that_such_a_file_can_hold_raises(text: str | bytes) -> None:
    found = load_tests(text, path="a.tests.yaml", rules=rules_of(RULES), registry=REGISTRY)
    assert (found.rules is None) == any(problem.level == "error" for problem in found.problems)
