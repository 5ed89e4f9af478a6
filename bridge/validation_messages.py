"""Validation messages: what a value has to be, in plain words instead of pydantic's. They contain no value."""

from __future__ import annotations

from pydantic_core import ErrorDetails

_REQUIREMENTS = {
    "string_type": "must be a string",
    "string_unicode": "must be a string of characters that UTF-8 can encode",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "none_required": "must be left out",
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_too_long": "can have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be greater than {gt}",
    "less_than": "must be less than {lt}",
}
"""Pydantic's error type -> our message. The placeholders come from the model, never from the value."""


def requirement(item: ErrorDetails) -> str | None:
    """Return what the value of one of pydantic's errors must be; None if the error has a message of our own."""
    text = _REQUIREMENTS.get(item["type"])
    limits = {
        name: f"{value:g}" if isinstance(value, float) else value
        for name, value in item.get("ctx", {}).items()
    }
    return None if text is None else text.format_map(limits)
