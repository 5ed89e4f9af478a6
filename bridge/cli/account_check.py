"""Account checks: log in to the providers' accounts for `check --online` and `connections setup`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import SecretStr
from rich.status import Status

from bridge.cli.output import errors
from bridge.clock import uptime
from bridge.connector import Connector, ConnectorSettings
from bridge.connector.deadline import attempt_deadline
from bridge.connector.discovery import read_settings
from bridge.errors import AuthenticationError, ConfigError, DeliveryError
from bridge.telemetry import mask

TIMEOUT_SECONDS = 60.0
"""Timeout for one account."""


def check_accounts(used: Mapping[str, Connector], environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Log in to each account and verify what its actions need, without writing. Return one result per account."""
    return [_run("check", name, connector, environ) for name, connector in sorted(used.items())]


def set_up_account(name: str, connector: Connector, environ: Mapping[str, str]) -> dict[str, Any]:
    """Create the objects that an account needs. Safe to repeat."""
    return _run("setup", name, connector, environ)


def _run(
    operation: Literal["check", "setup"], name: str, connector: Connector, environ: Mapping[str, str]
) -> dict[str, Any]:
    run = connector.run_check if operation == "check" else connector.run_setup
    if run is None:
        return _result(name, True, "nothing to check" if operation == "check" else "no setup needed")
    settings: ConnectorSettings | None = None
    with Status(f"Connecting to {name} ...", console=errors()):
        try:
            settings = read_settings(connector, name, environ)
            client = connector.build_client(settings) if connector.build_client else settings
            try:
                with attempt_deadline(uptime() + TIMEOUT_SECONDS):
                    return _result(name, True, run(client))
            finally:
                close = getattr(client, "close", None)
                if callable(close):
                    close()
        except Exception as error:
            return _result(name, False, _advice(error, connector, settings, name))


def _advice(error: Exception, connector: Connector, settings: ConnectorSettings | None, name: str) -> str:
    """Return the error as advice to the operator, without secrets."""
    failure: Exception = error
    if not isinstance(error, DeliveryError | ConfigError) and connector.classify:
        failure = connector.classify(error) or error
    if isinstance(failure, DeliveryError):
        message = mask(failure.detail)
        if isinstance(failure, AuthenticationError):
            secrets = _variables(settings, name, lambda _, value: isinstance(value, SecretStr))
            message = f"the provider rejected the credentials: {message}"
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


def _result(name: str, ok: bool, text: str) -> dict[str, Any]:
    return {"connection": name, "ok": ok, "text": text}
