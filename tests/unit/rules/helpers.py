"""What the tests of the rules language share: stand-in connectors, and rules and events in a few words."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge.connector.discovery import Registry
from bridge.events import Event, dedupe_key_of
from bridge.rules.load import load
from bridge.rules.model import Loaded, Problem, Rules
from bridge.rules.report import report
from bridge.samples import sample

REGISTRY = Registry([Path(__file__).parent / "connectors"])
NOW = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)


def loaded(text: str, environ: dict[str, str] | None = None) -> Loaded:
    return load(textwrap.dedent(text), path="rules.yaml", registry=REGISTRY, environ=environ)


def rules_of(text: str) -> Rules:
    """The rules in `text`, which may leave `version` and `rules:` out."""
    text = textwrap.dedent(text)
    if not text.lstrip().startswith("version"):
        text = "version: 1\nrules:\n" + textwrap.indent(text, "  ")
    result = load(text, path="rules.yaml", registry=REGISTRY)
    assert result.rules is not None, report(result.problems, text, "rules.yaml")
    return result.rules


def problems_of(text: str) -> list[Problem]:
    return list(loaded(text).problems)


def event_of(name: str = "call.busy", received_at: datetime = NOW, **changes: Any) -> Event:
    """A documented sample; `metadata__contactPhone=None` changes a field, `...` removes it."""
    body = sample(name)
    for path, value in changes.items():
        *parents, key = path.split("__")
        inner = body
        for parent in parents:
            inner = inner.setdefault(parent, {})
        if value is ...:
            inner.pop(key, None)
        else:
            inner[key] = value
    return Event(body, dedupe_key_of(body, b""), received_at, "evt_1")
