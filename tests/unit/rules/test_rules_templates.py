"""Templates: values, filters and errors, and the limits that keep a template from using too much time or memory."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from bridge.connector.params import MarkupLanguage
from bridge.rules import template_filters
from bridge.rules.template_compiler import TemplateError
from bridge.rules.template_filters import MissingValue, RenderError
from bridge.rules.templates import MAX_SOURCE, condition, template, template_context
from tests.unit.rules.helpers import NOW, event_of

EVENT = event_of(
    "call.busy",
    duration=125,
    summary="Wants <b>both</b> & an invoice",
    metadata__tags=["a", "b"],
    metadata__empty="",
    metadata__none=None,
    metadata__nested={"order id": "A 7", "list": [1, {"x": None}]},
    metadata__flag=True,
)
CONTEXT = template_context(EVENT, NOW, "America/New_York", {"id": "dlv_1", "message": "it failed"})


def render(source: str, markup: MarkupLanguage | None = None) -> Any:
    return template(source, markup)(CONTEXT)


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
        ("{{ event.metadata.absent is filled or contact.name is not filled }}", False),
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
def test_template_renders_value(source: str, value: Any) -> None:
    rendered = render(source)
    assert rendered == value
    assert type(rendered) is type(value)


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
        ("{{ 'es-MX' | prefix(2) }}", "es"),
        ("{{ 'e' | prefix(2) }}", "e"),
        ("{{ now | local }}", "2026-03-02 10:30"),
        ("{{ now | local('%d %B, %H:%M') }}", "02 March, 10:30"),
        ("{{ now | local('%H:%M', 'Europe/Berlin') }}", "16:30"),
        ("{{ event.timestamp | local('%A') }}", "Monday"),
    ],
)
def test_filter_result(source: str, value: Any) -> None:
    assert render(source) == value


def test_every_filter_and_test_is_covered() -> None:
    sources = " ".join(
        str(mark.args[1])
        for function in (test_filter_result, test_template_renders_value)
        for mark in function.pytestmark  # type: ignore[attr-defined]
    )
    assert [name for name in template_filters.FILTER_NAMES if f"| {name}" not in sources] == [
        "escape",
        "table",  # in test_rules_defaults.py
    ]
    assert [name for name in template_filters.TEST_NAMES if f"is {name}" not in sources] == [
        "boolean",
        "mapping",
    ]


def test_local_uses_the_contacts_time_zone() -> None:
    event = event_of(callMetadata__timezone="Asia/Tokyo")
    assert template("{{ now | local('%H') }}")(template_context(event, NOW, "America/New_York")) == "00"


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
def test_missing_value_error_names_the_field(source: str, text: str) -> None:
    with pytest.raises(MissingValue, match=text):
        render(source)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ event.duration + event.event }}", "`+` takes a number, not a string"),
        ("{{ event.summary * 3 }}", "`*` takes a number, not a string"),
        ("{{ event.metadata.flag + 1 }}", "`+` takes a number, not a boolean"),
        ("{{ event.duration % 0 }}", "divides by zero"),
        ("{{ event.duration == event.event }}", "cannot compare a number with a string"),
        ("{{ event.metadata.flag == 1 }}", "cannot compare a boolean with a number"),
        ("{{ event.metadata.tags == event.metadata.tags }}", "cannot compare a list with a list"),
        ("{{ event.duration < event.event }}", "cannot compare a number with a string"),
        ("{{ event.metadata.flag < true }}", "cannot compare"),
        ("{{ not event.duration }}", "`not` takes true or false, not a number"),
        ("{{ event.duration and true }}", "`and` takes true or false, not a number"),
        ("{{ event.event or true }}", "`or` takes true or false, not a string"),
        (
            "{% if event.event %}x{% endif %}",
            "the condition of `{% if %}` must be true or false, not a string",
        ),
        ("{{ 5 in event.event }}", "cannot look for a number in a string"),
        ("{{ event.metadata.tags }}!", "a list cannot be inserted into a string"),
        ("{{ event.metadata }}!", "an object cannot be inserted into a string"),
        ("{{ event.duration | upper }}", "`upper` takes a string, not a number"),
        ("{{ event.event | round }}", "`round` takes a number, not a string"),
        ("{{ event.event | int }}", "`int` takes a whole number"),
        ("{{ event.event | float }}", "`float` takes a number"),
        ("{{ event.event | join }}", "`join` takes a list, not a string"),
        ("{{ event.duration | length }}", "`length` takes"),
        ("{{ event.event | first }}", "`first` takes a list, not a string"),
        ("{{ event.event | local }}", "`local` takes a timestamp"),
        ("{{ 'a' | replace('', 'b') }}", "cannot search for an empty string"),
    ],
)
def test_wrong_type_is_an_error(source: str, text: str) -> None:
    with pytest.raises(RenderError, match=re.escape(text)):
        render(source)


def test_html_values_are_escaped_once() -> None:
    assert render("<p>{{ event.summary }}</p>", markup="html") == (
        "<p>Wants &lt;b&gt;both&lt;/b&gt; &amp; an invoice</p>"
    )
    assert render("{{ event.summary }}", markup="html") == "Wants &lt;b&gt;both&lt;/b&gt; &amp; an invoice"
    assert (
        render("{{ event.summary | e }}", markup="html") == "Wants &lt;b&gt;both&lt;/b&gt; &amp; an invoice"
    )
    assert "<b>" not in render("{{ event.summary ~ '<b>' }}", markup="html")
    assert "<b>" not in render("{{ event.summary | e | upper | lower }}", markup="html")


def test_slack_param_escapes_what_slack_reads() -> None:
    assert (
        render("<!here> {{ event.summary }}", markup="slack")
        == "<!here> Wants &lt;b&gt;both&lt;/b&gt; &amp; an invoice"
    )
    assert (
        render("{{ event.summary | e }}", markup="slack") == "Wants &lt;b&gt;both&lt;/b&gt; &amp; an invoice"
    )
    assert (
        render("<https://example.com/{{ event.duration }}|call>", markup="slack")
        == "<https://example.com/125|call>"
    )


@pytest.mark.parametrize(
    "source", ["<{{ event.summary }}>", "< {{ event.summary }}", "<{% if true %}!here{% endif %}>"]
)
def test_value_cannot_become_a_mention(source: str) -> None:
    with pytest.raises(TemplateError, match="a value cannot follow `<`"):
        render(source, markup="slack")
    assert render(source)
    assert render("{{ event.summary }}") == "Wants <b>both</b> & an invoice"


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
def test_template_cannot_access_attributes_of_python_objects(source: str) -> None:
    with pytest.raises((MissingValue, TemplateError)):
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
def test_unsupported_syntax_is_rejected(source: str) -> None:
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
def test_template_bomb_is_rejected_quickly(bomb: str) -> None:
    assert len(BOMBS[bomb]) <= MAX_SOURCE or bomb == "length"
    started = time.process_time()
    with pytest.raises((TemplateError, RenderError)):
        template(BOMBS[bomb])(CONTEXT)
    assert time.process_time() - started < 5


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
def test_string_above_maximum_length_is_an_error(source: str) -> None:
    event = event_of(summary="a" * 700_000)
    with pytest.raises(RenderError, match="longer than 1 MiB"):
        template(source)(template_context(event, NOW, "UTC"))


def test_number_above_maximum_is_an_error() -> None:
    event = event_of(duration=10**4000)
    for source in ("{{ event.duration * event.duration }}", "{{ event.duration + 1 }}"):
        with pytest.raises(RenderError, match=re.escape("10**18")):
            template(source)(template_context(event, NOW, "UTC"))


def test_unstorable_characters_are_replaced() -> None:
    event = event_of(summary="a\x00b\ud800c", metadata__x={"k\x00": ["\udfff", float("inf")]})
    context = template_context(event, NOW, "UTC")
    assert template("{{ event.summary }}")(context) == "a\ufffdb\ufffdc"
    assert template("x{{ event.summary }}")(context) == "xa\ufffdb\ufffdc"
    with pytest.raises(RenderError, match="not finite"):
        template("{{ event.metadata }}")(context)


def test_deeply_nested_value_is_an_error() -> None:
    event = event_of(metadata__x=json.loads("[" * 900 + "]" * 900))
    with pytest.raises(RenderError, match="nested too deeply"):
        template("{{ event.metadata }}")(template_context(event, NOW, "UTC"))


def test_rendering_does_not_change_the_event() -> None:
    before = json.dumps(EVENT.body)
    render("{{ event.metadata.tags | join }}{{ event.metadata.nested['order id'] }}")
    metadata = render("{{ event.metadata }}")
    metadata["tags"].append("c")
    assert json.dumps(EVENT.body) == before


def test_condition_uses_the_template_language() -> None:
    assert condition("event.duration >= 125 and not contact.email is defined")(CONTEXT) is True
    with pytest.raises(RenderError):
        condition("event.duration")(CONTEXT)
    with pytest.raises(TemplateError):
        condition("{{ event.duration > 5 }}")


def test_errors_contain_no_values() -> None:
    secret = "maya@example.com"
    event = event_of(summary=secret)
    for source in ("{{ event.summary + 1 }}", "{{ event.summary | int }}", "{{ event.summary | local }}"):
        with pytest.raises(RenderError) as caught:
            template(source)(template_context(event, NOW, "UTC"))
        assert secret not in str(caught.value)
