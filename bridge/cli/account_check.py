"""Account checks: log in to the providers' accounts for `check --online` and `connections setup`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import SecretStr

from bridge.cli.db import open_store
from bridge.cli.output import errors, pluralize
from bridge.clock import uptime
from bridge.connector import ActionUse, Connector, ConnectorSettings, RuleProblem
from bridge.connector.deadline import attempt_deadline
from bridge.connector.discovery import name_variables, read_settings
from bridge.connector.tokens import TokenStore
from bridge.errors import AccountError, AuthenticationError, ConfigError, DeliveryError
from bridge.rules.action_uses import diagnostic
from bridge.rules.model import Diagnostic
from bridge.settings import Settings
from bridge.telemetry import mask
from bridge.worker.account import shared_token_store

TIMEOUT_SECONDS = 60.0
"""Timeout for one account."""


@dataclass(frozen=True)
class AccountResult:
    """The result of one account."""

    connection: str
    ok: bool
    text: str
    diagnostics: Sequence[Diagnostic] = ()
    """Parts of the rules that the account would reject."""

    def to_json(self) -> dict[str, Any]:
        """Return the result for programs, without the diagnostics of the rules file."""
        return {"connection": self.connection, "ok": self.ok, "text": self.text}


def check_accounts(
    used: Mapping[str, Connector], uses: Mapping[str, Sequence[ActionUse]], environ: Mapping[str, str]
) -> list[AccountResult]:
    """Log in to each account, and check what its actions need and what the rules write, without writing."""
    return [
        _run(name, connector, environ, partial(_check, name, connector, uses.get(name, ())))
        for name, connector in sorted(used.items())
    ]


def set_up_account(name: str, connector: Connector, environ: Mapping[str, str]) -> AccountResult:
    """Create the objects that an account needs. Safe to repeat."""
    set_up = connector.run_setup
    if set_up is None:
        return AccountResult(name, True, "no setup needed")
    return _run(name, connector, environ, lambda client: AccountResult(name, True, set_up(client)))


def _check(name: str, connector: Connector, uses: Sequence[ActionUse], client: Any) -> AccountResult:
    text = connector.run_check(client) if connector.run_check else "nothing to check"
    problems = connector.run_check_rules(client, uses) if connector.run_check_rules else ()
    errors = [problem for problem in problems if problem.level == "error"]
    in_file = [diagnostic(problem, problem.use) for problem in problems if problem.use is not None]
    of_account = [problem for problem in problems if problem.use is None]
    missing = [_with_hint(problem) for problem in of_account if problem.level == "error"]
    notes = [_with_hint(problem) for problem in of_account if problem.level == "warning"]
    notes += [f"{pluralize(len(in_file), 'problem')} in the rules"] if in_file else []
    return AccountResult(name, not errors, "; ".join([*(missing or [text]), *notes]), in_file)


def _with_hint(problem: RuleProblem) -> str:
    return f"{problem.text}: {problem.hint}" if problem.hint else problem.text


def _run(
    name: str, connector: Connector, environ: Mapping[str, str], run: Callable[[Any], AccountResult]
) -> AccountResult:
    settings: ConnectorSettings | None = None
    # Imported here, because a server can check accounts too, and has no other use for rich.
    from rich.status import Status

    with Status(f"Connecting to {name} ...", console=errors()):
        try:
            settings = read_settings(connector, name, environ)
            with _token_store(connector, name, settings, environ) as store:
                client = connector.open_client(settings, store)
                try:
                    with attempt_deadline(uptime() + TIMEOUT_SECONDS):
                        return run(client)
                finally:
                    close = getattr(client, "close", None)
                    if callable(close):
                        close()
        except Exception as error:
            advice = name_variables(_advice(error, connector, settings, name), connector, name)
            return AccountResult(name, False, advice)


@contextmanager
def _token_store(
    connector: Connector, name: str, settings: ConnectorSettings, environ: Mapping[str, str]
) -> Iterator[TokenStore | None]:
    """Yield the service's store of the connection's token if only that has a refresh token that works.

    Otherwise, a check logs in for itself, so that it verifies the credentials in the settings.
    """
    if connector.obtain_token is None or connector.first_refresh_token is None:
        yield None
        return
    service = Settings.load(environ)
    with open_store(service) as database:
        yield shared_token_store(database, connector, name, settings, service.secret_keys)


def _advice(error: Exception, connector: Connector, settings: ConnectorSettings | None, name: str) -> str:
    """Return the error as advice to the operator, without secrets."""
    failure: Exception = error
    if not isinstance(error, DeliveryError | ConfigError):
        failure = connector.classify(error) or error
    if isinstance(failure, DeliveryError):
        message = mask(failure.detail)
        if isinstance(failure, AuthenticationError):
            message = f"the provider rejected the credentials: {message}"
        if isinstance(failure, AccountError) and failure.fix:
            return f"{message}; {failure.fix}"
        if isinstance(failure, AuthenticationError):
            secrets = _variables(settings, name, lambda _, value: isinstance(value, SecretStr))
            return f"{message}; check {secrets}" if secrets else message
        urls = _variables(settings, name, lambda field, value: "url" in field and value is not None)
        return f"{message}; is {urls} correct?" if failure.reason == "network" and urls else message
    if isinstance(failure, ConfigError):
        return str(failure)
    return f"{type(error).__name__}: {mask(str(error))[:300]}"


def _variables(
    settings: ConnectorSettings | None, name: str, predicate: Callable[[str, object], bool]
) -> str:
    """Return the names of the account's variables whose field and value match the predicate."""
    if settings is None:
        return ""
    fields = [field for field, value in settings if predicate(field, value)]
    return ", ".join(settings.variable(settings.prefix(name), field) for field in fields)
