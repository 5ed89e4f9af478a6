"""The SOSL parser: search results and rejected searches."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox.provider import ProviderError
from bridge.sandbox.salesforce.records import Records
from bridge.sandbox.salesforce.sosl import parse

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def sample_records() -> Records:
    records = Records({"Task": {"Open": False}, "Case": {"New": False}})
    for kind, values in (
        ("Contact", {"LastName": "Okafor", "Phone": "(212) 555-0123", "Email": "ines@example.com"}),
        ("Contact", {"LastName": "Brien", "MobilePhone": "+12125550123", "Title": "Head of O-rings"}),
        ("Contact", {"LastName": "Weber", "Phone": "+49 151 23456789"}),
        ("Lead", {"LastName": "Raman", "Company": "Lamps & Co", "Phone": "212.555.0123"}),
        ("Lead", {"LastName": "Okafor", "Company": "2125550123"}),
    ):
        records.create(records.types[kind], values, NOW)
    return records


RECORDS = sample_records()


def search_names(text: str, *, now: datetime = NOW, lag: float = 0) -> list[str]:
    return [row["LastName"] for row, _ in parse(text, RECORDS).rows(RECORDS, now, lag)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "FIND {2125550123} IN PHONE FIELDS RETURNING Contact(Id, Phone), Lead(Id)",
            ["Okafor", "Brien", "Raman"],
        ),
        ("FIND {212555*} IN PHONE FIELDS RETURNING Contact(Id)", ["Okafor", "Brien"]),
        ("FIND {0123} IN PHONE FIELDS RETURNING Lead(Id)", ["Raman"]),
        ("FIND {15123456789} IN PHONE FIELDS RETURNING Contact", ["Weber"]),
        ("FIND {2125550123} RETURNING Lead(Id)", ["Raman", "Okafor"]),
        ("find {okafor} in name fields returning contact(id), lead(id)", ["Okafor", "Okafor"]),
        ("FIND {ines@example.com} IN EMAIL FIELDS RETURNING Contact(Id)", ["Okafor"]),
        ("FIND {okafor OR weber} IN NAME FIELDS RETURNING Contact(Id)", ["Okafor", "Weber"]),
        ("FIND {o\\-rings} RETURNING Contact(Id)", []),
        ("FIND {2125550123} IN PHONE FIELDS RETURNING Contact(Id WHERE LastName = 'Brien')", ["Brien"]),
        ("FIND {2125550123} IN PHONE FIELDS RETURNING Contact(Id LIMIT 1), Lead(Id)", ["Okafor", "Raman"]),
        ("FIND {2125550123} IN PHONE FIELDS RETURNING Contact(Id), Lead(Id) LIMIT 2", ["Okafor", "Brien"]),
        ("FIND {2125550123} IN PHONE FIELDS", ["Okafor", "Brien", "Raman"]),
        ("FIND {nobody} IN ALL FIELDS RETURNING Contact(Id)", []),
    ],
)
def test_search_returns_expected_records(text: str, expected: list[str]) -> None:
    assert search_names(text) == expected


def test_search_excludes_records_younger_than_lag() -> None:
    text = "FIND {2125550123} IN PHONE FIELDS RETURNING Lead(Id)"
    assert search_names(text, lag=10) == []
    assert search_names(text, now=NOW + timedelta(seconds=10), lag=10) == ["Raman"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "MALFORMED_SEARCH"),
        ("FIND 2125550123 IN PHONE FIELDS", "MALFORMED_SEARCH"),
        ("FIND {} IN PHONE FIELDS", "MALFORMED_SEARCH"),
        ("FIND {+12125550123} IN PHONE FIELDS", "MALFORMED_SEARCH"),
        ("FIND {(212) 555-0123} IN PHONE FIELDS", "MALFORMED_SEARCH"),
        ("FIND {O'Brien}", "MALFORMED_SEARCH"),
        ("FIND {Lamps & Co}", "MALFORMED_SEARCH"),
        ("FIND {*555}", "MALFORMED_SEARCH"),
        ("FIND {5}", "MALFORMED_SEARCH"),
        ("FIND {212} IN FAX FIELDS", "MALFORMED_SEARCH"),
        ("FIND {212} RETURNING Contacts(Id)", "INVALID_TYPE"),
        ("FIND {212} RETURNING Contact(Id, Phon)", "INVALID_FIELD"),
        ("FIND {212} RETURNING Contact(Id WHERE Phon = 'x')", "INVALID_FIELD"),
        ("FIND {212} RETURNING Contact(Id WHERE)", "MALFORMED_QUERY"),
    ],
)
def test_invalid_search_is_rejected(text: str, code: str) -> None:
    with pytest.raises(ProviderError) as caught:
        parse(text, RECORDS)
    assert json.loads(bytes(caught.value.response.body))[0]["errorCode"] == code


@given(st.text(alphabet="FIND{}INPHONEFIELDSRETURNINGContact()Lead,*?\\'&-12 ", max_size=60))
def test_parser_handles_any_string(text: str) -> None:
    for search in (
        text,
        f"FIND {{{text}}}",
        f"FIND {{212}} RETURNING {text}",
        f"FIND {{212}} RETURNING Lead({text})",
    ):
        try:
            parse(search, RECORDS).rows(RECORDS, NOW, 0)
        except ProviderError:
            continue
