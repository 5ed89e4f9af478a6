"""Contradictions: the loader never calls a rule impossible that fires for some event."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.rules.route import route
from tests.unit.rules.helpers import NOW, diagnostics_of, event_of, rules_of

NUMBERS = st.integers(0, 4)
WORDS = st.sampled_from(["inbound", "outbound"])
ORDERS = st.sampled_from(["gt", "gte", "lt", "lte", "eq", "ne"])
PRESENCE = st.sampled_from(["exists", "filled"])
BOOLEANS = st.sampled_from(["true", "false"])
COMPARISONS = st.one_of(
    st.builds("{{event.duration: {{{}: {}}}}}".format, ORDERS, NUMBERS),
    st.builds("{{event.duration: [{}, {}]}}".format, NUMBERS, NUMBERS),
    st.builds("{{event.direction: {{{}: {}}}}}".format, st.sampled_from(["eq", "ne", "starts_with"]), WORDS),
    st.builds("{{event.duration: {{{}: {}}}}}".format, PRESENCE, BOOLEANS),
    st.just("{event.status: busy}"),
    st.just("{event.event: call.busy}"),
)
EXPRESSIONS = st.one_of(
    st.builds("event.duration {} {}".format, st.sampled_from([">", ">=", "<", "<=", "==", "!="]), NUMBERS),
    st.builds("{} {} event.duration".format, NUMBERS, st.sampled_from([">", "<="])),
    st.builds("event.duration in [{}, {}]".format, NUMBERS, NUMBERS),
    st.builds("event.direction == '{}'".format, WORDS),
)


@given(
    where=st.lists(COMPARISONS, min_size=1, max_size=4),
    expressions=st.lists(EXPRESSIONS, min_size=1, max_size=3),
    duration=st.one_of(NUMBERS, st.just(...)),
    direction=WORDS,
)
def test_rule_that_fires_is_not_called_impossible(
    where: list[str], expressions: list[str], duration: Any, direction: str
) -> None:
    rule = (
        "- name: a\n  when: call.busy\n  where: {all: [" + ", ".join(where) + "]}\n"
        f"  if: {' and '.join(expressions)}\n  do: [{{use: crm.log_call}}]"
    )
    (trace,) = route(event_of(duration=duration, direction=direction), rules_of(rule), NOW).traces
    if trace.fired:
        file = "version: 1\nrules:\n" + "\n".join("  " + line for line in rule.split("\n"))
        assert [item.text for item in diagnostics_of(file) if "never" in item.text] == []
