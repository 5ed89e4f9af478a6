"""Talking to the partners' accounts for an operator: `check --online` and `connectors setup`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import SecretStr
from rich.status import Status

from bridge.cli.output import errors
from bridge.clock import uptime
from bridge.connector import Connector, ConnectorSettings
from bridge.connector.deadline import attempt_deadline
from bridge.connector.discovery import settings_of
from bridge.errors import BadCredentials, ConfigError, Failure
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
            return _verdict(name, False, _advice(error, connector, _secrets(settings, name)))


def _secrets(settings: ConnectorSettings | None, name: str) -> list[str]:
    """The variables that hold the account's secrets."""
    if settings is None:
        return []
    held = [field for field, value in settings if isinstance(value, SecretStr)]
    return [settings.variable(settings.prefix(name), field) for field in held]


def _advice(error: Exception, connector: Connector, secrets: Sequence[str]) -> str:
    """What an operator can do about it, never with a secret."""
    failure: Exception = error
    if not isinstance(error, Failure | ConfigError) and connector.classify:
        failure = connector.classify(error) or error
    if isinstance(failure, BadCredentials):
        told = f"the partner does not accept the credentials: {mask(failure.detail)}"
        return f"{told}; check {', '.join(secrets)}" if secrets else told
    if isinstance(failure, Failure):
        return mask(failure.detail)
    if isinstance(failure, ConfigError):
        return str(failure)
    return f"{type(error).__name__}: {mask(str(error))[:300]}"


def _verdict(name: str, ok: bool, text: str) -> dict[str, Any]:
    return {"connection": name, "ok": ok, "text": text}
