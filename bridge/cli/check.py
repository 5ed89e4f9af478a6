"""Implementation of `bridge check` and `bridge schema`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from bridge.cli.accounts import connections_used_by
from bridge.cli.bootstrap import connectors_folder, registry_for
from bridge.cli.data_age import outdated_data
from bridge.cli.db import unverified_host
from bridge.cli.dropped_fields_check import dropped_fields_in_use
from bridge.cli.file_permissions import exposed_secrets, group_writable_connectors
from bridge.cli.output import echo, pluralize, print_json, print_status, result_line
from bridge.cli.rules_source import rules_path
from bridge.clock import format_timestamp, parse_timestamp
from bridge.connector.discovery import Registry, variable_names
from bridge.connector.egress import configure_egress
from bridge.dryrun.test_files import RuleTestFile, load_test_files
from bridge.errors import ConfigError
from bridge.rules.action_uses import action_uses
from bridge.rules.files import read_rules_files
from bridge.rules.load import load
from bridge.rules.model import Diagnostic, LoadResult, Rules
from bridge.rules.report import report
from bridge.rules.sources import split_sources
from bridge.secret_settings import FILE_SUFFIX, WEAK_SECRET_ADVICE
from bridge.settings import Settings, environment, local_url
from bridge.unrecognized_variables import unrecognized_variables

if TYPE_CHECKING:
    from bridge.cli.account_check import AccountResult
    from bridge.cli.heppu_check import HeppuCheck


@dataclass(frozen=True)
class CheckReport:
    """The result of `bridge check`."""

    path: Path
    settings: Settings
    loaded: LoadResult
    rules: Rules | None
    """The rules with the tests of all files; None if the file has errors."""
    test_files: Sequence[RuleTestFile]
    connections: Sequence[str]
    accounts: Sequence[AccountResult]
    """The result of the login to each account; empty without `--online`."""
    heppu: HeppuCheck | None
    """The webhooks at Heppu; None without `--online`, or if the rules have errors."""
    unrecognized: Mapping[str, str]
    permissions: Sequence[str]
    """Warnings about files that other users of this machine can read or write."""
    outdated_data: Sequence[str]
    dropped_fields: Sequence[str]
    """Places in the rules that use a field of BRIDGE_DROP_FIELDS."""
    unverified_database_host: str | None
    """The host of PostgreSQL, if its certificate is not verified."""
    service: Mapping[str, Any] | None
    """The service's record of its rules; None without `--deployed`."""

    @property
    def service_is_current(self) -> bool:
        """True if the service runs these rules."""
        return (
            self.service is not None
            and self.rules is not None
            and self.service.get("hash") == self.rules.hash
        )

    @property
    def ok(self) -> bool:
        """True if nothing has to be fixed."""
        return (
            self.rules is not None
            and all(file.usable for file in self.test_files)
            and all(account.ok for account in self.accounts)
            and (self.heppu is None or self.heppu.ok)
            and (self.service is None or (self.service_is_current and not self.service.get("load_error")))
        )

    @property
    def account_diagnostics(self) -> Sequence[Diagnostic]:
        """Problems that the accounts have found in the rules, in file order."""
        found = (diagnostic for account in self.accounts for diagnostic in account.diagnostics)
        return sorted(dict.fromkeys(found), key=lambda item: (item.line, item.column))

    def to_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            "path": str(self.path),
            "ok": self.ok,
            "diagnostics": [
                vars(diagnostic) for diagnostic in (*self.loaded.diagnostics, *self.account_diagnostics)
            ],
            "tests": [
                {"path": str(file.path), "diagnostics": [vars(diagnostic) for diagnostic in file.diagnostics]}
                for file in self.test_files
            ],
            "connections": [account.to_json() for account in self.accounts] or self.connections,
            "heppu": None if self.heppu is None else self.heppu.to_json(),
            "unrecognized_variables": self.unrecognized,
            "file_permissions": self.permissions,
            "weak_secrets": self.settings.weak_secrets,
            "outdated_data": self.outdated_data,
            "dropped_fields": self.dropped_fields,
            "unverified_database_host": self.unverified_database_host,
            "deployed": None if self.service is None else {**self.service, "same": self.service_is_current},
        }

    def print_text(self) -> None:
        """Print the report for people."""
        rules_report = self._report(self.loaded.diagnostics)
        for part in (rules_report, *(file.report for file in self.test_files)):
            if part:
                echo(f"{part}\n")
        if self.rules is not None:
            _print_rules(self.rules)
        elif all(item.level == "warning" or item.connection for item in self.loaded.diagnostics):
            echo(f"the rules have no errors: {self.path} only needs the settings above\n")
        _print_settings(self.settings, self.unrecognized)
        for warning in self.permissions:
            echo(f"file permissions: {warning}")
        for warning in self.dropped_fields:
            echo(f"dropped field: {warning} (BRIDGE_DROP_FIELDS)")
        for advice in self.outdated_data:
            echo(f"outdated data: {advice}")
        if self.unverified_database_host:
            echo(
                f"unverified database: {self.unverified_database_host} could be replaced by another server; add "
                "?sslmode=verify-full&sslrootcert=/path/of/ca.pem to BRIDGE_DATABASE_URL"
            )
        for account in self.accounts:
            echo(result_line(account.ok, account.connection, account.text))
        if self.heppu is not None:
            _print_heppu(self.heppu)
        if self.account_diagnostics:
            echo(f"\n{self._report(self.account_diagnostics)}\n")
        if self.connections and not self.accounts:
            echo(f"settings found for {', '.join(self.connections)}; use --online to log in to each account")
        if self.service is not None:
            _print_deployed_rules(self.service, self.service_is_current, rules_report)

    def _report(self, diagnostics: Sequence[Diagnostic]) -> str:
        return report(diagnostics, self.loaded.texts)


def check(file: Path | None, *, online: bool, deployed: bool) -> CheckReport:
    """Check a rules file, its test files and accounts, and the deployed rules."""
    environ = environment()
    settings = Settings.load(environ)
    path = rules_path(file, settings.bridge_rules_file)
    registry = registry_for(path, settings)
    loaded = load(read_rules_files(path), path=str(path), registry=registry, environ=environ)
    variables = _variables(loaded.connections, registry, environ)
    used = connections_used_by(loaded.rules, registry) if loaded.rules is not None else {}
    accounts: Sequence[AccountResult] = ()
    if online and used and loaded.rules is not None:
        from bridge.cli.account_check import check_accounts

        configure_egress(settings)
        accounts = check_accounts(used, action_uses(loaded.rules), environ)
    heppu = None
    if online and loaded.rules is not None:
        from bridge.cli.heppu_check import check_heppu

        heppu = check_heppu(loaded.rules, settings.bridge_public_url)
    rules, test_files = loaded.rules, tuple[RuleTestFile, ...]()
    if rules is not None:
        rules, test_files = load_test_files(rules, registry)
    return CheckReport(
        path, settings, loaded, rules, test_files, sorted(used), accounts, heppu,
        unrecognized_variables(environ, variables),
        _permissions(environ, variables, connectors_folder(path, settings)),
        outdated_data(datetime.now(UTC)),
        dropped_fields_in_use(loaded.texts, settings.bridge_drop_fields),
        unverified_host(settings.bridge_database_url, environ),
        _fetch_deployed_rules(settings) if deployed else None,
    )  # fmt: skip


def _variables(connections: Mapping[str, str], registry: Registry, environ: Mapping[str, str]) -> set[str]:
    """Return the names of the variables that configure these connections."""
    names: set[str] = set()
    for connection, connector in connections.items():
        with suppress(ConfigError):  # a broken connector is already reported as a diagnostic of the file
            names.update(variable_names(registry.connector(connector), connection, environ))
    return names


def _permissions(environ: Mapping[str, str], variables: set[str], connectors: Path) -> list[str]:
    """Return warnings about the files with secrets, and the folder of connectors."""
    names = {*Settings.secret_variables("").values(), "HEPPU_API_KEY"}
    files = {name + FILE_SUFFIX for name in names} | {
        name for name in variables if name.endswith(FILE_SUFFIX)
    }
    paths = [Path(".env"), *(Path(environ[name]) for name in sorted(files) if environ.get(name))]
    return exposed_secrets(paths) + group_writable_connectors(connectors)


def _print_heppu(heppu: HeppuCheck) -> None:
    """Print what was found about the webhooks at Heppu, each problem with what to do."""
    if heppu.skipped:
        echo(f"webhooks at Heppu: not checked; {heppu.skipped}")
    for finding in heppu.findings:
        echo(result_line(finding.ok, "webhooks at Heppu", finding.text))
        if finding.fix:
            echo(f"    {finding.fix}")


def _print_rules(rules: Rules) -> None:
    enabled = sum(rule.enabled for rule in rules.rules)
    disabled = len(rules.rules) - enabled
    files = len(split_sources(rules.text, rules.path))
    echo(
        f"{rules.path} is valid: {f'{files} files, ' if files > 1 else ''}{pluralize(enabled, 'rule')}"
        + (f" (and {disabled} disabled)" if disabled else "")
        + f", {pluralize(len(rules.tests), 'test')}"
    )


def _print_settings(settings: Settings, unrecognized: Mapping[str, str]) -> None:
    """Print unrecognized variables, and the bridge's own settings that are missing."""
    for name, advice in unrecognized.items():
        echo(f"unrecognized variable: {name}; {advice}")
    if not settings.heppu_webhook_secret:
        echo("not set: HEPPU_WEBHOOK_SECRET; `bridge serve` does not start without it")
    if settings.bridge_public_url is None:
        echo("not set: BRIDGE_PUBLIC_URL; status callbacks, STOP replies and unsubscribe links need it")
    elif not settings.bridge_secret_key:
        echo("not set: BRIDGE_SECRET_KEY; emails carry no unsubscribe link without it")
    for name in settings.weak_secrets:
        echo(f"weak secret: {name}; {WEAK_SECRET_ADVICE}")


def _fetch_deployed_rules(settings: Settings) -> dict[str, Any]:
    """Return the running service's record of its rules. Raise ConfigError if it cannot be reached."""
    url = f"{local_url(settings.bridge_host, settings.bridge_port)}/api/rules"
    tokens = (*settings.bridge_admin_token, *settings.bridge_read_token)
    if not tokens:
        raise ConfigError(
            "--deployed needs a token of the service: set BRIDGE_ADMIN_TOKEN in .env, and restart the service"
        )
    headers = {"Authorization": f"Bearer {tokens[0].token.get_secret_value()}", "Accept": "application/json"}
    try:
        response = httpx.get(url, headers=headers, timeout=10, trust_env=False)
        record = response.json() if response.is_success else None
    except (httpx.HTTPError, ValueError) as error:
        raise ConfigError(
            f"no response from {url}: {type(error).__name__}; is `bridge serve` running?"
        ) from None
    if not isinstance(record, dict):
        raise ConfigError(
            f"{url} answered {response.status_code}; is BRIDGE_ADMIN_TOKEN the token of the service?"
        )
    return record


def _print_deployed_rules(service: Mapping[str, Any], is_current: bool, rules_report: str) -> None:
    """Print which rules the service runs, what waits of earlier ones, and its load error.

    The load error is left out if `rules_report` already shows it.
    """
    load_error = str(service.get("load_error") or "")
    since = format_timestamp(parse_timestamp(service.get("loaded_at")))
    version = f"version {str(service.get('hash', ''))[:12]}, loaded at {since} UTC"
    if load_error:
        echo(f"the service did NOT load this file; it still runs the previous rules: {version}")
        if not rules_report or not load_error.startswith(rules_report):
            echo(f"error of the service:\n{load_error}")
    elif is_current:
        echo(f"the service runs this version of {service.get('path', 'the file')}: {version}")
    else:
        echo(
            f"the service runs another version of {service.get('path', 'the file')}: {version}; "
            "it loads a change within seconds, or immediately on SIGHUP"
        )
    for item in service.get("earlier_deliveries") or ():
        echo(f"{item['message']}: {item['advice']}")


def print_schema(*, tests: bool) -> None:
    """Print the JSON Schema of rules.yaml for the installed connectors, or of a test file."""
    from bridge.rules.schema import schema, schema_of_tests

    comment = "# yaml-language-server: $schema="
    if tests:
        print_json(schema_of_tests())
        print_status(
            "Save it as tests.schema.json next to rules.yaml. Add this first line to rules.tests.yaml:"
        )
        print_status(
            f"{comment}./tests.schema.json\nand this one to each file in the tests folder:\n"
            f"{comment}../tests.schema.json"
        )
    else:
        settings = Settings.load(environment())
        print_json(schema(registry_for(settings.bridge_rules_file, settings)))
        print_status("Save it as rules.schema.json next to rules.yaml. Add this first line to rules.yaml:")
        print_status(f"{comment}./rules.schema.json")
