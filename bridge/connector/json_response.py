"""Responses in JSON: parses them and checks that they have the form that a connector expects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bridge.errors import OutcomeUnknown
from bridge.json_values import describe_type

if TYPE_CHECKING:
    import httpx

_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string", int: "a number"}


def json_object(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a response; an empty one if its body is anything else. For a `refusal`."""
    try:
        body = parse_json(response)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def parse_json(response: httpx.Response) -> Any:
    """Return the JSON value of a response. Raise ValueError if its body is anything else."""
    try:
        return json.loads(response.content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def value_at(body: Any, path: str) -> Any:
    """Return the value at a dotted path; None if there is none."""
    for key in path.split("."):
        body = body.get(key) if isinstance(body, dict) else None
    return body


def checked_value(body: Any, holds: str | None, kind: type[Any] | None, source: str) -> Any:
    """Return the body, or with `holds` its value at that path.

    Raise OutcomeUnknown if it is missing or not of the kind; by default, a body is an object. `source` names the
    response in the message, which does not repeat the value.
    """
    value = body if holds is None else value_at(body, holds)
    if holds is not None and value is None:
        raise OutcomeUnknown(f"{source} has no `{holds}`", reason="server_error")
    if kind is None:
        kind = dict if holds is None else object
    if not isinstance(value, kind):
        part = f"`{holds}` in {source}" if holds else source
        expected = _KINDS.get(kind, kind.__name__)
        raise OutcomeUnknown(f"{part} is {describe_type(value)}, not {expected}", reason="server_error")
    return value
