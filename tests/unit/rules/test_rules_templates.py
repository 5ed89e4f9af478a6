"""Templates: what they can do, what they refuse, and that nothing in them can explode."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from bridge.rules import template_filters
from bridge.rules.template_compiler import TemplateError
from bridge.rules.template_filters import Missing, RenderError
from bridge.rules.templates import MAX_SOURCE, condition, names_of, template
from tests.unit.rules.helpers import NOW, event_of

EVENT = event_of(
    "call.busy",
    duration=125,
    summary="Wants <b>both</b> & a receipt",
    metadata__tags=["a", "b"],
    metadata__empty="",
    metadata__none=None,
    metadata__nested={"order id": "A 7", "list": [1, {"x": None}]},
    metadata__flag=True,
)
NAMES = names_of(EVENT, NOW, "America/New_York", {"id": "dlv_1", "message": "it failed"})


def render(source: str, html: bool = False) -> Any:
    return template(source, html)(NAMES)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ event.duration }}", 125),
        (" {{ event.duration }}", " 125"),
        ("{{ event.metadata.flag }}", True),
        ("{{ event.metadata.flag }}!", "true!"),
        ("{{ event.metadata.tags }}", ["a", "b"]),
        ("{{ event.metadata.nested }}", {"order id": "A 7", "list": [1, {"x": None}]}),
        ("{{ event.metadata.nested['order id'] }}", "A 7"),
        ("{{ 1.50 }}", 1.5),
        ("{{ none }}", None),
        ("{{ event.duration / 2 }} s", "62.5 s"),
        ("{{ event.duration / 5 }} s", "25 s"),
        ("{{ event.duration // 60 }}:{{ event.duration % 60 }}", "2:5"),
        ("{{ event.duration > 60 }}", True),
        ("Hi {{ contact.first_name }}", "Hi Ines"),
        ("{{ contact.email | default('none') }}", "none"),
        ("{{ event.outcome | default('open') }}", "open"),
        ("{{ event.a.b.c.d | default(0) }}", 0),
        ("{{ event.duration.seconds | default(0) }}", 0),
        ("{{ event.metadata.empty | default('x') }}", ""),
        ("{{ event.metadata.empty | default('x', true) }}", "x"),
        ("{{ contact.email | default(none) }}", None),
        ("{{ contact.email | lower | default('none') }}", "none"),
        ("{{ contact.email is defined }}", False),
        ("{{ event.outcome is undefined }}", True),
        ("{{ event.metadata.none is none }}", True),
        ("{{ event.metadata.tags is sequence }}", True),
        ("{{ event.duration is number and contact.name is string }}", True),
        ("{{ 'busy' in event.event }}", True),
        ("{{ 'b' in event.metadata.tags and 'c' not in event.metadata.tags }}", True),
        ("{{ 'order id' in event.metadata.nested }}", True),
        ("{{ event.event in ['call.busy', 'call.failed'] }}", True),
        ("{{ 1 < event.duration <= 125 }}", True),
        ("{{ 'long' if event.duration > 60 else 'short' }}", "long"),
        ("{% if event.duration > 60 %}long{% else %}short{% endif %}", "long"),
        ("{% if event.duration < 60 %}s{% elif event.duration < 600 %}m{% else %}h{% endif %}", "m"),
        ("{{ contact.first_name ~ ' / ' ~ event.duration }}", "Ines / 125"),
        ("{{ -event.duration + 1 }}", -124),
        ("{# a note #}text", "text"),
        ("{% raw %}{{ as it is }}{% endraw %}", "{{ as it is }}"),
        ("{{ now }}", "2026-03-02T15:30:00+00:00"),
        ("{{ delivery.message }}", "it failed"),
        ("{{ event.duration }}\n", 125),
    ],
)
def test_a_template_gives_this(source: str, value: Any) -> None:
    found = render(source)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ 'ab cd' | capitalize }}", "Ab cd"),
        ("{{ 'a<b' | e }}", "a&lt;b"),
        ("{{ event.metadata.tags | first }}{{ event.metadata.tags | last }}", "ab"),
        ("{{ '2.5' | float }}", 2.5),
        ("{{ ' 12 ' | int }}", 12),
        ("{{ 12.9 | int }}", 12),
        ("{{ event.metadata.tags | join }}", "a, b"),
        ("{{ event.metadata.tags | join('-') }}", "a-b"),
        ("{{ [1, true, 2.0] | join(' ') }}", "1 true 2"),
        ("{{ event.metadata.tags | length }}", 2),
        ("{{ 'AB' | lower }}", "ab"),
        ("{{ 'a.b' | replace('.', ',') }}", "a,b"),
        ("{{ 2.567 | round(1) }}", 2.6),
        ("{{ 2.567 | round }}", 3),
        ("{{ 5 | string }}", "5"),
        ("{{ 'ab cd' | title }}", "Ab Cd"),
        ("{{ '  ab ' | trim }}", "ab"),
        ("{{ 'abcdefghij' | truncate(8) }}", "abcde..."),
        ("{{ 'abcd efghij' | truncate(8) }}", "abcd..."),
        ("{{ 'abc' | truncate(8) }}", "abc"),
        ("{{ 'ab' | upper }}", "AB"),
        ("{{ 'a b/+ü' | urlencode }}", "a%20b%2F%2B%C3%BC"),
        ("{{ now | local }}", "2026-03-02 10:30"),
        ("{{ now | local('%d %B, %H:%M') }}", "02 March, 10:30"),
        ("{{ now | local('%H:%M', 'Europe/Berlin') }}", "16:30"),
        ("{{ event.timestamp | local('%A') }}", "Monday"),
    ],
)
def test_a_filter_does_this(source: str, value: Any) -> None:
    assert render(source) == value


def test_every_filter_and_test_is_tried_above() -> None:
    tried = " ".join(
        str(mark.args[1])
        for function in (test_a_filter_does_this, test_a_template_gives_this)
        for mark in function.pytestmark  # type: ignore[attr-defined]
    )
    assert [name for name in template_filters.FILTER_NAMES if f"| {name}" not in tried] == ["escape"]
    assert [name for name in template_filters.TEST_NAMES if f"is {name}" not in tried] == [
        "boolean",
        "mapping",
    ]


def test_local_times_are_the_persons() -> None:
    event = event_of(callMetadata__timezone="Asia/Tokyo")
    assert template("{{ now | local('%H') }}")(names_of(event, NOW, "America/New_York")) == "00"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ contact.email }}", "contact.email is missing"),
        ("Hi {{ event.outcome }}", "event.outcome is missing"),
        ("{{ event.duration.seconds }}", "event.duration.seconds is missing"),
        ("{{ event.chatMetadata.toolsUsed | first }}", "event.chatMetadata.toolsUsed is missing"),
        ("{{ (event.metadata.tags | first).x }}", "the field x is missing"),
    ],
)
def test_what_is_missing_is_an_error_that_names_it(source: str, text: str) -> None:
    with pytest.raises(Missing, match=text):
        render(source)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ event.duration + event.event }}", "`+` takes a number, not a text"),
        ("{{ event.summary * 3 }}", "`*` takes a number, not a text"),
        ("{{ event.metadata.flag + 1 }}", "`+` takes a number, not true or false"),
        ("{{ event.duration % 0 }}", "divides by zero"),
        ("{{ event.duration == event.event }}", "compares a number with a text"),
        ("{{ event.metadata.flag == 1 }}", "compares true or false with a number"),
        ("{{ event.metadata.tags == event.metadata.tags }}", "compares a list with a list"),
        ("{{ event.duration < event.event }}", "compares a number with a text"),
        ("{{ event.metadata.flag < true }}", "compares"),
        ("{{ not event.duration }}", "`not` takes true or false, not a number"),
        ("{{ event.duration and true }}", "`and` takes true or false, not a number"),
        ("{{ event.event or true }}", "`or` takes true or false, not a text"),
        ("{% if event.event %}x{% endif %}", "takes true or false, not a text"),
        ("{{ 5 in event.event }}", "looks for a number in a text"),
        ("{{ event.metadata.tags }}!", "a list cannot stand in a text"),
        ("{{ event.metadata }}!", "an object cannot stand in a text"),
        ("{{ event.duration | upper }}", "`upper` takes a text, not a number"),
        ("{{ event.event | round }}", "`round` takes a number, not a text"),
        ("{{ event.event | int }}", "`int` finds no whole number there"),
        ("{{ event.event | float }}", "`float` finds no number there"),
        ("{{ event.event | join }}", "`join` takes a list, not a text"),
        ("{{ event.duration | length }}", "`length` takes"),
        ("{{ event.event | first }}", "`first` takes a list, not a text"),
        ("{{ event.event | local }}", "`local` takes a time"),
        ("{{ 'a' | replace('', 'b') }}", "needs a text to look for"),
    ],
)
def test_types_are_never_guessed(source: str, text: str) -> None:
    with pytest.raises(RenderError, match=re.escape(text)):
        render(source)


def test_what_an_event_puts_into_html_is_escaped_once() -> None:
    assert render("<p>{{ event.summary }}</p>", html=True) == (
        "<p>Wants &lt;b&gt;both&lt;/b&gt; &amp; a receipt</p>"
    )
    assert render("{{ event.summary }}", html=True) == "Wants &lt;b&gt;both&lt;/b&gt; &amp; a receipt"
    assert render("{{ event.summary | e }}", html=True) == "Wants &lt;b&gt;both&lt;/b&gt; &amp; a receipt"
    assert "<b>" not in render("{{ event.summary ~ '<b>' }}", html=True)
    assert "<b>" not in render("{{ event.summary | e | upper | lower }}", html=True)
    assert render("{{ event.summary }}") == "Wants <b>both</b> & a receipt"


@pytest.mark.parametrize(
    "source",
    [
        "{{ event.__class__ }}",
        "{{ event['__class__'] }}",
        "{{ contact.__init__.__globals__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ event.items }}",
        "{{ (event.metadata.tags).append }}",
        "{{ now.year }}",
        "{{ self }}",
        "{{ loop }}",
        "{{ request }}",
        "{{ 'x'.format }}",
    ],
)
def test_nothing_but_the_keys_of_the_event_can_be_reached(source: str) -> None:
    with pytest.raises((Missing, TemplateError)):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for x in [1] %}{% endfor %}",
        "{% macro f() %}{% endmacro %}",
        "{% set x = 1 %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{% block x %}{% endblock %}",
        "{% call f() %}{% endcall %}",
        "{% filter upper %}x{% endfilter %}",
        "{% with x = 1 %}{% endwith %}",
        "{% autoescape true %}{% endautoescape %}",
        "{{ range(3) }}",
        "{{ lipsum() }}",
        "{{ cycler('a') }}",
        "{{ event.get('x') }}",
        "{{ event.metadata.update({'x': 1}) }}",
        "{{ 2 ** 9 }}",
        "{{ 'a' * 9 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ event.summary[1:] }}",
        "{{ event.metadata.tags[0] }}",
        "{{ event[contact.name] }}",
        "{{ {'a': 1} }}",
        "{{ event | attr('x') }}",
        "{{ [1] | map('upper') }}",
        "{{ 'a' | format }}",
        "{{ event | tojson }}",
        "{{ event | pprint }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a' | indent(1000000000) }}",
        "{{ now | local('%1000000000d') }}",
        "{{ now | local('%-d') }}",
        "{{ now | local('x' * 9) }}",
        "{{ 2.5 | round(1000000000) }}",
        "{{ 'a' | truncate(event.duration) }}",
        "{{ 'a' | upper(1) }}",
        "{{ 'a' | default }}",
        "{{ 'a' | truncate(length=9) }}",
        "{{ 'a' | replace(*event.metadata.tags) }}",
        "{{ event.duration is divisibleby 3 }}",
        "{{ event.duration == none }}",
        "{{ 'a' if true }}",
        "{{ 1e999 }}",
    ],
)
def test_what_is_not_listed_does_not_exist(source: str) -> None:
    with pytest.raises(TemplateError):
        template(source)


BOMBS = {
    "brackets": "{{ " + "(" * 40_000,
    "lists": "{{ " + "[" * 40_000,
    "signs": "{{ " + "-" * 40_000 + "1 }}",
    "nots": "{{ " + "not " * 12_000 + "true }}",
    "names": "{{ event" + ".a" * 24_000 + " }}",
    "keys": "{{ event" + "['a']" * 9_000 + " }}",
    "filters": "{{ 'a'" + " | upper" * 5_000 + " }}",
    "sums": "{{ 1" + " + 1" * 12_000 + " }}",
    "products": "{{ 1000000000000" + " * 1000000000000" * 30 + " }}",
    "joins": "{{ 'a'" + " ~ event.summary" * 2_500 + " }}",
    "ifs": "{% if true %}" * 3_500,
    "braces": "{{" * 24_000,
    "comments": "{#" * 24_000,
    "digits": "{{ " + "9" * 49_000 + " }}",
    "quotes": "{{ '" + "\\" * 49_000,
    "choices": "{{ 1" + " if true else 1" * 3_000 + " }}",
    "parts": "{{ 'a' }}" * 4_900,
    "length": "x" * 200_000 + "{{ 1 }}",
}


@pytest.mark.parametrize("bomb", sorted(BOMBS))
def test_a_template_bomb_is_a_mistake_and_costs_little(bomb: str) -> None:
    assert len(BOMBS[bomb]) <= MAX_SOURCE or bomb == "length"
    began = time.process_time()
    with pytest.raises((TemplateError, RenderError)):
        template(BOMBS[bomb])(NAMES)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "source",
    [
        "{{ event.summary ~ event.summary }}",
        "{{ event.summary }}{{ event.summary }}",
        "{{ event.summary | replace('a', 'aaaaaaaaaaaaaaaaaaaa') }}",
        "{{ [event.summary, event.summary] | join }}",
        "{{ event.summary | urlencode | replace('a', 'bb') }}",
    ],
)
def test_a_text_that_grows_too_long_is_an_error(source: str) -> None:
    event = event_of(summary="a" * 700_000)
    with pytest.raises(RenderError, match="longer than 1 MiB"):
        template(source)(names_of(event, NOW, "UTC"))


def test_numbers_cannot_grow_without_bound() -> None:
    event = event_of(duration=10**4000)
    for source in ("{{ event.duration * event.duration }}", "{{ event.duration + 1 }}"):
        with pytest.raises(RenderError, match="10 to the 18th"):
            template(source)(names_of(event, NOW, "UTC"))


def test_what_no_database_takes_is_replaced() -> None:
    event = event_of(summary="a\x00b\ud800c", metadata__x={"k\x00": ["\udfff", float("inf")]})
    names = names_of(event, NOW, "UTC")
    assert template("{{ event.summary }}")(names) == "a\ufffdb\ufffdc"
    assert template("x{{ event.summary }}")(names) == "xa\ufffdb\ufffdc"
    with pytest.raises(RenderError, match="not finite"):
        template("{{ event.metadata }}")(names)


def test_a_value_nested_beyond_reason_is_an_error_not_a_crash() -> None:
    event = event_of(metadata__x=json.loads("[" * 900 + "]" * 900))
    with pytest.raises(RenderError, match="nested too deeply"):
        template("{{ event.metadata }}")(names_of(event, NOW, "UTC"))


def test_rendering_changes_nothing() -> None:
    before = json.dumps(EVENT.body)
    render("{{ event.metadata.tags | join }}{{ event.metadata.nested['order id'] }}")
    found = render("{{ event.metadata }}")
    found["tags"].append("c")
    assert json.dumps(EVENT.body) == before


def test_a_condition_is_the_same_language() -> None:
    assert condition("event.duration >= 125 and not contact.email is defined")(NAMES) is True
    with pytest.raises(RenderError):
        condition("event.duration")(NAMES)
    with pytest.raises(TemplateError):
        condition("{{ event.duration > 5 }}")


def test_errors_hold_no_values() -> None:
    secret = "maya@example.com"
    event = event_of(summary=secret)
    for source in ("{{ event.summary + 1 }}", "{{ event.summary | int }}", "{{ event.summary | local }}"):
        with pytest.raises(RenderError) as caught:
            template(source)(names_of(event, NOW, "UTC"))
        assert secret not in str(caught.value)
