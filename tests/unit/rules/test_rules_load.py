"""Loading: what a file means. What is wrong with files is in test_rules_bad_files.py."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, time, timedelta
from time import process_time

import pytest

from bridge.errors import ConfigError
from bridge.events import CALL_EVENTS, CHAT_EVENTS
from bridge.rules.load import load, load_or_raise
from bridge.rules.model import Cap, Once, QuietHours, Retry
from bridge.rules.report import RulesError, report
from bridge.rules.yaml import Problems, parse
from tests.unit.rules.helpers import REGISTRY, loaded, problems_of, rules_of


def data(text: str) -> object:
    node = parse(text, Problems())
    return node.data() if node else None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("1.50", 1.5),
        ("NO", "NO"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("True", "True"),
        ("NULL", "NULL"),
        ("+4712345678", "+4712345678"),
        ("01234", "01234"),
        ("22:22", "22:22"),
        ("2026-03-02", "2026-03-02"),
        ("2026-03-02 10:00:00", "2026-03-02 10:00:00"),
        ("1e3", "1e3"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        (".5", ".5"),
        ("'true'", "true"),
        ('"5"', "5"),
    ],
)
def test_a_value_means_what_it_looks_like(written: str, meant: object) -> None:
    found = data(f"value: {written}\n")
    assert found == {"value": meant}
    assert type(found["value"]) is type(meant)  # type: ignore[index]


def test_keys_are_texts_whatever_they_look_like() -> None:
    assert data("true: 1\nnull: 2\n5: 3\n") == {"true": 1, "null": 2, "5": 3}


def test_every_key_and_value_knows_its_line_and_column() -> None:
    node = parse("a:\n  - b: ü\n    c: [x, y]\n", Problems())
    assert node is not None
    assert node.entries is not None
    (item,) = node.entries["a"][1].items or []
    assert item.entries is not None
    key, value = item.entries["c"]
    assert (key.line, key.column) == (3, 5)
    assert [(x.line, x.column) for x in value.items or []] == [(3, 9), (3, 12)]


def test_a_mark_at_the_beginning_of_the_file_and_windows_line_ends_are_fine() -> None:
    raw = b"\xef\xbb\xbfversion: 1\r\nrules:\r\n  - name: a\r\n    when: call.busy\r\n    do: [{use: crm.log_call}]\r\n"
    assert load(raw, path="rules.yaml", registry=REGISTRY).problems == ()
    assert load(raw.decode(), path="rules.yaml", registry=REGISTRY).problems == ()


def test_a_rule_has_everything_that_the_file_says() -> None:
    text = """
        version: 1
        rules:
          - name: text-when-not-reached
            description: One text.
            when: [call.busy, chat.*]
            where: {event.direction: outbound}
            if: event.duration < 60
            shadow: true
            do:
              - use: phone.send
                connection: phone_eu
                delay: 5m
                expires: 1h30m
                cancel_on: [call.completed, chat.resolved]
                once: {per: conversation, within: 2d}
                retry: {for: 6h, attempts: 4}
                idempotency_key: "{{ event.agentId }}"
                with: {body: Hi}
            on_failure:
              - use: team.post
    """
    result = loaded(text)
    assert result.problems == ()
    assert result.rules is not None
    (rule,) = result.rules.rules
    assert rule.when == {"call.busy", *CHAT_EVENTS}
    assert (rule.when_text, rule.line, rule.shadow, rule.enabled) == ("call.busy, chat.*", 4, True, True)
    assert rule.description == "One text."
    step = rule.do[0]
    assert (step.use, step.connection, step.line) == ("phone.send", "phone_eu", 11)
    assert (step.delay, step.expires) == (timedelta(minutes=5), timedelta(hours=1, minutes=30))
    assert step.cancel_on == ("call.completed", "chat.resolved")
    assert step.once == Once("conversation", timedelta(days=2))
    assert step.retry == Retry(timedelta(hours=6), 4)
    assert step.values["body"] == "Hi"
    assert result.rules.hash == hashlib.sha256(result.rules.text.encode()).hexdigest()
    assert result.rules.named("text-when-not-reached") is rule
    assert result.rules.named("gone") is None


def test_a_pattern_stands_for_every_event_of_its_kind() -> None:
    (rule,) = rules_of("- {name: a, when: call.*, do: [{use: crm.log_call}]}").rules
    assert rule.when == set(CALL_EVENTS)


def test_the_policy_holds_without_a_word_about_it() -> None:
    messaging = rules_of("- {name: a, when: call.busy, do: [{use: crm.log_call}]}").messaging
    assert messaging.quiet_hours == QuietHours(time(20), time(8))
    assert messaging.caps["sms"] == Cap(2, timedelta(hours=24))
    assert messaging.consent is None


def test_the_policy_keeps_the_defaults_of_what_it_does_not_name() -> None:
    messaging = rules_of(
        """
        version: 1
        messaging:
          quiet_hours: "21:00-07:30"
          caps: {sms: 1 per 12h}
          time_zone: Europe/Berlin
          regions: {US-FL: "20:00-08:00"}
          consent: event.callMetadata.custom.smsConsent == true
        rules:
          - {name: a, when: call.busy, do: [{use: crm.log_call}]}
        """
    ).messaging
    assert messaging.quiet_hours == QuietHours(time(21), time(7, 30))
    assert messaging.caps["sms"] == Cap(1, timedelta(hours=12))
    assert messaging.caps["email"] == Cap(2, timedelta(days=7))
    assert messaging.time_zone == "Europe/Berlin"
    assert messaging.regions == {"US-FL": QuietHours(time(20), time(8))}
    assert messaging.consent == "event.callMetadata.custom.smsConsent == true"


def test_quiet_hours_can_be_given_up_only_by_saying_so() -> None:
    text = """
        version: 1
        messaging: {quiet_hours: none}
        rules: [{name: a, when: call.busy, do: [{use: crm.log_call}]}]
    """
    result = loaded(text)
    assert result.rules is not None
    assert result.rules.messaging.quiet_hours.start == result.rules.messaging.quiet_hours.end
    assert [problem.level for problem in result.problems] == ["warning"]


def test_tests_become_data() -> None:
    rules = rules_of(
        """
        version: 1
        rules:
          - {name: a, when: call.busy, do: [{use: phone.send, with: {body: Hi}}]}
        tests:
          - name: one
            event: call.busy
            set: {event.metadata.contactPhone: "+12125550123", event.duration: 3}
            at: "2026-03-02T21:30:00-05:00"
            fail: {phone.send: undelivered}
            expect:
              a: [{use: phone.send, at: "2026-03-03T08:00:00-05:00", state: succeeded, with: {body: Hi}}]
              alerts: []
          - name: two
            events: [{event: call.busy, at: "2026-03-02T10:00:00Z"}, {event: folder/mine.json}]
            expect: {}
        """
    )
    one, two = rules.tests
    assert (one.name, one.fail) == ("one", {"phone.send": "undelivered"})
    (event,) = one.events
    assert event.source == "call.busy"
    assert event.set == {"metadata.contactPhone": "+12125550123", "duration": 3}
    assert event.at == datetime(2026, 3, 3, 2, 30, tzinfo=UTC)
    (expected,) = one.expect["a"]
    assert (expected.use, expected.state, expected.params) == ("phone.send", "succeeded", {"body": "Hi"})
    assert expected.at == datetime(2026, 3, 3, 13, tzinfo=UTC)
    assert one.expect["alerts"] == ()
    assert [event.source for event in two.events] == ["call.busy", "folder/mine.json"]
    assert two.expect == {}


def test_a_connection_in_use_needs_its_settings_once() -> None:
    text = """
        version: 1
        rules:
          - {name: a, when: call.busy, do: [{use: phone.send, with: {body: Hi}}]}
          - {name: b, when: call.failed, do: [{use: phone.send, with: {body: Hi}}]}
    """
    (problem,) = loaded(text, environ={}).problems
    assert problem.text == "connection `phone`: PHONE_TOKEN is not set"
    assert (problem.line, problem.rule) == (4, "a")
    assert loaded(text, environ={"PHONE_TOKEN": "x"}).problems == ()
    assert loaded(text).problems == ()


def test_a_rule_that_is_switched_off_needs_no_settings() -> None:
    text = """
        version: 1
        rules:
          - {name: a, when: call.busy, enabled: false, do: [{use: phone.send, with: {body: Hi}}]}
    """
    assert loaded(text, environ={}).problems == ()


def test_a_report_never_shows_what_is_in_the_environment() -> None:
    text = "version: 1\nrules: [{name: a, when: call.busy, do: [{use: phone.send}]}]"
    result = loaded(text, environ={"PHONE_TOKEN": "hunter2", "PHONE_FROM": "12"})
    assert "hunter2" not in report(result.problems, text, "rules.yaml")


def test_rules_with_only_warnings_can_be_used() -> None:
    result = loaded(
        """
        version: 1
        rules:
          - name: a
            when: call.busy
            where: {event.metadata.contactFone: "1"}
            do: [{use: crm.log_call}]
        """
    )
    assert result.rules is not None
    assert [problem.level for problem in result.problems] == ["warning"]


def test_two_rules_that_surely_bring_about_one_effect_are_warned_of() -> None:
    text = """
        version: 1
        rules:
          - {name: a, when: call.busy, do: [{use: crm.create_task, with: {subject: Call}}]}
          - {name: b, when: call.*, do: [{use: crm.create_task, with: {subject: Call back}}]}
          - {name: c, when: call.*, do: [{use: crm.log_call}]}
          - {name: d, when: call.*, do: [{use: crm.log_call}]}
          - {name: e, when: call.busy, if: event.duration > 5, do: [{use: crm.create_task, with: {subject: x}}]}
          - {name: f, when: call.busy, do: [{use: crm.create_task, idempotency_key: f, with: {subject: x}}]}
    """
    (problem,) = problems_of(text)
    assert (problem.level, problem.rule, problem.line) == ("warning", "b", 5)
    assert "rule `a`" in problem.text


def test_what_cannot_be_loaded_is_an_error_with_the_whole_report() -> None:
    with pytest.raises(RulesError) as caught:
        load_or_raise("version: 1\nrules: [{name: a}]\nextra: 1\n", path="my.yaml", registry=REGISTRY)
    assert isinstance(caught.value, ConfigError)
    assert len(caught.value.problems) == 2
    assert "my.yaml:3:1: unknown key `extra`" in str(caught.value)
    assert str(caught.value).endswith("\n\n2 problems in my.yaml")


def test_no_problem_is_no_report() -> None:
    assert report((), "", "rules.yaml") == ""


def test_a_report_shows_the_right_part_of_a_long_line() -> None:
    line = "  - {name: a, when: call.busy, do: [{use: team.post, with: {text: " + "x" * 300 + ", txt: y}}]}"
    text = f"version: 1\nrules:\n{line}\n"
    (problem,) = loaded(text).problems
    shown = report([problem], text, "rules.yaml").splitlines()
    assert all(len(row) < 130 for row in shown)
    caret = shown[2].index("^")
    assert shown[1][caret:].startswith("txt")


def test_reading_stops_where_more_problems_would_help_nobody() -> None:
    text = "version: 1\nrules:\n" + "  - {nam: x}\n" * 50_000
    result = loaded(text)
    assert result.rules is None
    assert len(result.problems) == 101


def mebibyte(head: str, line: str) -> str:
    """A file of nearly 1 MiB: the line again and again, `%d` counting."""
    lines = [line.replace("%d", str(number)) for number in range((1 << 20) // (len(line) + 6))]
    return head + "".join(lines)


RULE = "  - name: a\n    when: call.busy\n    do: [{use: crm.log_call}]\n"
FULL = {
    "rules": mebibyte("version: 1\nrules:\n", "  - {name: a%d, when: call.*, do: [{use: crm.log_call}]}\n"),
    "fields": mebibyte(f"version: 1\nrules:\n{RULE}    where:\n", "      event.abcdefgh%d: 1\n"),
    "keys": mebibyte("version: 1\n", "key%d: 1\n"),
    "values": mebibyte(f"version: 1\nrules:\n{RULE}    where: {{event.status: {{in: [", "x%d, ") + "]}}",
    "one line": "version: 1\nrules: " + "[{name: " + "x" * 1_000_000,
    "templates": mebibyte(
        "version: 1\nrules:\n  - name: a\n    when: call.busy\n    do:\n",
        "      - {use: team.post, with: {text: '{{ 1" + " + 1" * 12_000 + " }}'}}\n",
    ),
}


@pytest.mark.parametrize("kind", sorted(FULL))
def test_a_full_file_of_anything_is_read_in_time(kind: str) -> None:
    assert 700_000 < len(FULL[kind]) <= 1 << 20
    began = process_time()
    result = loaded(FULL[kind])
    assert len(result.problems) <= 101
    assert process_time() - began < 30


def test_a_larger_file_is_not_read_at_all() -> None:
    (problem,) = loaded("#" + "x" * (1 << 20)).problems
    assert problem.text == "the file is larger than 1 MiB"
