"""Contact data: one search that rules out most bodies, whatever the spelling of an address."""

from __future__ import annotations

import pytest

from bridge.contacts.phone import national_forms
from bridge.store.contact_data import common_part


@pytest.mark.parametrize(
    ("number", "part"),
    [
        ("+12125550167", b"0167"),
        ("+442071234567", b"4567"),
        ("+33612345678", b"78"),
        ("+4915123456789", b"3456789"),
    ],
)
def test_common_part_is_in_every_spelling_of_a_number(number: str, part: bytes) -> None:
    forms = [form.encode() for form in (number, *national_forms(number))]
    assert len(forms) > 2
    assert all(part in form for form in forms)
    assert common_part(forms) == part


def test_common_part_of_spellings_without_one_is_empty() -> None:
    assert common_part([b"a@b.example", b"X"]) == b""
    assert common_part([b"a@b.example"]) == b"a@b.example"
