"""Presence of fields: the loader warns about a template that fails for some events, and only about such a template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.rules.route import route
from tests.unit.rules.helpers import NOW, diagnostics_of, event_of, rules_of

FIELDS = ("event.metadata.a", "event.metadata.b", "contact.email")


def rule(text: str, where: str = "{}", condition: str = "true") -> str:
    where = f"where: {where}" if where != "{}" else "description: none"
    step = f"{{use: crm.log_call, with: {{name: {text!r}}}}}"
    return f"- name: a\n  when: call.busy\n  {where}\n  if: {condition}\n  do: [{step}]"


def warnings(text: str, where: str = "{}", condition: str = "true") -> list[str]:
    file = "version: 1\nrules:\n" + "\n".join(
        "  " + line for line in rule(text, where, condition).split("\n")
    )
    return [item.text for item in diagnostics_of(file)]


def missing(*names: str) -> list[str]:
    return [f"some events have no `{name}`, and this fails for them" for name in names]


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("{{ event.metadata.a }}", "{}", ["event.metadata.a"]),
        ("{{ event.metadata.a | upper }}", "{}", ["event.metadata.a"]),
        ("{{ event.metadata.a | default(event.metadata.b) }}", "{}", ["event.metadata.b"]),
        ("{{ contact.first_name }}", "{}", ["contact.first_name"]),
        ("{{ event.outcome }}", "{}", ["event.outcome"]),
        ("{{ event.agentName }} {{ event.conversationId }} {{ now }}", "{}", []),
        ("{{ event.metadata.a | default('x') }}", "{}", []),
        ("{% if event.metadata.a is filled %}{{ event.metadata.a }}{% endif %}", "{}", []),
        ("{% if event.metadata.a is filled %}x{% else %}{{ event.metadata.a }}{% endif %}", "{}", ["event.metadata.a"]),
        ("{% if event.metadata.a is undefined %}x{% else %}{{ event.metadata.a }}{% endif %}", "{}", []),
        ("{% if not event.metadata.a is filled %}x{% else %}{{ event.metadata.a }}{% endif %}", "{}", []),
        ("{% if event.metadata.a is filled and event.metadata.a > 5 %}x{% endif %}", "{}", []),
        ("{% if event.metadata.a is filled or event.metadata.a > 5 %}x{% endif %}", "{}", ["event.metadata.a"]),
        ("{{ event.metadata.a if event.metadata.a is filled else 'x' }}", "{}", []),
        ("{% if event.metadata.a == 'x' %}y{% endif %}", "{}", ["event.metadata.a"]),
        ("{{ event.metadata.a }}", "{event.metadata.a: {filled: true}}", []),
        ("{{ event.metadata.a }}", "{event.metadata.a: {ne: x}}", []),
        ("{{ event.metadata.a }}", "{event.metadata.a: {filled: false}}", ["event.metadata.a"]),
        ("{{ event.metadata.a }}", "{event.metadata.a: {exists: false}}", ["event.metadata.a"]),
        (
            "{{ event.metadata.a }}",
            "{any: [{event.metadata.a: {filled: true}}, {event.metadata.b: x}]}",
            ["event.metadata.a"],
        ),
        (
            "{{ event.metadata.a }}",
            "{any: [{event.metadata.a: {filled: true}}, {event.metadata.a: x}]}",
            [],
        ),
        ("{{ event.metadata.a }}", "{not: {event.metadata.a: x}}", ["event.metadata.a"]),
    ],
)  # fmt: skip
def test_template_that_fails_for_some_events_is_reported(text: str, where: str, expected: list[str]) -> None:
    assert warnings(text, where) == missing(*expected)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("event.metadata.a is filled", []),
        ("event.metadata.a > 5", []),
        ("event.metadata.a > 5 and event.messageCount == 1", []),
        ("event.metadata.a > 5 or event.direction == 'x'", ["event.metadata.a"]),
        ("not (event.metadata.a is undefined or event.direction == 'x')", []),
    ],
)
def test_if_proves_that_a_field_has_a_value(condition: str, expected: list[str]) -> None:
    texts = [
        item for item in warnings("{{ event.metadata.a }}", condition=condition) if "fails for them" in item
    ]
    assert texts == missing(*expected)


@pytest.mark.parametrize(
    ("test", "text"),
    [
        ("event.direction", "`event.direction` is a string, and a condition must be true or false"),
        ("contact.email", "`contact.email` is a string, and a condition must be true or false"),
        ("event.duration", "`event.duration` is a number, and a condition must be true or false"),
        ("event.metadata.vip", "this fails if `event.metadata.vip` is missing or not true or false"),
    ],
)
def test_field_that_is_used_as_true_or_false_is_reported(test: str, text: str) -> None:
    for source in (f"{{% if {test} %}}x{{% endif %}}", f"{{{{ 'x' if not {test} else 'y' }}}}"):
        assert warnings(source) == [text]
    assert warnings("x", condition=test) == [text]


IF = "{{% if {} %}}{}{{% elif {} %}}{}{{% else %}}{}{{% endif %}}"
BOOLEANS = st.sampled_from(["true", "false"])
FIELD = st.sampled_from(FIELDS)
TESTS = st.recursive(
    st.one_of(
        st.builds("{} is {}".format, FIELD, st.sampled_from(["filled", "defined", "undefined", "string"])),
        st.builds("{} == 'x'".format, FIELD),
    ),
    lambda inner: st.one_of(
        st.builds("(not {})".format, inner),
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
    ),
    max_leaves=4,
)
TEXTS = st.recursive(
    st.one_of(
        st.builds("{{{{ {} }}}}".format, FIELD),
        st.builds("{{{{ {} | default({}) }}}}".format, FIELD, st.one_of(st.just("'x'"), FIELD)),
        st.builds("{{{{ {} if {} else {} }}}}".format, FIELD, TESTS, FIELD),
    ),
    lambda inner: st.one_of(
        st.builds(IF.format, TESTS, inner, TESTS, inner, inner),
        st.builds("{}{}".format, inner, inner),
    ),
    max_leaves=5,
)
CONDITIONS = st.recursive(
    st.one_of(
        st.builds("{{{}: {{{}: {}}}}}".format, FIELD, st.sampled_from(["filled", "exists"]), BOOLEANS),
        st.builds("{{{}: {{ne: x}}}}".format, FIELD),
    ),
    lambda inner: st.builds("{{{}: [{}, {}]}}".format, st.sampled_from(["any", "all", "not"]), inner, inner),
    max_leaves=4,
)
VALUES = st.sampled_from([..., None, "", "x", "y@example.com"])


@given(text=TEXTS, where=CONDITIONS, condition=TESTS, a=VALUES, b=VALUES, email=VALUES)
def test_template_without_a_warning_never_misses_a_field(
    text: str, where: str, condition: str, a: Any, b: Any, email: Any
) -> None:
    if any("fails for them" in item for item in warnings(text, where, condition)):
        return
    event = event_of(metadata__a=a, metadata__b=b, metadata__contactEmail=email)
    for planned in route(event, rules_of(rule(text, where, condition)), NOW).planned:
        assert planned.render_error is None or "missing" not in planned.render_error, (text, where, condition)
