"""JSON values: parses the body of a request, and names the types of its values in messages."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_UNSTORABLE_ESCAPE = re.compile(rb"\\u(?:0000|d[89a-f])", re.IGNORECASE)


def parse_body(raw: bytes) -> dict[str, Any]:
    """Parse the JSON object in `raw`. Raise ValueError for anything else, including NaN and infinities.

    NUL characters and lone surrogates are valid JSON, but databases and providers reject them: each becomes U+FFFD. The
    stored bytes are not changed.
    """
    value = _parse(raw)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def parse_list(raw: bytes) -> list[Any]:
    """Parse the JSON list in `raw`, as `parse_body` parses an object."""
    value = _parse(raw)
    if not isinstance(value, list):
        raise ValueError("not a JSON list")
    return value


def _parse(raw: bytes) -> Any:
    try:
        value = _JSON.decode(raw.decode("utf-8"))
        return _replace_unstorable(value) if _UNSTORABLE_ESCAPE.search(raw) else value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def replace_unstorable(text: str) -> str:
    """Return the string with characters that databases and providers reject replaced by U+FFFD."""
    return text if text.isascii() and "\0" not in text else _UNSTORABLE.sub("\ufffd", text)


def _replace_unstorable(value: Any) -> Any:
    if isinstance(value, str):
        return replace_unstorable(value)
    if isinstance(value, list):
        return [_replace_unstorable(item) for item in value]
    if isinstance(value, dict):
        return {_replace_unstorable(key): _replace_unstorable(item) for key, item in value.items()}
    return value


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_finite_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


_JSON = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_finite_float)


def set_field(body: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the field at a path of a body, with the objects on the way to it."""
    for key in path[:-1]:
        inner = body.get(key)
        if not isinstance(inner, dict):
            inner = body[key] = {}
        body = inner
    body[path[-1]] = value


_TYPES: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    tuple: "a list",
}


def describe_type(value: Any) -> str:
    """Return the type of a JSON value for messages, such as `a number`."""
    return _TYPES.get(type(value)) or ("a string" if isinstance(value, str) else "an object")
