"""Event input: reads the EVENT argument, which names a sample, a stored event, a file, or `-` for stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bridge.errors import ConfigError
from bridge.events import EVENT_TYPES
from bridge.json_values import parse_body, set_field
from bridge.samples import refresh_sample, sample


@dataclass(frozen=True)
class EventInput:
    """The body of an event and its origin."""

    body: bytes
    is_sample: bool


def read_event_input(name: str, environ: Mapping[str, str]) -> EventInput:
    """Return the body that `name` refers to. Raise ConfigError that lists the valid forms."""
    if name in EVENT_TYPES:
        return EventInput(json.dumps(sample(name), ensure_ascii=False).encode(), True)
    if name.startswith("evt_"):
        from bridge.cli.db import open_store
        from bridge.settings import Settings
        from bridge.store.queries import stored_body

        with open_store(Settings.load(environ)) as database:
            return EventInput(stored_body(database, name), False)
    if name == "-":
        return EventInput(sys.stdin.buffer.read(), False)
    try:
        return EventInput(Path(name).read_bytes(), False)
    except OSError as error:
        raise ConfigError(
            f"`{name}` is not a sample, and not a readable file ({error.strerror}); "
            f"the samples are {', '.join(EVENT_TYPES)}"
        ) from None


def build_event_body(
    source: EventInput, changes: Iterable[str], now: datetime, *, fresh: bool | None = None
) -> bytes:
    """Return the body to send, with the `--set` changes applied.

    A sample, or any event if `fresh` is true, first gets the current time and new IDs. If there is nothing to change,
    the body is returned byte for byte.
    """
    changes = list(changes)
    fresh = source.is_sample if fresh is None else fresh
    if not fresh and not changes:
        return source.body
    try:
        body = parse_body(source.body)
    except ValueError as error:
        raise ConfigError(f"not a valid event: {error}") from None
    body = refresh_sample(body, now) if fresh else body
    for change in changes:
        path, separator, value = change.partition("=")
        if not separator or not path:
            raise ConfigError(f"invalid --set `{change}`: expected path=value")
        keys = path.removeprefix("event.").split(".")
        _check_path(change, keys, str(body.get("event", "")))
        set_field(body, keys, _parse_value(value))
    return json.dumps(body, ensure_ascii=False).encode()


_CONTACT_FIELDS = {
    "name": "contactName",
    "phone": "contactPhone",
    "email": "contactEmail",
    "time_zone": "timezone",
}
"""Field of the contact -> the field of `metadata` that it comes from."""


def _check_path(change: str, keys: list[str], event_type: str) -> None:
    """Raise ConfigError for a field that events do not have: a wrong name would change nothing, unnoticed."""
    from bridge.rules.fields import check_path

    if keys[0] == "contact" and len(keys) == 2 and keys[1] in _CONTACT_FIELDS:
        raise ConfigError(f"invalid --set `{change}`: set metadata.{_CONTACT_FIELDS[keys[1]]} instead")
    diagnostic = check_path(("event", *keys), [event_type] if event_type in EVENT_TYPES else [], ["event"])
    if diagnostic is not None:
        raise ConfigError(f"invalid --set `{change}`: {diagnostic.text}; {diagnostic.hint}")


def _parse_value(text: str) -> Any:
    """Return the value parsed as JSON (`3`, `true`, `null`), or the string if it is not JSON (`+14155550123`)."""
    try:
        return json.loads(text)
    except ValueError:
        return text
