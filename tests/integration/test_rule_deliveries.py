"""Waiting deliveries of a rule that changed: counted, cancelled and rendered again, on both databases."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bridge.connector.discovery import Registry
from bridge.errors import OutcomeUnknown
from bridge.rules.changes import rule_definitions
from bridge.rules.load import load_or_raise
from bridge.rules.model import Rules
from bridge.rules.route import route
from bridge.store import schema
from bridge.store.audit_log import list_audit_entries
from bridge.store.database import Database
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.rerender import RerenderReport, rerender_rule
from bridge.store.routing import route_unrouted
from bridge.store.rule_deliveries import (
    CancelledDeliveries,
    cancel_rule,
    earlier_deliveries,
    waiting_deliveries,
    waiting_groups,
)
from tests.integration.engine import Engine, raising

STEP = "{use: twilio.send_sms, delay: 1h, with: {body: 'Hi {{ contact.first_name }}'}}"
LOG = "{use: slack.post, delay: 2h, with: {text: 'call {{ event.duration }}'}}"
RULE = f"  - {{name: text, when: call.busy, do: [{STEP}, {LOG}]}}\n"
OTHER = "  - {name: other, when: call.busy, do: [{use: slack.post, delay: 3h, with: {text: hi}}]}\n"


def rules_file(*rules: str, more: str = "") -> Rules:
    return load_or_raise(
        f"version: 1\n{more}rules:\n{''.join(rules)}", path="rules.yaml", registry=Registry()
    )


RULES = rules_file(RULE, OTHER)


def routed(engine: Engine, rules: Rules = RULES, **event: Any) -> dict[str, dict[str, Any]]:
    """Route a new event, and return its deliveries by action, of the rule `text`."""
    stored = engine.event("call.busy", **event)
    route_unrouted(engine.database, rules, lambda event, now, history: route(event, rules, now, history))
    items = list_deliveries(engine.database, DeliveryFilter(event=stored.id, rule="text")).items
    return {item["action"]: item for item in items}


def rerender(engine: Engine, rules: Rules) -> RerenderReport:
    return rerender_rule(
        engine.database, "ada", "text", rules, lambda event, now, history: route(event, rules, now, history)
    )


def messages(database: Database, rules: Rules) -> list[str]:
    return [f"{item.message}: {item.advice}" for item in earlier_deliveries(database, rules)]


# ---------------------------------------------------------------- what a changed file leaves behind


def test_unchanged_rules_leave_nothing_behind(engine: Engine) -> None:
    routed(engine)
    assert earlier_deliveries(engine.database, RULES) == []
    assert earlier_deliveries(engine.database, rules_file(OTHER, "\n  # moved\n", RULE)) == []
    described = RULE.replace("when:", "description: what it is for, when:")
    assert earlier_deliveries(engine.database, rules_file(described, OTHER)) == []


@pytest.mark.parametrize(
    ("rule", "change", "advice"),
    [
        (RULE.replace("when:", "enabled: false, when:"), "is disabled", ""),
        (RULE.replace("when:", "shadow: true, when:"), "is in shadow mode", ""),
        (RULE.replace("text,", "renamed,"), "was removed or renamed", ""),
        (
            RULE.replace("Hi ", "Hello "),
            "was changed",
            "; `bridge cancel --rule text --rerender` applies the new version",
        ),
    ],
)
def test_changed_rule_leaves_its_waiting_deliveries_behind(
    engine: Engine, rule: str, change: str, advice: str
) -> None:
    texts = routed(engine)
    rules = rules_file(rule, OTHER)
    waiting = f"text {change}, but 2 of its deliveries wait and will be sent as before"
    assert messages(engine.database, rules) == [f"{waiting}: `bridge cancel --rule text` stops them{advice}"]
    [found] = earlier_deliveries(engine.database, rules)
    assert found.next_at == texts["twilio.send_sms"]["run_at"]
    cancel_rule(engine.database, "ada", "text")
    assert earlier_deliveries(engine.database, rules) == []


def test_shadow_deliveries_and_alerts_are_not_left_behind(engine: Engine) -> None:
    routed(engine, rules_file(RULE.replace("when:", "shadow: true, when:"), OTHER))
    engine.deliver("post", trigger="alert", rule="alerts")
    assert earlier_deliveries(engine.database, rules_file(OTHER)) == []


def test_versions_before_the_last_one_count(engine: Engine) -> None:
    routed(engine)
    changed = rules_file(RULE.replace("Hi ", "Hello "), OTHER)
    routed(engine, changed)
    assert [item.waiting for item in earlier_deliveries(engine.database, changed)] == [2]
    assert [item.waiting for item in earlier_deliveries(engine.database, rules_file(OTHER))] == [4]


@pytest.mark.parametrize(
    ("more", "differs"),
    [
        ("defaults: {twilio.send_sms: {delay: 5m}}\n", True),
        ("defaults: {slack.post: {delay: 5m}}\n", False),
        ("tables: {greeting: {Nora: Hello}}\n", True),
        ("messaging: {time_zone: Europe/Berlin}\n", False),
    ],
)
def test_definition_of_a_rule_includes_its_defaults_and_tables(more: str, differs: bool) -> None:
    text = (
        "version: 1\n{}rules:\n  - {{name: a, when: call.busy, do: [{{use: twilio.send_sms, with: {{body: "
        "\"{{{{ event.agentName | table('greeting', default='Hi') }}}}\"}}}}]}}\n"
    )
    definitions = [rule_definitions(text.format(part)) for part in ("", more)]
    assert [list(each) for each in definitions] == [["a"], ["a"]]
    assert (definitions[0] != definitions[1]) is differs


# ---------------------------------------------------------------- cancel


def test_cancel_rule_cancels_what_waits_and_nothing_else(engine: Engine) -> None:
    for _ in range(3):
        routed(engine)
    engine.deliver("post", rule="text", trigger="alert")
    waiting = waiting_deliveries(engine.database, "text")
    assert (waiting.total, waiting.description) == (6, "3 slack.post, 3 twilio.send_sms")
    assert [(group.rule, group.total) for group in waiting_groups(engine.database)] == [
        ("other", 3),
        ("text", 6),
    ]
    progress: list[int] = []
    result = cancel_rule(engine.database, "ada", "text", progress.append)
    assert result == CancelledDeliveries("text", 6, 0, 0)
    assert result.text == "text: 6 cancelled"
    assert engine.states() == {"cancelled": 6, "pending": 4}
    assert sum(progress) == 6
    entries = list_audit_entries(engine.database)
    assert {(item["actor"], item["action"], item["detail"]["rule"]) for item in entries} == {
        ("ada", "cancel", "text")
    }
    assert len(entries) == 6
    assert cancel_rule(engine.database, "ada", "text").text == "no delivery of text waits"


def test_cancel_rule_works_in_bounded_transactions(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.store.rule_deliveries.CANCEL_BATCH", 2)
    for _ in range(3):
        routed(engine)
    progress: list[int] = []
    assert cancel_rule(engine.database, "ada", "text", progress.append).cancelled == 6
    assert progress == [2, 2, 2]


def test_cancelled_delivery_that_may_have_been_sent_is_not_sent_again(engine: Engine) -> None:
    engine.provider.after = raising(OutcomeUnknown("no answer"))
    event = engine.event()
    engine.deliver("send", event, rule="text")
    engine.run_due()
    engine.provider.after = None
    waiting = waiting_deliveries(engine.database, "text")
    assert waiting.description == "1 desk.send; 1 of them may have been sent before"
    assert cancel_rule(engine.database, "ada", "text") == CancelledDeliveries("text", 1, 1, 0)
    again = engine.deliver("send", event, rule="text")
    engine.run_due()
    assert engine.show(again)["reason"] == "duplicate"
    assert len(engine.provider.messages) == 1


# ---------------------------------------------------------------- rerender


def test_rerendered_delivery_keeps_its_identity_and_takes_the_new_text(engine: Engine) -> None:
    before = routed(engine)
    changed = rules_file(RULE.replace("Hi ", "Hello ").replace("delay: 1h", "delay: 5m"), OTHER)
    report = rerender(engine, changed)
    assert (report.lines, report.rendered) == (["text: 2 rendered again"], 2)
    old = before["twilio.send_sms"]
    new = engine.show(old["id"])
    assert new["params"]["body"] == "Hello Ines"
    kept = ("id", "state", "recipient", "run_at", "expires_at", "attempts")
    assert {name: new[name] for name in kept} == {name: old[name] for name in kept}
    assert new["rules_hash"] == changed.hash
    assert earlier_deliveries(engine.database, changed) == []
    entries = list_audit_entries(engine.database, target=old["id"])
    assert [(item["action"], item["detail"]) for item in entries] == [
        ("rerender", {"rules": changed.hash[:12]})
    ]


def test_rerender_finds_a_step_that_moved(engine: Engine) -> None:
    before = routed(engine)
    rule = f"  - {{name: text, when: call.busy, do: [{LOG.replace('call ', 'duration ')}, {STEP}]}}\n"
    assert rerender(engine, rules_file(rule)).rendered == 2
    assert engine.show(before["slack.post"]["id"])["params"]["text"].startswith("duration ")
    assert engine.show(before["twilio.send_sms"]["id"])["step_index"] == 1


def test_rerender_gives_no_delivery_the_text_of_another_step(engine: Engine) -> None:
    reminder = "{use: twilio.send_sms, idempotency_key: reminder, delay: 3h, with: {body: Reminder}}"
    both = rules_file(f"  - {{name: text, when: call.busy, do: [{STEP}, {reminder}]}}\n")
    stored = engine.event("call.busy")
    route_unrouted(engine.database, both, lambda event, now, history: route(event, both, now, history))
    second, first = list_deliveries(engine.database, DeliveryFilter(event=stored.id)).items
    report = rerender(engine, rules_file(f"  - {{name: text, when: call.busy, do: [{reminder}]}}\n"))
    assert (report.rendered, [item.ids for item in report.cancelled]) == (1, [[first["id"]]])
    assert engine.show(second["id"])["params"]["body"] == "Reminder"


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (RULE.replace("call.busy", "call.failed"), "the rule no longer fires for its event"),
        (RULE.replace("when:", "enabled: false, when:"), "the rule no longer fires for its event"),
        (RULE.replace(f"{STEP}, ", ""), "the rule no longer has this step"),
        (
            RULE.replace("with: {body", "with: {to: '+14155550199', body"),
            "the rule now sends it to another recipient",
        ),
        (
            RULE.replace("use: twilio.send_sms", "use: twilio.send_sms, connection: twilio_eu"),
            "the rule now uses the connection twilio_eu",
        ),
    ],
)
def test_rerender_cancels_what_the_rule_would_not_create(engine: Engine, rule: str, reason: str) -> None:
    text = routed(engine)["twilio.send_sms"]["id"]
    report = rerender(engine, rules_file(rule))
    group = next(item for item in report.cancelled if text in item.ids)
    assert group.reason == reason
    shown = engine.show(text)
    assert (shown["state"], shown["detail"]) == ("cancelled", f"cancelled by ada: {reason}")
    assert f"{group.total} cancelled: {reason} (" in "\n".join(report.lines)


def test_rerender_keeps_what_cannot_be_rendered(engine: Engine) -> None:
    before = routed(engine)["twilio.send_sms"]["id"]
    params = engine.show(before)["params"]
    report = rerender(engine, rules_file(RULE.replace("contact.first_name", "event.metadata.nickname")))
    [group] = report.kept
    assert group.ids == [before]
    assert group.reason.startswith("render error: `body`: ")
    assert report.lines[1] == f"1 not changed: {group.reason} ({before})"
    assert engine.show(before)["params"] == params
    assert engine.show(before)["state"] == "pending"


def test_rerender_leaves_attempted_deliveries_and_follow_ups(engine: Engine) -> None:
    before = routed(engine)["twilio.send_sms"]["id"]
    follow_up = engine.deliver("post", rule="text", trigger="on_failure")
    with engine.database.write() as conn:
        attempted = schema.deliveries.update().where(schema.deliveries.c.id == before)
        conn.execute(attempted.values(fencing_token=1))
    report = rerender(engine, rules_file(RULE.replace("Hi ", "Hello ")))
    assert {item.reason: item.ids for item in report.kept} == {
        "it was attempted before": [before],
        "it follows up on another delivery": [follow_up],
    }
    assert engine.show(before)["params"]["body"] == "Hi Ines"


def test_rerender_applies_shadow_mode(engine: Engine) -> None:
    before = routed(engine)["twilio.send_sms"]["id"]
    rerender(engine, rules_file(RULE.replace("when:", "shadow: true, when:")))
    assert engine.show(before)["options"]["shadow"] is True


def test_claim_in_the_meantime_wins(engine: Engine) -> None:
    """A delivery that starts while its new text is rendered keeps the text that was sent."""
    before = routed(engine)["twilio.send_sms"]["id"]
    changed = rules_file(RULE.replace("Hi ", "Hello "))

    def route_slowly(event: Any, now: Any, history: Any) -> Any:
        with engine.database.write() as conn:
            claimed = schema.deliveries.update().where(schema.deliveries.c.id == before)
            conn.execute(claimed.values(fencing_token=1))
        return route(event, changed, now, history)

    report = rerender_rule(engine.database, "ada", "text", changed, route_slowly)
    assert {item.reason: item.ids for item in report.kept} == {
        "it was attempted or changed in the meantime": [before]
    }
    assert engine.show(before)["params"]["body"] == "Hi Ines"


def test_report_is_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.store.rerender.MAX_IDS", 1)
    for _ in range(3):
        routed(engine)
    report = rerender(engine, rules_file(RULE.replace("call.busy", "call.failed")))
    [group] = report.cancelled
    assert (group.total, len(group.ids)) == (6, 1)
    assert report.lines[1].endswith(f"({group.ids[0]}, ...)")
    assert json.dumps(report.to_json())


def test_advice_quotes_the_name_of_a_rule(engine: Engine) -> None:
    routed(engine)
    item = earlier_deliveries(engine.database, rules_file(OTHER))[0]
    assert replace(item, rule="it's off").advice == "`bridge cancel --rule 'it'\"'\"'s off'` stops them"
