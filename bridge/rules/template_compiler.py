"""From Jinja's nodes to plain functions: what a template may be made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import nodes

from bridge.rules import template_filters, template_runtime
from bridge.rules.fields import did_you_mean, kind_of
from bridge.rules.template_filters import Filter, RenderError
from bridge.rules.template_runtime import Names, Step

MAX_NODES = 500
MAX_DEPTH = 40
LONGEST_PATH = 20


@dataclass(frozen=True)
class Mistake:
    """What is wrong in a template; `about` is the word in its text to point at."""

    text: str
    hint: str = ""
    about: str = ""


class TemplateError(Exception):
    """A template or condition that cannot be used, with all its mistakes."""

    def __init__(self, mistakes: Sequence[Mistake], paths: Collection[tuple[str, ...]] = ()) -> None:
        super().__init__("; ".join(mistake.text for mistake in mistakes))
        self.mistakes = tuple(mistakes)
        self.paths = frozenset(paths)
        """The dotted names that could be read all the same."""


class Compiler:
    """Turns Jinja's nodes into functions, and gathers what must not be there.

    Sizes are limited here, so what comes out is never deep or long.
    """

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.paths: set[tuple[str, ...]] = set()
        self.compared: set[tuple[tuple[str, ...], Any]] = set()
        self.count = 0
        self.depth = 0

    def wrong(self, text: str, hint: str = "", about: str = "") -> Step:
        """Note a mistake; the function it gives is never called."""
        self.mistakes.append(Mistake(text, hint, about))
        return template_runtime.nothing

    def statements(self, body: Sequence[nodes.Node], html: bool) -> list[Step]:
        """The pieces of a text; only `{% if %}` is a statement."""
        parts: list[Step] = []
        for node in body:
            if isinstance(node, nodes.Output):
                parts.extend(self._part(item, html) for item in node.nodes)
            elif isinstance(node, nodes.If):
                parts.append(self._branches(node, html))
            else:
                kind = type(node).__name__.lower()
                name = _TAGS.get(kind, kind)
                hint = "only {% if %}, {% elif %}, {% else %} and {% endif %} exist"
                self.wrong(f"`{{% {name} %}}` is not allowed", hint, "{%")
        return parts

    def _part(self, node: nodes.Expr, html: bool) -> Step:
        if isinstance(node, nodes.TemplateData):
            return template_runtime.constant(node.data)
        value = self.expression(node)
        show = template_filters.escaped if html else template_filters.written
        return lambda names: show(value(names))

    def _branches(self, node: nodes.If, html: bool) -> Step:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RecursionError
        cases = [
            (self.boolean(case.test, "`{% if %}`"), template_runtime.text(self.statements(case.body, html)))
            for case in (node, *node.elif_)
        ]
        otherwise = template_runtime.text(self.statements(node.else_, html))
        self.depth -= 1

        def choose(names: Names) -> Any:
            return next((text for test, text in cases if test(names)), otherwise)(names)

        return choose

    def expression(self, node: nodes.Node) -> Step:
        """What stands inside `{{ }}` or after `if:`."""
        self.count += 1
        self.depth += 1
        if self.depth > MAX_DEPTH or self.count > MAX_NODES:
            raise TemplateError([Mistake("the template is too long", "split it, or make it simpler")])
        build = _EXPRESSIONS.get(type(node))
        step = build(self, node) if build else self.wrong(*_not_allowed(node))
        self.depth -= 1
        return step

    def boolean(self, node: nodes.Node, where: str) -> Step:
        """An expression that has to be true or false; `where` says for whom."""
        if isinstance(node, nodes.Const) and not isinstance(node.value, bool):
            return self.wrong(
                f"{where} takes true or false, not {kind_of(node.value)}", "compare it: x == 'y'"
            )
        value = self.expression(node)

        def run(names: Names) -> bool:
            found = value(names)
            if isinstance(found, bool):
                return found
            raise RenderError(f"{where} takes true or false, not {kind_of(found)}")

        return run

    def _constant(self, node: nodes.Const) -> Step:
        value = node.value
        if isinstance(value, float) and not math.isfinite(value):
            return self.wrong("the number is too large")
        return template_runtime.constant(value)

    def _path(self, node: nodes.Expr) -> Step:
        """A dotted name, or a key of any other expression."""
        keys: list[str] = []
        inner: nodes.Node = node
        while isinstance(inner, nodes.Getattr | nodes.Getitem):
            if isinstance(inner, nodes.Getattr):
                keys.append(inner.attr)
            elif isinstance(inner.arg, nodes.Const) and isinstance(inner.arg.value, str):
                keys.append(inner.arg.value)
            elif isinstance(inner.arg, nodes.Slice):
                return self.wrong("slices are not allowed", "`| truncate(50)` shortens a text")
            else:
                hint = "name a field: event.metadata['order id']; of a list take `| first` or `| last`"
                return self.wrong("only the name of a field can stand in [ ]", hint, "[")
            inner = inner.node
        if len(keys) > LONGEST_PATH:
            return self.wrong(f"the name has more than {LONGEST_PATH} parts", "")
        keys.reverse()
        if isinstance(inner, nodes.Name):
            path = (inner.name, *keys)
            self.paths.add(path)
            return template_runtime.looked_up(path)
        return template_runtime.keys_of(self.expression(inner), tuple(keys))

    def _sequence(self, node: nodes.List | nodes.Tuple) -> Step:
        items = [self.expression(item) for item in node.items]
        return lambda names: [item(names) for item in items]

    def _chosen(self, node: nodes.CondExpr) -> Step:
        if node.expr2 is None:
            return self.wrong("an `if` inside {{ }} needs an `else`", "{{ 'a' if event.x == 1 else 'b' }}")
        test = self.boolean(node.test, "`if`")
        yes, no = self.expression(node.expr1), self.expression(node.expr2)
        return lambda names: yes(names) if test(names) else no(names)

    def _conjunction(self, node: nodes.And) -> Step:
        left, right = self.boolean(node.left, "`and`"), self.boolean(node.right, "`and`")
        return lambda names: left(names) and right(names)

    def _disjunction(self, node: nodes.Or) -> Step:
        left, right = self.boolean(node.left, "`or`"), self.boolean(node.right, "`or`")
        return lambda names: left(names) or right(names)

    def _negation(self, node: nodes.Not) -> Step:
        value = self.boolean(node.node, "`not`")
        return lambda names: not value(names)

    def _joined(self, node: nodes.Concat) -> Step:
        return template_runtime.text([self._part(item, False) for item in node.nodes])

    def _arithmetic(self, node: nodes.BinExpr) -> Step:
        sign = node.operator or ""
        for side in (node.left, node.right):
            if isinstance(side, nodes.Const) and isinstance(side.value, str):
                hint = "join texts with ~" if sign == "+" else "only numbers can be reckoned with"
                return self.wrong(f"`{sign}` takes numbers, not a text", hint, side.value)
        left, right = self.expression(node.left), self.expression(node.right)
        run = template_runtime.ARITHMETIC[sign]
        return lambda names: template_runtime.reckoned(run, sign, left(names), right(names))

    def _signed(self, node: nodes.UnaryExpr) -> Step:
        value = self.expression(node.node)
        factor = -1 if isinstance(node, nodes.Neg) else 1
        return lambda names: factor * template_filters.number_of(value(names), "`-`")

    def _comparison(self, node: nodes.Compare) -> Step:
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if any(isinstance(side, nodes.Const) and side.value is None for side in sides):
            return self.wrong("nothing can be compared with none", "write `is defined` or `is not defined`")
        for left, operand, right in zip(sides, node.ops, sides[1:], strict=False):
            self._note_comparison(left, operand.op, right)
        first = self.expression(node.expr)
        rest = [(operand.op, self.expression(operand.expr)) for operand in node.ops]

        def run(names: Names) -> bool:
            left = first(names)
            for name, expression in rest:
                right = expression(names)
                if not template_runtime.COMPARISONS[name](left, right):
                    return False
                left = right
            return True

        return run

    def _note_comparison(self, left: nodes.Expr, name: str, right: nodes.Expr) -> None:
        """Remember a field that is compared with constants, so that loading can check them."""
        if name in ("in", "notin"):
            items: Sequence[nodes.Expr] = right.items if isinstance(right, nodes.List | nodes.Tuple) else []
        else:
            left, items = (right, [left]) if isinstance(left, nodes.Const) else (left, [right])
        path = _path_of(left)
        if path is not None:
            self.compared.update((path, item.value) for item in items if isinstance(item, nodes.Const))

    def _filtered(self, node: nodes.Filter) -> Step:
        if node.node is None:
            return self.wrong("`{% filter %}` is not allowed", "write {{ value | filter }}")
        value = self.expression(node.node)
        spec = {"default": template_filters.DEFAULT, "local": template_filters.LOCAL}.get(
            node.name
        ) or template_filters.FILTERS.get(node.name)
        if spec is None:
            return self.wrong(
                f"no filter `{node.name[:40]}`",
                did_you_mean(node.name, template_filters.FILTER_NAMES),
                node.name,
            )
        arguments = self._arguments(node, spec)
        if arguments is None:
            return template_runtime.nothing
        if node.name == "default":
            return template_runtime.with_default(value, arguments)
        if node.name == "local":
            return lambda names: template_filters.local(
                value(names), names[template_runtime.ZONE], *(argument(names) for argument in arguments)
            )
        run = spec.run
        return lambda names: run(value(names), *(argument(names) for argument in arguments))

    def _arguments(self, node: nodes.Filter, spec: Filter) -> list[Step] | None:
        if node.kwargs or node.dyn_args or node.dyn_kwargs:
            self.wrong(f"`{node.name}` takes its arguments without names", "", node.name)
            return None
        if not spec.least <= len(node.args) <= spec.most:
            takes = str(spec.most) if spec.least == spec.most else f"{spec.least} to {spec.most}"
            self.wrong(f"`{node.name}` takes {takes} argument{'' if takes == '1' else 's'}", "", node.name)
            return None
        for argument, check in zip(node.args, spec.constants, strict=False):
            wanted = check(argument.value if isinstance(argument, nodes.Const) else None)
            if wanted:
                self.wrong(f"`{node.name}` wants {wanted}", "", node.name)
                return None
        return [self.expression(argument) for argument in node.args]

    def _tested(self, node: nodes.Test) -> Step:
        value = self.expression(node.node)
        if node.name not in template_filters.TEST_NAMES:
            return self.wrong(
                f"no test `is {node.name[:40]}`",
                did_you_mean(node.name, template_filters.TEST_NAMES),
                node.name,
            )
        if node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
            return self.wrong(f"`is {node.name}` takes no arguments", "", node.name)
        if node.name in template_filters.TESTS:
            test = template_filters.TESTS[node.name]
            return lambda names: test(value(names))
        wanted = node.name == "defined"
        return lambda names: template_runtime.is_there(value, names) is wanted


_EXPRESSIONS: dict[type[nodes.Node], Callable[[Compiler, Any], Step]] = {
    nodes.Name: Compiler._path,
    nodes.Getattr: Compiler._path,
    nodes.Getitem: Compiler._path,
    nodes.Const: Compiler._constant,
    nodes.List: Compiler._sequence,
    nodes.Tuple: Compiler._sequence,
    nodes.CondExpr: Compiler._chosen,
    nodes.And: Compiler._conjunction,
    nodes.Or: Compiler._disjunction,
    nodes.Not: Compiler._negation,
    nodes.Concat: Compiler._joined,
    nodes.Add: Compiler._arithmetic,
    nodes.Sub: Compiler._arithmetic,
    nodes.Mul: Compiler._arithmetic,
    nodes.Div: Compiler._arithmetic,
    nodes.FloorDiv: Compiler._arithmetic,
    nodes.Mod: Compiler._arithmetic,
    nodes.Neg: Compiler._signed,
    nodes.Pos: Compiler._signed,
    nodes.Compare: Compiler._comparison,
    nodes.Filter: Compiler._filtered,
    nodes.Test: Compiler._tested,
}
"""Everything that an expression may be made of."""


_TAGS = {
    "assign": "set",
    "assignblock": "set",
    "callblock": "call",
    "filterblock": "filter",
    "fromimport": "from",
}
"""What Jinja calls some nodes -> the tag that people write."""


def _not_allowed(node: nodes.Node) -> tuple[str, str, str]:
    if isinstance(node, nodes.Call):
        called = _path_of(node.node)
        name = ".".join(called) if called else ""
        hint = f"write `| {called[-1]}`" if called and called[-1] in template_filters.FILTER_NAMES else ""
        return f"`{name[:40]}(...)`: nothing can be called", hint or "use a filter: {{ value | upper }}", name
    if isinstance(node, nodes.Pow):
        return "`**` is not allowed", "multiply with *", "**"
    if isinstance(node, nodes.Dict):
        return "an object cannot be written here", "write it as YAML, with templates inside", "{"
    return f"`{type(node).__name__.lower()}` is not allowed in a template", "", ""


def _path_of(node: nodes.Node) -> tuple[str, ...] | None:
    keys: list[str] = []
    while isinstance(node, nodes.Getattr):
        keys.append(node.attr)
        node = node.node
    return (node.name, *reversed(keys)) if isinstance(node, nodes.Name) else None
