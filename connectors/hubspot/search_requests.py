"""Limits of HubSpot's search requests: their size."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_BODY_LENGTH = 2_950
"""Characters of a request. HubSpot refuses a body of more than 3,000; the rest is for the cursor of a further page."""


def search_bodies(
    values: Sequence[str], build: Callable[[Sequence[str]], Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return the bodies of as few searches as the size of a request allows. `build` makes one for some values."""
    bodies: list[Mapping[str, Any]] = []
    for parts in range(1, len(values) + 1):
        size = -(-len(values) // parts)
        bodies = [build(values[start : start + size]) for start in range(0, len(values), size)]
        if all(len(json.dumps(body)) <= MAX_BODY_LENGTH for body in bodies):
            break
    return bodies
