"""The SOQL parser: supported queries behave as at Salesforce, others are rejected."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simple_salesforce import format_soql

from bridge.sandbox.provider import ProviderError
from bridge.sandbox.salesforce.records import Records
from bridge.sandbox.salesforce.soql import parse

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def sample_records() -> Records:
    records = Records({"Task": {"Open": False, "Done": True}, "Case": {"New": False}})
    contact = records.types["Contact"]
    ines = records.create(
        contact, {"LastName": "Okafor", "Email": "Ines@Example.com", "Phone": "(212) 555-0123"}, NOW
    )
    records.create(contact, {"LastName": "O'Brien", "Email": "ob@example.com", "Title": "100% Captain"}, NOW)
    records.create(contact, {"LastName": "raman", "DoNotCall": True, "Birthdate": "1990-05-01"}, NOW)
    for number, status in enumerate(("Open", "Done", "Done")):
        records.create(
            records.types["Task"],
            {
                "Subject": f"Call {number}",
                "Status": status,
                "WhoId": ines.id,
                "CallDurationInSeconds": number * 60,
                "ActivityDate": f"2026-03-0{number + 1}",
            },
            NOW + timedelta(hours=number),
        )
    return records


RECORDS = sample_records()


def rows(text: str, name: str = "LastName") -> list[Any]:
    return [row[name] for row in parse(text, RECORDS).rows(RECORDS)]


def error_code(text: str) -> str:
    with pytest.raises(ProviderError) as caught:
        parse(text, RECORDS)
    return str(json.loads(bytes(caught.value.response.body))[0]["errorCode"])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("Email = 'INES@example.com'", ["Okafor"]),
        ("LastName = 'O\\'Brien'", ["O'Brien"]),
        ("Email = null", ["raman"]),
        ("Email != null", ["Okafor", "O'Brien"]),
        ("Email <> 'ines@example.com'", ["O'Brien", "raman"]),
        ("LastName LIKE 'o%'", ["Okafor", "O'Brien"]),
        ("Title LIKE '100\\% C%'", ["O'Brien"]),
        ("Title LIKE '1__\\% C%'", ["O'Brien"]),
        ("Title LIKE '1\\_0%'", []),
        ("Phone LIKE '%212%555%0123'", ["Okafor"]),
        ("Email IN ('ines@example.com', 'ob@example.com')", ["Okafor", "O'Brien"]),
        ("LastName NOT IN ('Okafor')", ["O'Brien", "raman"]),
        ("DoNotCall = true", ["raman"]),
        ("DoNotCall = false", ["Okafor", "O'Brien"]),
        ("Birthdate < 1991-01-01", ["raman"]),
        ("CreatedDate <= 2026-03-02T12:00:00Z AND Email != null", ["Okafor", "O'Brien"]),
        ("(Email = 'ob@example.com' OR DoNotCall = true) AND Phone = null", ["O'Brien", "raman"]),
        ("NOT (Email = 'ob@example.com' OR DoNotCall = true)", ["Okafor"]),
        ("Email = 'ob@example.com' AND LastName = 'Okafor'", []),
        ("LastName = 'Okafor' AND Email IN ('ines@example.com', 'nobody@example.com')", ["Okafor"]),
    ],
)
def test_where_matches_expected_records(where: str, expected: list[str]) -> None:
    assert rows(f"SELECT Id FROM Contact WHERE {where}") == expected
    assert rows(f"select id from contact where {where} ORDER BY CreatedDate") == expected


def test_order_limit_and_offset_apply() -> None:
    assert rows("SELECT Id FROM Contact ORDER BY LastName DESC") == ["raman", "Okafor", "O'Brien"]
    assert rows("SELECT Id FROM Contact ORDER BY LastName ASC LIMIT 1 OFFSET 1") == ["Okafor"]
    assert rows("SELECT Id FROM Contact ORDER BY Email NULLS LAST, LastName") == [
        "Okafor",
        "O'Brien",
        "raman",
    ]
    assert rows("SELECT Id FROM Contact ORDER BY Email DESC NULLS FIRST") == ["raman", "O'Brien", "Okafor"]
    durations = "SELECT Id FROM Task WHERE CallDurationInSeconds >= 60 ORDER BY CallDurationInSeconds DESC"
    assert rows(durations, "CallDurationInSeconds") == [120, 60]


def test_conditions_on_parent_fields() -> None:
    assert rows("SELECT Id FROM Task WHERE Who.LastName = 'okafor' AND IsClosed = true", "Subject") == [
        "Call 1",
        "Call 2",
    ]
    assert rows("SELECT Id, Who.Name FROM Task WHERE Who.Email = 'nobody'", "Subject") == []


def test_15_character_id_matches_18_character_id() -> None:
    ines = RECORDS.active_records(RECORDS.types["Contact"])[0].id
    assert rows(f"SELECT Id FROM Contact WHERE Id = '{ines[:15]}'") == ["Okafor"]
    assert len(rows(f"SELECT Id FROM Task WHERE WhoId IN ('{ines[:15]}', '0035g00000000zzAAA')", "Id")) == 3


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "MALFORMED_QUERY"),
        ("SELECT FROM Contact", "MALFORMED_QUERY"),
        ("SELECT * FROM Contact", "MALFORMED_QUERY"),
        ("SELECT Id, FROM Contact", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE", "MALFORMED_QUERY"),
        (
            "SELECT Id FROM Contact WHERE Email = 'a' AND DoNotCall = true OR DoNotCall = false",
            "MALFORMED_QUERY",
        ),
        ("SELECT Id FROM Contact WHERE Email == 'a'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE Email = 'a", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE Email = 'a' 'b'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE LastName = 'O'Brien'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE LastName = 'a\\qb'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE LastName IN ()", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact GROUP BY Email", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact LIMIT x", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE CreatedDate = LAST_N_DAYS:7", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE CreatedDate = TODAY", "INVALID_FIELD"),
        ("SELECT Id FROM Contact; DELETE", "MALFORMED_QUERY"),
        ("SELECT (SELECT Id FROM Tasks) FROM Contact", "MALFORMED_QUERY"),
        ("SELECT FIELDS(ALL) FROM Contact", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contacts", "INVALID_TYPE"),
        ("SELECT Id, Phon FROM Contact", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE Phon = 'x'", "INVALID_FIELD"),
        ("SELECT Id FROM Contact ORDER BY Phon", "INVALID_FIELD"),
        ("SELECT Id FROM Task WHERE Description LIKE '%x%'", "INVALID_FIELD"),
        ("SELECT Id FROM Task WHERE Someone.Name = 'x'", "INVALID_FIELD"),
        ("SELECT Id FROM Task WHERE ActivityDate = '2026-03-02'", "INVALID_FIELD"),
        ("SELECT Id FROM Task WHERE CallDurationInSeconds = '60'", "INVALID_FIELD"),
        ("SELECT Id FROM Task WHERE IsClosed = 'true'", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE LastName = 5", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE Id LIKE '003%'", "INVALID_FIELD"),
        (f"SELECT Id FROM Contact WHERE {'(' * 5000}Email = 'a'{')' * 5000}", "QUERY_TOO_COMPLICATED"),
        (f"SELECT Id FROM Contact WHERE {'NOT ' * 5000} Email = 'a'", "QUERY_TOO_COMPLICATED"),
    ],
)
def test_invalid_query_is_rejected(text: str, code: str) -> None:
    assert error_code(text) == code


@given(st.text(max_size=40))
def test_value_quoted_by_client_is_found(value: str) -> None:
    records = Records({"Task": {"Open": False}, "Case": {"New": False}})
    record = records.create(records.types["Contact"], {"LastName": value or "x"}, NOW)
    query = format_soql("SELECT Id FROM Contact WHERE LastName = {}", record["LastName"])
    assert [row.id for row in parse(query, records).rows(records)] == [record.id]
    like = format_soql("SELECT Id FROM Contact WHERE LastName LIKE '%{:like}%'", record["LastName"])
    assert [row.id for row in parse(like, records).rows(records)] == [record.id]


@given(st.text(alphabet="SELECT FROMContactWHERE='()%\\,.<>ANDORid0123 ", max_size=60))
def test_parser_handles_any_string(text: str) -> None:
    for query in (text, f"SELECT Id FROM Contact WHERE {text}"):
        try:
            parse(query, RECORDS).rows(RECORDS)
        except ProviderError:
            continue
