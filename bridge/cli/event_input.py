"""What EVENT means on the command line: a documented sample's name, a stored id, a file, or `-` for stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bridge.errors import ConfigError
from bridge.events import EVENT_NAMES, parse_body
from bridge.samples import sample, stamped

HELP = "A sample's name (call.busy), a stored id (evt_...), a file, or - for stdin."
SET_HELP = "Change a field first: --set metadata.contactPhone=+14155550123 (several times if need be)."


@dataclass(frozen=True)
class Source:
    """An event's body, and where it comes from."""

    body: bytes
    is_sample: bool


def read_source(name: str, environ: Mapping[str, str]) -> Source:
    """The body that `name` stands for; raises ConfigError that says what can be named."""
    if name in EVENT_NAMES:
        return Source(json.dumps(sample(name), ensure_ascii=False).encode(), True)
    if name.startswith("evt_"):
        from bridge.cli.db import open_store
        from bridge.settings import Settings
        from bridge.store.queries import stored_body

        with open_store(Settings.load(environ)) as database:
            return Source(stored_body(database, name), False)
    if name == "-":
        return Source(sys.stdin.buffer.read(), False)
    try:
        return Source(Path(name).read_bytes(), False)
    except OSError as error:
        raise ConfigError(
            f"`{name}` is no sample and no file that can be read ({error.strerror}); "
            f"the samples are {', '.join(EVENT_NAMES)}"
        ) from None


def prepared(source: Source, changes: Iterable[str], now: datetime, *, fresh: bool | None = None) -> bytes:
    """The body to use: a sample (or with `fresh`, anything) as if it happened now, then the `--set` changes.

    What needs neither stays byte for byte as it is.
    """
    changes = list(changes)
    fresh = source.is_sample if fresh is None else fresh
    if not fresh and not changes:
        return source.body
    try:
        body = parse_body(source.body)
    except ValueError as error:
        raise ConfigError(f"this is no event: {error}") from None
    body = stamped(body, now) if fresh else body
    for change in changes:
        path, found, value = change.partition("=")
        if not found or not path:
            raise ConfigError(f"--set takes path=value, not `{change}`")
        _put(body, path.removeprefix("event.").split("."), _value(value))
    return json.dumps(body, ensure_ascii=False).encode()


def _value(text: str) -> Any:
    """JSON when it is JSON, else the text: `3`, `true`, `null`, `+14155550123`."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _put(body: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        inner = body.get(key)
        if not isinstance(inner, dict):
            inner = body[key] = {}
        body = inner
    body[path[-1]] = value
