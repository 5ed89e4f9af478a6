"""Several rules files: how they are found on disk, loaded as one, stored as one text, and compared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dryrun.rule_tests import run_tests
from bridge.dryrun.test_files import load_test_files
from bridge.errors import ConfigError
from bridge.rules import files as rules_files
from bridge.rules.changes import rule_definitions
from bridge.rules.files import list_rules_files, list_test_files, read_rules_files, stamp
from bridge.rules.load import load, load_or_raise
from bridge.rules.model import LoadResult, Rules
from bridge.rules.report import report
from bridge.rules.sources import SourceFile, join_sources, split_sources
from bridge.worker.rules_reloader import RulesFile
from tests.unit.rules.helpers import REGISTRY

MAIN = """version: 1
messaging: {quiet_hours: "20:00-08:00"}
tables: {greeting: {Nora: Front desk}}
defaults: {phone.send: {delay: 5m}}
rules:
  - {name: main, when: call.busy, do: [{use: team.post, with: {text: Busy}}]}
"""
SMS = """version: 1
rules:
  - name: text
    when: call.no-answer
    do: [{use: phone.send, with: {body: "{{ event.agentName | default('Nora') | table('greeting', 'Us') }}"}}]
tests:
  - {name: it is sent, event: call.no-answer, expect: {text: [{use: phone.send}]}}
"""


def loaded(**files: str) -> LoadResult:
    """Load files by name: `main=` is rules.yaml, any other name a file of rules.d."""
    names = {name: "rules.yaml" if name == "main" else f"rules.d/{name}.yaml" for name in files}
    sources = [SourceFile(f"/etc/{names[name]}", text, names[name]) for name, text in files.items()]
    return load(sources, path="/etc/rules.yaml", registry=REGISTRY)


def rules_of(**files: str) -> Rules:
    result = loaded(**files)
    assert result.rules is not None, report(result.diagnostics, result.texts)
    return result.rules


def reports(**files: str) -> list[str]:
    """Return the place, message and hint of each diagnostic."""
    return [
        f"{item.path.removeprefix('/etc/')}:{item.line}:{item.column}: {item.text}; {item.hint}"
        for item in loaded(**files).diagnostics
    ]


def test_files_are_one_set_of_rules() -> None:
    rules = rules_of(main=MAIN, sms=SMS)
    assert [(rule.name, rule.path, rule.line) for rule in rules.rules] == [
        ("main", "/etc/rules.yaml", 6),
        ("text", "/etc/rules.d/sms.yaml", 3),
    ]
    assert rules.rules[1].do[0].delay.seconds == 300  # `defaults` of another file
    assert set(rules.tables) == {"greeting"}
    assert [test.path for test in rules.tests] == ["/etc/rules.d/sms.yaml"]
    assert run_tests(rules).passed
    gaps = run_tests(rules).coverage.gaps
    assert {(gap.rule, gap.path) for gap in gaps} == {("main", "/etc/rules.yaml")}


def test_stored_text_of_several_files_loads_again() -> None:
    rules = rules_of(main=MAIN, sms=SMS)
    again = load_or_raise(rules.text, path="the rules that ran last", registry=REGISTRY)
    assert (again.text, again.hash) == (rules.text, rules.hash)
    assert [rule.name for rule in again.rules] == ["main", "text"]
    assert [rule.path for rule in again.rules] == ["rules.yaml", "rules.d/sms.yaml"]
    assert rules.hash != rules_of(main=MAIN, sms=SMS.replace("Us", "We")).hash
    assert rules_of(main=MAIN).text == MAIN  # one file is stored as before
    assert rules.text.startswith(f"#: rules.yaml, {len(MAIN)} characters\nversion: 1\n")


FILE_NAMES = st.lists(
    st.sampled_from(["rules.yaml", "rules.d/a.yaml", "rules.d/b, 3 characters.yaml"]), unique=True
)
TEXTS = st.text(st.sampled_from("#: a,1\nrules.yaml characters"), max_size=40) | st.just(
    "#: rules.yaml, 3 characters\nabc\n"
)


@given(names=FILE_NAMES.filter(bool), data=st.data())
def test_joined_files_are_split_into_the_same_files(names: list[str], data: st.DataObject) -> None:
    files = [(name, data.draw(TEXTS)) for name in names]
    parts = split_sources(join_sources(files), names[0])
    assert [(part.name, part.content) for part in parts] == files


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            "messaging: {quiet_hours: none}\n",
            "rules.d/sms.yaml:2:1: `messaging` is already on line 2 of /etc/rules.yaml; it applies to every rule, so",
        ),
        ("defaults: {team.post: {delay: 1m}}\n", "`defaults` is already on line 4 of /etc/rules.yaml"),
        (
            "tables: {greeting: {Sam: Desk}}\n",
            "2:10: duplicate table `greeting`; the other table is on line 3 of /etc",
        ),
        (
            "rules: [{name: main, when: call.busy, do: [{use: team.post, with: {text: x}}]}]\n",
            "2:16: duplicate rule name `main`; the other rule is on line 6 of /etc/rules.yaml: rename one of them",
        ),
        ("rulez: []\n", "rules.d/sms.yaml:2:1: unknown key `rulez`; did you mean `rules`?"),
        ('rules: "\n', "rules.d/sms.yaml:2:8: unclosed quote"),
    ],
)
def test_errors_name_the_file_and_the_other_place(second: str, message: str) -> None:
    found = reports(main=MAIN, sms="version: 1\n" + second)
    assert len(found) == 1
    assert message in found[0]


def test_errors_of_a_default_are_reported_in_the_file_that_has_it() -> None:
    main = MAIN.replace("delay: 5m", "delay: soon")
    assert any(
        text.startswith("rules.yaml:4:32: `delay` must be a duration") for text in reports(main=main, sms=SMS)
    )


def test_each_file_needs_a_version_and_one_needs_rules() -> None:
    assert reports(a="version: 1\ntests: []\n", b="tables: {}\n")[:1] == [
        "rules.d/a.yaml:1:1: none of the 2 files has `rules`; start with `version: 1` and `rules:`"
    ]
    assert any(
        "rules.d/b.yaml:1:1: `version` is missing" in text for text in reports(a=SMS, b="tables: {}\n")
    )
    disabled = loaded(main=MAIN, sms="# all of it is a comment\n")
    assert disabled.rules is not None
    assert [(item.level, item.path) for item in disabled.diagnostics] == [
        ("warning", "/etc/rules.d/sms.yaml")
    ]


def test_summary_counts_the_files() -> None:
    result = loaded(main=MAIN.replace("call.busy", "call.bussy"), sms=SMS.replace("body:", "boddy:"))
    assert report(result.diagnostics, result.texts).endswith("problems in 2 files")


def test_duplicate_keys_of_other_files_count_for_repeated_actions() -> None:
    other = "version: 1\nrules: [{name: b, when: call.busy, do: [{use: team.post, with: {text: Busy}}]}]\n"
    assert any(
        "rule `main`, line 6 of /etc/rules.yaml, already runs" in text for text in reports(main=MAIN, b=other)
    )


def test_changed_rules_are_recognized_across_files() -> None:
    before = rule_definitions(rules_of(main=MAIN, sms=SMS).text)
    assert set(before) == {"main", "text"}
    moved = rule_definitions(rules_of(sms=SMS, main=MAIN).text)
    assert moved == before
    table = rule_definitions(rules_of(main=MAIN.replace("Front desk", "Shop"), sms=SMS).text)
    assert (table["text"] == before["text"], table["main"] == before["main"]) == (False, True)


# ---------------------------------------------------------------- on disk


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("version: 1\n")


def names_of(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_files_of_a_folder_are_read_in_order_without_what_editors_leave_behind(tmp_path: Path) -> None:
    read = ["rules.yaml", "rules.d/10-sms.yaml", "rules.d/20-mail.yml"]
    ignored = [
        ".#sms.yaml",
        "sms.yaml~",
        ".sms.yaml.swp",
        "#sms.yaml#",
        "sms.previous.yaml",
        "notes.txt",
        "old/a.yaml",
    ]
    write(tmp_path, *read, "other.yaml", *(f"rules.d/{name}" for name in (*ignored, "10-sms.tests.yaml")))
    assert names_of(list_rules_files(tmp_path / "rules.yaml"), tmp_path) == read
    assert names_of(list_rules_files(tmp_path), tmp_path) == ["other.yaml", *read]
    assert names_of(list_test_files(tmp_path / "rules.yaml"), tmp_path) == ["rules.d/10-sms.tests.yaml"]
    assert [source.name for source in read_rules_files(tmp_path / "rules.yaml")] == read


def test_config_map_is_a_folder_and_a_swap_of_its_link_is_a_change(tmp_path: Path) -> None:
    for version in ("..2026_1", "..2026_2"):
        write(tmp_path, f"{version}/sms.yaml")
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "sms.yaml").symlink_to("..data/sms.yaml")
    assert [source.name for source in read_rules_files(tmp_path)] == ["sms.yaml"]
    before = stamp(tmp_path)
    (tmp_path / "..new").symlink_to("..2026_2")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    assert stamp(tmp_path) != before


def test_unusable_folders_and_files_are_clear_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"has no rules file: put a file there whose name ends in \.yaml"):
        read_rules_files(tmp_path)
    with pytest.raises(
        ConfigError, match=r"cannot read .*rules.yaml: No such file .*create one with `bridge init`"
    ):
        read_rules_files(tmp_path / "rules.yaml")
    write(tmp_path, *(f"rules.d/{number}.yaml" for number in range(3)))
    with pytest.raises(
        ConfigError, match=r"set BRIDGE_RULES_FILE=.*rules.d to use only the files of rules.d"
    ):
        read_rules_files(tmp_path / "rules.yaml")
    monkeypatch.setattr(rules_files, "MAX_TOTAL_BYTES", 30)
    with pytest.raises(ConfigError, match="together"):
        read_rules_files(tmp_path)
    monkeypatch.setattr(rules_files, "MAX_FILES", 2)
    with pytest.raises(ConfigError, match="has 3 rules files; at most 2"):
        read_rules_files(tmp_path)


def test_set_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.yaml", "b.yaml")
    read, changes = rules_files._read, iter([True, False])

    def read_slowly(file: Path, folder: Path) -> bytes:
        content = read(file, folder)
        if file.name == "b.yaml" and next(changes, False):
            for name in ("a.yaml", "b.yaml"):
                (folder / name).write_text("version: 2 # new\n")
        return content

    monkeypatch.setattr(rules_files, "_read", read_slowly)
    assert {source.content for source in read_rules_files(tmp_path)} == {b"version: 2 # new\n"}


def test_test_files_beside_a_file_of_the_folder_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "rules.d").mkdir()
    (tmp_path / "rules.yaml").write_text(MAIN)
    (tmp_path / "rules.d" / "sms.yaml").write_text(SMS)
    (tmp_path / "rules.d" / "sms.tests.yaml").write_text(SMS[SMS.index("tests:") :])
    path = tmp_path / "rules.yaml"
    rules = load_or_raise(read_rules_files(path), path=str(path), registry=REGISTRY)
    complete, files = load_test_files(rules, REGISTRY)
    assert ([file.usable for file in files], len(complete.tests)) == ([True], 2)


def test_change_while_a_set_is_loaded_is_loaded_next_and_a_broken_file_keeps_the_whole_set(
    tmp_path: Path,
) -> None:
    added = tmp_path / "rules.d" / "sms.yaml"
    added.parent.mkdir()
    (tmp_path / "rules.yaml").write_text(MAIN)
    changes = iter(
        [lambda: added.write_text(SMS.replace("name: text", "name: other").replace("{text: [", "{other: ["))]
    )

    def on_change(_: Rules) -> None:
        next(changes, lambda: None)()

    rules = RulesFile(tmp_path / "rules.yaml", REGISTRY, None, before_change=on_change, quiet=True)
    added.write_text(SMS)
    assert rules.reload_if_changed()
    assert [rule.name for rule in rules.current.rules] == ["main", "text"]
    assert rules.reload_if_changed()
    assert [rule.name for rule in rules.current.rules] == ["main", "other"]
    assert not rules.reload_if_changed()

    (tmp_path / "rules.yaml").write_text(MAIN.replace("name: main", "name: new"))
    added.write_text("version: 1\nrules: [{name: x}]\n")
    assert not rules.reload_if_changed()
    assert [rule.name for rule in rules.current.rules] == ["main", "other"]
    assert "rules.d/sms.yaml:2:9" in str(rules.load_error)
    added.unlink()
    assert rules.reload_if_changed()
    assert ([rule.name for rule in rules.current.rules], rules.load_error) == (["new"], None)


def test_worker_starts_with_the_stored_set_while_the_files_have_errors(tmp_path: Path) -> None:
    stored = rules_of(main=MAIN, sms=SMS).text
    (tmp_path / "rules.yaml").write_text("version: 2\n")
    rules = RulesFile(tmp_path / "rules.yaml", REGISTRY, None, quiet=True, fallback_text=stored)
    assert [rule.name for rule in rules.current.rules] == ["main", "text"]
    assert rules.current.text == stored
    assert rules.load_error is not None
