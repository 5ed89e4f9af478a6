"""Limits of HubSpot's search: the size of the bodies."""

from __future__ import annotations

import json

from bridge_connectors.hubspot.search_requests import MAX_BODY_LENGTH, search_bodies
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.text(min_size=1, max_size=80), max_size=120))
def test_every_value_is_in_one_body_of_allowed_size(values: list[str]) -> None:
    bodies = search_bodies(values, lambda some: {"first": list(some), "second": list(some)})
    assert [value for body in bodies for value in body["first"]] == values
    assert all(len(json.dumps(body)) <= MAX_BODY_LENGTH for body in bodies)
