"""Property tests: whatever a file or an event contains, rules never raise, hang or return unstorable values."""

from __future__ import annotations

import json
import string
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.events import EVENT_TYPES, FIELDS, Event
from bridge.rules.load import load, load_or_raise
from bridge.rules.model import Rules
from bridge.rules.report import report
from bridge.rules.route import alerts, follow_up, route
from bridge.rules.template_compiler import TemplateError
from bridge.rules.template_filters import FILTER_NAMES, TEST_NAMES, RenderError
from bridge.rules.templates import condition, template, template_context
from tests.unit.rules.helpers import NOW, REGISTRY

SHIPPED = (Path(__file__).parents[3] / "rules.yaml").read_text("utf-8")
RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("+14155550123"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
paths = st.sampled_from(sorted({path for fields in FIELDS.values() for path in fields}))
names = paths.map("event.".__add__) | st.sampled_from(
    [
        "contact.name",
        "contact.phone",
        "contact.email",
        "contact.first_name",
        "now",
        "event.metadata.x",
        "event.new",
    ]
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Return an event with any value in any documented field, and with other fields."""
    body: dict[str, Any] = draw(st.dictionaries(st.text(max_size=8), json_values, max_size=3))
    body["event"] = draw(st.sampled_from(EVENT_TYPES) | st.text(max_size=8))
    for path in draw(st.lists(paths, max_size=8)):
        *parents, key = path.split(".")
        fields = body
        for parent in parents:
            if not isinstance(fields.get(parent), dict):
                fields[parent] = {}
            fields = fields[parent]
        if path != "event":
            fields[key] = draw(json_values)
    received = draw(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1))).replace(tzinfo=UTC)  # noqa: DTZ001
    return Event(body, draw(st.text(max_size=30)), received, "evt_1")


literals = (
    st.integers(-5, 5).map(str)
    | st.floats(0, 9, width=16).map(lambda value: f"{value:.2f}")
    | st.sampled_from(["'a'", "'abc'", "[1, 'a']"])
)
filter_calls = st.sampled_from(
    [
        *(name for name in FILTER_NAMES if name not in ("default", "replace", "truncate")),
        "default('x')",
        "default(none)",
        "replace('a', 'b')",
        "truncate(5)",
        "join('-')",
        "local('%H')",
    ]
)


operators = st.sampled_from(["+", "-", "*", "/", "//", "%", "~"])
comparisons = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in"])


def extend_value(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    comparison = st.tuples(inner, comparisons, inner).map(" ".join)
    return (
        st.tuples(inner, filter_calls).map(" | ".join)
        | st.tuples(inner, operators, inner).map(" ".join).map("({})".format)
        | st.tuples(inner, comparison, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})")
    )


values = st.deferred(lambda: st.recursive(names | literals, extend_value, max_leaves=6))


def extend_condition(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    combined = st.tuples(part, st.sampled_from(["and", "or"]), part).map(" ".join).map("({})".format)
    return part.map("not {}".format) | combined


simple_conditions = st.tuples(values, comparisons, values) | st.tuples(
    values, st.just("is"), st.sampled_from(TEST_NAMES)
)
if_conditions = st.deferred(
    lambda: st.recursive(simple_conditions.map(" ".join).map("({})".format), extend_condition, max_leaves=3)
)
"""Expressions that are true or false if they can be evaluated."""
templates = values.map("{{{{ {} }}}}".format)
strings = st.lists(
    templates | st.text(string.ascii_letters + " .,!", max_size=10), min_size=1, max_size=4
).map("".join)
arbitrary_expressions = st.text("{}%#'\"|()[] .~+*abc01", max_size=40).map("{{{{ {} }}}}".format)

operands = st.integers(-9, 200) | st.text(string.ascii_lowercase, min_size=1, max_size=9) | st.booleans()
numbers = st.integers(-9, 200)
words = st.text(string.ascii_lowercase, min_size=1, max_size=9)
conditions = (
    operands
    | st.dictionaries(st.just("exists"), st.booleans(), min_size=1)
    | st.fixed_dictionaries(
        {},
        optional={
            "eq": operands,
            "ne": operands,
            "in": st.lists(operands, min_size=1, max_size=3),
            "not_in": st.lists(operands, min_size=1, max_size=3),
            "gt": numbers,
            "gte": numbers,
            "lt": numbers,
            "lte": numbers,
            "contains": operands,
            "starts_with": words,
            "ends_with": words,
        },
    ).filter(bool)
)
fields = st.sampled_from(
    ["event.metadata.x", "event.metadata.contactName", "event.callMetadata.custom.y", "event.new"]
)
wheres = st.recursive(
    st.dictionaries(fields, conditions, min_size=1, max_size=3),
    lambda inner: (
        st.dictionaries(
            st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=2
        )
        | st.fixed_dictionaries({"not": inner})
    ),
    max_leaves=6,
)
PARAMS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "phone.send": {"body": strings, "to": strings},
    "crm.log_call": {
        "properties": st.dictionaries(words, strings | json_values, max_size=3),
        "duration": templates,
    },
    "crm.create_task": {"subject": strings},
    "team.post": {"text": strings},
    "team.email": {"subject": strings, "text": strings, "html": strings, "to": templates},
}
REQUIRED = {"body", "subject", "text"}


def params_of(action: str) -> st.SearchStrategy[dict[str, Any]]:
    strategies = PARAMS[action]
    return st.fixed_dictionaries(
        {name: value for name, value in strategies.items() if name in REQUIRED},
        optional={name: value for name, value in strategies.items() if name not in REQUIRED},
    )


steps = st.sampled_from(sorted(PARAMS)).flatmap(
    lambda action: st.fixed_dictionaries(
        {"use": st.just(action), "with": params_of(action)},
        optional={
            "delay": st.sampled_from(["0s", "5m"]),
            "expires": st.sampled_from(["1h", "2d"]),
            "cancel_on": st.sampled_from(["call.*", "chat.resolved"]),
            "idempotency_key": st.sampled_from(["a", "{{ contact.name }}", "{{ event.metadata }}"]),
            "connection": st.just("other"),
        },
    )
)
rules = st.fixed_dictionaries(
    {
        "name": st.uuids().map(str),
        "when": st.sampled_from(["call.*", "chat.*"]),
        "do": st.lists(steps, min_size=1, max_size=2),
    },
    optional={
        "where": wheres,
        "if": if_conditions,
        "shadow": st.booleans(),
        "on_failure": st.lists(steps, min_size=1, max_size=1),
    },
)
files = st.fixed_dictionaries(
    {"version": st.just(1), "rules": st.lists(rules, min_size=1, max_size=3)},
    optional={"alerts": st.just([{"use": "team.post"}])},
)


class DumperWithoutAnchors(yaml.SafeDumper):
    """YAML dumper that writes no anchors, because rules.yaml does not allow them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def route_and_check(loaded: Rules, event: Event) -> None:
    """Route the event, plan its follow-ups and alerts, and check that all results can be stored."""
    failed = {"id": "dlv_1", "message": "it failed"}
    routing = route(event, loaded, NOW)
    assert [trace.rule for trace in routing.traces] == [rule.name for rule in loaded.rules]
    assert all(trace.error is None for trace in routing.traces)
    planned = [*routing.planned, *alerts(event, loaded, failed, NOW), *alerts(None, loaded, failed, NOW)]
    for rule in loaded.rules:
        planned.extend(follow_up(event, loaded, rule.name, failed, NOW))
    json.dumps([trace.to_json() for trace in routing.traces], allow_nan=False)
    for delivery in planned:
        assert "\\u0000" not in json.dumps(dict(delivery.params), allow_nan=False)
        for text in (
            delivery.idempotency_key,
            delivery.concurrency_key or "",
            delivery.recipient or "",
            delivery.render_error or "",
        ):
            assert "\x00" not in text
            text.encode()
        assert delivery.render_error is not None or delivery.channel is None or delivery.recipient


@RELAXED
@given(files, events())
def test_route_any_rules_and_event_returns_storable_results(file: dict[str, Any], event: Event) -> None:
    text = yaml.dump(file, Dumper=DumperWithoutAnchors, width=1000)
    loaded = load(text, path="rules.yaml", registry=REGISTRY)
    report(loaded.diagnostics, loaded.texts)
    if loaded.rules is not None:
        route_and_check(loaded.rules, event)


@cache
def shipped() -> Rules:
    return load_or_raise(SHIPPED, path="rules.yaml", registry=REGISTRY)


@RELAXED
@given(events())
def test_route_shipped_rules_accepts_any_event(event: Event) -> None:
    route_and_check(shipped(), event)


@RELAXED
@given(strings | arbitrary_expressions, events())
def test_template_returns_json_or_raises_its_errors(source: str, event: Event) -> None:
    try:
        value = template(source)(template_context(event, NOW, "UTC"))
    except (TemplateError, RenderError):
        return
    json.dumps(value, allow_nan=False).encode()


@RELAXED
@given(st.text(max_size=60) | values | if_conditions, events())
def test_condition_returns_boolean_or_raises_its_errors(source: str, event: Event) -> None:
    try:
        value = condition(source)(template_context(event, NOW, "UTC"))
    except (TemplateError, RenderError):
        return
    assert value in (True, False)


@RELAXED
@given(st.binary(max_size=400) | st.text("- :{}[]'\"|>&*!%@`#?,\n\t abc01", max_size=200).map(str.encode))
@example(b"\xff\xfe")
@example(b"a: !!python/object/apply:os.system ['true']")
def test_load_any_bytes_reports_diagnostics_within_the_file(raw: bytes) -> None:
    loaded = load(raw, path="rules.yaml", registry=REGISTRY)
    assert loaded.rules is None
    assert loaded.diagnostics
    text = raw.decode("utf-8", "replace")
    lines = text.count("\n") + text.count("\r") + 1
    assert all(1 <= diagnostic.line <= lines and diagnostic.column >= 1 for diagnostic in loaded.diagnostics)
    report(loaded.diagnostics, loaded.texts)


@RELAXED
@given(st.integers(0, len(SHIPPED)), st.integers(0, 40), st.text(max_size=12))
def test_load_shipped_rules_with_any_edit_never_raises(start: int, removed: int, inserted: str) -> None:
    text = SHIPPED[:start] + inserted + SHIPPED[start + removed :]
    loaded = load(text, path="rules.yaml", registry=REGISTRY)
    assert (loaded.rules is None) == any(diagnostic.level == "error" for diagnostic in loaded.diagnostics)
    report(loaded.diagnostics, loaded.texts)
