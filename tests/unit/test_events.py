"""Events: contact, conversation, times and keys of Heppu's payloads."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.contacts.name import clean_name
from bridge.contacts.parse import Contact, contact_name, parse_contact
from bridge.events import EVENT_TYPES, FIELDS, FREE_FORM, Event, dedupe_key_of
from bridge.json_values import parse_body
from bridge.samples import refresh_sample, sample

NOW = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)


def event(body: dict[str, Any]) -> Event:
    return Event(body, dedupe_key_of(body, b""), NOW)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_sample_has_only_documented_fields(name: str) -> None:
    def paths(value: Any, prefix: str = "") -> list[str]:
        if not isinstance(value, dict):
            return [prefix]
        return [prefix] * bool(prefix) + [
            path for key, item in value.items() for path in paths(item, f"{prefix}.{key}" if prefix else key)
        ]

    unknown = [path for path in paths(sample(name)) if path not in FIELDS[name]]
    assert [path for path in unknown if not path.startswith("callMetadata.custom.")] == []


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_sample_has_type_conversation_and_timestamp(name: str) -> None:
    parsed = event(sample(name))
    assert parsed.type == name
    assert parsed.conversation.type == ("chat" if name.startswith("chat.") else "phone")
    assert parsed.timestamp is not None


def test_contact_of_call_sample() -> None:
    assert event(sample("call.completed")).contact == Contact(
        name="Maya Lindqvist",
        first_name="Maya",
        last_name="Lindqvist",
        phone="+12125550123",
        email="maya.lindqvist@example.com",
        company="Lindqvist Cycles",
    )


@pytest.mark.parametrize(
    "body",
    [
        *map(sample, EVENT_TYPES),
        {"metadata": {"contactName": "(unknown)"}, "callMetadata": {"customer": {"name": "Maya Lindqvist"}}},
        {"callMetadata": {"firstName": "Maya", "customer": {"lastName": "Lindqvist"}}},
        {"metadata": [], "callMetadata": "none"},
    ],
)
def test_name_alone_is_the_name_of_the_contact(body: dict[str, Any]) -> None:
    assert contact_name(event(body).fields) == event(body).contact.name


def test_contact_key_of_anonymous_chat_is_the_visitor() -> None:
    contact = event(sample("chat.abandoned")).contact
    assert (contact.name, contact.phone, contact.key) == (None, None, "visitor_5544")


def test_parse_contact_reads_flat_fields_of_scheduled_call() -> None:
    contact = parse_contact(
        {
            "callMetadata": {
                "firstName": "Ada",
                "lastName": "King",
                "company": "Engines",
                "timezone": "Europe/London",
            }
        }
    ).contact
    assert (contact.name, contact.first_name, contact.last_name) == ("Ada King", "Ada", "King")
    assert (contact.company, contact.time_zone) == ("Engines", "Europe/London")


@pytest.mark.parametrize(
    "metadata",
    [
        {"callMetadata": {"timezone": "Europe/Oslo"}},
        {"callMetadata": {"customer": {"timezone": "Europe/Oslo"}}},
        {"callMetadata": {"context": {"timezone": "Europe/Oslo"}}},
        {"metadata": {"timezone": "Europe/Oslo"}},
        {"callMetadata": {"timezone": "Mars/Base"}, "metadata": {"timezone": "Europe/Oslo"}},
    ],
)
def test_parse_contact_reads_time_zone_from_every_documented_field(metadata: dict[str, Any]) -> None:
    assert parse_contact(metadata).contact.time_zone == "Europe/Oslo"


@pytest.mark.parametrize("zone", ["../etc/passwd", "", "x" * 500, "Europe", "\x00", 7, None])
def test_parse_contact_ignores_invalid_time_zone(zone: object) -> None:
    assert parse_contact({"metadata": {"timezone": zone}}).contact.time_zone is None


def test_clean_name_returns_one_line() -> None:
    assert clean_name("  Ma\nya\u202e \t L. ") == "Ma ya L."


def test_parse_body_replaces_nul_and_lone_surrogates() -> None:
    assert parse_body(rb'{"a": ["\u0000", {"\ud800": "\ud83d\ude00"}]}') == {
        "a": ["\ufffd", {"\ufffd": "😀"}]
    }


def test_occurred_at_is_the_body_timestamp_but_never_after_received_at() -> None:
    early, late = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
    assert event({"event": "x", "timestamp": early.isoformat()}).occurred_at == early
    assert event({"event": "x", "timestamp": late.isoformat()}).occurred_at == NOW
    assert event({"event": "x", "timestamp": "soon"}).occurred_at == NOW


def test_events_without_conversation_id_have_separate_conversations() -> None:
    one, other = event({"event": "x", "webhookId": "1"}), event({"event": "x", "webhookId": "2"})
    assert one.conversation.id != other.conversation.id


def test_refresh_sample_returns_new_event_with_current_time() -> None:
    old = sample("chat.abandoned")
    new = refresh_sample(old, NOW)
    assert event(new).timestamp == NOW
    assert new["webhookId"] != old["webhookId"]
    assert new["chatMetadata"]["lastMessageAt"] == "2026-03-02T17:35:00.000Z"
    assert old == sample("chat.abandoned")


def test_free_form_objects_are_documented_fields() -> None:
    assert all(any(part in fields for fields in FIELDS.values()) for part in FREE_FORM)
    json.dumps({name: dict(fields) for name, fields in FIELDS.items()})
