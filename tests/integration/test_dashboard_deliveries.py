"""Dashboard pages of deliveries and reviews: lists, confirmations, outcomes, and actions on what was seen."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from bridge.connector import StatusUpdate
from bridge.errors import OutcomeUnknown, PermanentError, TransientError
from bridge.store import schema
from bridge.store.audit_log import list_audit_entries
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.delivery_status import apply_callback
from bridge.store.operator_actions import dismiss, resolve
from tests.integration.dashboard_site import READ_TOKEN, Site
from tests.integration.engine import raising
from tests.integration.test_dashboard import ParsedPage, failed_delivery, get_page

NO_NUMBER = PermanentError("no such number")


def set_columns(site: Site, delivery_id: str, **columns: Any) -> None:
    table = schema.deliveries
    with site.database.write() as conn:
        conn.execute(update(table).where(table.c.id == delivery_id).values(columns))


def reviews(site: Site, number: int = 1) -> list[str]:
    """Store text messages whose outcome is unknown."""

    site.engine.provider.lookup_works = False
    ids = [
        site.engine.deliver(
            "send",
            site.engine.event(
                metadata={"contactPhone": f"+1310555011{index}", "contactName": f"Kari {index} Nord"}
            ),
            params={"to": f"+1310555011{index}", "body": "Can we help?"},
        )
        for index in range(number)
    ]
    site.engine.provider.after = raising(OutcomeUnknown("no answer within 20 s"))
    site.engine.run_for(seconds=30)
    site.engine.provider.after = None
    return ids


def form_of(page: ParsedPage, action: str) -> dict[str, str]:
    """Return the hidden fields of a page by name, for its form with this action. Fields of all forms are alike."""
    assert any(action in (form.get("action") or "") for form in page.all("form")), page.text
    return {
        field["name"] or "": field["value"] or ""
        for field in page.all("input")
        if field.get("type") == "hidden"
    }


def post(browser: httpx.Client, path: str, fields: dict[str, Any]) -> ParsedPage:
    response = browser.post(path, data=fields, follow_redirects=True)
    assert response.status_code == 200, response.text
    assert response.history, "the browser is redirected, so that a reload repeats nothing"
    return ParsedPage(response)


# ------------------------------------------------------------ list


def test_list_shows_the_person_and_a_masked_address_also_for_crm_records(
    site: Site, browser: httpx.Client
) -> None:
    event = site.engine.event(metadata={"contactPhone": "+81312345699", "contactName": "Kenji Watanabe"})
    site.engine.deliver("record", event)
    page = get_page(browser, "/deliveries")
    assert "Kenji Watanabe +813***99" in page.text
    assert "+81312345699" not in page.text


def test_chips_count_what_matches_the_other_criteria(site: Site, browser: httpx.Client) -> None:
    failed_delivery(site, NO_NUMBER, rule="a")
    site.engine.deliver("post", rule="b")
    page = get_page(browser, "/deliveries?rule=a&state=failed")
    assert "Failed 1" in page.text
    assert "Pending 1" not in page.text
    assert page.text.startswith("1 failed · Deliveries")


def test_times_are_read_in_the_readers_zone(browser: httpx.Client) -> None:
    browser.cookies.set("tz", "Asia/Tokyo")
    response = browser.get("/deliveries?from=2026-03-02T09:00&to=2026-03-02T10:30&state=failed&limit=5")
    location = httpx.URL(f"http://x/{response.headers['location']}")
    assert (response.status_code, dict(location.params)) == (
        303,
        {"state": "failed", "since": "2026-03-02T09:00:00+09:00", "until": "2026-03-02T10:30:00+09:00"},
    )
    assert browser.get(f"/{response.headers['location']}").status_code == 200
    assert "must be a date and a time" in get_page(browser, "/deliveries?from=noon", 400).text


def test_deliveries_of_a_person_are_found_without_an_address_in_the_url(
    site: Site, browser: httpx.Client
) -> None:
    event = site.engine.event(metadata={"contactPhone": "+13105550111", "contactName": "Wen Haddad"})
    mine = site.engine.deliver("send", event)
    other = site.engine.deliver("send", site.engine.event(metadata={"contactPhone": "+13105550122"}))
    html = browser.get(f"/deliveries?person={event.id}").text
    assert (mine in html, other in html) == (True, False)
    assert "Only deliveries about" in html
    assert "Wen Haddad" in html


def test_empty_list_offers_a_wider_span(browser: httpx.Client) -> None:
    page = get_page(browser, "/deliveries?state=failed&since=24h")
    assert "No deliveries match this filter. Show 30 days or clear the filter" in page.text
    assert {"href": "./deliveries?state=failed&since=30d"} in page.all("a")


def test_reader_sees_no_actions(site: Site) -> None:
    failed = failed_delivery(site, NO_NUMBER)
    review = reviews(site)[0]
    with site.browser(token=READ_TOKEN) as reader:
        for path in ("/deliveries?state=failed", f"/deliveries/{failed}", f"/deliveries/{review}", "/review"):
            forms = [
                form
                for form in get_page(reader, path).all("form")
                if "deliveries/" in str(form.get("action"))
            ]
            assert [form for form in forms if form.get("method") == "post"] == [], path


# ------------------------------------------------------------ actions on many


def test_retry_of_all_that_match_is_confirmed_with_how_many_and_to_whom(
    site: Site, browser: httpx.Client
) -> None:
    for _ in range(2):
        failed_delivery(site, NO_NUMBER)
    page = get_page(browser, "/deliveries/confirm?action=retry-all&state=failed")
    assert "Retry 2 deliveries?" in page.text
    assert "2 text messages, 0 emails" in page.text
    assert "desk: 2" in page.text
    assert "+13105550111" in page.text, "who confirms sees whom"
    fields = form_of(page, "deliveries/confirm")
    page = post(browser, "/deliveries/confirm", fields)
    assert "2 deliveries will be retried now" in page.text
    entry = list_audit_entries(site.database)[0]
    assert (entry["action"], entry["target"], entry["detail"]["done"]) == ("retry", "deliveries", 2)


def test_confirmation_is_shown_again_if_another_number_matches_now(site: Site, browser: httpx.Client) -> None:
    first = failed_delivery(site, NO_NUMBER)
    fields = form_of(get_page(browser, "/deliveries/confirm?action=dismiss-all&state=failed"), "confirm")
    site.database.clock.advance(minutes=1)
    later = failed_delivery(site, NO_NUMBER)  # no reason to refuse it: the preview has fixed the times
    dismiss(site.database, "grace", [first])
    response = browser.post("/deliveries/confirm", data=fields)
    assert response.status_code == 409
    assert "0 deliveries match now, and not 1 as before" in ParsedPage(response).text
    assert site.engine.show(later)["dismissed_at"] is None


def test_chosen_deliveries_that_cannot_be_changed_are_named(site: Site, browser: httpx.Client) -> None:
    failed, waiting = failed_delivery(site, NO_NUMBER), site.engine.deliver("post")
    page = get_page(browser, f"/deliveries/confirm?action=dismiss&id={failed}&id={waiting}")
    assert "Dismiss 1 delivery?" in page.text
    assert "Not possible for 1" in page.text
    assert "it is pending; only failed deliveries can be dismissed" in page.text
    response = browser.post(
        "/deliveries/confirm", data={"action": "dismiss", "expected": "2", "id": [failed, waiting]}
    )
    assert response.headers["location"].endswith("deliveries?done=dismissed_many&n=1")
    assert site.engine.show(failed)["dismissed_at"] is not None


def test_cancelling_chosen_deliveries_says_which_may_have_been_sent(
    site: Site, browser: httpx.Client
) -> None:
    [review] = reviews(site)
    page = get_page(browser, f"/deliveries/confirm?action=cancel&id={review}")
    assert "1 of them may have been sent already" in page.text
    waiting = site.engine.deliver("post")
    assert (
        "may have been sent" not in get_page(browser, f"/deliveries/confirm?action=cancel&id={waiting}").text
    )


def test_chosen_delivery_that_has_changed_since_the_confirmation_is_left_alone(
    site: Site, browser: httpx.Client
) -> None:
    waiting = site.engine.deliver("send")
    fields = form_of(get_page(browser, f"/deliveries/confirm?action=cancel&id={waiting}"), "confirm")
    assert fields["seen"] == f"{waiting} pending.0"
    set_columns(site, waiting, state="needs_review", fencing_token=1)
    response = browser.post("/deliveries/confirm", data=fields)
    assert response.headers["location"].endswith("n=0")
    assert site.engine.show(waiting)["state"] == "needs_review"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("action=retry&state=failed", "choose deliveries in the list first"),
        ("action=retry-all", "filter the deliveries first"),
        ("action=burn&id=dlv_1", "must be one of retry, cancel"),
        ("action=cancel-all&state=succeeded", "There is nothing to change"),
    ],
)
def test_unclear_choice_says_what_to_do(browser: httpx.Client, query: str, message: str) -> None:
    response = browser.get(f"/deliveries/confirm?{query}", follow_redirects=True)
    assert message in ParsedPage(response).text


def test_list_offers_only_actions_that_are_possible_in_its_states(site: Site, browser: httpx.Client) -> None:
    failed_delivery(site, NO_NUMBER)
    buttons = [button["value"] for button in get_page(browser, "/deliveries?state=failed").all("button")
               if button.get("name") == "action"]  # fmt: skip
    assert buttons == ["retry", "dismiss", "undismiss", "retry-all", "dismiss-all"]


# ------------------------------------------------------------ one delivery


def test_page_starts_with_the_outcome_and_shows_the_text_as_the_person_sees_it(
    site: Site, browser: httpx.Client
) -> None:
    event_id = site.routed_event(metadata={"contactPhone": "+12125550439", "contactName": "Wen Haddad"})
    (item,) = list_deliveries(site.database, DeliveryFilter(event=event_id)).items
    page = get_page(browser, f"/deliveries/{item['id']}?state=pending")
    assert page.text.startswith("Pending: Text message to Wen Haddad")
    assert "Hi Wen, we tried to reach you." in page.text
    assert "To +12125550439 · 30 characters, 1 segment" in page.text
    assert "event.direction is outbound" in page.text
    assert "Next: The policy is checked again, and it is sent now." in page.text
    assert {"href": "../deliveries?state=pending"} in page.all("a")


def test_status_of_a_message_has_its_own_line_after_the_line_that_it_was_sent(
    site: Site, browser: httpx.Client
) -> None:
    delivery_id = site.engine.deliver("send")
    site.engine.run_due()
    site.database.clock.advance(minutes=1)
    apply_callback(site.database, "desk", [StatusUpdate("undelivered", None, delivery_id, "a landline")])
    text = get_page(browser, f"/deliveries/{delivery_id}").text
    timeline = text[text.index("Timeline") :]
    assert timeline.index("UTC succeeded") < timeline.index("message status: undelivered")
    assert "succeeded: undelivered" not in text


def test_page_leads_to_the_neighbors_in_its_list(site: Site, browser: httpx.Client) -> None:
    ids = [failed_delivery(site, NO_NUMBER) for _ in range(3)]
    site.engine.deliver("post")
    page = get_page(browser, f"/deliveries/{ids[1]}?state=failed")
    links = {link.get("rel"): link["href"] for link in page.all("a") if link.get("rel") in ("prev", "next")}
    assert links == {
        "prev": f"../deliveries/{ids[2]}?state=failed",
        "next": f"../deliveries/{ids[0]}?state=failed",
    }


def test_action_on_a_delivery_that_has_changed_says_who_was_faster(site: Site, browser: httpx.Client) -> None:
    (review,) = reviews(site)
    fields = form_of(get_page(browser, "/review"), f"{review}/resolve")
    assert resolve(site.database, "ada", review, "discard").done
    page = post(browser, f"/deliveries/{review}/resolve", fields | {"resolution": "retry"})
    assert "Nothing was changed, because ada resolved" in page.text
    assert site.engine.show(review)["state"] == "cancelled"


def test_failed_delivery_is_dismissed_and_the_dismissal_taken_back(site: Site, browser: httpx.Client) -> None:
    delivery_id = failed_delivery(site, NO_NUMBER)
    path = f"/deliveries/{delivery_id}"
    page = post(browser, f"{path}/dismiss", form_of(get_page(browser, path), "/dismiss"))
    assert "The failure was dismissed." in page.text
    assert "Dismissed" in page.text
    page = post(browser, f"{path}/undismiss", form_of(page, "/undismiss"))
    assert "The dismissal was undone." in page.text


def test_only_possible_actions_are_offered(site: Site, browser: httpx.Client) -> None:
    expired = failed_delivery(site, NO_NUMBER)
    set_columns(site, expired, expires_at=site.database.clock.now())
    page = get_page(browser, f"/deliveries/{expired}")
    assert "It cannot be retried: it expired at" in page.text
    assert not [form for form in page.all("form") if "/retry" in str(form.get("action"))]
    dismiss(site.database, "ada", [expired])
    succeeded = site.engine.deliver("post")
    site.engine.run_due()
    page = get_page(browser, f"/deliveries/{succeeded}")
    assert not [form for form in page.all("form") if "deliveries/" in str(form.get("action"))]


def test_retrying_delivery_says_when_the_next_attempt_starts(site: Site, browser: httpx.Client) -> None:
    delivery_id = failed_delivery(site, TransientError("502 Bad Gateway"))
    page = get_page(browser, f"/deliveries/{delivery_id}")
    assert re.search(
        r"The last attempt failed\. 502 Bad Gateway\. Next: The next attempt starts in \d+ s \(", page.text
    )


def test_erased_content_is_not_shown_as_json(site: Site, browser: httpx.Client) -> None:
    delivery_id = site.engine.deliver("post")
    set_columns(site, delivery_id, params='{"erased":true}', state="succeeded")
    assert "What it says is no longer kept" in get_page(browser, f"/deliveries/{delivery_id}").text


# ------------------------------------------------------------ review


def test_review_shows_person_text_and_where_to_look_and_is_decided(site: Site, browser: httpx.Client) -> None:
    (review,) = reviews(site)
    page = get_page(browser, "/review")
    assert page.text.startswith("1 needs review")
    for text in (
        "Did this text message reach Kari 0 Nord?", "Can we help?", "+13105550110", "Where to look",
        "goes to +13105550110 at once. If the first one did arrive, Kari 0 Nord gets it twice.",
        "Resend to Kari 0 Nord",
    ):  # fmt: skip
        assert text in page.text
    page = post(browser, f"/deliveries/{review}/resolve", form_of(page, review) | {"resolution": "delivered"})
    assert "The delivery was marked as delivered." in page.text
    assert "Nothing needs review" in page.text


def test_expired_review_cannot_be_resent(site: Site, browser: httpx.Client) -> None:
    (review,) = reviews(site)
    set_columns(site, review, expires_at=site.database.clock.now())
    page = get_page(browser, "/review")
    assert "It has expired, so it can no longer be sent." in page.text
    assert [button["value"] for button in page.all("button") if button.get("name") == "resolution"] == [
        "delivered",
        "discard",
    ]


@pytest.mark.parametrize(("number", "resent"), [("", 0), ("2", 0), ("3", 3)])
def test_group_is_resent_only_if_its_number_is_typed(
    site: Site, browser: httpx.Client, number: str, resent: int
) -> None:
    ids = reviews(site, 3)
    page = get_page(browser, "/review")
    assert "3 with the same cause" in page.text
    seen = [f"{one} {site.engine.show(one)['state']}.{site.engine.show(one)['fencing_token']}" for one in ids]
    page = post(browser, "/review/resolve", {"seen": seen, "resolution": "retry", "number": number})
    assert ("3 deliveries will be sent again." in page.text) == bool(resent)
    assert [site.engine.show(one)["state"] for one in ids].count("pending") == resent


def test_reviews_are_in_the_order_in_which_they_expire(site: Site, browser: httpx.Client) -> None:
    ids = reviews(site, 3)
    now = site.database.clock.now()
    for hours, delivery_id in zip((3, 1, 2), ids, strict=True):
        set_columns(site, delivery_id, expires_at=now.replace(year=now.year + hours), detail=f"cause {hours}")
    html = browser.get("/review").text
    positions = [html.index(f"review-{ids[index]}") for index in (1, 2, 0)]
    assert positions == sorted(positions)
