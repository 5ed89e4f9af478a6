"""Documented fields of an event: every value is read in its documented type, or reported."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import FIELDS, HEPPU_EVENTS, Event, dedupe_key_of
from bridge.json_values import set_field
from bridge.samples import sample

NOW = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)
KINDS = {path: kind for fields in FIELDS.values() for path, kind in fields.items()}


def event(body: dict[str, Any]) -> Event:
    return Event(body, dedupe_key_of(body, json.dumps(body).encode()), NOW)


def value_at(fields: Any, path: str) -> Any:
    for key in path.split("."):
        fields = fields.get(key) if isinstance(fields, dict) else None
    return fields


def has_documented_type(value: Any, kind: str) -> bool:
    match kind:
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "timestamp":
            return isinstance(value, str) and datetime.fromisoformat(value) is not None
    return isinstance(value, {"boolean": bool, "object": dict, "array": list}[kind])


@pytest.mark.parametrize(
    ("path", "sent", "read"),
    [
        ("conversationId", 7001, "7001"),
        ("conversationId", 7001.0, "7001"),
        ("conversationId", 12345678901234567890123, "12345678901234567890123"),
        ("agentId", 5, "5"),
        ("organizationId", 42, "42"),
        ("summary", 3.5, "3.5"),
        ("duration", "125", 125),
        ("duration", " 125.5 ", 125.5),
        ("duration", "", None),
        ("messageCount", "3", 3),
        ("callMetadata.context.previousAttempts", "2", 2),
        ("chatMetadata.resolved", "true", True),
        ("chatMetadata.resolved", 0, False),
        ("chatMetadata.goal.achieved", "No", False),
        ("chatMetadata.toolsUsed", '["search"]', ["search"]),
        ("metadata", '{"contactName": 5}', {"contactName": "5"}),
        ("metadata", [], None),
        ("metadata", "", None),
        ("timestamp", 1701432000, "2023-12-01T12:00:00.000Z"),
        ("timestamp", "1701432000", "2023-12-01T12:00:00.000Z"),
        ("timestamp", 1701432000123, "2023-12-01T12:00:00.123Z"),
        ("timestamp", "2023-12-01 12:00:00+01:00", "2023-12-01 12:00:00+01:00"),
        ("status", "No-Answer", "no_answer"),
        ("status", "voicemail", "voicemail"),
        ("direction", "OUTBOUND", "outbound"),
        ("conversationType", "Phone", "phone"),
        ("event", "call.no_answer", "call.no-answer"),
        ("event", "CALL_BUSY", "call.busy"),
        ("event", "chat.message.received", "chat.message.received"),
    ],
)
def test_value_with_one_meaning_is_read_as_the_documented_type(path: str, sent: Any, read: Any) -> None:
    body: dict[str, Any] = {"event": "call.busy"}
    set_field(body, path.split("."), sent)
    parsed = event(body)
    assert parsed.unreadable_fields == ()
    assert value_at(parsed.fields, path) == read
    assert type(value_at(parsed.fields, path)) is type(read)
    assert value_at(parsed.body, path) == sent


@pytest.mark.parametrize(
    ("path", "sent", "problem"),
    [
        ("conversationId", True, "is a boolean, not a string"),
        ("conversationId", ["conv_7"], "is a list, not a string"),
        ("conversationId", 1e300, "is a number that is not exact"),
        ("duration", "2:05", "is a string that is not a number"),
        ("duration", True, "is a boolean, not a number"),
        ("duration", {}, "is an object, not a number"),
        ("chatMetadata.resolved", "maybe", "is a string, not a boolean"),
        ("chatMetadata.toolsUsed", "search", "is a string that is not a JSON list"),
        ("metadata", "no JSON", "is a string that is not a JSON object"),
        ("metadata", [{"contactPhone": "+14155550123"}], "is a list, not an object"),
        ("callMetadata.customer", "Maya", "is a string that is not a JSON object"),
        ("timestamp", "yesterday", "is not a timestamp"),
        ("timestamp", 5, "is not a timestamp"),
        (
            "timestamp",
            "2026-02-30T12:00:00Z",
            "is not a timestamp",
        ),
        ("timestamp", [], "is a list, not a timestamp"),
        ("status", [], "is a list, not a string"),
    ],
)
def test_value_without_a_meaning_is_reported_and_kept(path: str, sent: Any, problem: str) -> None:
    body: dict[str, Any] = {"event": "call.busy"}
    set_field(body, path.split("."), sent)
    parsed = event(body)
    assert [(item.path, item.problem) for item in parsed.unreadable_fields] == [(path, problem)]
    assert value_at(parsed.fields, path) == sent


@pytest.mark.parametrize("name", HEPPU_EVENTS)
def test_sample_is_read_without_a_copy(name: str) -> None:
    parsed = event(sample(name))
    assert parsed.fields is parsed.body
    assert parsed.unreadable_fields == ()


def test_numeric_conversation_is_the_conversation_of_the_same_text() -> None:
    numeric = event({"event": "call.completed", "conversationId": 7001, "timestamp": "2026-03-02T18:00:00Z"})
    text = event({"event": "call.completed", "conversationId": "7001", "timestamp": "2026-03-02T18:00:00Z"})
    assert numeric.conversation == text.conversation
    assert numeric.fallback_dedupe_key == text.fallback_dedupe_key


def test_numeric_webhook_id_is_the_dedupe_key_of_the_same_text() -> None:
    assert dedupe_key_of({"webhookId": 5}, b"") == dedupe_key_of({"webhookId": "5"}, b"") == "5"


def test_timestamp_that_cannot_be_read_makes_no_second_dedupe_key() -> None:
    one = {"event": "call.busy", "conversationId": "conv_7", "timestamp": "n/a"}
    assert event(one).fallback_dedupe_key is None


def test_phone_number_as_a_number_is_read_as_text() -> None:
    parsed = event({"event": "call.busy", "metadata": {"contactPhone": 447911123456}})
    assert parsed.fields["metadata"]["contactPhone"] == "447911123456"


def test_contact_field_of_the_wrong_type_names_the_field_of_the_contact() -> None:
    parsed = event({"event": "call.busy", "metadata": {"contactPhone": ["+14155550123"]}})
    assert [(item.field, item.text) for item in parsed.unreadable_fields] == [
        ("phone", "metadata.contactPhone is a list, not a string")
    ]
    assert parsed.unreadable_names == {
        ("event", "metadata", "contactPhone"): "metadata.contactPhone is a list, not a string",
        ("contact", "phone"): "metadata.contactPhone is a list, not a string",
    }


def test_object_that_cannot_be_read_is_the_reason_for_every_field_of_the_contact_in_it() -> None:
    names = event({"event": "call.busy", "metadata": "+14155550123"}).unreadable_names
    assert names["contact", "phone"] == names["contact", "email"] == names["event", "metadata"]
    assert names["contact", "phone"] == "metadata is a string that is not a JSON object"


def test_field_of_the_contact_that_was_read_elsewhere_has_a_value() -> None:
    body = {
        "event": "call.busy",
        "metadata": {"contactPhone": ["x"]},
        "callMetadata": {"customer": {"phone": "+14155550123"}},
    }
    parsed = event(body)
    assert parsed.contact.phone == "+14155550123"
    assert ("contact", "phone") not in parsed.unreadable_names
    assert [item.path for item in parsed.unreadable_fields] == ["metadata.contactPhone"]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["125", "true", "{}", "[]", '{"contactPhone": 1}', "2026-03-02T18:00:00Z", "No-Answer"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(sorted({part for path in KINDS for part in path.split(".")})), inner
        )
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("metadata.contactPhone", "phone"),
        ("callMetadata.customer.phone", "phone"),
        ("metadata.contactEmail", "email"),
        ("callMetadata.customer.email", "email"),
        ("metadata.timezone", "time_zone"),
    ],
)
@given(value=st.text(min_size=1).filter(str.strip) | _JSON)
def test_contact_with_a_value_is_read_or_reported(path: str, field: str, value: Any) -> None:
    body: dict[str, Any] = {"event": "call.busy"}
    set_field(body, path.split("."), value)
    parsed = event(body)
    has_value = value is not None and not (isinstance(value, str) and not value.strip())
    reported = {item.field: item.path for item in parsed.unreadable_fields}
    assert (getattr(parsed.contact, field) is None and has_value) == (reported.get(field) == path)


@given(st.dictionaries(st.sampled_from(sorted(KINDS)), _JSON, max_size=8))
def test_every_documented_field_with_a_value_is_read_or_reported(fields: dict[str, Any]) -> None:
    body: dict[str, Any] = {}
    for path, value in sorted(fields.items()):
        set_field(body, path.split("."), value)
    parsed = event(body)
    reported = {item.path for item in parsed.unreadable_fields}
    for path, kind in KINDS.items():
        sent = value_at(body, path)
        if sent is None or any(f"{path}.".startswith(f"{item}.") for item in reported):
            continue
        read = value_at(parsed.fields, path)
        is_empty = sent == [] or (isinstance(sent, str) and not sent.strip())
        assert has_documented_type(read, kind) or (read is None and is_empty), (path, sent, read)
