"""Possible duplicates and what the contact cache knows of a record, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bridge.connector import ContactProfile
from bridge.rules.model import Rules
from bridge.store.audit_log import list_audit_entries
from bridge.store.contact_cache import StoredContactCache
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.possible_duplicates import (
    dismiss_possible_duplicate,
    list_possible_duplicates,
    save_possible_duplicate,
)
from bridge.store.queries import NotFound
from bridge.store.retention import prune_batch

PHONE, EMAIL = "+12125550123", "maya_lindqvist@example.com"


def test_pair_is_stored_once_per_connection_and_stays_dismissed(database: Database) -> None:
    save_possible_duplicate(database, "hubspot", "dlv_1", "51002", "51001")
    [pair] = list_possible_duplicates(database).items
    database.clock.advance(days=1)
    save_possible_duplicate(database, "hubspot", "dlv_2", "51001", "51002")
    save_possible_duplicate(database, "hubspot", "dlv_3", "51001", "51001")
    save_possible_duplicate(database, "crm_eu", "dlv_4", "51001", "51002")

    [again] = list_possible_duplicates(database, connection="hubspot").items
    assert (again["id"], again["first_record"], again["second_record"]) == (pair["id"], "51001", "51002")
    assert (again["delivery_id"], again["found_at"]) == ("dlv_1", pair["found_at"])
    assert again["last_seen_at"] - again["found_at"] >= timedelta(days=1)
    assert len(list_possible_duplicates(database).items) == 2

    dismiss_possible_duplicate(database, "ada", pair["id"])
    save_possible_duplicate(database, "hubspot", "dlv_5", "51001", "51002")
    assert list_possible_duplicates(database, connection="hubspot").items == []
    with pytest.raises(NotFound):
        dismiss_possible_duplicate(database, "ada", pair["id"])
    [entry] = list_audit_entries(database)
    assert (entry["actor"], entry["action"], entry["target"]) == ("ada", "dismiss_duplicate", pair["id"])


def test_pair_that_no_event_leads_to_any_more_is_pruned(database: Database) -> None:
    save_possible_duplicate(database, "hubspot", "dlv_1", "51001", "51002")
    database.clock.advance(days=20)
    save_possible_duplicate(database, "hubspot", "dlv_2", "51003", "51004")
    database.clock.advance(days=20)
    prune_batch(database, timedelta(days=30), Rules("", ""))
    assert [pair["delivery_id"] for pair in list_possible_duplicates(database).items] == ["dlv_2"]


def test_profile_of_a_record_is_cached_per_connection(database: Database) -> None:
    cache, other = StoredContactCache(database, "hubspot"), StoredContactCache(database, "salesforce")
    profile = ContactProfile("Maya Lindqvist", frozenset({"email", "company"}))
    cache.remember_profiles({"51001": profile})
    assert cache.profiles(["51001", "51002"]) == {"51001": profile}
    assert (other.profiles(["51001"]), cache.profiles([])) == ({}, {})
    database.clock.advance(days=8)
    assert cache.profiles(["51001"]) == {}


@pytest.mark.parametrize("address", [PHONE, EMAIL])
def test_erasure_deletes_the_pair_and_the_name_of_the_record(database: Database, address: str) -> None:
    cache = StoredContactCache(database, "hubspot")
    cache.remember({f"phone:{PHONE}": "51001", f"email:{EMAIL}": "51002", f"pair:{EMAIL}:{PHONE}": "51001"})
    names = {
        "51001": ContactProfile("Maya"),
        "51002": ContactProfile("Lindqvist"),
        "51003": ContactProfile("Ann"),
    }
    cache.remember_profiles(names)
    cache.remember({"phone:+12125550199": "51003", "email:mayaxlindqvist@example.com": "51003"})

    erase(database, "ada", address, ())
    kept = [f"phone:{PHONE}", f"email:{EMAIL}", f"pair:{EMAIL}:{PHONE}"]
    kept = [key for key in kept if address not in key]
    assert sorted(cache.get([f"phone:{PHONE}", f"email:{EMAIL}", f"pair:{EMAIL}:{PHONE}"])) == sorted(kept)
    remaining = cache.profiles(names)
    assert "51001" not in remaining
    assert "51003" in remaining
    assert len(cache.get(["phone:+12125550199", "email:mayaxlindqvist@example.com"])) == 2
