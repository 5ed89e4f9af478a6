"""Templates and conditions: a small subset of Jinja's syntax, compiled to plain functions.

Jinja parses the source. The compiler then checks each node against the list of allowed nodes and turns it into a
plain function. No code is generated, so there is no sandbox to escape from: no loops, no calls, no attributes of
Python objects, only mapping keys. Bounded cost is the reason for an evaluator of our own (CEL was measured and
rejected: one binding froze for seconds on a bomb, the other costs 50 MB): each function is bounded by its input and
each template by its size, so a template cannot be slow or produce unbounded output.

Unlike Jinja, templates never guess: null counts as missing, a missing value is an error that `default` catches,
`and`, `or` and `not` take true or false, only values of the same type are compared, and arithmetic takes numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bridge.connector.params import MarkupLanguage
from bridge.events import Event
from bridge.rules import template_runtime
from bridge.rules.contradictions import Requirement, requirements_of
from bridge.rules.counting import EventCount
from bridge.rules.lookup import FIELD_CACHE, SHOWN_FIELDS, UNREAD, UNREADABLE, TemplateContext
from bridge.rules.model import unplaced_error
from bridge.rules.presence import proven_by
from bridge.rules.template_compiler import ALLOWED_TAGS, Compiler, TemplateError
from bridge.rules.template_runtime import TIME_ZONE, Evaluator

MAX_SOURCE = 50_000

_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_CLOSING = {"{{": "}}", "{%": "%}", "{#": "#}"}
_OPENED_BEFORE_VALUE = re.compile(r"<\s*\{[{%]")
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, cache_size=0)
"""Used only for parsing, never for rendering. It is Jinja's strictest environment in case that ever changes."""


@dataclass(frozen=True)
class Template:
    """A compiled template or condition. Calling it with a context returns its value."""

    source: str
    run: Evaluator
    paths: frozenset[tuple[str, ...]]
    """Every dotted name in the template."""
    comparisons: frozenset[tuple[tuple[str, ...], Any]]
    """The dotted names that the template compares with a constant, each with that constant."""
    required: frozenset[tuple[str, ...]] = frozenset()
    """The dotted names without which the template cannot be rendered."""
    truth_tests: frozenset[tuple[str, ...]] = frozenset()
    """The dotted names that the template uses as true or false."""
    requirements: tuple[Requirement, ...] = ()
    """Of a condition: the comparisons with constants that must be true for it to be true."""
    counts: tuple[EventCount, ...] = ()
    """The events of the contact that the template counts."""
    tables: frozenset[str] = frozenset()
    """The tables that the template looks values up in."""
    proves: frozenset[tuple[str, ...]] = frozenset()
    """Of a condition: the dotted names that have a value if it is true."""

    def __call__(self, context: TemplateContext) -> Any:
        """Return the value. Raise RenderError if it cannot be evaluated: MissingValue if a name has no value."""
        return self.run(context)


def is_template(text: str) -> bool:
    """Return whether a string of the file is a template."""
    return _TEMPLATE.search(text) is not None


def template_context(
    event: Event | None, now: datetime, zone: str, delivery: TemplateContext | None = None
) -> dict[str, Any]:
    """Return the names that templates and conditions can use. `zone` applies if the event has no time zone."""
    context: dict[str, Any] = {
        "now": now.isoformat(),
        TIME_ZONE: zone,
        FIELD_CACHE: {},
        SHOWN_FIELDS: {},
        UNREADABLE: {},
        UNREAD: set(),
    }
    if event is not None:
        contact = event.contact
        context["event"] = event.fields
        context[UNREADABLE] = event.unreadable_names
        context["contact"] = vars(contact)
        context[TIME_ZONE] = contact.time_zone or zone
    if delivery is not None:
        context["delivery"] = dict(delivery)
    return context


def message_context(context: TemplateContext, event: Event | None) -> TemplateContext:
    """Return the context of a message to a customer: names that are more than a name have no value in it.

    A stranger may have written them, and the company's own sender would deliver the link or the text in them.
    """
    if event is None or not event.unplain_names:
        return context
    return {
        **context,
        "contact": {**context["contact"], "name": event.contact.plain_name},
        FIELD_CACHE: {},
        SHOWN_FIELDS: {},
        UNREADABLE: {**context[UNREADABLE], **event.unplain_names},
    }


@lru_cache(maxsize=1024)
def template(source: str, markup: MarkupLanguage | None = None) -> Template:
    """Compile a string with `{{ ... }}` in it. Raise TemplateError. In `markup`, inserted values are escaped.

    A source that is exactly one `{{ ... }}` keeps the JSON type of its value. Any other source renders to a string.
    """

    def build(compiler: Compiler) -> Evaluator:
        if markup == "slack" and _OPENED_BEFORE_VALUE.search(source):
            return compiler.reject(
                "a value cannot follow `<`, because it could mention everybody",
                "write the beginning of a link or mention yourself: `<https://example.com/{{ ... }}|open>`", "<",
            )  # fmt: skip
        tree = _ENVIRONMENT.parse(source)
        for printed in tree.find_all(nodes.Output):
            if any(isinstance(node, nodes.Tuple) for node in printed.nodes):
                return compiler.reject(
                    "a comma cannot join two values", f"{_FALLBACK}; join texts with ~", ","
                )
        body = tree.body
        output = body[0] if len(body) == 1 else None
        if isinstance(output, nodes.Output) and len(output.nodes) == 1:
            only = output.nodes[0]
            if not isinstance(only, nodes.TemplateData):
                return template_runtime.passthrough(compiler.expression(only), markup)
        return template_runtime.concatenate(compiler.statements(body, markup))

    return _compile(source, build)


_WORDS = {"=": "==", "AND": "and", "OR": "or", "NOT": "not", "IN": "in", "IS": "is"}
"""Word of another language -> ours."""


@lru_cache(maxsize=1024)
def condition(source: str) -> Template:
    """Compile an `if`: one expression that is true or false. Raise TemplateError."""

    def build(compiler: Compiler) -> Evaluator:
        if is_template(source):
            compiler.reject("a condition is written without `{{ }}` and `{% %}`", "remove the braces")
            return template_runtime.unusable
        parser = Parser(_ENVIRONMENT, source, state="variable")
        tree = parser.parse_expression()
        if not parser.stream.eos:
            rest = str(parser.stream.current.value)
            word = _WORDS.get(rest)
            general = "compare with == != < > in; join conditions with and, or, not; put strings in quotes"
            hint = f"write `{word}`" if word else general
            compiler.reject(f"unexpected `{rest[:40]}`", hint, rest)
        trees.append(tree)
        return compiler.boolean(tree, "the condition must be")

    trees: list[nodes.Expr] = []
    compiled = _compile(source, build)
    return replace(compiled, proves=proven_by(trees[0])[0], requirements=requirements_of(trees[0]))


def _compile(source: str, build: Callable[[Compiler], Evaluator]) -> Template:
    if len(source) > MAX_SOURCE:
        raise _template_error(f"the template is longer than {MAX_SOURCE:,} characters")
    compiler = Compiler()
    try:
        run = build(compiler)
    except TemplateSyntaxError as error:
        raise _unclosed(source) or _syntax_error(error) from None
    except RecursionError:
        raise _template_error("the template is nested too deeply") from None
    except ValueError:  # a number with thousands of digits
        raise _template_error("the template contains a number that is too long") from None
    if compiler.diagnostics:
        raise TemplateError(compiler.diagnostics, compiler.paths)
    return Template(
        source,
        run,
        frozenset(compiler.paths),
        frozenset(compiler.comparisons),
        frozenset(compiler.unguarded),
        frozenset(compiler.truth_tests),
        counts=tuple(compiler.counts),
        tables=frozenset(compiler.tables),
    )


def _template_error(text: str, hint: str = "", token: str = "") -> TemplateError:
    return TemplateError([(token, unplaced_error(text, hint))])


def _unclosed(source: str) -> TemplateError | None:
    """Return the error of the first `{{` or `{%` that is not closed before the next one, if any."""
    for opening in _TEMPLATE.finditer(source):
        end = _CLOSING[opening[0]]
        following = _TEMPLATE.search(source, opening.end())
        if end not in source[opening.end() : following.start() if following else None]:
            token = source[opening.start() :].splitlines()[0].split('"')[0][:40]
            return _template_error(f"unclosed `{opening[0]}`", f"add the closing `{end}`", token)
    return None


def _syntax_error(error: TemplateSyntaxError) -> TemplateError:
    """Translate Jinja's message for readers who do not know its internals."""
    message = error.message or ""
    lowered = message.lower()
    got = message.rpartition("got ")[2].strip("'.")
    if "'endif'" in message:
        return _template_error("unclosed `{% if %}`", "add the closing {% endif %}", "{%")
    if "end of template" in lowered or "missing end of" in lowered:
        return _template_error(
            "unexpected end", "complete the expression, or close the open bracket or quote"
        )
    if "unknown tag" in lowered:
        return _template_error(message.partition(". ")[0].rstrip("."), ALLOWED_TAGS, "{%")
    if "unexpected char" in lowered:
        char = message.removeprefix("unexpected char ").partition(" at ")[0].strip("'\"")
        hint = _REPLACEMENTS.get(char, "put strings in quotes; the operators are + - * / // % ~ == != < >")
        return _template_error(f"unexpected `{char}`", hint, char)
    if got in ("end of print statement", "end of statement block"):
        return _template_error("incomplete expression before the closing brace", "write {{ contact.name }}")
    if "end of print statement" in lowered or "end of statement block" in lowered:
        presence = "write `is filled` or `is not filled`" if got in ("exists", "filled", "empty") else ""
        found = _FOUND.get(got, f"unexpected `{got[:40]}`")
        hint = presence or _REST_HINTS.get(
            got, "a field is one word: {{ contact.first_name }}; other text needs quotes"
        )
        return _template_error(found, hint, "" if got in _FOUND else got)
    hint = _TOKEN_HINTS.get(got, "a correct one is {{ contact.first_name | default('there') }}")
    return _template_error(f"invalid template: {message[:120]}", hint)


_FALLBACK = "for a fallback, write `| default('there')`"
_FOUND = {"string": "unexpected text in quotes", "integer": "unexpected number", "float": "unexpected number"}
"""Jinja's kind of a token -> our words."""
_TOKEN_HINTS = {"|": _FALLBACK, "integer": "compare with `==`", "string": "compare with `==`"}
_REST_HINTS = {
    "=": "write `==`",
    ",": _FALLBACK,
    "string": f"{_FALLBACK}; join texts with ~",
}
"""What cannot follow an expression -> what was probably meant."""


_STRAIGHT_QUOTE = "curly quotes: write straight ones, like 'text'"
_REPLACEMENTS = {
    "\u2018": _STRAIGHT_QUOTE,
    "\u2019": _STRAIGHT_QUOTE,
    "\u201c": _STRAIGHT_QUOTE,
    "\u201d": _STRAIGHT_QUOTE,
    "\u201e": _STRAIGHT_QUOTE,
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`",
    "?": "write `a if condition else b`",
}
