"""Conditions in three-valued logic: a missing field is unknown, and unknown never matches."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from bridge.rules.conditions import combine
from bridge.rules.lookup import format_value
from bridge.rules.operators import OPERATORS
from bridge.rules.route import route
from bridge.rules.trace import Check, Truth
from tests.unit.rules.helpers import NOW, event_of, rules_of

FIELD = "event.metadata.x"
ABSENT = object()


def checks(where: str, **changes: Any) -> tuple[bool, list[Check]]:
    rules = rules_of(f"- name: a\n  when: call.busy\n  {where}\n  do: [{{use: crm.log_call}}]")
    (trace,) = route(event_of(**changes), rules, NOW).traces
    assert trace.error is None
    return trace.fired, list(trace.checks[1:])


def evaluate(condition: str, value: Any) -> Truth:
    changes = {} if value is ABSENT else {"metadata__x": value}
    fired, rows = checks(f"where: {{{FIELD}: {condition}}}", **changes)
    assert fired == all(row.result == "true" for row in rows)
    (row,) = rows
    return row.result


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ("abc", "abc", "true"),
        ("abc", "ABC", "false"),
        ("5", 5, "true"),
        ("5", 5.0, "true"),
        ("5", "5", "unknown"),
        ("1", True, "unknown"),
        ("true", True, "true"),
        ("true", 1, "unknown"),
        ("true", "true", "unknown"),
        ("{ne: abc}", "abd", "true"),
        ("{ne: abc}", "abc", "false"),
        ("{ne: abc}", 5, "unknown"),
        ("{ne: 1}", True, "unknown"),
        ("[a, b]", "b", "true"),
        ("{in: [a, b]}", "c", "false"),
        ("{in: [a, 1]}", 1, "true"),
        ("{in: [a, 1]}", True, "unknown"),
        ("{in: [a]}", 5, "unknown"),
        ("{not_in: [a, b]}", "c", "true"),
        ("{not_in: [a, b]}", "a", "false"),
        ("{not_in: [a, b]}", 5, "unknown"),
        ("{gt: 5}", 6, "true"),
        ("{gt: 5}", 5, "false"),
        ("{gt: 5}", "6", "unknown"),
        ("{gt: 0}", True, "unknown"),
        ("{gte: 5}", 5, "true"),
        ("{lt: 5}", 4.9, "true"),
        ("{lt: 5}", 5, "false"),
        ("{lte: 5}", 5, "true"),
        ("{contains: bc}", "abcd", "true"),
        ("{contains: BC}", "abcd", "false"),
        ("{contains: b}", ["a", "b"], "true"),
        ("{contains: 1}", [True, "1"], "false"),
        ("{contains: 1}", [1], "true"),
        ("{contains: a}", {"a": 1}, "unknown"),
        ("{contains: 5}", "5", "unknown"),
        ("{starts_with: ab}", "abc", "true"),
        ("{starts_with: b}", "abc", "false"),
        ("{starts_with: a}", ["a"], "unknown"),
        ("{ends_with: bc}", "abc", "true"),
        ("{ends_with: a}", "abc", "false"),
        ("{exists: true}", "", "true"),
        ("{exists: true}", False, "true"),
        ("{exists: true}", None, "false"),
        ("{exists: true}", ABSENT, "false"),
        ("{exists: false}", None, "true"),
        ("{exists: false}", ABSENT, "true"),
        ("{exists: false}", 0, "false"),
    ],
)
def test_operator_result(condition: str, value: Any, expected: Truth) -> None:
    assert evaluate(condition, value) == expected


OPERANDS = {"in": "[a]", "not_in": "[a]", "gt": "1", "gte": "1", "lt": "1", "lte": "1"}


@pytest.mark.parametrize("operator", sorted(OPERATORS))
@pytest.mark.parametrize("value", [None, ABSENT, {"a": 1}], ids=["null", "missing", "another type"])
def test_operator_is_unknown_for_missing_null_or_other_type(operator: str, value: Any) -> None:
    assert evaluate(f"{{{operator}: {OPERANDS.get(operator, 'a')}}}", value) == "unknown"
    fired, rows = checks(f"where: {{not: {{{FIELD}: {{{operator}: {OPERANDS.get(operator, 'a')}}}}}}}")
    assert not fired
    assert {row.result for row in rows} == {"unknown"}


ALL: dict[tuple[Truth, Truth], Truth] = {
    ("true", "true"): "true",
    ("true", "unknown"): "unknown",
    ("true", "false"): "false",
    ("unknown", "unknown"): "unknown",
    ("unknown", "false"): "false",
    ("false", "false"): "false",
}
ANY: dict[tuple[Truth, Truth], Truth] = {
    ("true", "true"): "true",
    ("true", "unknown"): "true",
    ("true", "false"): "true",
    ("unknown", "unknown"): "unknown",
    ("unknown", "false"): "unknown",
    ("false", "false"): "false",
}


@pytest.mark.parametrize(("left", "right"), list(product(("true", "unknown", "false"), repeat=2)))
def test_combine_follows_kleene_logic(left: Truth, right: Truth) -> None:
    pair = (left, right) if (left, right) in ALL else (right, left)
    assert combine("all", [left, right]) == ALL[pair]
    assert combine("any", [left, right]) == ANY[pair]
    assert combine("not", [left]) == {"true": "false", "false": "true", "unknown": "unknown"}[left]


def test_where_fires_only_if_all_entries_and_operators_match() -> None:
    assert checks("where: {event.duration: {gte: 0, lt: 5}, event.direction: outbound}")[0]
    assert not checks("where: {event.duration: {gte: 0, lt: 5}, event.direction: inbound}")[0]
    assert not checks("where: {event.duration: {gte: 1, lt: 5}}")[0]


def test_trace_has_a_row_for_every_part_of_a_group() -> None:
    fired, rows = checks(
        "where: {any: [{event.direction: outbound}, {event.outcome: resolved, event.duration: 0}], "
        "not: {event.metadata.x: 1}}"
    )
    assert not fired
    assert [(row.depth, row.condition, row.actual, row.result) for row in rows] == [
        (0, "any of 2", "", "true"),
        (1, "event.direction eq outbound", '"outbound"', "true"),
        (1, "all of 2", "", "unknown"),
        (2, "event.outcome eq resolved", "null", "unknown"),
        (2, "event.duration eq 0", "0", "true"),
        (0, "not of 1", "", "unknown"),
        (1, "event.metadata.x eq 1", "missing", "unknown"),
    ]
    assert rows[-1].reason == "event.metadata.x is missing"


def test_trace_names_similar_field_when_missing() -> None:
    _, (row,) = checks("where: {event.metadata.order_id: x}", metadata__orderId="x")
    assert row.actual == "missing (there is `orderId`)"


def test_trace_has_reason_when_operator_does_not_apply() -> None:
    _, (row,) = checks("where: {event.metadata.tier: gold}", metadata__tier=3)
    assert (row.actual, row.reason) == ("3", "a number is not compared with a string")
    _, (row,) = checks("where: {event.metadata.tier.name: gold}", metadata__tier="gold")
    assert row.actual == "missing (a string has no fields)"


def test_unset_contact_field_is_missing() -> None:
    _, (row,) = checks("where: {contact.email: {starts_with: a}}")
    assert (row.actual, row.result) == ("missing", "unknown")


@pytest.mark.parametrize(
    ("condition", "result", "reason"),
    [
        ("event.duration == 0", "true", ""),
        ("event.duration > 5", "false", ""),
        ("event.metadata.tries > 5", "unknown", "event.metadata.tries is missing"),
        ("event.outcome == 'resolved'", "unknown", "event.outcome is missing"),
        ("event.metadata.contactName > 5", "unknown", "cannot compare a string with a number"),
        ("event.metadata.tier", "unknown", "event.metadata.tier is missing"),
        ("event.metadata.tier is filled", "false", ""),
        ("event.duration is filled", "true", ""),
        ("not event.metadata.tries", "unknown", "event.metadata.tries is missing"),
        ("event.duration > 5 and event.metadata.tries > 5", "false", ""),
    ],
)
def test_if_is_true_false_or_unknown(condition: str, result: str, reason: str) -> None:
    fired, (row,) = checks(f'if: "{condition}"')
    assert (row.result, row.reason, row.condition) == (result, reason, f"if {condition}")
    assert fired == (result == "true")


@pytest.mark.parametrize("value", [ABSENT, None, 4, 5, 6.5, "5", "", True, ["5"], {"5": 1}])
@pytest.mark.parametrize(
    ("operator", "expression"),
    [
        ("eq", "{field} == {operand}"),
        ("ne", "{field} != {operand}"),
        ("gt", "{field} > {operand}"),
        ("gte", "{field} >= {operand}"),
        ("lt", "{field} < {operand}"),
        ("lte", "{field} <= {operand}"),
        ("exists", "({field} is defined) == {operand}"),
    ],
)
def test_where_and_if_have_the_same_result(operator: str, expression: str, value: Any) -> None:
    changes = {} if value is ABSENT else {"metadata__x": value}
    operand = "true" if operator == "exists" else "5"
    _, (row,) = checks(f'if: "{expression.format(field=FIELD, operand=operand)}"', **changes)
    assert evaluate(f"{{{operator}: {operand}}}", value) == row.result


def test_where_and_if_are_both_evaluated() -> None:
    _, rows = checks("where: {event.direction: inbound}\n  if: event.duration == 0")
    assert [row.result for row in rows] == ["false", "true"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ("a\nb", '"a\\nb"'),
        ("x" * 200, '"' + "x" * 80 + '"…'),
        ("\ud800", '"\ufffd"'),
        ([1, 2], "a list of 2 items"),
        ({"a": 1}, "an object with 1 field"),
        (True, "true"),
        (1.5, "1.5"),
        (10**100, "1" + "0" * 79),
    ],
)
def test_format_value_is_short_and_on_one_line(value: Any, text: str) -> None:
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("phone", "country"),
    [
        ("+14155550123", "US"),
        ("+16045550123", "CA"),
        ("+442079460958", "GB"),
        ("+390236618300", "IT"),
        (None, None),
    ],
)
def test_country_of_the_contact_is_that_of_the_phone_number(phone: str | None, country: str | None) -> None:
    fired, (row,) = checks("where: {contact.country: [US, CA, GB, IT]}", metadata__contactPhone=phone)
    assert (fired, row.actual) == (country is not None, f'"{country}"' if country else "missing")


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("x", True),
        (" ", False),
        ("", False),
        ([], False),
        ({}, False),
        ([0], True),
        (0, True),
        (False, True),
        (None, False),
    ],
)
def test_filled_means_a_value_that_is_not_empty(value: Any, filled: bool) -> None:
    assert evaluate("{filled: true}", value) == ("true" if filled else "false")
    assert evaluate("{filled: false}", value) == ("false" if filled else "true")
    fired, _ = checks(f"if: {FIELD} is filled", metadata__x=value)
    assert fired is filled


@pytest.mark.parametrize(
    ("condition", "value", "result"),
    [
        ("{starts_with: [es, fr]}", "es-MX", "true"),
        ("{starts_with: [es, fr]}", "fr-CA", "true"),
        ("{starts_with: [es, fr]}", "de", "false"),
        ("{ends_with: [MX, CA]}", "es-MX", "true"),
        ("{ends_with: [MX, CA]}", "fr-CA", "true"),
        ("{ends_with: [MX, CA]}", "MX-es", "false"),
        ("{starts_with: [es, fr]}", 5, "unknown"),
    ],
)
def test_one_of_several_prefixes_or_suffixes_matches(condition: str, value: Any, result: Truth) -> None:
    assert evaluate(condition, value) == result
