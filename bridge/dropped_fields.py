"""Dropped fields: removes fields of event bodies that are never stored (BRIDGE_DROP_FIELDS)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.json_values import parse_body

IDENTITY: Final = ("event", "webhookId", "conversationId", "timestamp")
"""Fields that recognize duplicates and the conversation of an event, so they cannot be dropped."""
_PATH: Final = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", re.ASCII)


def dropped_path(text: str) -> str:
    """Return the dotted path of a field. Raise ValueError if it is none, or if the field is needed."""
    path = text.strip().removeprefix("event.")
    if not _PATH.fullmatch(path):
        raise ValueError("must be dotted paths of fields of the body, like summary or metadata.contactName")
    if path.split(".")[0] in IDENTITY:
        raise ValueError(f"cannot name {', '.join(IDENTITY)}: duplicates are recognized by them")
    return path


class DroppedFields:
    """Removes the fields at some dotted paths. In a list, a path leads into each of its items."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = {path: path.split(".") for path in paths}

    def remove(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return a body without the fields, and the paths of those that it had."""
        removed: list[str] = []
        result: dict[str, Any] = dict(body)
        for path, keys in self._paths.items():
            without, found = _without(result, keys)
            if found:
                result = without
                removed.append(path)
        return result, removed

    def remove_from_raw(self, raw: bytes) -> bytes | None:
        """Return the raw body without the fields, unchanged if it has none of them; None if it cannot be read."""
        try:
            body, removed = self.remove(parse_body(raw))
        except ValueError:
            return None
        return encode(body) if removed else raw


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as it is stored."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _without(value: Any, keys: Sequence[str]) -> tuple[Any, bool]:
    """Return a copy of a JSON value without the field at a path, and whether it had one."""
    if isinstance(value, list):
        pairs = [_without(item, keys) for item in value]
        return [item for item, _ in pairs], any(found for _, found in pairs)
    key, *rest = keys
    if not isinstance(value, dict) or key not in value:
        return value, False
    if not rest:
        return {name: item for name, item in value.items() if name != key}, True
    inner, found = _without(value[key], rest)
    return {**value, key: inner}, found
