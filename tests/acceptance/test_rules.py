"""Rules as their author meets them: the real process reloads them, the commands show what is right and what is not."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator

import httpx
import pytest

from bridge.sandbox import start_sandbox
from tests.acceptance.service_process import ADMIN, Running, eventually, serving

RULES = """version: 1
rules:
  - name: tell
    when: call.busy
    where: {event.direction: outbound}
    do: [{use: slack.post, with: {text: "%s"}}]
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.yaml").write_text(RULES % "first")
    with start_sandbox() as sandbox, serving(folder, sandbox.environment) as found:
        yield found


@pytest.fixture
def service(running: Running) -> Running:
    """The service with the same rules at the start of each test, whichever came before."""
    (running.folder / "rules.yaml").write_text(RULES % "first")
    return running


def status(service: Running) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    return dict(httpx.get(f"{service.url}/api/rules", headers=headers, timeout=10).json())


def asked(service: Running, path: str) -> str:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    return httpx.get(f"{service.url}{path}", headers=headers, timeout=10).text


def saved(service: Running, text: str) -> None:
    """Write the file and send SIGHUP, and wait until the service has looked at it."""
    before = service.log.read_text().count("reloaded")
    (service.folder / "rules.yaml").write_text(text)
    service.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: service.log.read_text().count("reloaded") > before)


def test_a_broken_file_is_refused_and_told_everywhere_and_the_old_rules_run_on(service: Running) -> None:
    good = RULES % "second"
    saved(service, good)
    version = hashlib.sha256(good.encode()).hexdigest()
    assert eventually(lambda: status(service)["hash"] == version)
    since = str(status(service)["loaded_at"])

    found = service.run("check", "--deployed")
    assert found.returncode == 0, found.stdout
    assert f"as it is now, version {version[:12]}, since {since[:10]} {since[11:19]} UTC" in found.stdout

    saved(service, good.replace("call.busy", "call.buzy"))
    assert eventually(lambda: status(service)["trouble"])
    told = status(service)
    assert (told["hash"], told["loaded_at"]) == (version, since)
    [problem] = told["problems"]  # type: ignore[misc]
    assert (problem["line"], problem["hint"]) == (4, "did you mean `call.busy`?")

    found = service.run("check", "--deployed")
    assert found.returncode == 1
    assert "rules.yaml:4:11" in found.stdout
    assert f"runs the rules it had before, version {version[:12]}, since" in found.stdout
    assert found.stdout.count("did you mean `call.busy`?") == 1
    record = json.loads(service.run("check", "--deployed", "--json").stdout)
    assert (record["ok"], record["running"]["hash"], record["running"]["same"]) == (False, version, False)

    assert "call.buzy" in asked(service, "/rules")
    assert "bridge_rules_last_reload_successful 0" in asked(service, "/metrics")
    assert "rules not reloaded" in service.log.read_text()

    saved(service, good)
    assert eventually(lambda: not status(service)["trouble"])
    assert status(service)["loaded_at"] == since
    assert "bridge_rules_last_reload_successful 1" in asked(service, "/metrics")


def test_another_file_than_the_one_that_runs_is_not_called_running(service: Running) -> None:
    (service.folder / "other.yaml").write_text(RULES % "other")
    found = service.run("check", "other.yaml", "--deployed")
    assert found.returncode == 1
    assert "but not as this file is now" in found.stdout


def test_tests_beside_the_file_are_checked_and_run(service: Running) -> None:
    beside = service.folder / "tests" / "night.yaml"
    beside.parent.mkdir(exist_ok=True)
    beside.write_text("tests: [{name: night, event: call.busy, expect: {tell: [{use: slack.post}]}}]\n")
    try:
        passed = service.run("test")
        assert (passed.returncode, "tests/night.yaml: 1 test" in passed.stdout) == (0, True)
        assert (
            "Never tried:\n  rules.yaml:3: tell: event.direction eq outbound: always holds" in passed.stdout
        )
        assert json.loads(service.run("test", "--json").stdout)["tests"][0]["path"] == "tests/night.yaml"
        beside.write_text("tests: [{name: night, event: call.busy, expect: {tel: []}}]\n")
        for command in ("test", "check"):
            failed = service.run(command)
            assert failed.returncode == 1
            assert "tests/night.yaml:1:" in failed.stdout + failed.stderr
            assert "did you mean `tell`?" in failed.stdout + failed.stderr
    finally:
        beside.unlink()


def test_without_tests_it_says_where_to_learn_how_to_write_them(service: Running) -> None:
    found = service.run("test")
    assert (found.returncode, "has no tests; docs/rules.md says how" in found.stdout) == (0, True)


@pytest.mark.parametrize("columns", ["80", "120"])
def test_explain_says_of_each_condition_whether_it_held(service: Running, columns: str) -> None:
    service.environ["COLUMNS"] = columns
    try:
        found = service.run("explain", "call.busy", "--set", "event.direction=inbound").stdout
    finally:
        del service.environ["COLUMNS"]
    assert "· tell  does not fire" in found
    assert '    false    event.direction eq outbound   found "inbound"' in found
    assert "tell` missed by one condition" in found


def test_a_plan_shows_how_many_and_which_deliveries_change(service: Running) -> None:
    (service.folder / "new.yaml").write_text(
        RULES % "a text that is much longer than forty characters, and so"
    )
    found = service.run("plan", "new.yaml", "--event", "call.busy", "--baseline", "rules.yaml").stdout
    assert "1 event from" in found
    assert "1 delivery would be different." in found
    assert "slack: requests, at most" in found
    assert "text: first -> a text that is much longer" in found
    back = service.run("plan", "rules.yaml", "--event", "call.busy", "--baseline", "new.yaml").stdout
    assert "forty characters, and so\n          -> first" in back


def test_the_schema_names_the_actions_and_says_how_an_editor_takes_it(service: Running) -> None:
    found = service.run("schema")
    assert "slack.post" in json.loads(found.stdout)["$defs"]["params"]
    assert "# yaml-language-server: $schema=./rules.schema.json" in found.stderr
