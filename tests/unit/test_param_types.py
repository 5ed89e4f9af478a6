"""The type of a param, as `bridge connectors show` and the reference name it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bridge.connector import Email, Params, PhoneNumber, Property, param
from bridge.connector.param_types import as_yaml, types_of


class _Params(Params):
    text: str = param(..., "Text.", max_length=1600)
    summary: str | None = param(None, "Summary.", truncate=500)
    ticket: str | None = param(None, "Ticket.", pattern=r"^\d+$", must_be="a ticket ID (digits only)")
    to: PhoneNumber = param(..., "Number.")
    cc: Email | list[Email] | None = param(None, "Addresses.")
    priority: Literal["LOW", "off"] | None = param(None, "Priority.")
    count: int = param(1, "Count.", ge=0, le=10)
    price: float | None = param(None, "Price.", gt=0)
    due: timedelta = param(timedelta(days=1), "Due.")
    at: datetime | date | None = param(None, "Time.")
    internal: bool = param(False, "Internal.")
    tags: list[str] = param([], "Tags.")
    properties: dict[str, Property] = param({}, "Properties.")
    body: Any = param(None, "Body.")


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("text", "text, at most 1,600 characters"),
        ("summary", "text, cut to 500 characters"),
        ("ticket", "text: a ticket ID (digits only)"),
        ("to", "phone number"),
        ("cc", "email address or list of email addresses"),
        ("priority", 'one of LOW, "off"'),  # YAML reads an unquoted `off` as false
        ("count", "whole number, 0 to 10"),
        ("price", "number, more than 0"),
        ("due", "duration"),
        ("at", "date and time or date"),
        ("internal", "true or false"),
        ("tags", "list of texts"),
        ("properties", "mapping"),
        ("body", "any value"),
    ],
)
def test_type_is_named_in_words(name: str, described: str) -> None:
    assert types_of(_Params)[name] == described


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc-: #", max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(_VALUES)
def test_value_is_one_line_that_yaml_reads_as_the_same_value(value: object) -> None:
    text = as_yaml(value)
    assert "\n" not in text
    assert yaml.safe_load(f"key: {text}") == {"key": value}
