"""Nothing that a file or an event can contain raises, hangs or gives what cannot be stored."""

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

from bridge.events import EVENT_NAMES, FIELDS, Event
from bridge.rules.load import load, load_or_raise
from bridge.rules.model import Rules
from bridge.rules.report import report
from bridge.rules.route import alerts, follow_up, route
from bridge.rules.template_compiler import TemplateError
from bridge.rules.template_filters import FILTER_NAMES, TEST_NAMES, RenderError
from bridge.rules.templates import condition, names_of, template
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
    """An event with any value at any documented place, and much else."""
    body: dict[str, Any] = draw(st.dictionaries(st.text(max_size=8), json_values, max_size=3))
    body["event"] = draw(st.sampled_from(EVENT_NAMES) | st.text(max_size=8))
    for path in draw(st.lists(paths, max_size=8)):
        *parents, key = path.split(".")
        inner = body
        for parent in parents:
            if not isinstance(inner.get(parent), dict):
                inner[parent] = {}
            inner = inner[parent]
        if path != "event":
            inner[key] = draw(json_values)
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


signs = st.sampled_from(["+", "-", "*", "/", "//", "%", "~"])
comparisons = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in"])


def bigger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    question = st.tuples(inner, comparisons, inner).map(" ".join)
    return (
        st.tuples(inner, filter_calls).map(" | ".join)
        | st.tuples(inner, signs, inner).map(" ".join).map("({})".format)
        | st.tuples(inner, question, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})")
    )


values = st.deferred(lambda: st.recursive(names | literals, bigger, max_leaves=6))


def joined(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    both = st.tuples(part, st.sampled_from(["and", "or"]), part).map(" ".join).map("({})".format)
    return part.map("not {}".format) | both


simple = st.tuples(values, comparisons, values) | st.tuples(
    values, st.just("is"), st.sampled_from(TEST_NAMES)
)
questions = st.deferred(lambda: st.recursive(simple.map(" ".join).map("({})".format), joined, max_leaves=3))
"""Expressions that are true or false, where they can be worked out."""
templates = values.map("{{{{ {} }}}}".format)
texts = st.lists(templates | st.text(string.ascii_letters + " .,!", max_size=10), min_size=1, max_size=4).map(
    "".join
)
wild = st.text("{}%#'\"|()[] .~+*abc01", max_size=40).map("{{{{ {} }}}}".format)

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
    "phone.send": {"body": texts, "to": texts},
    "crm.log_call": {
        "properties": st.dictionaries(words, texts | json_values, max_size=3),
        "duration": templates,
    },
    "crm.create_task": {"subject": texts},
    "team.post": {"text": texts},
    "team.mail": {"subject": texts, "text": texts, "html": texts, "to": templates},
}
REQUIRED = {"body", "subject", "text"}


def params_of(action: str) -> st.SearchStrategy[dict[str, Any]]:
    known = PARAMS[action]
    return st.fixed_dictionaries(
        {name: value for name, value in known.items() if name in REQUIRED},
        optional={name: value for name, value in known.items() if name not in REQUIRED},
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
        "if": questions,
        "shadow": st.booleans(),
        "on_failure": st.lists(steps, min_size=1, max_size=1),
    },
)
files = st.fixed_dictionaries(
    {"version": st.just(1), "rules": st.lists(rules, min_size=1, max_size=3)},
    optional={"alerts": st.just([{"use": "team.post"}])},
)


class Plain(yaml.SafeDumper):
    """YAML without anchors, which rules.yaml does not have."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def exercise(loaded: Rules, event: Event) -> None:
    """Route the event and what follows from it; all of it has to be fit to be stored."""
    delivery = {"id": "dlv_1", "message": "it failed"}
    routing = route(event, loaded, NOW)
    assert [trace.rule for trace in routing.traces] == [rule.name for rule in loaded.rules]
    assert all(trace.error is None for trace in routing.traces)
    planned = [*routing.planned, *alerts(event, loaded, delivery, NOW), *alerts(None, loaded, delivery, NOW)]
    for rule in loaded.rules:
        planned.extend(follow_up(event, loaded, rule.name, delivery, NOW))
    json.dumps([trace.to_json() for trace in routing.traces], allow_nan=False)
    for found in planned:
        assert "\\u0000" not in json.dumps(dict(found.params), allow_nan=False)
        for text in (
            found.idempotency_key,
            found.concurrency_key or "",
            found.recipient or "",
            found.problem or "",
        ):
            assert "\x00" not in text
            text.encode()
        assert found.problem is not None or found.channel is None or found.recipient


@RELAXED
@given(files, events())
def test_any_rules_and_any_event_give_deliveries_and_traces(file: dict[str, Any], event: Event) -> None:
    text = yaml.dump(file, Dumper=Plain, width=1000)
    loaded = load(text, path="rules.yaml", registry=REGISTRY)
    report(loaded.problems, text, "rules.yaml")
    if loaded.rules is not None:
        exercise(loaded.rules, event)


@cache
def shipped() -> Rules:
    return load_or_raise(SHIPPED, path="rules.yaml", registry=REGISTRY)


@RELAXED
@given(events())
def test_the_shipped_rules_take_any_event(event: Event) -> None:
    exercise(shipped(), event)


@RELAXED
@given(texts | wild, events())
def test_any_template_gives_json_or_says_why_not(source: str, event: Event) -> None:
    try:
        value = template(source)(names_of(event, NOW, "UTC"))
    except (TemplateError, RenderError):
        return
    json.dumps(value, allow_nan=False).encode()


@RELAXED
@given(st.text(max_size=60) | values | questions, events())
def test_any_condition_is_true_false_or_says_why_not(source: str, event: Event) -> None:
    try:
        value = condition(source)(names_of(event, NOW, "UTC"))
    except (TemplateError, RenderError):
        return
    assert value in (True, False)


@RELAXED
@given(st.binary(max_size=400) | st.text("- :{}[]'\"|>&*!%@`#?,\n\t abc01", max_size=200).map(str.encode))
@example(b"\xff\xfe")
@example(b"a: !!python/object/apply:os.system ['true']")
def test_any_bytes_are_rules_or_problems_in_their_place(raw: bytes) -> None:
    loaded = load(raw, path="rules.yaml", registry=REGISTRY)
    assert loaded.rules is None
    assert loaded.problems
    shown = raw.decode("utf-8", "replace")
    lines = shown.count("\n") + shown.count("\r") + 1
    assert all(1 <= problem.line <= lines and problem.column >= 1 for problem in loaded.problems)
    report(loaded.problems, shown, "rules.yaml")


@RELAXED
@given(st.integers(0, len(SHIPPED)), st.integers(0, 40), st.text(max_size=12))
def test_the_shipped_file_with_any_slip_of_the_hand_never_crashes(place: int, cut: int, typed: str) -> None:
    text = SHIPPED[:place] + typed + SHIPPED[place + cut :]
    loaded = load(text, path="rules.yaml", registry=REGISTRY)
    assert (loaded.rules is None) == any(problem.level == "error" for problem in loaded.problems)
    report(loaded.problems, text, "rules.yaml")
