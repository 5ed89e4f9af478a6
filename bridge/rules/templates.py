"""Templates and conditions: Jinja's syntax, of which only what is listed here exists.

Jinja reads the text; what it read is checked node by node against this list and turned into plain functions. No
code is generated, so there is nothing to break out of: no loops, no calls, no attributes of Python objects, only
mapping keys. Every step is bounded by its input, and a template by its size, so none can be slow or grow.

Where Jinja guesses, this does not: null counts as missing, a missing value is an error that `default` catches,
`and`, `or` and `not` take true or false, values of different types are never compared, arithmetic is for numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bridge.events import Event
from bridge.rules import template_runtime
from bridge.rules.template_compiler import Compiler, Mistake, TemplateError
from bridge.rules.template_runtime import SEEN, ZONE, Names, Step

MAX_SOURCE = 50_000

_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_CLOSING = {"{{": "}}", "{%": "%}", "{#": "#}"}
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, cache_size=0)
"""Read with, never rendered with; should that ever change, it is the strictest that Jinja has."""


@dataclass(frozen=True)
class Template:
    """A template or condition that was checked; called with the names, it gives its value."""

    source: str
    run: Step
    paths: frozenset[tuple[str, ...]]
    """Every dotted name in it."""
    compared: frozenset[tuple[tuple[str, ...], Any]]
    """The dotted names that it compares with a constant, and that."""

    def __call__(self, names: Names) -> Any:
        """The value; raises RenderError (Missing where a name stands for nothing)."""
        return self.run(names)


def is_template(text: str) -> bool:
    """Whether a value of the file is a template."""
    return _TEMPLATE.search(text) is not None


def names_of(event: Event | None, now: datetime, zone: str, delivery: Names | None = None) -> Names:
    """What templates and conditions can name. `zone` holds where the event names none."""
    names: dict[str, Any] = {"now": now.isoformat(), ZONE: zone, SEEN: {}}
    if event is not None:
        names["event"] = event.body if isinstance(event.body, dict) else dict(event.body)
        names["contact"] = vars(event.contact)
        names[ZONE] = event.contact.time_zone or zone
    if delivery is not None:
        names["delivery"] = dict(delivery)
    return names


@lru_cache(maxsize=1024)
def template(source: str, html: bool = False) -> Template:
    """A text with `{{ ... }}` in it; raises TemplateError. With `html`, what is put in is escaped.

    A source that is exactly one `{{ ... }}` gives the value with its JSON type, else a text.
    """

    def build(compiler: Compiler) -> Step:
        body = _ENVIRONMENT.parse(source).body
        output = body[0] if len(body) == 1 else None
        if isinstance(output, nodes.Output) and len(output.nodes) == 1:
            only = output.nodes[0]
            if not isinstance(only, nodes.TemplateData):
                return template_runtime.as_it_is(compiler.expression(only), html)
        return template_runtime.text(compiler.statements(body, html))

    return _compiled(source, build)


@lru_cache(maxsize=1024)
def condition(source: str) -> Template:
    """An `if`: one expression that is true or false; raises TemplateError."""

    def build(compiler: Compiler) -> Step:
        if is_template(source):
            compiler.wrong("a condition is written without `{{ }}` and `{% %}`", "remove the braces")
            return template_runtime.nothing
        parser = Parser(_ENVIRONMENT, source, state="variable")
        tree = parser.parse_expression()
        if not parser.stream.eos:
            rest = str(parser.stream.current.value)
            hint = "compare with == != < > in, join conditions with and, or, not; a text needs quotes"
            compiler.wrong(f"`{rest[:40]}` does not belong here", hint, rest)
        return compiler.boolean(tree, "it")

    return _compiled(source, build)


def _compiled(source: str, build: Callable[[Compiler], Step]) -> Template:
    if len(source) > MAX_SOURCE:
        raise TemplateError([Mistake(f"the template is longer than {MAX_SOURCE:,} characters")])
    compiler = Compiler()
    try:
        run = build(compiler)
    except TemplateSyntaxError as error:
        raise TemplateError([_unclosed(source) or _syntax_mistake(error)]) from None
    except RecursionError:
        raise TemplateError([Mistake("the template is nested too deeply")]) from None
    except ValueError:  # a number of thousands of digits
        raise TemplateError([Mistake("the template holds a number that is too long")]) from None
    if compiler.mistakes:
        raise TemplateError(compiler.mistakes, compiler.paths)
    return Template(source, run, frozenset(compiler.paths), frozenset(compiler.compared))


def _unclosed(source: str) -> Mistake | None:
    """The first `{{` or `{%` that has no end before the next one begins."""
    for opening in _TEMPLATE.finditer(source):
        end = _CLOSING[opening[0]]
        following = _TEMPLATE.search(source, opening.end())
        if end not in source[opening.end() : following.start() if following else None]:
            about = source[opening.start() :].splitlines()[0].split('"')[0][:40]
            return Mistake(f"`{opening[0]}` is not closed", f"write `{end}` where it ends", about)
    return None


def _syntax_mistake(error: TemplateSyntaxError) -> Mistake:
    """Jinja's complaint in the words of people who do not know its inside."""
    said = error.message or ""
    lowered = said.lower()
    got = said.rpartition("got ")[2].strip("'.")
    if "'endif'" in said:
        return Mistake("`{% if %}` is not closed", "write {% endif %} where it ends", "{%")
    if "end of template" in lowered or "missing end of" in lowered:
        return Mistake(
            "it ends too early", "something is missing at the end, or still open: a bracket, a quote"
        )
    if "unknown tag" in lowered:
        return Mistake(said.partition(". ")[0].rstrip("."), _ONLY_IF, "{%")
    if "unexpected char" in lowered:
        char = said.removeprefix("unexpected char ").partition(" at ")[0].strip("'\"")
        hint = _WORDS.get(char, "texts are in quotes; the operators are + - * / // % ~ == != < >")
        return Mistake(f"`{char}` does not belong here", hint, char)
    if got in ("end of print statement", "end of statement block"):
        return Mistake("something is missing before the closing brace", "write {{ contact.name }}")
    if "end of print statement" in lowered or "end of statement block" in lowered:
        return Mistake(f"`{got[:40]}` does not belong here", "a text inside {{ }} needs quotes", got)
    return Mistake(f"broken template: {said[:120]}")


_ONLY_IF = "only {% if %}, {% elif %}, {% else %} and {% endif %} exist"
_WORDS = {"&": "write `and`", "|": "write `or`", "!": "write `not`", "?": "write `a if condition else b`"}
