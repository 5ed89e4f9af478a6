"""Talking to the partners' accounts for an operator: `check --online` and `connections setup`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import SecretStr
from rich.status import Status

from bridge.cli.output import errors
from bridge.clock import uptime
from bridge.connector import Connector, ConnectorSettings
from bridge.connector.deadline import attempt_deadline
from bridge.connector.discovery import settings_of
from bridge.errors import AuthenticationError, ConfigError, DeliveryError
from bridge.telemetry import mask

SECONDS = 60.0
"""How long one account may take."""


def check_all(used: Mapping[str, Connector], environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Log in to each account and verify what its actions need; one line for each. Writes nothing there."""
    return [_ask("check", name, connector, environ) for name, connector in sorted(used.items())]


def set_up(name: str, connector: Connector, environ: Mapping[str, str]) -> dict[str, Any]:
    """Make what an account needs once; repeating it does no harm."""
    return _ask("setup", name, connector, environ)


def _ask(
    what: Literal["check", "setup"], name: str, connector: Connector, environ: Mapping[str, str]
) -> dict[str, Any]:
    run = connector.run_check if what == "check" else connector.run_setup
    if run is None:
        return _verdict(name, True, "nothing to check" if what == "check" else "needs no setup")
    settings: ConnectorSettings | None = None
    with Status(f"Asking {name} ...", console=errors()):
        try:
            settings = settings_of(connector, name, environ)
            client = connector.build_client(settings) if connector.build_client else settings
            try:
                with attempt_deadline(uptime() + SECONDS):
                    return _verdict(name, True, run(client))
            finally:
                close = getattr(client, "close", None)
                if callable(close):
                    close()
        except Exception as error:
            return _verdict(name, False, _advice(error, connector, settings, name))


def _advice(error: Exception, connector: Connector, settings: ConnectorSettings | None, name: str) -> str:
    """What an operator can do about it, never with a secret."""
    failure: Exception = error
    if not isinstance(error, DeliveryError | ConfigError) and connector.classify:
        failure = connector.classify(error) or error
    if isinstance(failure, DeliveryError):
        told = mask(failure.detail)
        if isinstance(failure, AuthenticationError):
            secrets = _variables(settings, name, lambda _, value: isinstance(value, SecretStr))
            told = f"the partner does not accept the credentials: {told}"
            return f"{told}; check {secrets}" if secrets else told
        addresses = _variables(settings, name, lambda field, value: "url" in field and value is not None)
        return f"{told}; is {addresses} right?" if failure.reason == "network" and addresses else told
    if isinstance(failure, ConfigError):
        return str(failure)
    return f"{type(error).__name__}: {mask(str(error))[:300]}"


def _variables(settings: ConnectorSettings | None, name: str, wanted: Callable[[str, object], bool]) -> str:
    """Those variables of the account whose field and value are wanted."""
    if settings is None:
        return ""
    fields = [field for field, value in settings if wanted(field, value)]
    return ", ".join(settings.variable(settings.prefix(name), field) for field in fields)


def _verdict(name: str, ok: bool, text: str) -> dict[str, Any]:
    return {"connection": name, "ok": ok, "text": text}
