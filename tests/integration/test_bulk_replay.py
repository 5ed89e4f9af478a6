"""Replay of all events that match a filter, in the dashboard and the API, and of one event by two operators."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from bridge.store import schema
from bridge.store.audit_log import list_audit_entries
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.erase import erase
from bridge.store.queries import list_events
from tests.integration.dashboard_site import READ_TOKEN, Site
from tests.integration.test_dashboard import ParsedPage, get_page

FILTER = "type=call.busy&since=2h"


@pytest.fixture
def busy(site: Site) -> list[str]:
    """Three busy calls of two people, whose messages were sent, and a resolved chat."""
    ids = [
        site.routed_event(
            direction="outbound", metadata={"contactPhone": f"+1310555{ending}", "contactName": "Kari Nord"}
        )
        for ending in ("0111", "0111", "0112")
    ]
    site.routed_event("chat.resolved")
    return ids


def mark_as_sent(site: Site) -> None:
    """Complete the idempotency keys of all deliveries, as a worker does after it has sent them."""
    table, now = schema.deliveries, site.database.clock.now()
    with site.database.write() as conn:
        rows = conn.execute(select(table.c.id, table.c.idempotency_key)).all()
        keys = [
            {"key": row.idempotency_key, "completed_by": row.id, "occurred_at": now, "changed_at": now}
            for row in rows
        ]
        conn.execute(schema.idempotency_keys.insert(), keys)
        conn.execute(update(table).values(state="succeeded", finished_at=now))


def hidden_fields(page: ParsedPage) -> dict[str, str]:
    """Return the hidden fields of the last form, which posts."""
    return {
        field["name"] or "": field["value"] or ""
        for field in page.all("input")
        if field.get("type") == "hidden"
    }


def deliveries(site: Site, event_id: str) -> list[Any]:
    return list(list_deliveries(site.database, DeliveryFilter(event=event_id)).items)


def test_event_that_is_a_duplicate_of_another_offers_no_replay(
    site: Site, browser: httpx.Client, busy: list[str]
) -> None:
    assert "Replay…" in get_page(browser, f"/events/{busy[1]}").text
    is_second = schema.events.c.id == busy[1]
    with site.database.write() as conn:
        conn.execute(update(schema.events).where(is_second).values(duplicate_of=busy[0]))
    page = get_page(browser, f"/events/{busy[1]}").text
    assert "Another event is about the same call" in page
    assert "Replay…" not in page


def test_all_that_match_are_replayed_after_a_preview(
    site: Site, browser: httpx.Client, busy: list[str]
) -> None:
    assert "Replay all that match" in get_page(browser, f"/events?{FILTER}").text
    assert "Replay all that match" not in get_page(browser, "/events").text
    page = get_page(browser, f"/events/replay?{FILTER}")
    assert "Replay 3 events?" in page.text
    assert "3 text messages, 0 emails" in page.text
    assert "2 people" in page.text
    site.database.clock.advance(minutes=1)
    late = site.routed_event("call.busy")  # not part of the replay, and no reason to refuse it
    done = browser.post("/events/replay", data=hidden_fields(page), follow_redirects=True)
    assert "3 events were routed again." in ParsedPage(done).text
    assert [len(deliveries(site, event_id)) for event_id in busy] == [2, 2, 2]
    assert len(deliveries(site, late)) <= 1
    entry = list_audit_entries(site.database, action="replay")[0]
    assert (entry["target"], entry["detail"]["matched"], entry["detail"]["done"]) == ("events", 3, 3)
    site.engine.event("call.busy")
    unrouted = get_page(browser, "/events/replay?unrouted=yes").text
    assert "1: it is not routed yet; it will be routed automatically" in unrouted
    assert "There is nothing to replay" in unrouted
    [part] = list_audit_entries(site.database, target=busy[0])
    assert part["part_of"] == entry["id"]


def test_without_force_nothing_is_repeated_and_with_it_people_are_counted(
    site: Site, browser: httpx.Client, busy: list[str]
) -> None:
    mark_as_sent(site)
    page = get_page(browser, f"/events/replay?{FILTER}")
    assert "0 text messages, 0 emails; 3 suppressed (duplicate)" in page.text
    forced = get_page(browser, f"/events/replay?{FILTER}&force=yes")
    assert "2 people for the second time" in forced.text
    assert "Contact 2 people again" in forced.text
    fields = hidden_fields(forced)
    refused = browser.post("/events/replay", data=fields)
    assert (refused.status_code, "Enter a reason" in refused.text) == (409, True)
    assert len(deliveries(site, busy[0])) == 1
    browser.post("/events/replay", data=fields | {"reason": "the text was wrong"})
    assert [len(deliveries(site, event_id)) for event_id in busy] == [2, 2, 2]
    again = browser.post("/events/replay", data=fields | {"reason": "double click"}, follow_redirects=True)
    assert "replayed this after you opened the page" in again.text
    assert [len(deliveries(site, event_id)) for event_id in busy] == [2, 2, 2], "nobody is contacted twice"


def test_forced_replay_of_one_event_is_done_once(site: Site, browser: httpx.Client, busy: list[str]) -> None:
    mark_as_sent(site)
    page = get_page(browser, f"/events/{busy[0]}/replay")
    seen = next(field["value"] for field in page.all("input") if field["name"] == "previewed_at")
    fields = {"force": "yes", "reason": "asked for it", "previewed_at": seen}
    for _ in range(2):
        response = browser.post(f"/events/{busy[0]}/replay", data=fields, follow_redirects=True)
    assert "replayed this after you opened the page" in response.text
    assert len(deliveries(site, busy[0])) == 2
    blind = browser.post(
        f"/events/{busy[0]}/replay", data={"force": "yes", "reason": "x"}, follow_redirects=True
    )
    assert "check what would happen first" in blind.text
    assert len(deliveries(site, busy[0])) == 2


def test_another_number_of_events_is_shown_again(site: Site, browser: httpx.Client, busy: list[str]) -> None:
    fields = hidden_fields(get_page(browser, f"/events/replay?{FILTER}"))
    response = browser.post("/events/replay", data=fields | {"expected": "2"})
    assert response.status_code == 409
    assert "3 events match now, and not 2 as before" in ParsedPage(response).text
    assert [len(deliveries(site, event_id)) for event_id in busy] == [1, 1, 1]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "filter the events first"),
        ("since=yesterday-ish", "must be a time like"),
        (f"{FILTER}&rule=gone", "no active rule is called"),
        ("person=evt_none", "no contact is stored"),
        ("since=2h&since=3h", "is given 2 times"),
        ("type=" + "x" * 501, "at most 500"),
        ("type=call.lost", "There is nothing to replay"),
    ],
)
def test_unclear_filters_say_what_to_do(browser: httpx.Client, query: str, message: str) -> None:
    assert message in ParsedPage(browser.get(f"/events/replay?{query}", follow_redirects=True)).text


def test_reader_sees_the_preview_but_starts_nothing(site: Site, busy: list[str]) -> None:
    with site.browser(token=READ_TOKEN) as reader:
        assert "Your token only reads" in get_page(reader, f"/events/replay?{FILTER}").text
        fields = {"type": "call.busy", "expected": "3", "previewed_at": "2020-01-01"}
        assert reader.post("/events/replay", data=fields).status_code == 403
    assert [len(deliveries(site, event_id)) for event_id in busy] == [1, 1, 1]


def test_api_replays_all_that_match(site: Site, busy: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mark_as_sent(site)
    body = {"type": "call.busy", "since": "2h"}
    with site.client() as api:
        preview = api.post("/api/events/replay", json=body | {"dry_run": True, "force": True}).json()
        assert (preview["events"], preview["people"], preview["people_again"]) == (3, 2, 2)
        again = body | {"force": True, "expected": 3, "previewed_at": preview["previewed_at"]}
        refused = api.post("/api/events/replay", json=again)
        assert (refused.status_code, "reason" in refused.json()["error"]) == (400, True)
        done = api.post("/api/events/replay", json=again | {"reason": "wrong text"}).json()
        assert (done["events"], done["deliveries"], done["not_possible"]) == (3, 3, 0)
        twice = api.post("/api/events/replay", json=again | {"reason": "a retry of the request"}).json()
        assert (twice["events"], twice["not_possible"]) == (0, 3)
        assert api.post("/api/events/replay", json=body | {"expected": 4}).status_code == 409
        assert api.post("/api/events/replay", json={}).status_code == 400
        monkeypatch.setattr("bridge.web.bulk_replay.MAX_EVENTS", 2)
        assert api.post("/api/events/replay", json=body).status_code == 409
    assert len(list_events(site.database, event_type="call.busy").items) == 3


def test_two_operators_force_a_replay_at_once_and_it_is_done_once(site: Site, busy: list[str]) -> None:
    mark_as_sent(site)
    body = {"type": "call.busy", "since": "2h", "force": True, "reason": "wrong text"}
    with site.client() as api:
        preview = api.post("/api/events/replay", json=body | {"dry_run": True}).json()
    confirmed = body | {"previewed_at": preview["previewed_at"]}

    def confirm(_: int) -> int:
        with site.client() as api:
            return int(api.post("/api/events/replay", json=confirmed).json()["events"])

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(confirm, range(4))) == 3
    assert [len(deliveries(site, event_id)) for event_id in busy] == [2, 2, 2]


def test_another_site_starts_no_replay(site: Site, browser: httpx.Client, busy: list[str]) -> None:
    fields = hidden_fields(get_page(browser, f"/events/replay?{FILTER}"))
    for path, data in (("/events/replay", fields), (f"/events/{busy[0]}/replay", {})):
        response = browser.post(path, data=data, headers={"Sec-Fetch-Site": "cross-site"})
        assert response.status_code == 403
    assert [len(deliveries(site, event_id)) for event_id in busy] == [1, 1, 1]


def test_erased_people_are_neither_replayed_nor_named(
    site: Site, browser: httpx.Client, busy: list[str]
) -> None:
    erase(site.database, "ada", "+13105550111", ())
    page = get_page(browser, f"/events/replay?{FILTER}").text
    assert "Replay 1 event?" in page
    assert "2: its body is no longer kept" in page
    assert "+13105550111" not in page
    for path in ("/deliveries", f"/deliveries/{deliveries(site, busy[0])[0]['id']}", "/review"):
        assert "Kari" not in get_page(browser, path).text or path == "/deliveries"
