"""Links of messages to the team: the event's page in the dashboard, and the contact's record in a CRM."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from bridge.connector import Connector, Context, Success
from bridge.connector.provider_records import RecordLink
from bridge.contacts.parse import Contact
from bridge.store.connections import register_accounts
from bridge.store.contact_cache import StoredContactCache
from bridge.store.database import Database
from bridge.testing import event, load_connector
from bridge.testing.connection import build_context
from bridge.worker.attempt import AttemptRunner
from bridge.worker.provider_links import ProviderLinks
from tests.integration.engine import Engine

PHONE, EMAIL = "+14155550123", "maya@lindqvist.example"
PAGE = "https://app-eu1.hubspot.com/contacts/123/record/0-1/"


@dataclass
class FakeAccount:
    connector: Connector
    settings: Any


@pytest.fixture
def links(database: Database) -> ProviderLinks:
    register_accounts(database, {"hubspot": "fingerprint"})
    connector = load_connector("hubspot")
    settings = connector.settings.model_validate({"access_token": "pat-eu1-x", "portal_id": "123"})
    return ProviderLinks({"hubspot": FakeAccount(connector, settings)}.get)


def contact(**fields: Any) -> Contact:
    changes = {f"metadata.contact{name}": value for name, value in fields.items()}
    return event(
        "chat.abandoned", {"metadata.contactPhone": None, "metadata.contactEmail": None} | changes
    ).contact


def test_record_found_by_email_comes_before_one_found_by_phone(
    database: Database, links: ProviderLinks
) -> None:
    cache = StoredContactCache(database, "hubspot")
    cache.remember({f"phone:{PHONE}": "11", f"email:{EMAIL}": "22"})
    both = links.crm_record(database, contact(Phone=PHONE, Email=EMAIL))
    assert both == RecordLink("Open in HubSpot", f"{PAGE}22")
    assert links.crm_record(database, contact(Phone=PHONE)) == RecordLink("Open in HubSpot", f"{PAGE}11")


def test_no_link_without_a_cached_record(database: Database, links: ProviderLinks) -> None:
    cache = StoredContactCache(database, "hubspot")
    cache.remember({f"phone:{PHONE}": ""})
    cache.remember({f"email:{EMAIL}": "22"}, timedelta(0))
    assert links.crm_record(database, contact(Phone=PHONE, Email=EMAIL)) is None
    assert links.crm_record(database, contact()) is None


def test_no_link_to_a_connection_that_this_process_does_not_have(database: Database) -> None:
    register_accounts(database, {"hubspot": "fingerprint"})
    StoredContactCache(database, "hubspot").remember({f"phone:{PHONE}": "11"})
    assert ProviderLinks().crm_record(database, contact(Phone=PHONE)) is None


def test_context_links_to_the_event_and_the_record() -> None:
    action = load_connector("slack").actions["post"]
    record = RecordLink("Open in HubSpot", f"{PAGE}11")
    context = build_context(event(), action, find_crm_record=lambda: record)
    assert context.team_links() == [
        RecordLink("Open event", "https://bridge.example.com/events/evt_test"), record
    ]  # fmt: skip
    assert build_context(event(), action, public_url=None).team_links() == []


def test_attempt_finds_the_record_of_its_contact(database: Database, links: ProviderLinks) -> None:
    engine = Engine(database)
    engine.attempts = AttemptRunner(database, "https://bridge.example.com", links=links)
    found: list[RecordLink] = []
    about = engine.event("call.busy", metadata={"contactPhone": PHONE})
    StoredContactCache(database, "hubspot").remember({f"phone:{PHONE}": "11"})

    def post(client: Any, params: Any, context: Context) -> Success:
        found.extend(context.team_links())
        return Success()

    engine.connector.actions["post"].run = post
    engine.deliver("post", about)
    assert engine.run_due()
    assert found == [
        RecordLink("Open event", f"https://bridge.example.com/events/{about.id}"),
        RecordLink("Open in HubSpot", f"{PAGE}11"),
    ]
