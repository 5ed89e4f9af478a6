"""Rules over connectors that exist only here, so that only the dry run is tested."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Email,
    Params,
    PhoneNumber,
    SerializeBy,
    Success,
    param,
    per_conversation,
    per_event,
    per_message,
)
from bridge.connector.discovery import Registry
from bridge.dryrun.engine import temporary_database
from bridge.events import Event
from bridge.rules.load import load
from bridge.rules.model import Rules
from bridge.samples import iso, sample
from bridge.store.database import Database


class SmsParams(Params):
    to: PhoneNumber = param("{{ contact.phone }}", "Recipient.", example="+14155550123")
    body: str = param(..., "Message text.", example="Hello", max_length=1600)


class EmailParams(Params):
    to: Email = param("{{ contact.email }}", "Recipient.", example="maya@example.com")
    subject: str = param(..., "Subject.", example="Hello")
    text: str = param(..., "Message text.", example="Hello")


class LogParams(Params):
    summary: str | None = param("{{ event.summary }}", "Summary of the call.", example="Hello")


class PostParams(Params):
    text: str = param(..., "Message text.", example="Hello")


def registry() -> Registry:
    texter = Connector("texter", settings=ConnectorSettings)
    pager = Connector("pager", settings=ConnectorSettings)
    mailer = Connector("mailer", settings=ConnectorSettings)
    ledger = Connector("ledger", settings=ConnectorSettings)
    desk = Connector("desk", settings=ConnectorSettings)

    @ledger.opt_out_flags
    def flags(client: Any, emails: list[str], phones: list[str]) -> dict[str, Any]:
        """Return the flags of contacts."""
        raise AssertionError("a dry run calls no provider")

    @texter.action(channel="sms", text="body", idempotency=per_message)
    def send(client: Any, params: SmsParams, context: Context) -> Success:
        """Send a text message; there is no lookup."""
        raise AssertionError("a dry run calls no provider")

    @texter.action(idempotency=per_event, serialize_by=SerializeBy.NONE)
    def label(client: Any, params: PostParams, context: Context) -> Success:
        """Label a number: on the connection of messages, but none itself."""
        raise AssertionError("a dry run calls no provider")

    @pager.action(channel="sms", text="body", idempotency=per_message)
    def page(client: Any, params: SmsParams, context: Context) -> Success:
        """Send a text message through another provider."""
        raise AssertionError("a dry run calls no provider")

    @mailer.action(channel="email", text="text", idempotency=per_message)
    def post(client: Any, params: EmailParams, context: Context) -> Success:
        """Send an email."""
        raise AssertionError("a dry run calls no provider")

    @post.lookup
    def find(client: Any, params: EmailParams, context: Context) -> Success | None:
        """Look up an email."""
        raise AssertionError("a dry run calls no provider")

    @ledger.action(idempotency=per_conversation, serialize_by=SerializeBy.CONVERSATION, idempotent=True)
    def log(client: Any, params: LogParams, context: Context) -> Success:
        """Log a conversation."""
        raise AssertionError("a dry run calls no provider")

    @ledger.action(idempotency=per_event, serialize_by=SerializeBy.NONE)
    def tag(client: Any, params: PostParams, context: Context) -> Success:
        """Tag a conversation."""
        raise AssertionError("a dry run calls no provider")

    @desk.action(idempotency=per_event, serialize_by=SerializeBy.NONE)
    def notify(client: Any, params: PostParams, context: Context) -> Success:
        """Notify the team."""
        raise AssertionError("a dry run calls no provider")

    @desk.action(idempotency=per_event, serialize_by=SerializeBy.NONE, dedupe_by="text")
    def post_up(client: Any, params: PostParams, context: Context) -> Success:
        """Notify the team; another text is another post."""
        raise AssertionError("a dry run calls no provider")

    registry = Registry()
    for connector in (texter, pager, mailer, ledger, desk):
        registry.add(connector)
    return registry


ENVIRON = {
    "HEPPU_API_KEY": "key",
    "EMAIL_SMTP_URL": "smtp://mail.example",
    "EMAIL_FROM": "hello@harbourlight.example",
}


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """Return a database for dry runs."""
    with temporary_database() as database:
        yield database


@pytest.fixture
def load_rules() -> Callable[[str], Rules]:
    """Return a function that loads rules with the same connectors; a diagnostic fails the test."""
    connectors = registry()

    def build(text: str) -> Rules:
        loaded = load(textwrap.dedent(text), path="rules.yaml", registry=connectors, environ=ENVIRON)
        assert loaded.rules is not None, loaded.diagnostics
        return loaded.rules

    return build


@pytest.fixture
def event() -> Callable[..., Event]:
    """Return a function that builds a sample event at an instant, with changes of its body."""

    def build(name: str, at: str, dedupe_key: str = "", **changes: Any) -> Event:
        instant = datetime.fromisoformat(at)
        body = sample(name) | {"timestamp": iso(instant)}
        for key, value in changes.items():
            body[key] = body[key] | value if isinstance(value, dict) and key in body else value
        return Event(body, dedupe_key or f"{name}@{at}", instant)

    return build
