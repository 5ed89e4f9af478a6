"""Rules from their author's view: the running service reloads them, and the commands report errors and results."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator

import httpx
import pytest

from bridge.samples import sample
from bridge.sandbox import start_sandbox
from tests.acceptance.commands import send_event
from tests.acceptance.service_process import ADMIN, ServiceProcess, eventually, running_service

RULES = """version: 1
rules:
  - name: notify
    when: call.busy
    where: {event.direction: outbound}
    do: [{use: slack.post, with: {text: "%s"}}]
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.yaml").write_text(RULES % "first")
    with start_sandbox() as sandbox, running_service(folder, sandbox.environment) as process:
        yield process


@pytest.fixture
def service(running: ServiceProcess) -> ServiceProcess:
    """Return the service with the same rules at the start of each test."""
    (running.folder / "rules.yaml").write_text(RULES % "first")
    return running


def status(service: ServiceProcess) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    return dict(httpx.get(f"{service.url}/api/rules", headers=headers, timeout=10).json())


def get_text(service: ServiceProcess, path: str) -> str:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    return httpx.get(f"{service.url}{path}", headers=headers, timeout=10).text


def save_and_reload(service: ServiceProcess, text: str) -> None:
    """Write the file, send SIGHUP, and wait until the service has read the file."""
    before = service.log.read_text().count("reloaded")
    (service.folder / "rules.yaml").write_text(text)
    service.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: service.log.read_text().count("reloaded") > before)


def test_invalid_rules_file_is_reported_and_previous_rules_stay_active(service: ServiceProcess) -> None:
    good = RULES % "second"
    save_and_reload(service, good)
    version = hashlib.sha256(good.encode()).hexdigest()
    assert eventually(lambda: status(service)["hash"] == version)
    since = str(status(service)["loaded_at"])

    result = service.run("check", "--deployed")
    assert result.returncode == 0, result.stdout
    assert f": version {version[:12]}, loaded at {since[:10]} {since[11:19]} UTC" in result.stdout
    assert "the service runs this version" in result.stdout

    save_and_reload(service, good.replace("call.busy", "call.buzy"))
    assert eventually(lambda: status(service)["load_error"])
    rules_status = status(service)
    assert (rules_status["hash"], rules_status["loaded_at"]) == (version, since)
    [diagnostic] = rules_status["diagnostics"]  # type: ignore[misc]
    assert (diagnostic["line"], diagnostic["hint"]) == (4, "did you mean `call.busy`?")

    result = service.run("check", "--deployed")
    assert result.returncode == 1
    assert "rules.yaml:4:11" in result.stdout
    assert f"still runs the previous rules: version {version[:12]}, loaded at" in result.stdout
    assert result.stdout.count("did you mean `call.busy`?") == 1
    record = json.loads(service.run("check", "--deployed", "--json").stdout)
    assert (record["ok"], record["deployed"]["hash"], record["deployed"]["same"]) == (False, version, False)

    assert "call.buzy" in get_text(service, "/rules")
    assert "bridge_rules_last_reload_successful 0" in get_text(service, "/metrics")
    assert "rules not reloaded" in service.log.read_text()

    save_and_reload(service, good)
    assert eventually(lambda: not status(service)["load_error"])
    assert status(service)["loaded_at"] == since
    assert "bridge_rules_last_reload_successful 1" in get_text(service, "/metrics")


def test_check_deployed_fails_for_a_file_that_is_not_deployed(service: ServiceProcess) -> None:
    (service.folder / "other.yaml").write_text(RULES % "other")
    result = service.run("check", "other.yaml", "--deployed")
    assert result.returncode == 1
    assert "the service runs another version" in result.stdout


def test_reload_says_what_still_waits_and_how_to_stop_it(service: ServiceProcess) -> None:
    delayed = (RULES % "too early").replace("slack.post, ", "slack.post, delay: 1h, ")
    save_and_reload(service, delayed)
    send_event(service, "call.busy")
    assert "will be sent as before" not in service.log.read_text()

    save_and_reload(service, delayed.replace("name: notify", "name: notify\n    enabled: false"))
    message = "notify is disabled, but 1 of its deliveries waits and will be sent as before"
    assert eventually(lambda: message in service.log.read_text())
    assert "`bridge cancel --rule notify` stops it" in service.log.read_text()
    advice = f"{message}: `bridge cancel --rule notify` stops it"
    assert eventually(lambda: advice in service.run("check", "--deployed").stdout)
    record = json.loads(service.run("check", "--deployed", "--json").stdout)
    assert [item["rule"] for item in record["deployed"]["earlier_deliveries"]] == ["notify"]

    assert service.run("cancel", "--rule", "notify", "--yes").stdout == "notify: 1 cancelled\n"
    assert "will be sent as before" not in service.run("check", "--deployed").stdout


def test_test_files_next_to_the_rules_file_are_checked_and_run(service: ServiceProcess) -> None:
    test_file = service.folder / "tests" / "night.yaml"
    test_file.parent.mkdir(exist_ok=True)
    test_file.write_text("tests: [{name: night, event: call.busy, expect: {notify: [{use: slack.post}]}}]\n")
    try:
        passed = service.run("test")
        assert (passed.returncode, "tests/night.yaml: 1 test" in passed.stdout) == (0, True)
        assert (
            "Not covered:\n  rules.yaml:3: notify: event.direction eq outbound: always true" in passed.stdout
        )
        assert json.loads(service.run("test", "--json").stdout)["tests"][0]["path"] == "tests/night.yaml"
        test_file.write_text("tests: [{name: night, event: call.busy, expect: {notfy: []}}]\n")
        for command in ("test", "check"):
            failed = service.run(command)
            assert failed.returncode == 1
            assert "tests/night.yaml:1:" in failed.stdout + failed.stderr
            assert "did you mean `notify`?" in failed.stdout + failed.stderr
    finally:
        test_file.unlink()


def test_test_command_without_tests_refers_to_the_documentation(service: ServiceProcess) -> None:
    result = service.run("test")
    assert (result.returncode, "has no tests; docs/rules.md explains how" in result.stdout) == (0, True)


@pytest.mark.parametrize("columns", ["80", "120"])
def test_explain_prints_the_result_of_each_condition(service: ServiceProcess, columns: str) -> None:
    service.environ["COLUMNS"] = columns
    try:
        output = service.run("explain", "call.busy", "--set", "event.direction=inbound").stdout
    finally:
        del service.environ["COLUMNS"]
    assert "· notify  does not fire" in output
    assert '    false    event.direction eq outbound   actual: "inbound"' in output
    assert "notify` missed by one condition" in output


def test_plan_prints_number_and_content_of_changed_deliveries(service: ServiceProcess) -> None:
    (service.folder / "new.yaml").write_text(
        RULES % "a message that is much longer than forty characters, and so on"
    )
    output = service.run("plan", "new.yaml", "--event", "call.busy", "--baseline", "rules.yaml").stdout
    assert "1 event from" in output
    assert "1 delivery would be different." in output
    assert "slack: requests (maximum)" in output
    assert "text: first -> a message that is much longer" in output
    reverse = service.run("plan", "rules.yaml", "--event", "call.busy", "--baseline", "new.yaml").stdout
    assert "forty characters, and so on\n          -> first" in reverse


def test_plan_counts_an_event_that_is_named_twice_once(service: ServiceProcess) -> None:
    (service.folder / "call.json").write_text(json.dumps(sample("call.busy")))
    names = [argument for _ in range(2) for argument in ("--event", "call.json")]
    assert json.loads(service.run("plan", "rules.yaml", *names, "--json").stdout)["events"] == 1


def test_schema_lists_actions_and_prints_editor_setup(service: ServiceProcess) -> None:
    result = service.run("schema")
    assert "slack.post" in json.loads(result.stdout)["$defs"]["params"]
    assert "# yaml-language-server: $schema=./rules.schema.json" in result.stderr
