from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.rules.route import route
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.routing import route_unrouted
from bridge.store.search import SearchResult, search
from tests.integration.engine import Engine
from tests.integration.query_plans import query_plans

RULES = load_or_raise(
    "version: 1\nrules:\n  - name: post\n    when: call.*\n    do: [{use: slack.post, with: {text: hello}}]\n",
    path="rules.yaml",
    registry=Registry(),
)
KENJI = {"contactName": "Kenji Watanabe", "contactPhone": "+819012345699"}
ROSA = {
    "contactName": "Rosa María Delgado",
    "contactPhone": "+14155550123",
    "contactEmail": "Rosa@Example.com",
}
MARIO = {"contactName": "Mario Delgado", "contactPhone": "+14155557788"}


def store(database: Database, **metadata: Any) -> None:
    body = {"metadata": metadata, "callMetadata": {}}
    Engine(database).event(
        "call.busy", conversationId=f"conv_of_{metadata['contactName'].split()[0].lower()}", **body
    )
    route_unrouted(database, RULES, lambda event, now, history: route(event, RULES, now, history))


@pytest.fixture
def people(database: Database) -> Database:
    """A database with an event of each of three people."""
    for metadata in (KENJI, ROSA, MARIO):
        store(database, **metadata)
    return database


def names(result: SearchResult) -> set[str | None]:
    return {contact.name for contact in result.contacts}


FOUND_BY = {
    "Kenji Watanabe": (
        "+81 90-1234-5699", "5699", "345699", "+819***99", "Kenji Watanabe +81 ··· 99", "WATA", "conv_of_kenji",
        "conv_of_k",
    ),
    "Rosa María Delgado": (
        "(415) 555-0123", "0123", "…550123", "r***@example.com", "ROSA@example.com", "rosa maria", "Delgado, Rosa",
    ),
    "Mario Delgado": ("+14155557", "mario delgado"),
}  # fmt: skip


def test_search_finds_the_person(people: Database) -> None:
    for name, queries in FOUND_BY.items():
        assert {query: names(search(people, query)) for query in queries} == {key: {name} for key in queries}


def test_search_by_the_last_name_lists_every_person_with_it(people: Database) -> None:
    result = search(people, "delgado")
    assert names(result) == {"Rosa María Delgado", "Mario Delgado"}
    assert result.only_match is None


def test_search_without_a_match_finds_nothing(people: Database) -> None:
    for query in ("", "x", "nobody at all", "9999", "+819***98", "conv_of_x", "evt_0"):
        result = search(people, query)
        assert (result.match, result.contacts, result.only_match) == ("", [], None)


def test_national_number_is_of_the_most_frequent_country(database: Database) -> None:
    for number in ("+4915112345678", "+4917123456789", "+14155550123"):
        store(database, contactName="Ada", contactPhone=number)
    result = search(database, "0171 23456789")
    assert result.country == "DE"
    assert result.contacts[0].phones == ["+4917123456789"]


def test_only_match_names_the_page_of_what_was_found(people: Database) -> None:
    event_id = search(people, "conv_of_kenji").events.items[0]["id"]
    delivery_id = search(people, "conv_of_kenji").deliveries.items[0]["id"]
    assert search(people, event_id).only_match == ("events", event_id)
    assert search(people, delivery_id).only_match == ("deliveries", delivery_id)
    assert search(people, "Kenji").only_match == ("contacts", event_id)


def test_events_of_one_person_are_one_contact(people: Database) -> None:
    store(people, **{**MARIO, "contactName": "Mario D. Delgado"})
    contacts = search(people, "7788").contacts
    assert [(contact.name, contact.events) for contact in contacts] == [("Mario D. Delgado", 2)]


def test_erased_person_is_not_found_by_name(people: Database) -> None:
    erase(people, "ada", "+819012345699", [])
    assert search(people, "kenji").contacts == []
    with people.read() as conn:
        names = conn.execute(select(schema.events.c["contact_name", "contact_sort_name"])).all()
    assert (None, None) in [tuple(row) for row in names]


PLANS = {
    "5699": "events_phone_ending",
    "+819***99": "events_phone_ending",
    "+14155557": "events_phone",
    "r***@example.com": "events_email",
    "delgado": "events_contact_name",
    "watanabe": "events_contact_sort_name",
    "conv_of_k": "events_conversation",
    "+14155550123": "events_phone",
    "whd_1": "sqlite_autoindex_events_2",
}


def test_search_reads_no_whole_table(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    plan = query_plans(database)
    for query, index in PLANS.items():
        plan.clear()
        search(database, query)
        assert not [step for step in plan if step.startswith(("SCAN events", "SCAN deliveries"))], plan
        assert any(f"{index} " in step for step in plan), (query, plan)
    database.close()
