"""What `bridge check` and `bridge schema` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from bridge.cli.bootstrap import connections_of, registry_for
from bridge.cli.output import counted, instant, note, print_json, say
from bridge.connector.discovery import Registry, variables_of
from bridge.dryrun.test_files import TestsFile, with_tests_beside
from bridge.errors import ConfigError
from bridge.events import parse_instant
from bridge.rules.load import load
from bridge.rules.model import Rules
from bridge.rules.report import report
from bridge.settings import Settings, environment, not_read


def read(path: Path) -> bytes:
    """A rules file's bytes; raises ConfigError that says what to set."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; name another file, or set BRIDGE_RULES_FILE"
        ) from None


def check(file: Path | None, *, online: bool, deployed: bool, as_json: bool) -> bool:
    """Check a rules file, its accounts, and what a running service made of it; returns whether all is well."""
    environ = environment()
    settings = Settings.load(environ)
    path = file or settings.bridge_rules_file
    registry, text = registry_for(path), read(path)
    loaded = load(text, path=str(path), registry=registry, environ=environ)
    used = connections_of(loaded.rules, registry) if loaded.rules is not None else {}
    verdicts: list[dict[str, Any]] = []
    if online and used:
        from bridge.cli.account_check import check_all

        verdicts = check_all(used, environ)
    unread = not_read(environ, _variables(loaded.connections, registry))
    rules, beside = loaded.rules, tuple[TestsFile, ...]()
    if rules is not None:
        rules, beside = with_tests_beside(rules, registry)
    service = _running(settings) if deployed else None
    if service is not None:
        service["same"] = rules is not None and service.get("hash") == rules.hash
    fine = (
        rules is not None
        and all(file.usable for file in beside)
        and all(verdict["ok"] for verdict in verdicts)
        and (service is None or (service["same"] and not service.get("trouble")))
    )
    if as_json:
        found = {"path": str(path), "ok": fine, "problems": [vars(problem) for problem in loaded.problems]}
        tests = [
            {"path": str(file.path), "problems": [vars(problem) for problem in file.problems]}
            for file in beside
        ]
        found |= {"tests": tests, "connections": verdicts or sorted(used), "not_read": unread}
        print_json(found | {"running": service})
        return fine
    shown = report(loaded.problems, text.decode("utf-8", "replace"), str(path))
    for part in (shown, *(file.report for file in beside)):
        if part:
            say(f"{part}\n")
    if rules is not None:
        _print_rules(rules)
    _print_settings(settings, unread)
    _print_accounts(sorted(used), verdicts)
    if service is not None:
        _print_running(service, shown)
    return fine


def _variables(connections: Mapping[str, str], registry: Registry) -> set[str]:
    """What the settings of these connections are read from."""
    found: set[str] = set()
    for connection, connector in connections.items():
        with suppress(ConfigError):  # a broken connector is told as a problem of the file
            found.update(variables_of(registry.connector(connector), connection))
    return found


def _print_rules(rules: Rules) -> None:
    enabled = sum(rule.enabled for rule in rules.rules)
    off = len(rules.rules) - enabled
    say(
        f"{rules.path} can run: {counted(enabled, 'rule')}"
        + (f" (and {off} switched off)" if off else "")
        + f", {counted(len(rules.tests), 'test')}"
    )


def _print_settings(settings: Settings, unread: Mapping[str, str]) -> None:
    """What the bridge itself lacks, and what it was probably meant to be given."""
    for name, advice in unread.items():
        say(f"not read: {name}; {advice}")
    if not settings.heppu_webhook_secret:
        say("not set: HEPPU_WEBHOOK_SECRET, without which `bridge serve` does not start")
    if settings.bridge_public_url is None:
        say(
            "not set: BRIDGE_PUBLIC_URL, without which there are no receipts, no STOP and no unsubscribe links"
        )
    elif settings.bridge_secret_key is None:
        say("not set: BRIDGE_SECRET_KEY, without which mails carry no unsubscribe link")


def _print_accounts(used: Sequence[str], verdicts: Sequence[Mapping[str, Any]]) -> None:
    for verdict in verdicts:
        say(f"{'✓' if verdict['ok'] else '✗'} {verdict['connection']}: {verdict['text']}")
    if used and not verdicts:
        say(f"settings are there for {', '.join(used)}; --online logs in to each")


def _running(settings: Settings) -> dict[str, Any]:
    """What the service on this machine says about its rules."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.bridge_host, settings.bridge_host)  # noqa: S104
    url = f"http://{host}:{settings.bridge_port}/api/rules"
    token = settings.bridge_admin_token
    if token is None:
        raise ConfigError("--deployed needs BRIDGE_ADMIN_TOKEN, the same as the service has")
    headers = {"Authorization": f"Bearer {token.get_secret_value()}", "Accept": "application/json"}
    try:
        response = httpx.get(url, headers=headers, timeout=10, trust_env=False)
        found = response.json() if response.is_success else None
    except (httpx.HTTPError, ValueError) as error:
        raise ConfigError(
            f"no answer from {url}: {type(error).__name__}; is `bridge serve` running?"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(f"{url} answered {response.status_code}; is BRIDGE_ADMIN_TOKEN the service's?")
    return found


def _print_running(service: Mapping[str, Any], shown: str) -> None:
    """What the service runs; what is wrong with its file, unless that was shown already."""
    trouble = str(service.get("trouble") or "")
    since = instant(parse_instant(service.get("loaded_at")))
    version = f"version {str(service.get('hash', ''))[:12]}, since {since} UTC"
    if trouble:
        say(f"the service did NOT take the file over and runs the rules it had before, {version}")
        if not shown or not trouble.startswith(shown):
            say(f"it says:\n{trouble}")
    elif service["same"]:
        say(f"the service runs {service.get('path', 'this file')} as it is now, {version}")
    else:
        say(
            f"the service runs {service.get('path', 'another file')}, but not as this file is now: {version}; "
            "it takes a change over within seconds, or at once on SIGHUP"
        )


def print_schema(*, tests: bool) -> None:
    """The JSON Schema of rules.yaml for the connectors that are installed, or of a file of tests."""
    from bridge.rules.schema import schema, schema_of_tests

    comment = "# yaml-language-server: $schema="
    if tests:
        print_json(schema_of_tests())
        note("Save it as tests.schema.json beside rules.yaml, and begin rules.tests.yaml with")
        note(
            f"{comment}./tests.schema.json\nand a file in the folder tests with\n{comment}../tests.schema.json"
        )
    else:
        print_json(schema(registry_for(Settings.load(environment()).bridge_rules_file)))
        note("Save it as rules.schema.json beside rules.yaml, and begin rules.yaml with")
        note(f"{comment}./rules.schema.json")
