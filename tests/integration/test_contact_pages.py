"""Contacts, search, events and rejected requests on the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from bridge.clock import Clock
from bridge.store import schema
from bridge.store.audit_log import list_audit_entries
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.opt_out_list import list_opt_outs, show_opt_outs
from bridge.store.queries import list_rejected_requests
from tests.integration.contact_stories import KENJI, ROSA, ROSA_EMAIL, Stories, tell
from tests.integration.dashboard_site import READ_TOKEN, Site, running_site
from tests.integration.test_dashboard import get_page

KEYS = ("a secret of at least sixteen",)


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with running_site(tmp_path, clock, keys=KEYS) as site:
        yield site


@pytest.fixture
def stories(site: Site) -> Stories:
    return tell(site)


# ------------------------------------------------------------ search


def test_search_by_number_name_and_ending_leads_to_the_contact_page(
    browser: httpx.Client, stories: Stories
) -> None:
    """Journeys J2 and J2b: one click, and no address in a URL."""
    for query in (KENJI, "81 90 1234 5699", "5699", "kenji", "+819***99"):
        response = browser.post("/search", data={"q": query})
        assert (response.status_code, response.headers["location"]) == (303, f"./contacts/{stories.inbound}")


def test_search_for_several_people_lists_them_masked(browser: httpx.Client, stories: Stories) -> None:
    response = browser.post("/search", data={"q": "delgado"})
    assert response.headers["cache-control"] == "no-store"
    assert "2 people" in response.text
    assert "Mario Delgado" in response.text
    assert f"./contacts/{stories.rosa}" in response.text
    assert ROSA not in response.text


def test_search_for_an_unknown_number_shows_what_is_known(browser: httpx.Client, stories: Stories) -> None:
    """Journey J2c."""
    response = browser.post("/search", data={"q": "+1 415 555 0888"})
    assert response.status_code == 200
    assert "Nothing is stored about +14155550888." in response.text
    assert "8 requests were rejected (signature wrong)" in response.text
    assert "May we?" in response.text


# ------------------------------------------------------------ one person


def test_contact_page_says_first_why_there_is_no_text(browser: httpx.Client, stories: Stories) -> None:
    page = get_page(browser, f"/contacts/{stories.rosa}")
    opted_out = "No text message, WhatsApp message or call: the recipient opted out of text messages at"
    assert page.text.index("Rosa Delgado") < page.text.index(opted_out) < page.text.index("May we?")
    for fact in (
        ROSA,
        ROSA_EMAIL,
        "America/Los_Angeles",
        "1 of 2 in 24h",
        "0 of 3 in 24h",
        "40213",
        "+165***88",
    ):
        assert fact in page.text


def test_contact_page_names_the_condition_that_was_not_met(browser: httpx.Client, stories: Stories) -> None:
    text = get_page(browser, f"/contacts/{stories.inbound}").text
    assert "Why no text message?" in text
    assert "text-when-not-reached did not fire: event.direction is inbound, expected outbound" in text


def test_timeline_has_messages_replies_statuses_and_opt_outs(browser: httpx.Client, stories: Stories) -> None:
    text = get_page(browser, f"/contacts/{stories.rosa}").text
    parts = (
        "call.no-answer",
        "Opted out: text message, STOP to desk",
        "Please stop texting me. STOP",
        "call.busy",
    )
    for part in (*parts, "Hi Rosa, we tried to reach you.", "reported delivered"):
        assert part in text[text.index("Timeline") :]
    filtered = get_page(browser, f"/contacts/{stories.rosa}?shown=stopped").text
    assert "Suppressed opted out" in filtered
    assert "Please stop texting me" not in filtered


def test_timeline_is_paged_by_event(browser: httpx.Client, stories: Stories) -> None:
    path, seen = f"/contacts/{stories.rosa}?limit=2", []
    while path:
        html = browser.get(path).text
        seen += re.findall(r"<strong>((?:call|sms|chat)\.[a-z-]+)</strong>", html)
        older = re.search(r'href="\?shown=all&amp;cursor=(\w+)"', html)
        path = f"/contacts/{stories.rosa}?limit=2&cursor={older[1]}" if older else ""
    assert seen == ["call.completed", "call.no-answer", "sms.received", "call.busy"]


def test_opt_out_and_its_undo(site: Site, browser: httpx.Client, stories: Stories) -> None:
    fields = {"address": KENJI, "channel": "sms", "event": stories.inbound}
    response = browser.post("/contacts/opt-out", data=fields)
    assert response.status_code == 303
    page = browser.get(f"/contacts/{response.headers['location'].removeprefix('../contacts/')}")
    assert "The opt-out was saved." in page.text
    assert "<button>Undo</button>" in page.text
    assert [entry["channel"] for entry in show_opt_outs(site.database, KENJI, None)] == ["sms"]
    refused = browser.post("/contacts/opt-in", data=fields, follow_redirects=True)
    assert "enter a reason" in refused.text
    browser.post("/contacts/opt-in", data=fields | {"reason": "asked by phone on 3 May"})
    assert show_opt_outs(site.database, KENJI, None) == []
    assert list_audit_entries(site.database)[0]["detail"] == {
        "channel": "sms",
        "reason": "asked by phone on 3 May",
    }


def test_export_has_everything_about_the_person(browser: httpx.Client, stories: Stories) -> None:
    response = browser.get(f"/contacts/{stories.rosa}/export")
    assert response.headers["content-disposition"] == 'attachment; filename="contact.json"'
    data = json.loads(response.text)
    assert data["addresses"] == [ROSA, ROSA_EMAIL]
    assert {event["type"] for event in data["events"]} >= {"call.busy", "sms.received", "contact.opted_out"}
    assert "Hi Rosa, we tried to reach you." in [item["params"].get("body") for item in data["deliveries"]]
    assert [entry["channel"] for entry in data["opt_outs"]] == ["sms"]
    assert [item["value"] for item in data["cached_contacts"]] == ["40213"]
    assert "Kenji" not in response.text


def test_erase_needs_the_last_four_digits(site: Site, browser: httpx.Client, stories: Stories) -> None:
    path = f"/contacts/{stories.rosa}/erase"
    assert "kept as a hash" in get_page(browser, path).text
    wrong = browser.post(path, data={"ending": "0000"}, follow_redirects=True)
    assert "do not match" in wrong.text
    done = browser.post(path, data={"ending": ROSA[-4:]}, follow_redirects=True)
    assert "The contact was erased from" in done.text
    assert "no longer stored" in get_page(browser, f"/contacts/{stories.rosa}").text
    assert list_opt_outs(site.database).items[0]["address"].startswith("erased:")


def test_token_that_only_reads_sees_no_actions(site: Site, stories: Stories) -> None:
    with site.browser(token=READ_TOKEN) as reader:
        for path in (
            "/contacts",
            f"/contacts/{stories.rosa}",
            f"/events/{stories.rosa}",
            f"/events/{stories.rosa}/replay",
        ):
            text = get_page(reader, path).text
            assert not [
                word
                for word in ("Opt in", "Add an opt-out", "Erase…", "Replay…", "Replay this")
                if word in text
            ]
        assert reader.post("/search", data={"q": "kenji"}).status_code == 303


# ------------------------------------------------------------ opt-outs


def test_opt_out_list_can_be_filtered_and_exported(browser: httpx.Client, stories: Stories) -> None:
    assert "STOP to desk" in get_page(browser, "/contacts?source=STOP&since=30d").text
    assert "match this filter" in get_page(browser, "/contacts?channel=email").text
    csv = browser.get("/contacts/opt-outs.csv?channel=sms")
    assert ROSA in csv.text
    assert csv.headers["content-type"] == "text/csv; charset=utf-8"


def test_import_is_previewed_before_it_is_stored(site: Site, browser: httpx.Client) -> None:
    content = "address,reason\n+13105550111,list\nada@example.com,\nnot an address,\n"
    preview = browser.post("/contacts/import", files={"file": ("list.csv", content.encode())})
    assert "2 addresses would be opted out" in preview.text
    assert "Line 4 is neither a phone number" in preview.text
    assert list_opt_outs(site.database).items == []
    text = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", preview.text, re.DOTALL)
    assert text is not None
    done = browser.post(
        "/contacts/import/confirm", data={"text": text[1], "reason": ""}, follow_redirects=True
    )
    assert "2 addresses were opted out" in done.text
    assert len(list_opt_outs(site.database).items) == 4


# ------------------------------------------------------------ events


def test_event_list_says_who_and_what_was_done(browser: httpx.Client, stories: Stories) -> None:
    text = get_page(browser, "/events").text
    assert "Kenji Watanabe" in text
    assert "Desk: send Delivered" in text
    nothing = browser.get("/events?nothing=yes").text
    assert (stories.inbound in nothing, stories.rosa in nothing) == (True, False)
    person = browser.get(f"/events?person={stories.inbound}").text
    assert (stories.inbound in person, stories.rosa in person) == (True, False)


def test_event_page_says_first_what_was_done_and_opens_the_near_miss(
    browser: httpx.Client, stories: Stories
) -> None:
    page = browser.get(f"/events/{stories.inbound}").text
    missed = "text-when-not-reached missed by one condition: event.direction is inbound, expected outbound."
    assert missed in page
    assert page.count('<details class="trace" open>') == 2
    assert browser.get(f"/events/{stories.inbound}/body").json()["direction"] == "inbound"


def test_replay_shows_the_forecast_first(site: Site, browser: httpx.Client, stories: Stories) -> None:
    page = get_page(browser, f"/events/{stories.rosa}/replay").text
    assert page.index("suppressed opted out") < page.index("Replay this event")
    assert "Nothing was done." in get_page(browser, f"/events/{stories.rosa}?today=yes").text
    path = f"/events/{stories.rosa}/replay"
    refused = browser.post(path, data={"force": "yes"}, follow_redirects=True)
    assert "enter a reason" in refused.text
    now = site.database.clock.now().isoformat()
    browser.post(path, data={"force": "yes", "reason": "wrong text", "previewed_at": now})
    assert list_audit_entries(site.database)[0]["detail"]["reason"] == "wrong text"


def test_forced_replay_names_whom_it_contacts_again(site: Site, browser: httpx.Client) -> None:
    event_id = site.routed_event(
        metadata={"contactName": "Ada Byron", "contactPhone": ROSA}, direction="outbound"
    )
    [delivery] = list_deliveries(site.database, DeliveryFilter(event=event_id)).items
    now = site.database.clock.now()
    with site.database.write() as conn:
        key = conn.execute(select(schema.deliveries.c.idempotency_key)).scalar_one()
        done = {"key": key, "completed_by": delivery["id"], "occurred_at": now, "changed_at": now}
        conn.execute(schema.idempotency_keys.insert().values(done))
    text = get_page(browser, f"/events/{event_id}/replay").text
    assert "suppressed duplicate" in text
    assert f"Twilio: send SMS to Ada Byron , {ROSA}" in text
    assert "Contact Ada Byron again" in text


# ------------------------------------------------------------ rejected requests


def test_rejected_requests_are_grouped_with_a_remedy(browser: httpx.Client, stories: Stories) -> None:
    text = get_page(browser, "/rejected").text
    assert "8 × signature wrong" in text
    assert "bridge heppu webhooks list" in text
    assert "the sender's clock is 1h7m behind this server's" in text
    assert text.index("1 × not json") < text.index("Conflicts") < text.index("1 × conflict")


def test_accept_is_offered_only_for_what_can_be_accepted(
    site: Site, browser: httpx.Client, stories: Stories
) -> None:
    ids = {item["reason"]: item["id"] for item in list_rejected_requests(site.database).items}
    offered = {
        reason for reason, one in ids.items() if "Accept as event" in browser.get(f"/rejected/{one}").text
    }
    assert offered == {"timestamp_off", "conflict"}
    assert "cannot be accepted as an event" in get_page(browser, f"/rejected/{ids['not_json']}").text
