"""Dropped fields in rules: finds the places that use a field that is never stored (BRIDGE_DROP_FIELDS)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

_CONTACT: Final[Mapping[str, Sequence[str]]] = {
    "metadata.contactPhone": ("contact.phone", "contact.country"),
    "metadata.contactEmail": ("contact.email",),
    "metadata.contactName": ("contact.name", "contact.first_name", "contact.last_name"),
    "callMetadata.customer": ("contact.phone", "contact.email", "contact.name", "contact.company"),
    "metadata": ("contact.phone", "contact.email", "contact.name", "contact.company"),
}
"""Field of the body -> the fields of the contact that come from it."""


def dropped_fields_in_use(texts: Mapping[str, str], dropped: Sequence[str]) -> list[str]:
    """Return a warning for each line of the rules files, by path, that names a dropped field."""
    return list(dict.fromkeys(_uses(texts, dropped)))


def _uses(texts: Mapping[str, str], dropped: Sequence[str]) -> Iterator[str]:
    for field in dropped:
        names = [f"event.{field}", *_CONTACT.get(field, ())]
        pattern = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, names))})(?![\w-])")
        for path, text in texts.items():
            for number, line in enumerate(text.splitlines(), 1):
                if found := pattern.search(line.partition(" #")[0]):
                    yield f"{path}:{number}: `{found[1]}` has no value, because `{field}` is never stored"
