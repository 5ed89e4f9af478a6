"""Rules over connectors that exist only here, so that what is tested is the rehearsal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
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
from bridge.events import Event
from bridge.rules.load import load
from bridge.rules.model import Rules
from bridge.samples import iso, sample


class Sms(Params):
    to: PhoneNumber = param("{{ contact.phone }}", "Who gets it.", example="+14155550123")
    body: str = param(..., "The text.", example="Hello", max_length=1600)


class Mail(Params):
    to: Email = param("{{ contact.email }}", "Who gets it.", example="maya@example.com")
    subject: str = param(..., "The subject.", example="Hello")
    text: str = param(..., "The text.", example="Hello")


class Call(Params):
    summary: str | None = param("{{ event.summary }}", "What was said.", example="Hello")


class Post(Params):
    text: str = param(..., "The text.", example="Hello")


def registry() -> Registry:
    texter = Connector("texter", settings=ConnectorSettings)
    mailer = Connector("mailer", settings=ConnectorSettings)
    ledger = Connector("ledger", settings=ConnectorSettings)
    desk = Connector("desk", settings=ConnectorSettings)

    @texter.action(channel="sms", idempotency=per_message)
    def send(client: Any, params: Sms, context: Context) -> Success:
        """Text a person; there is no way to look it up."""
        raise AssertionError("a rehearsal calls no partner")

    @mailer.action(channel="email", idempotency=per_message)
    def post(client: Any, params: Mail, context: Context) -> Success:
        """Mail a person."""
        raise AssertionError("a rehearsal calls no partner")

    @post.lookup
    def find(client: Any, params: Mail, context: Context) -> Success | None:
        """Look a mail up."""
        raise AssertionError("a rehearsal calls no partner")

    @ledger.action(idempotency=per_conversation, serialize_by=SerializeBy.CONVERSATION, idempotent=True)
    def log(client: Any, params: Call, context: Context) -> Success:
        """Log a conversation."""
        raise AssertionError("a rehearsal calls no partner")

    @desk.action(idempotency=per_event, serialize_by=SerializeBy.NONE)
    def tell(client: Any, params: Post, context: Context) -> Success:
        """Tell the team."""
        raise AssertionError("a rehearsal calls no partner")

    @desk.action(idempotency=per_event, serialize_by=SerializeBy.NONE, dedupe_by="text")
    def post_up(client: Any, params: Post, context: Context) -> Success:
        """Tell the team; another text is another post."""
        raise AssertionError("a rehearsal calls no partner")

    found = Registry()
    for connector in (texter, mailer, ledger, desk):
        found.add(connector)
    return found


@pytest.fixture
def load_rules() -> Callable[[str], Rules]:
    """The rules in a text; a problem in it fails the test."""

    def build(text: str) -> Rules:
        loaded = load(textwrap.dedent(text), path="rules.yaml", registry=registry(), environ={})
        assert loaded.rules is not None, loaded.problems
        return loaded.rules

    return build


@pytest.fixture
def event() -> Callable[..., Event]:
    """A sample that happens at an instant, with what is to be different in its body."""

    def build(name: str, at: str, dedupe_key: str = "", **changes: Any) -> Event:
        instant = datetime.fromisoformat(at)
        body = sample(name) | {"timestamp": iso(instant)}
        for key, value in changes.items():
            body[key] = body[key] | value if isinstance(value, dict) and key in body else value
        return Event(body, dedupe_key or f"{name}@{at}", instant)

    return build
