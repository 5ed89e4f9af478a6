"""Rules in short: the policy in words, the lines of a rule, and why it did not fire."""

from __future__ import annotations

from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.rules.misses import Miss, count_misses
from bridge.rules.model import Rules
from bridge.rules.sources import join_sources
from bridge.rules.summary import displayed_name, policy_in_words, rule_source
from bridge.rules.trace import Check, Trace

RULE = (
    "  - name: {name}\n    when: call.busy\n\n    do:\n      - use: slack.post\n        with: {{text: x}}\n"
)


def load(text: str) -> Rules:
    return load_or_raise(text, path="/etc/bridge/rules.yaml", registry=Registry())


def test_policy_groups_equal_settings() -> None:
    rules = load(
        "version: 1\nmessaging:\n"
        "  quiet_hours: {sms: {mon-fri: '17:00-09:00', sat-sun: all day, holidays: all day}, email: none}\n"
        "  caps: {sms: 1 per 24h, email: 2 per 7d, total: {sms: 10 per 1h}}\n"
        "  countries: [US, CA]\n  opt_out_scope: all\nrules:\n" + RULE.format(name="a")
    )
    words = policy_in_words(rules)
    assert words[0] == (
        "quiet hours of texts: mon 17:00-09:00, tue 17:00-09:00, wed 17:00-09:00, thu 17:00-09:00, fri 17:00-09:00, "
        "sat all day, sun all day, holidays all day"
    )
    assert "quiet hours of emails: none" in words
    assert "only CA, US are texted and called" in words
    assert "an opt-out covers every channel" in words
    assert words[-1] == "no alerts"


def test_lines_of_a_rule_end_before_the_next() -> None:
    first = "version: 1\nrules:\n" + RULE.format(name="a") + "\n  # about b\n" + RULE.format(name="b")
    second = "version: 1\nrules:\n" + RULE.format(name="c")
    rules = load(join_sources([("rules.yaml", first), ("rules.d/more.yaml", second)]))
    sources = [rule_source(rules, rule) for rule in rules.rules]
    assert [(source.file, source.first_line, len(source.lines)) for source in sources] == [
        ("rules.yaml", 3, 6),
        ("rules.yaml", 11, 6),
        ("rules.d/more.yaml", 3, 6),
    ]
    assert sources[0].lines[0] == "- name: a"
    assert sources[0].lines[-1] == "      with: {text: x}"


def test_name_of_a_file_is_the_longest_that_fits() -> None:
    names = ["rules.yaml", "rules.d/rules.yaml"]
    assert displayed_name("/etc/bridge/rules.d/rules.yaml", names) == "rules.d/rules.yaml"
    assert displayed_name("/etc/bridge/rules.yaml", names) == "rules.yaml"
    assert displayed_name("/etc/bridge/my-rules.yaml", names) is None


def trace(*checks: Check, fired: bool = False) -> Trace:
    return Trace("a", fired, (Check("when call.busy", "call.busy", "true"), *checks))


def test_misses_name_common_values_only() -> None:
    inbound = Check("event.direction eq outbound", '"inbound"', "false")
    durations = [Check("event.duration gt 30", str(number), "false") for number in range(4)]
    other = Trace("a", False, (Check("when call.busy", "chat.resolved", "false"),))
    disabled = Trace(
        "a", False, (Check("enabled", "false", "false"), Check("when call.busy", "call.busy", "true"))
    )
    found = count_misses(
        [
            trace(fired=True),
            trace(inbound),
            trace(inbound),
            *(trace(item) for item in durations),
            other,
            disabled,
        ]
    )
    assert (found.events, found.fired) == (7, 1)
    assert found.misses == (
        Miss("`event.duration gt 30` is not true", 4),
        Miss("event.direction is inbound, expected outbound", 2),
    )
