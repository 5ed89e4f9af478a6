"""Time zones that say nothing about where a contact lives, through the stored events and the claim."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from types import SimpleNamespace
from zoneinfo import available_timezones

import pytest
from bridge_connectors.hubspot.contact_source import _match

from bridge.connector import ContactQuery, Context, resolve_contacts
from bridge.contacts.time_zone import residence_time_zone
from bridge.rules.model import MessagingPolicy
from bridge.store.contact_cache import StoredContactCache
from bridge.store.database import Database
from bridge.store.policy_inputs import PolicyConfig
from tests.integration.engine import Engine

NIGHT = datetime.fromisoformat("2026-03-02T03:30:00-05:00")
"""Half past three in the morning where the numbers are from."""


@pytest.fixture
def engine(database: Database) -> Engine:
    database.clock.set(NIGHT)
    return Engine(database, slots=200, policy_config=PolicyConfig(MessagingPolicy()))


def numbers_of_unknown_zones() -> Iterator[tuple[str, str]]:
    """Yield each zone that says nothing about the place, with the number of another contact."""
    unknown = sorted(name for name in available_timezones() if residence_time_zone(name) is None)
    assert {"UTC", "Etc/GMT+5", "Zulu", "Factory", "GMT", "EST", "CET"} <= set(unknown)
    for index, zone in enumerate(unknown):
        yield zone, f"+1212555{index:04}"


def assert_deferred_until_morning(engine: Engine, delivery_ids: dict[str, str]) -> None:
    engine.step()
    assert engine.provider.messages == []
    details = {zone: engine.show(delivery_id)["detail"] or "" for zone, delivery_id in delivery_ids.items()}
    sent_by_other_zone = {
        zone for zone, detail in details.items() if "it is 03:30 in America/New_York" not in detail
    }
    assert sent_by_other_zone == set()


def test_text_waits_for_the_morning_of_the_number_if_the_event_zone_is_no_place(engine: Engine) -> None:
    delivery_ids = {
        zone: engine.deliver("send", engine.event(metadata={"contactPhone": phone, "timezone": zone}))
        for zone, phone in numbers_of_unknown_zones()
    }
    assert_deferred_until_morning(engine, delivery_ids)


def test_text_waits_for_the_morning_of_the_number_if_the_crm_zone_is_no_place(engine: Engine) -> None:
    cache = StoredContactCache(engine.database, "hubspot")
    delivery_ids = {}
    for zone, phone in numbers_of_unknown_zones():
        event = engine.event(metadata={"contactPhone": phone})
        hs_timezone = zone.lower().replace("/", "_slash_").replace("-", "_hyphen_")
        match = _match(SimpleNamespace(id="1", properties={"phone": phone, "hs_timezone": hs_timezone}))
        crm = SimpleNamespace(by_phone=lambda _, match=match: [match], by_email=lambda _: [])
        context = Context("dlv", "hubspot", event, "key|", NIGHT, NIGHT, contact_cache=cache)
        resolve_contacts(crm, [ContactQuery(None, phone, context)])
        delivery_ids[zone] = engine.deliver("send", event)
    assert_deferred_until_morning(engine, delivery_ids)


def test_zone_stored_by_an_older_version_is_not_used(engine: Engine) -> None:
    phone = "+12125550167"
    StoredContactCache(engine.database, "hubspot").remember_zones({phone: "Etc/UTC"})
    event = engine.event(metadata={"contactPhone": phone})
    assert_deferred_until_morning(engine, {"Etc/UTC": engine.deliver("send", event)})
