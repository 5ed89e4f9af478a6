"""Loading of valid rules files. Reports of invalid files are tested in test_rules_diagnostics.py."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, time, timedelta
from time import process_time

import pytest

from bridge.connector.discovery import Registry
from bridge.errors import ConfigError
from bridge.events import CALL_EVENTS, CHAT_EVENTS
from bridge.rules.load import load, load_or_raise
from bridge.rules.model import Cap, OncePer, Retry
from bridge.rules.quiet_hours import ALL_DAY, NIGHT, NO_WINDOW, QuietHours, QuietWindow, every_day
from bridge.rules.report import RulesError, report
from bridge.rules.yaml import Diagnostics, parse
from tests.unit.rules.helpers import REGISTRY, diagnostics_of, load_text, rules_of


def data(text: str) -> object:
    node = parse(text, Diagnostics())
    return node.data() if node else None


@pytest.mark.parametrize(
    ("source", "expected"),
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
def test_parse_scalar_has_expected_type(source: str, expected: object) -> None:
    value = data(f"value: {source}\n")
    assert value == {"value": expected}
    assert type(value["value"]) is type(expected)  # type: ignore[index]


def test_parse_keys_are_always_strings() -> None:
    assert data("true: 1\nnull: 2\n5: 3\n") == {"true": 1, "null": 2, "5": 3}


def test_node_has_line_and_column() -> None:
    node = parse("a:\n  - b: ü\n    c: [x, y]\n", Diagnostics())
    assert node is not None
    assert node.entries is not None
    (item,) = node.entries["a"][1].items or []
    assert item.entries is not None
    key, value = item.entries["c"]
    assert (key.line, key.column) == (3, 5)
    assert [(x.line, x.column) for x in value.items or []] == [(3, 9), (3, 12)]


def test_load_accepts_byte_order_mark_and_windows_line_endings() -> None:
    raw = b"\xef\xbb\xbfversion: 1\r\nrules:\r\n  - name: a\r\n    when: call.busy\r\n    do: [{use: crm.log_call}]\r\n"
    assert load(raw, path="rules.yaml", registry=REGISTRY).diagnostics == ()
    assert load(raw.decode(), path="rules.yaml", registry=REGISTRY).diagnostics == ()


def test_load_reads_every_key_of_a_rule() -> None:
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
    result = load_text(text)
    assert result.diagnostics == ()
    assert result.rules is not None
    (rule,) = result.rules.rules
    assert rule.when == {"call.busy", *CHAT_EVENTS}
    assert (rule.when_text, rule.line, rule.shadow, rule.enabled) == ("call.busy, chat.*", 4, True, True)
    assert rule.description == "One text."
    step = rule.do[0]
    assert (step.use, step.connection, step.line) == ("phone.send", "phone_eu", 11)
    assert (step.delay, step.expires) == (timedelta(minutes=5), timedelta(hours=1, minutes=30))
    assert step.cancel_on == ("call.completed", "chat.resolved")
    assert step.once == OncePer("conversation", timedelta(days=2))
    assert step.retry == Retry(timedelta(hours=6), 4)
    assert step.values["body"] == "Hi"
    assert result.rules.hash == hashlib.sha256(result.rules.text.encode()).hexdigest()
    assert result.rules.named("text-when-not-reached") is rule
    assert result.rules.named("gone") is None


def test_when_pattern_is_expanded_to_event_types() -> None:
    (rule,) = rules_of("- {name: a, when: call.*, do: [{use: crm.log_call}]}").rules
    assert rule.when == set(CALL_EVENTS)


def test_messaging_has_defaults_when_not_in_file() -> None:
    messaging = rules_of("- {name: a, when: call.busy, do: [{use: crm.log_call}]}").messaging
    assert messaging.quiet_hours == every_day(NIGHT)
    assert messaging.caps["sms"] == Cap(2, timedelta(hours=24))
    assert messaging.consent is None


def test_messaging_keeps_defaults_of_missing_keys() -> None:
    messaging = rules_of(
        """
        version: 1
        messaging:
          quiet_hours: "21:00-07:30"
          caps: {sms: 1 per 12h, total: {sms: 100 per 10m}}
          countries: [US, "NO", CA]
          opt_out_scope: all
          time_zone: europe/berlin
          regions: {US-FL: "20:00-08:00"}
          consent: event.callMetadata.custom.smsConsent == true
        rules:
          - {name: a, when: call.busy, do: [{use: crm.log_call}]}
        """
    ).messaging
    assert messaging.quiet_hours == every_day(QuietWindow.between(time(21), time(7, 30)))
    assert messaging.caps["sms"] == Cap(1, timedelta(hours=12))
    assert messaging.caps["email"] == Cap(2, timedelta(days=7))
    assert messaging.total_caps["sms"] == Cap(100, timedelta(minutes=10))
    assert messaging.total_caps["call"] == Cap(200, timedelta(hours=1))
    assert messaging.countries == {"US", "NO", "CA"}
    assert messaging.opt_out_scope == "all"
    assert messaging.time_zone == "Europe/Berlin"
    assert messaging.regions == {"US-FL": every_day(NIGHT, "messaging.regions.US-FL")}
    assert messaging.consent == "event.callMetadata.custom.smsConsent == true"


@pytest.mark.parametrize(
    ("messaging", "error"),
    [
        (
            "{time_zone: Etc/UTC}",
            "`Etc/UTC` is not the time zone of a place, so messages would be sent at night",
        ),
        ("{time_zone: EST}", "`EST` is not the time zone of a place, so messages would be sent at night"),
        ("{time_zone: Mars/Olympus}", "no time zone `Mars/Olympus`"),
        ("{opt_out_scope: sms}", "`opt_out_scope` must be `phone`, `channel` or `all`, not `sms`"),
        ("{opt_out_scope: [sms]}", "`opt_out_scope` must be `phone`, `channel` or `all`, not a list"),
        ("{countries: [USA]}", "no country `USA`"),
        ("{countries: [us]}", "no country `us`"),
        ("{countries: []}", "`countries` is empty"),
        ("{caps: {total: 500 per 1h}}", "`total` must be a mapping, not a string"),
        ("{caps: {total: {sms: 500}}}", "invalid cap for `sms`: `500`"),
        ("{caps: {total: {fax: 5 per 1h}}}", "unknown key `fax`"),
    ],
)
def test_invalid_limits_are_reported(messaging: str, error: str) -> None:
    text = f"version: 1\nmessaging: {messaging}\nrules: [{{name: a, when: call.busy, do: [{{use: crm.log_call}}]}}]"
    diagnostics = load_text(text).diagnostics
    assert [(item.level, item.text) for item in diagnostics] == [("error", error)]


NIGHTS = (NIGHT,) * 5
OFFICE = QuietWindow.between(time(17), time(9))


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ('"8:00-9:30"', QuietHours((QuietWindow(8 * 60, 9 * 60 + 30),) * 7)),
        ('"00:00-24:00"', None),
        ('"22:00 – 24:00"', QuietHours((QuietWindow(22 * 60, 24 * 60),) * 7)),
        ("{sat-sun: all day}", QuietHours((*NIGHTS, ALL_DAY, ALL_DAY))),
        ('{mon-fri: "17:00-09:00", sat: none}', QuietHours((*[OFFICE] * 5, NO_WINDOW, NIGHT))),
        ("{sat-mon: none}", QuietHours((NO_WINDOW, *[NIGHT] * 4, NO_WINDOW, NO_WINDOW))),
        ("{holidays: all day}", QuietHours((NIGHT,) * 7, ALL_DAY)),
        (
            "{sms: {sun: all day, holidays: none}}",
            QuietHours((*NIGHTS, NIGHT, ALL_DAY), NO_WINDOW, "messaging.quiet_hours.sms"),
        ),
        ('{email: "21:00-07:00"}', QuietHours((NIGHT,) * 7)),
        ("{email: none}", QuietHours((NIGHT,) * 7)),
    ],
)
def test_quiet_hours_of_text_messages(text: str, hours: QuietHours | None) -> None:
    file = f"version: 1\nmessaging: {{quiet_hours: {text}}}\nrules:\n"
    result = load_text(file + "  - {name: a, when: call.busy, do: [{use: crm.log_call}]}\n")
    if hours is None:
        assert [item.text for item in result.diagnostics] == [
            "no message could ever be sent: every hour of the week is quiet"
        ]
    else:
        assert result.diagnostics == ()
        assert result.rules is not None
        assert result.rules.messaging.quiet_hours["sms"] == hours


def test_quiet_hours_none_disables_them_with_a_warning() -> None:
    text = """
        version: 1
        messaging: {quiet_hours: none}
        rules: [{name: a, when: call.busy, do: [{use: crm.log_call}]}]
    """
    result = load_text(text)
    assert result.rules is not None
    assert result.rules.messaging.quiet_hours == every_day(NO_WINDOW)
    assert [diagnostic.level for diagnostic in result.diagnostics] == ["warning"]


def test_load_reads_tests() -> None:
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


def test_missing_connection_settings_are_reported_once() -> None:
    text = """
        version: 1
        rules:
          - {name: a, when: call.busy, do: [{use: phone.send, with: {body: Hi}}]}
          - {name: b, when: call.failed, do: [{use: phone.send, with: {body: Hi}}]}
    """
    (diagnostic,) = load_text(text, environ={}).diagnostics
    assert diagnostic.text == "connection `phone`: PHONE_TOKEN is not set"
    assert (diagnostic.line, diagnostic.rule) == (4, "a")
    assert load_text(text, environ={"PHONE_TOKEN": "x"}).diagnostics == ()
    assert load_text(text).diagnostics == ()


def test_disabled_rule_needs_no_connection_settings() -> None:
    text = """
        version: 1
        rules:
          - {name: a, when: call.busy, enabled: false, do: [{use: phone.send, with: {body: Hi}}]}
    """
    assert load_text(text, environ={}).diagnostics == ()


def test_report_contains_no_environment_values() -> None:
    text = "version: 1\nrules: [{name: a, when: call.busy, do: [{use: phone.send}]}]"
    result = load_text(text, environ={"PHONE_TOKEN": "hunter2", "PHONE_FROM": "12"})
    assert "hunter2" not in report(result.diagnostics, result.texts)


def test_load_returns_rules_when_there_are_only_warnings() -> None:
    result = load_text(
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
    assert [diagnostic.level for diagnostic in result.diagnostics] == ["warning"]


def test_rules_with_the_same_idempotency_key_cause_a_warning() -> None:
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
    (diagnostic,) = diagnostics_of(text)
    assert (diagnostic.level, diagnostic.rule, diagnostic.line) == ("warning", "b", 5)
    assert "rule `a`" in diagnostic.text


def test_load_or_raise_error_contains_the_report() -> None:
    with pytest.raises(RulesError) as caught:
        load_or_raise("version: 1\nrules: [{name: a}]\nextra: 1\n", path="my.yaml", registry=REGISTRY)
    assert isinstance(caught.value, ConfigError)
    assert len(caught.value.diagnostics) == 2
    assert "my.yaml:3:1: unknown key `extra`" in str(caught.value)
    assert str(caught.value).endswith("\n\n2 problems in my.yaml")


def test_report_without_diagnostics_is_empty() -> None:
    assert report((), {}) == ""


def test_report_shortens_long_line_around_the_caret() -> None:
    line = "  - {name: a, when: call.busy, do: [{use: team.post, with: {text: " + "x" * 300 + ", txt: y}}]}"
    text = f"version: 1\nrules:\n{line}\n"
    (diagnostic,) = load_text(text).diagnostics
    rows = report([diagnostic], {"rules.yaml": text}).splitlines()
    assert all(len(row) < 130 for row in rows)
    caret = rows[2].index("^")
    assert rows[1][caret:].startswith("txt")


def test_load_stops_after_one_hundred_diagnostics() -> None:
    text = "version: 1\nrules:\n" + "  - {nam: x}\n" * 50_000
    result = load_text(text)
    assert result.rules is None
    assert len(result.diagnostics) == 101


def repeated(head: str, line: str, size: int) -> str:
    """Return a file of nearly `size` bytes that repeats the line. `%d` in it is a counter."""
    lines = [line.replace("%d", str(number)) for number in range(size // (len(line) + 6))]
    return head + "".join(lines)


RULE = "  - name: a\n    when: call.busy\n    do: [{use: crm.log_call}]\n"
LARGE_FILES = {
    "rules": ("version: 1\nrules:\n", "  - {name: a%d, when: call.*, do: [{use: crm.log_call}]}\n"),
    "fields": (f"version: 1\nrules:\n{RULE}    where:\n", "      event.abcdefgh%d: 1\n"),
    "keys": ("version: 1\n", "key%d: 1\n"),
    "values": (f"version: 1\nrules:\n{RULE}    where: {{event.status: {{in: [", "x%d, "),
    "one line": ("version: 1\nrules: [{name: ", "x" * 1000),
    "templates": (
        "version: 1\nrules:\n  - name: a\n    when: call.busy\n    do:\n",
        "      - {use: team.post, with: {text: '{{ 1" + " + 1" * 12_000 + " }}'}}\n",
    ),
}
"""The head of a file, and what it repeats."""


@pytest.mark.parametrize("size", [1 << 18, pytest.param(1 << 20, marks=pytest.mark.faults)])
@pytest.mark.parametrize("kind", sorted(LARGE_FILES))
def test_load_large_file_is_fast(kind: str, size: int) -> None:
    """The time must not grow faster than the file, whose maximum is 1 MiB."""
    text = repeated(*LARGE_FILES[kind], size) + ("]}" if kind == "values" else "")
    assert 0.65 * size < len(text) <= size
    started = process_time()
    result = load_text(text)
    assert len(result.diagnostics) <= 101
    assert process_time() - started < 30 * size / (1 << 20)


def test_load_rejects_file_above_one_mebibyte() -> None:
    (diagnostic,) = load_text("#" + "x" * (1 << 20)).diagnostics
    assert diagnostic.text == "the file is larger than 1 MiB"


def test_opt_out_scope_of_one_channel_is_a_warning() -> None:
    text = "version: 1\nmessaging: {opt_out_scope: channel}\nrules: []\n"
    [warning] = [item for item in diagnostics_of(text) if "opt-out" in item.text]
    assert warning.level == "warning"
    assert "47 CFR 64.1200(a)(10)" in warning.hint


def test_only_a_literal_recipient_makes_a_message_internal() -> None:
    rules = rules_of(
        """
        version: 1
        rules:
          - name: a
            when: call.busy
            do:
              - {use: phone.send, with: {body: hi}}
              - {use: phone.send, with: {body: hi, to: "+12025550100"}}
              - {use: phone.send, with: {body: hi, to: "{{ event.metadata.owner }}"}}
              - {use: crm.log_call}
        """
    )
    assert [step.internal for step in rules.rules[0].do] == [False, True, False, False]


POST = """
version: 1
rules: [{name: a, when: call.busy, do: [{use: http.post, with: {url: "https://hooks.example.com/x"}}]}]
"""
HOSTS_ONLY = "write host names only, such as hooks.example.com, without https:// and without a path"
HTTP = {"HTTP_SECRET": "whsec_" + "QUJD" * 8, "HTTP_ALLOWED_HOSTS": "hooks.example.com"}


@pytest.mark.parametrize(
    ("environ", "texts"),
    [
        (HTTP, []),
        (
            HTTP | {"HTTP_ALLOWED_HOSTS": "example.com"},
            ["the URL's host is not in HTTP_ALLOWED_HOSTS: add it there or change `url`"],
        ),
        (
            HTTP | {"HTTP_ALLOWED_HOSTS": "https://hooks.example.com/"},
            [f"connection `http`: HTTP_ALLOWED_HOSTS: {HOSTS_ONLY}"],
        ),
    ],
)
def test_host_that_is_not_allowed_is_reported(environ: dict[str, str], texts: list[str]) -> None:
    loaded = load(POST, path="rules.yaml", registry=Registry(), environ=environ)
    assert [item.text for item in loaded.diagnostics if item.level == "error"] == texts


def test_missing_variables_of_a_second_account_have_their_full_names() -> None:
    step = "{use: twilio.send_sms, connection: twilio_eu, with: {body: Hi}}"
    text = f"version: 1\nrules: [{{name: a, when: call.busy, do: [{step}]}}]"
    environ = {"TWILIO_EU_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_EU_AUTH_TOKEN": "0" * 32}
    (diagnostic,) = load(text, path="rules.yaml", registry=Registry(), environ=environ).diagnostics
    assert "set TWILIO_EU_MESSAGING_SERVICE_SID or TWILIO_EU_FROM" in diagnostic.text
