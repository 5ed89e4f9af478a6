"""Tests of the conformance suite: secrets, personal data, and what a client keeps."""

# ruff: noqa: D102, S101

from __future__ import annotations

import base64
import gc
import inspect
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from bridge.connector import Action, Connector, Context, Event, Params
from bridge.errors import ConfigError
from bridge.testing.connection import Connected
from bridge.testing.stub_server import Received, Reply
from bridge.testing.suite_base import CONTACT, SuiteBase

ECHOING = (200, 400, 401, 404, 409, 422, 429, 500)
PERSONAL = (*CONTACT.values(), "12125550193", "2125550193", "Quistgaard", "wilhelmina")
_MAX_DEPTH = 6


class SecrecyTests(SuiteBase):
    """What messages, logs and clients contain."""

    def test_invalid_setting_is_reported_without_its_value(self) -> None:
        prefix = self.connector.settings.prefix(self.connector.name)
        invalid = dict.fromkeys(self.environ("http://127.0.0.1:9"), "\x00unguessable-value")
        with pytest.raises(ConfigError) as error:
            self.connector.settings.from_environment(invalid, prefix)
        assert prefix in str(error.value)
        assert "unguessable" not in str(error.value)

    def test_messages_contain_no_secrets_or_personal_data(self, action: Action) -> None:
        """The provider echoes the whole request, as some providers do."""
        self._needs_http()
        for status in ECHOING:
            with self._connected() as (server, connected):
                server.answer("*", "*", lambda request, status=status: Reply(status, _echo(request)))  # type: ignore[misc]
                self.prepare(server)
                with _logged(self.connector, debug=status == 422) as (log, debug_log):
                    outcome = self._attempt(connected, action)
                secrets = {*_secrets(connected), *_credentials(server.requests), *PERSONAL}
                shown = {
                    "message": f"{outcome!s} {outcome!r} {vars(outcome)}",
                    "log": "\n".join(log),
                    "debug log": "\n".join(debug_log),
                    "repr of the settings or the client": f"{connected.settings!r} {connected.client!r}",
                }
            self._judge(action, f" after {status}", shown, secrets)

    def test_no_secrets_or_personal_data_in_a_success(self, action: Action) -> None:
        with self._provider() as (_, connected), _logged(self.connector, debug=True) as (log, debug_log):
            outcome = self._attempt(connected, action)
            secrets = {*_secrets(connected), *PERSONAL}
        detail = getattr(outcome, "detail", "")
        shown = {"detail": detail, "log": "\n".join(log), "debug log": "\n".join(debug_log)}
        self._judge(action, " of a success", shown, secrets)

    def _judge(self, action: Action, when: str, shown: Mapping[str, str], secrets: set[str]) -> None:
        for place, text in shown.items():
            found = sorted(secret for secret in secrets if secret in text)
            if found:
                what = "an address or a name" if found[0] in PERSONAL else "a secret"
                self._fail(f"{action.full_name}: the {place}{when} contains {what}: {found[0]}")

    def test_client_keeps_nothing_of_a_delivery(self, action: Action) -> None:
        """Threads share the client: what one delivery stores in it, another one sends."""
        self._needs_http()
        with self._connected() as (server, connected):
            server.otherwise = Reply(200, {})
            context = self._context(action)
            self._attempt(connected, action, context=context)
            texts = {*PERSONAL, context.idempotency_token, context.idempotency_key}
            own = _folders(self.connector) | {_folder_of(type(connected.client))}
            kept = next(_kept(connected.client, "client", _Delivery(texts, own), set(), 0), None)
        if kept:
            self._fail(
                f"{action.full_name}: {kept} holds data of a delivery; pass it as an argument, because threads "
                "share the client"
            )

    def test_close_closes_the_connections(self) -> None:
        self._needs_http()
        action = next(iter(self.connector.actions.values()))
        with self._connected() as (server, connected):
            server.otherwise = Reply(400, {})
            self._attempt(connected, action)
            close = getattr(connected.client, "close", None)
            if callable(close):
                close()
            closed = threading.Event()
            for waited in range(50):
                if server.open_connections() == 0:
                    return
                if waited == 10:
                    gc.collect()  # urllib3 closes connections only with their pool
                closed.wait(0.01)
        self._fail(f"{self.connector.name}: add close() to the client, which closes its connections")


def _echo(request: Received) -> dict[str, Any]:
    content = f"{request.body.decode('utf-8', 'replace')} {dict(request.query)} {dict(request.headers)}"
    message = f"rejected: {content}"
    return {
        "error": {"message": message, "code": message, "status": message},
        "message": message,
        "errors": [{"message": message}],
        "detail": message,
    }


def _secrets(connected: Connected) -> Iterator[str]:
    """Yield the secrets in the settings, also as they are encoded in a URL or a header."""
    for name in type(connected.settings).model_fields:
        value = getattr(connected.settings, name)
        for part in value.values() if isinstance(value, dict) else (value,):
            if isinstance(part, SecretStr) and len(secret := part.get_secret_value()) >= 6:
                yield from {secret, quote(secret), quote(secret, safe="")}
                yield base64.b64encode(secret.encode()).decode()


def _credentials(requests: list[Received]) -> Iterator[str]:
    """Yield what the requests were authorized with: of basic authentication, user and password in Base64."""
    for request in requests:
        with suppress(ValueError):
            _, credential = request.headers.get("authorization", "").split(" ", 1)
            yield credential


@contextmanager
def _logged(connector: Connector, *, debug: bool) -> Iterator[tuple[list[str], list[str]]]:
    """Yield what is logged: by everyone at INFO and above, and by the connector's own files at DEBUG."""
    log: list[str] = []
    debug_log: list[str] = []
    folders = _folders(connector)

    class LogCollector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.INFO:
                log.append(record.getMessage())
            elif Path(record.pathname).parent in folders:
                debug_log.append(record.getMessage())

    root, handler = logging.getLogger(), LogCollector()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        yield log, debug_log
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@dataclass(frozen=True)
class _Delivery:
    """What must not be kept: the texts of a delivery, in objects whose classes are in the connector's folders."""

    texts: set[str]
    folders: set[Path]


def _folders(connector: Connector) -> set[Path]:
    """Return the folders of the connector's files."""
    functions = (connector.build_client, *(action.run for action in connector.actions.values()))
    return {Path(inspect.getfile(inspect.unwrap(function))).parent for function in functions if function}


def _folder_of(kind: type) -> Path:
    return Path(getattr(sys.modules.get(kind.__module__), "__file__", None) or "builtins").parent


def _kept(value: Any, path: str, delivery: _Delivery, seen: set[int], depth: int) -> Iterator[str]:
    """Yield the paths below `value` at which data of a delivery is kept. What an SDK keeps is its own affair."""
    if depth > _MAX_DEPTH or id(value) in seen:
        return
    seen.add(id(value))
    inner: list[tuple[str, Any]] = []
    if isinstance(value, Params | Context | Event) or (
        isinstance(value, str) and any(text in value for text in delivery.texts)
    ):
        yield path
    elif isinstance(value, dict):
        inner = [(f"[{key!r}]", part) for key, item in value.items() for part in (key, item)]
    elif isinstance(value, list | tuple | set | frozenset):
        inner = [(f"[{index}]", item) for index, item in enumerate(value)]
    elif not isinstance(value, type) and _folder_of(type(value)) in delivery.folders:
        inner = [(f".{name}", item) for name, item in getattr(value, "__dict__", {}).items()]
    for step, item in inner:
        yield from _kept(item, path + step, delivery, seen, depth + 1)
