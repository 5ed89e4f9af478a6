"""Pages and API of the rules: what runs and what it did, trials of changed files, and versions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from bridge.cli.rules_trial import TrialProcess, run_trial
from bridge.clock import Clock
from bridge.connector.discovery import Registry
from bridge.errors import BridgeError
from bridge.rules.load import load, load_or_raise
from bridge.rules.report import RulesError
from bridge.rules.sources import join_sources
from bridge.store import schema
from bridge.store.newest_events import newest_events
from bridge.store.reconciliation import find_duplicate_calls, stored_calls
from bridge.store.routing import read_events
from bridge.web.rules_trial import TrialFailed
from tests.integration.dashboard_site import READ_TOKEN, RULES, Site, running_site
from tests.integration.query_plans import query_plans

CHANGED = RULES.replace("we tried to reach you.", "we just called you.")
BROKEN = RULES.replace("use: twilio.send_sms", "use: twilio.send_smss")


class TrialHere:
    """Runs trials in this process, so that a test does not wait for another one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return run_trial(request, self.environ)
        except TrialFailed:
            raise
        except BridgeError as error:
            raise TrialFailed(str(error)) from None


def environment(folder: Path) -> dict[str, str]:
    (folder / "rules.yaml").write_text(RULES)
    return {
        "BRIDGE_DATABASE_URL": f"sqlite:///{folder}/bridge.db",
        "BRIDGE_RULES_FILE": f"{folder}/rules.yaml",
    }


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with running_site(tmp_path, clock, trial=TrialHere(environment(tmp_path))) as site:
        yield site


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def api_get(site: Site, path: str) -> Any:
    with site.client() as api:
        return api.get(path).json()


def try_change(site: Site, **fields: str) -> str:
    with site.browser() as browser:
        response = browser.post("/rules/try", data={"text": CHANGED, "action": "plan", **fields})
        assert response.status_code == 200, response.text
        return text_of(response.text)


def test_rules_show_what_each_rule_did(site: Site) -> None:
    site.routed_event(direction="outbound", duration=0)
    site.routed_event("chat.resolved")
    with site.browser() as browser:
        page = browser.get("/rules").text
    text = text_of(page)
    assert "The rules file on disk is active. rules.yaml, version" in text
    assert (
        "quiet hours 20:00-08:00, in the recipient's local time · at most 2 texts or WhatsApp messages "
        "in 24h, 2 emails in 7d, 3 calls in 24h per recipient" in text
    )
    assert re.search(
        r"text-when-not-reached call.busy, call.no-answer Twilio: send SMS 1 0 0 0 (now|\d+ s ago)", text
    )
    assert re.search(r"only-in-german Shadow call.\* Slack: post 0 0 0 0 never", text)


def test_each_error_of_the_file_has_its_line_and_caret(site: Site) -> None:
    loaded = load(BROKEN + "  - nmae: x\n", path="rules.yaml", registry=Registry())
    error = RulesError(loaded)
    site.rules.load_error, site.rules.diagnostics = str(error), error.diagnostics
    site.rules.texts = error.texts
    with site.browser() as browser:
        page = browser.get("/rules").text
        assert "twilio.send_smss" in browser.get("/rules/try?from=disk").text
    assert "errors in the rules file · bridge</title>" in page
    assert page.count('<p class="code-line">') == len(error.diagnostics)
    assert "<code>- use: <mark>twilio.send_smss</mark></code>" in page
    assert "stay active" in page
    [first, *_] = api_get(site, "/api/rules")["diagnostics"]
    assert (first["code"], first["caret"]) == ("      - use: twilio.send_smss", 14)


def test_rule_says_why_it_did_not_fire(site: Site) -> None:
    for direction in ("outbound", "inbound", "inbound"):
        site.routed_event(direction=direction, duration=0)
    site.routed_event("chat.resolved")
    with site.browser() as browser:
        text = text_of(browser.get("/rules/text-when-not-reached").text)
    assert "it fired for 1 event: 0 succeeded, 0 suppressed, 0 cancelled, 0 failed" in text
    assert (
        "Of the newest 1,000 events, 3 are of its types (call.busy, call.no-answer). It fired for 1." in text
    )
    assert "2 event.direction is inbound, expected outbound" in text
    assert "rules.yaml, line 3. Try a change - name: text-when-not-reached when: [call.busy" in text
    assert "All deliveries of text-when-not-reached" in text
    details = api_get(site, "/api/rules/text-when-not-reached")
    assert details["misses"] == {
        "events": 3,
        "fired": 1,
        "misses": [{"text": "event.direction is inbound, expected outbound", "events": 2}],
    }


def test_shadow_rule_shows_what_it_would_have_sent(site: Site) -> None:
    event = site.routed_event(language="de")
    now = site.database.clock.now()
    with site.database.write() as conn:
        is_shadow = (schema.deliveries.c.event_id == event) & (schema.deliveries.c.rule == "only-in-german")
        conn.execute(
            update(schema.deliveries)
            .where(is_shadow)
            .values(state="suppressed", reason="shadow", finished_at=now)
        )
    with site.browser() as browser:
        text = text_of(browser.get("/rules/only-in-german").text)
    assert "In shadow mode, 1 delivery would have been made. What it would have sent Slack: post" in text
    assert "text hallo" in text


def test_rule_that_is_gone_is_not_found(site: Site) -> None:
    with site.browser() as browser:
        assert browser.get("/rules/nothing").status_code == 404
    with site.client() as api:
        assert api.get("/api/rules/nothing").status_code == 404


def test_change_shows_its_plan_with_the_changed_words(site: Site) -> None:
    site.routed_event(direction="outbound", duration=0)
    with site.browser() as browser:
        form = browser.get("/rules/try").text
        assert "we tried to reach you." in form
        page = browser.post("/rules/try", data={"text": CHANGED, "action": "plan", "span": "7d"}).text
    text = text_of(page)
    assert "1 delivery would be different: 1 changed." in text
    assert "Compared with the only event of the last 7 days." in text
    assert '<del><span class="sign">−</span>tried to reach </del>' in page
    assert '<ins><span class="sign">+</span>just called </ins>' in page
    assert "text-when-not-reached 0 0 1" in text
    assert "Texts 1 1" in text
    assert "we just called you." in page.partition("<textarea")[2], "the change is still in the form"
    assert site.rules.current.text == RULES


def test_change_with_errors_shows_them_and_no_plan(site: Site) -> None:
    text = try_change(site, text=BROKEN)
    assert "1 error: the file would not be loaded" in text
    assert "rules.yaml, line 10" in text
    assert "would be different" not in text


def test_check_only_says_that_the_file_has_no_errors(site: Site) -> None:
    text = try_change(site, action="check")
    assert "The file has no errors: 3 rules. No tests" in text
    assert (
        "connection slack : SLACK_WEBHOOK_URL is not set"
        in text.partition("Connections that are not set up")[2]
    )


def test_check_runs_the_tests_of_the_file(site: Site) -> None:
    tested = CHANGED + "tests: [{name: none, event: call.busy, expect: {text-when-not-reached: []}}]\n"
    assert "1 test fails of 1 none line 25" in try_change(site, action="check", text=tested)
    passing = tested.replace("event: call.busy", "event: chat.resolved")
    assert "The test passes" in try_change(site, action="check", text=passing)
    from_file = tested.replace("event: call.busy", "event: ./event.json")
    assert "1 test was not run here" in try_change(site, action="check", text=from_file)


def test_event_is_tried_with_another_phone_number_and_time(site: Site) -> None:
    event = site.routed_event(direction="outbound", duration=0)
    text = try_change(site, action="explain", event=event, phone="+442079460123", at="2026-03-02T23:30")
    assert "for this call.busy" in text
    assert "+442079460123" in text
    assert "we just called you." in text
    sample = try_change(site, action="explain", event="call.busy")
    assert "Would be sent Twilio: send SMS" in sample
    with site.browser() as browser:
        for event in ("", "call.bussy", "evt_unknown"):
            response = browser.post("/rules/try", data={"action": "explain", "event": event, "text": RULES})
            assert response.status_code == 409


def test_several_files_are_tried_one_at_a_time(site: Site) -> None:
    first, _, rest = RULES.partition("  - name: post-every")
    second = "version: 1\nrules:\n  - name: post-every" + rest
    text = join_sources([("rules.yaml", first), ("rules.d/more.yaml", second)])
    site.rules.current = load_or_raise(text, path="rules.yaml", registry=Registry())
    site.routed_event("chat.resolved")
    with site.browser() as browser:
        assert "post-every-resolved-chat" in browser.get("/rules/try?file=rules.d/more.yaml").text
        changed = second.replace("text: resolved", "text: solved")
        fields = {"file": "rules.d/more.yaml", "text": changed, "action": "plan"}
        assert "1 delivery would be different" in browser.post("/rules/try", data=fields).text
        wrong = browser.post("/rules/try", data=fields | {"file": "../etc/passwd"})
        assert (wrong.status_code, "must be one of the rules files" in wrong.text) == (409, True)


def test_changed_file_can_be_downloaded(site: Site) -> None:
    with site.browser() as browser:
        response = browser.post("/rules/try", data={"text": CHANGED, "action": "download"})
    assert response.text == CHANGED
    assert response.headers["content-disposition"] == 'attachment; filename="rules.yaml"'


def test_too_large_file_is_refused_in_words(site: Site) -> None:
    with site.browser() as browser:
        response = browser.post("/rules/try", data={"text": "#" * (256 * 1024 + 1), "action": "check"})
    assert (response.status_code, "more than 256 KiB" in response.text) == (409, True)


def test_token_that_only_reads_can_try_a_change(site: Site) -> None:
    with site.client(READ_TOKEN) as api:
        assert api.post("/api/rules/check", json={"text": CHANGED}).json()["rules"] == 3
        site.routed_event(direction="outbound", duration=0)
        plan = api.post("/api/rules/plan", json={"text": CHANGED, "since": "1d"}).json()["plan"]
        assert (plan["differences"], plan["events_compared"]) == (1, 1)
        forecast = api.post("/api/rules/explain", json={"event": "call.busy"}).json()["forecast"]
        assert [item["rule"] for item in forecast["deliveries"]] == ["text-when-not-reached"]
        assert api.post("/api/rules/x/cancel", json={}).status_code == 403


def test_versions_are_listed_and_compared(site: Site) -> None:
    site.routed_event()
    old = site.rules.current.hash
    site.rules.current = load_or_raise(CHANGED, path="rules.yaml", registry=Registry())
    site.routed_event()
    new = site.rules.current.hash
    with site.browser() as browser:
        listed = text_of(browser.get("/rules/versions").text)
        page = browser.get(f"/rules/versions/{new}").text
        assert browser.get(f"/rules/versions/{old[:12]}").status_code == 200
        assert browser.get("/rules/versions/0000").status_code == 404
        assert "we tried to reach you" in browser.get(f"/rules/try?version={old}").text
    assert listed.index(f"{new[:12]} Active") < listed.index(old[:12])
    assert re.search(r"<del>−[^<]*we tried to reach you", page)
    assert re.search(r"<ins>\+[^<]*we just called you", page)
    items = api_get(site, "/api/rules/versions")["items"]
    assert [item["hash"] for item in items] == [new, old]
    assert api_get(site, f"/api/rules/versions/{old}")["text"] == RULES


def test_waiting_deliveries_are_cancelled_after_a_confirmation(site: Site) -> None:
    site.routed_event(direction="outbound", duration=0)
    with site.browser() as browser:
        assert "1 delivery waits" in browser.get("/rules/text-when-not-reached").text
        confirmation = browser.get("/rules/text-when-not-reached/cancel").text
        assert "A cancelled delivery is not sent, and cannot be started again." in text_of(confirmation)
        rendered = browser.post(
            "/rules/text-when-not-reached/cancel", data={"rerender": "yes"}, follow_redirects=True
        )
        assert "1 delivery was rendered again with the active version of the rule." in rendered.text
        done = browser.post("/rules/text-when-not-reached/cancel", follow_redirects=True)
        assert "1 waiting delivery was cancelled." in done.text
    with site.browser(token=READ_TOKEN) as reader:
        assert (
            '<form method="post" class="actions">'
            not in reader.get("/rules/text-when-not-reached/cancel").text
        )


def test_trial_in_a_process_of_its_own(site: Site, tmp_path: Path) -> None:
    site.routed_event(direction="outbound", duration=0)
    trial = TrialProcess(environment(tmp_path) | {"PATH": "/usr/bin"}, timeout=200)  # on a busy machine
    files = [{"name": "rules.yaml", "text": CHANGED}]
    since = "2020-01-01T00:00:00+00:00"
    request = {"mode": "plan", "files": files, "baseline": RULES, "since": since}
    assert trial.run(request)["plan"]["differences"] == 1
    slow = TrialProcess(environment(tmp_path), timeout=0.05)
    with pytest.raises(TrialFailed, match="use `bridge plan`"):
        slow.run(request)
    slow._lock.acquire()
    with pytest.raises(TrialFailed, match="another trial is running"):
        slow.run(request)


def test_no_page_reads_a_whole_table(site: Site) -> None:
    event = site.routed_event(direction="outbound", duration=0)
    version = site.rules.current.hash
    with site.browser() as browser:
        steps = query_plans(site.database)
        for path in (
            "/rules", "/rules/text-when-not-reached", "/rules/versions", f"/rules/versions/{version}", "/rules/try",
        ):  # fmt: skip
            assert browser.get(path).status_code == 200
    newest_events(site.database, site.database.clock.now() - timedelta(days=7), limit=10, max_bytes=1000)
    stored_calls(site.database, site.database.clock.now() - timedelta(hours=3))
    with site.database.read() as conn:
        events = read_events(site.database, conn, [event])
        find_duplicate_calls(site.database, conn, events, site.database.clock.now())
    scans = {step for step in steps if re.match(r"SCAN (events|deliveries|attempts)\b", step)}
    # By the time at which events were received, and ended by a LIMIT.
    assert {step for step in scans if "INDEX events_received" not in step} == set()
    assert any("events_reconciled" in step for step in steps)
