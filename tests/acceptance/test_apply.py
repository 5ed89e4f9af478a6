"""`bridge apply` and BRIDGE_REQUIRE_TESTS: only rules whose tests pass are put into effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.db import migrate
from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.rules.route import route
from bridge.store.database import Database
from bridge.store.routing import route_unrouted
from tests.acceptance.service_process import clean_environment, eventually, run_command, running_service
from tests.integration.engine import Engine

RULES = """version: 1
rules:
  - name: notify
    when: call.busy
    do: [{use: slack.post, with: {text: "TEXT"}}]
tests:
  - {name: the team is notified, event: call.busy, expect: {notify: [{use: slack.post, with: {text: EXPECTED}}]}}
"""
OLD = RULES.replace("TEXT", "Old").replace("EXPECTED", "Old")
NEW = RULES.replace("TEXT", "New").replace("EXPECTED", "New")
FAILING = RULES.replace("TEXT", "New").replace("EXPECTED", "Old")
ACCOUNT = {"SLACK_WEBHOOK_URL": "http://127.0.0.1:9/services/T0001/B0001/secret-of-the-webhook"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(OLD)
    (tmp_path / "rules.yaml").chmod(0o640)
    return tmp_path


def apply(folder: Path, text: str, *arguments: str, stdin: str = "", **variables: str) -> tuple[int, str]:
    (folder / "new.yaml").write_text(text)
    environ = clean_environment(**ACCOUNT, **variables)
    result = run_command(folder, environ, "apply", "new.yaml", *arguments, stdin=stdin)
    return result.returncode, result.stdout + result.stderr


def test_rules_are_applied_after_confirmation(folder: Path) -> None:
    code, output = apply(folder, NEW, stdin="y\n")
    assert code == 0, output
    assert "new.yaml is valid: 1 rule, 1 test passed" in output
    assert "Apply new.yaml to rules.yaml? [y/N]" in output
    assert (folder / "rules.yaml").read_text() == NEW
    assert (folder / "rules.previous.yaml").read_text() == OLD
    assert (folder / "rules.yaml").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in folder.glob(".rules*")) == []

    code, output = apply(folder, (folder / "rules.previous.yaml").read_text(), "--yes", "--json")
    assert (code, (folder / "rules.yaml").read_text()) == (0, OLD)
    assert json.loads(output)["applied"] is True
    code, output = apply(folder, NEW, "--json")
    assert (code, "add --yes" in output) == (2, True)


@pytest.mark.parametrize(
    ("text", "arguments", "stdin", "message"),
    [
        (NEW, (), "n\n", "Aborted"),
        (NEW.replace("call.busy\n", "call.bussy\n"), ("--yes",), "", "did you mean `call.busy`?"),
        (FAILING, ("--yes",), "", "1 of the 1 tests of rules.yaml failed: the team is notified"),
    ],
)
def test_nothing_is_applied(
    folder: Path, text: str, arguments: tuple[str, ...], stdin: str, message: str
) -> None:
    code, output = apply(folder, text, *arguments, stdin=stdin)
    assert (code, message in output) == (1, True), output
    assert (folder / "rules.yaml").read_text() == OLD
    assert not (folder / "rules.previous.yaml").exists()


def test_file_that_changes_while_the_plan_is_read_is_not_applied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confirm(*_: object, **__: object) -> bool:
        (folder / "new.yaml").write_text(FAILING)
        return True

    monkeypatch.setattr("typer.confirm", confirm)
    code, output = apply(folder, NEW)
    assert (code, "new.yaml changed while you read the plan" in output) == (1, True), output
    assert (folder / "rules.yaml").read_text() == OLD


def test_plan_names_the_deliveries_that_wait_and_do_not_change(folder: Path) -> None:
    database = Database(f"sqlite:///{folder / 'bridge.db'}")
    migrate(database)
    registry = Registry()
    old = load_or_raise(
        OLD.replace("slack.post,", "slack.post, delay: 6h,", 1), path="rules.yaml", registry=registry
    )
    Engine(database).event("call.busy")
    route_unrouted(database, old, lambda event, now, history: route(event, old, now, history))
    database.close()
    off = OLD[: OLD.index("tests:")].replace("    when:", "    enabled: false\n    when:")

    code, output = apply(folder, off, stdin="n\n")
    assert code == 1, output
    assert "new.yaml is valid: 1 rule, but it has no tests" in output
    assert "notify is disabled, but 1 of its deliveries waits and will be sent as before" in output
    assert "once the new rules are applied, `bridge cancel --rule notify` stops it" in output


def test_test_files_next_to_the_active_file_count(folder: Path) -> None:
    (folder / "rules.tests.yaml").write_text(
        FAILING[FAILING.index("tests:") :].replace("the team", "another")
    )
    code, output = apply(folder, NEW, "--yes")
    assert (code, "failed: another is notified (notify: expected slack.post" in output) == (1, True), output


def test_service_keeps_its_rules_if_the_tests_of_the_file_fail(folder: Path) -> None:
    rules = folder / "rules.yaml"
    with running_service(folder, ACCOUNT, BRIDGE_REQUIRE_TESTS="true") as service:

        def deployed() -> dict[str, Any]:
            record: dict[str, Any] = json.loads(service.run("check", "--deployed", "--json").stdout)[
                "deployed"
            ]
            return record

        before = deployed()["hash"]
        rules.write_text(FAILING)
        assert eventually(lambda: deployed()["load_error"]), service.log.read_text()
        assert deployed()["hash"] == before
        assert "1 of the 1 tests of rules.yaml failed: the team is notified" in deployed()["load_error"]
        rules.write_text(NEW)
        assert eventually(lambda: deployed()["same"]), service.log.read_text()


SMS = """version: 1
rules:
  - {name: missed, when: call.no-answer, do: [{use: slack.post, with: {text: Missed}}]}
tests:
  - {name: missed calls, event: call.no-answer, expect: {missed: [{use: slack.post}]}}
"""


def test_one_of_several_files_is_replaced(folder: Path) -> None:
    target = folder / "rules.d" / "sms.yaml"
    code, output = apply(folder, SMS, "--file", "rules.d/sms.yaml", stdin="y\n")
    assert code == 0, output
    assert "new.yaml is valid: 2 rules, 2 tests passed" in output
    assert "Apply new.yaml to rules.d/sms.yaml? [y/N]" in output
    assert "To go back: delete rules.d/sms.yaml" in output
    assert (target.read_text(), (folder / "rules.yaml").read_text()) == (SMS, OLD)

    code, output = apply(folder, SMS.replace("Missed", "Gone"), "--file", str(target), "--yes")
    assert (code, (folder / "rules.d" / "sms.previous.yaml").read_text()) == (0, SMS), output
    assert f"bridge apply {folder / 'rules.d' / 'sms.previous.yaml'} --file rules.d/sms.yaml" in output

    # The other files count: the name `missed` is taken, and it is the main file that is replaced without --file.
    code, output = apply(folder, NEW.replace("notify", "missed"), "--yes")
    assert (code, "duplicate rule name `missed`" in output) == (1, True), output
    code, output = apply(folder, SMS, "--file", "elsewhere/sms.yaml", "--yes")
    assert (code, "is not one of the rules files of rules.yaml" in output) == (1, True), output
    assert (folder / "rules.yaml").read_text() == OLD

    environ = clean_environment(**ACCOUNT)
    for file in ("rules.yaml", "rules.d/sms.yaml"):
        result = run_command(folder, environ, "check", file)
        assert "rules.yaml is valid: 2 files, 2 rules, 2 tests" in result.stdout, (
            result.stdout + result.stderr
        )
    assert "2 passed" in run_command(folder, environ, "test", "rules.d/sms.yaml").stdout
    result = run_command(folder, environ, "apply", "rules.d/sms.yaml", "--yes")
    assert "is what the service reads already" in result.stderr
    result = run_command(
        folder, environ, "plan", "new.yaml", "--file", "rules.d/sms.yaml", "--event", "call.no-answer"
    )
    assert (result.returncode, "text: Gone -> Missed" in result.stdout) == (0, True), result.stdout


def test_service_reloads_when_a_file_is_added_changed_or_removed(folder: Path) -> None:
    added = folder / "rules.d" / "sms.yaml"
    added.parent.mkdir()
    with running_service(folder, ACCOUNT) as service:

        def deployed() -> dict[str, Any]:
            record: dict[str, Any] = json.loads(service.run("check", "--deployed", "--json").stdout)[
                "deployed"
            ]
            return record

        def rules() -> list[str]:
            return [rule["name"] for rule in deployed()["rules"]]

        assert rules() == ["notify"]
        added.write_text(SMS)
        assert eventually(lambda: rules() == ["notify", "missed"]), service.log.read_text()
        added.write_text("version: 1\nrules: [{name: notify}]\n")
        assert eventually(lambda: "duplicate" in (deployed()["load_error"] or "") or deployed()["load_error"])
        assert rules() == ["notify", "missed"]
        added.unlink()
        assert eventually(lambda: rules() == ["notify"] and not deployed()["load_error"])


def test_folder_of_rules_files(folder: Path) -> None:
    config = folder / "config"
    config.mkdir()
    (folder / "rules.yaml").rename(config / "main.yaml")
    (config / "sms.yaml").write_text(SMS)
    variables = {"BRIDGE_RULES_FILE": "config"}

    def run(*arguments: str) -> str:
        result = run_command(folder, clean_environment(**ACCOUNT, **variables), *arguments)
        return result.stdout + result.stderr

    assert "config is valid: 2 files, 2 rules, 2 tests" in run("check")
    assert "config is valid: 2 files" in run("check", "config/sms.yaml")
    assert "2 passed" in run("test")
    (folder / "sms.yaml").write_text(SMS.replace("Missed", "Gone"))
    assert run("apply", "sms.yaml", "--yes").startswith("Applied to config/sms.yaml")
    assert "Gone" in (config / "sms.yaml").read_text()
    code, output = apply(folder, SMS, "--yes", **variables)
    assert code == 1
    assert "name the file to replace" in output
    assert "the files are main.yaml, sms.yaml" in output
    for file in config.iterdir():
        file.unlink()
    assert "the folder config has no rules file: put a file there" in run("check")
