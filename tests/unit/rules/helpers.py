"""Helpers for the tests of rules: a registry of test connectors, and functions that build rules and events."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge.connector.discovery import Registry
from bridge.events import Event, dedupe_key_of
from bridge.rules.load import load
from bridge.rules.model import Diagnostic, LoadResult, Rules
from bridge.rules.report import report
from bridge.samples import sample

REGISTRY = Registry([Path(__file__).parent / "connectors"])
NOW = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)


def load_text(text: str, environ: dict[str, str] | None = None) -> LoadResult:
    return load(textwrap.dedent(text), path="rules.yaml", registry=REGISTRY, environ=environ)


def rules_of(text: str) -> Rules:
    """Return the rules in `text`, which can leave out `version` and `rules:`."""
    text = textwrap.dedent(text)
    if not text.lstrip().startswith("version"):
        text = "version: 1\nrules:\n" + textwrap.indent(text, "  ")
    result = load(text, path="rules.yaml", registry=REGISTRY)
    assert result.rules is not None, report(result.diagnostics, result.texts)
    return result.rules


def diagnostics_of(text: str) -> list[Diagnostic]:
    return list(load_text(text).diagnostics)


def event_of(event_type: str = "call.busy", received_at: datetime = NOW, **changes: Any) -> Event:
    """Return a documented sample. `metadata__contactPhone=None` changes a field, `...` removes it."""
    body = sample(event_type)
    for path, value in changes.items():
        *parents, key = path.split("__")
        fields = body
        for parent in parents:
            fields = fields.setdefault(parent, {})
        if value is ...:
            fields.pop(key, None)
        else:
            fields[key] = value
    return Event(body, dedupe_key_of(body, b""), received_at, "evt_1")
