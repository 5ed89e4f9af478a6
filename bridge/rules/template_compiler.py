"""Template compiler: turns Jinja's nodes into plain functions and rejects every node that is not allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jinja2 import nodes

from bridge.connector.params import MarkupLanguage
from bridge.json_values import describe_type
from bridge.rules import template_filters, template_runtime
from bridge.rules.counting import EventCount, parse_count
from bridge.rules.lookup import TemplateContext
from bridge.rules.model import Diagnostic, unplaced_error
from bridge.rules.presence import ABSENT_TESTS, PRESENT_TESTS, Paths, path_of, proven_by
from bridge.rules.template_filters import Filter, RenderError
from bridge.rules.template_runtime import Evaluator
from bridge.spelling import did_you_mean

MAX_NODES = 500
MAX_DEPTH = 40
MAX_PATH_LENGTH = 20
ALLOWED_TAGS = "only {% if %}, {% elif %}, {% else %} and {% endif %} are supported"

LocatedDiagnostic = tuple[str, Diagnostic]
"""A token in the template's source (empty: the whole source), and the error there."""


class TemplateError(Exception):
    """A template or condition with errors."""

    def __init__(
        self, diagnostics: Sequence[LocatedDiagnostic], paths: Collection[tuple[str, ...]] = ()
    ) -> None:
        super().__init__("; ".join(diagnostic.text for _, diagnostic in diagnostics))
        self.diagnostics = tuple(diagnostics)
        self.paths = frozenset(paths)
        """The dotted names that the compiler could read despite the errors."""


class Compiler:
    """Compiler of Jinja's nodes to functions, and collector of the errors in them.

    It limits the number and the depth of nodes, so the compiled template is never deep or long.
    """

    def __init__(self) -> None:
        self.diagnostics: list[LocatedDiagnostic] = []
        self.paths: set[tuple[str, ...]] = set()
        self.comparisons: set[tuple[tuple[str, ...], Any]] = set()
        self.unguarded: set[tuple[str, ...]] = set()
        """Fields without which the template fails."""
        self.counts: list[EventCount] = []
        """The events of the contact that the template counts."""
        self.tables: set[str] = set()
        """The tables that the template looks values up in."""
        self.truth_tests: set[tuple[str, ...]] = set()
        """Fields that are a condition by themselves, without a comparison."""
        self.count = 0
        self.depth = 0
        self._guarded: Paths = frozenset()
        self._tolerated = 0

    @contextmanager
    def _guarding(self, paths: Paths) -> Iterator[None]:
        """Compile the inside of the block as code that runs only if these fields have a value."""
        outer = self._guarded
        self._guarded = outer | paths
        yield
        self._guarded = outer

    @contextmanager
    def _tolerating(self) -> Iterator[None]:
        """Compile the inside of the block as code that may have no value."""
        self._tolerated += 1
        yield
        self._tolerated -= 1

    def reject(self, text: str, hint: str = "", token: str = "") -> Evaluator:
        """Add an error at `token`. Return an evaluator that is never called."""
        self.diagnostics.append((token, unplaced_error(text, hint)))
        return template_runtime.unusable

    def statements(self, body: Sequence[nodes.Node], markup: MarkupLanguage | None) -> list[Evaluator]:
        """Compile the parts of a string. `{% if %}` is the only statement."""
        parts: list[Evaluator] = []
        for node in body:
            if isinstance(node, nodes.Output):
                parts.extend(self._output(item, markup) for item in node.nodes)
            elif isinstance(node, nodes.If):
                parts.append(self._if_statement(node, markup))
            else:
                kind = type(node).__name__.lower()
                name = _TAGS.get(kind, kind)
                self.reject(f"`{{% {name} %}}` is not allowed", ALLOWED_TAGS, "{%")
        return parts

    def _output(self, node: nodes.Expr, markup: MarkupLanguage | None) -> Evaluator:
        if isinstance(node, nodes.TemplateData):
            return template_runtime.constant(node.data)
        value = self.expression(node)
        convert = template_filters.ESCAPES[markup]
        return lambda context: convert(value(context))

    def _if_statement(self, node: nodes.If, markup: MarkupLanguage | None) -> Evaluator:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RecursionError
        concatenate = template_runtime.concatenate
        branches: list[tuple[Evaluator, Evaluator]] = []
        excluded: Paths = frozenset()
        for branch in (node, *node.elif_):
            with self._guarding(excluded):
                test = self.boolean(branch.test, "the condition of `{% if %}` must be")
            if_true, if_false = proven_by(branch.test)
            with self._guarding(excluded | if_true):
                branches.append((test, concatenate(self.statements(branch.body, markup))))
            excluded |= if_false
        with self._guarding(excluded):
            otherwise = concatenate(self.statements(node.else_, markup))
        self.depth -= 1

        def run(context: TemplateContext) -> Any:
            return next((body for test, body in branches if test(context)), otherwise)(context)

        return run

    def expression(self, node: nodes.Node) -> Evaluator:
        """Compile the content of `{{ }}` or of `if:`."""
        self.count += 1
        self.depth += 1
        if self.depth > MAX_DEPTH or self.count > MAX_NODES:
            raise TemplateError([("", unplaced_error("the template is too long", "split or simplify it"))])
        build = _EXPRESSIONS.get(type(node))
        evaluator = build(self, node) if build else self.reject(*_not_allowed(node))
        self.depth -= 1
        return evaluator

    def boolean(self, node: nodes.Node, requirement: str) -> Evaluator:
        """Compile an expression that must be true or false. `requirement` is the start of the error message."""
        if isinstance(node, nodes.Const) and not isinstance(node.value, bool):
            text = f"{requirement} true or false, not {describe_type(node.value)}"
            return self.reject(text, "compare it: x == 'y'; for a fallback, write `| default('there')`")
        path = path_of(node)
        if path is not None:
            self.truth_tests.add(path)
        value = self.expression(node)
        if isinstance(node, nodes.Compare | nodes.And | nodes.Or | nodes.Not):
            return value  # always true or false

        def run(context: TemplateContext) -> bool:
            result = value(context)
            if isinstance(result, bool):
                return result
            raise RenderError(f"{requirement} true or false, not {describe_type(result)}")

        return run

    def _constant(self, node: nodes.Const) -> Evaluator:
        value = node.value
        if isinstance(value, float) and not math.isfinite(value):
            return self.reject("the number is too large")
        return template_runtime.constant(value)

    def _path(self, node: nodes.Expr) -> Evaluator:
        """Compile a dotted name, or a field of any other expression."""
        keys: list[str] = []
        inner: nodes.Node = node
        while isinstance(inner, nodes.Getattr | nodes.Getitem):
            if isinstance(inner, nodes.Getattr):
                keys.append(inner.attr)
            elif isinstance(inner.arg, nodes.Const) and isinstance(inner.arg.value, str):
                keys.append(inner.arg.value)
            elif isinstance(inner.arg, nodes.Slice):
                return self.reject("slices are not allowed", "to shorten a string, use `| truncate(50)`")
            else:
                hint = (
                    "write event.metadata['order id']; for items of a list, use `| first` or `| last`; to look up a "
                    "value, `| table('name')`"
                )
                return self.reject("only a field name is allowed in [ ]", hint, "[")
            inner = inner.node
        if len(keys) > MAX_PATH_LENGTH:
            return self.reject(f"the name has more than {MAX_PATH_LENGTH} parts")
        keys.reverse()
        internal = next((key for key in keys if key.startswith("__") or isinstance(inner, nodes.Const)), None)
        if internal is not None:
            hint = "a template reads fields of an event only"
            return self.reject(f"`.{internal[:40]}` is not a field", hint)
        if isinstance(inner, nodes.Name):
            path = (inner.name, *keys)
            self.paths.add(path)
            if not self._tolerated and path not in self._guarded:
                self.unguarded.add(path)
            return template_runtime.lookup_path(path)
        return template_runtime.lookup_keys(self.expression(inner), tuple(keys))

    def _call(self, node: nodes.Call) -> Evaluator:
        """Compile `count('call.no-answer', '7d')`, the only function."""
        arguments = [item.value if isinstance(item, nodes.Const) else None for item in node.args]
        if path_of(node.node) != ("count",) or node.kwargs or node.dyn_args or node.dyn_kwargs:
            return self.reject(*_not_allowed(node))
        if not all(isinstance(item, str) for item in arguments):
            return self.reject("`count` takes quoted texts", "write count('call.no-answer', '7d')", "count")
        count = parse_count([str(item) for item in arguments])
        if not isinstance(count, EventCount):
            return self.reject(count.text, count.hint, "count")
        self.counts.append(count)
        return lambda context: len(count.times(context))

    def _sequence(self, node: nodes.List | nodes.Tuple) -> Evaluator:
        items = [self.expression(item) for item in node.items]
        return lambda context: [item(context) for item in items]

    def _conditional(self, node: nodes.CondExpr) -> Evaluator:
        if node.expr2 is None:
            hint = "write {{ 'a' if event.x == 1 else 'b' }}"
            return self.reject("an `if` inside {{ }} needs an `else`", hint)
        test = self.boolean(node.test, "the condition of `if` must be")
        if_true, if_false = proven_by(node.test)
        with self._guarding(if_true):
            yes = self.expression(node.expr1)
        with self._guarding(if_false):
            no = self.expression(node.expr2)
        return lambda context: yes(context) if test(context) else no(context)

    def _conjunction(self, node: nodes.And) -> Evaluator:
        left = self.boolean(node.left, "`and` takes")
        with self._guarding(proven_by(node.left)[0]):
            right = self.boolean(node.right, "`and` takes")
        return lambda context: left(context) and right(context)

    def _disjunction(self, node: nodes.Or) -> Evaluator:
        left = self.boolean(node.left, "`or` takes")
        with self._guarding(proven_by(node.left)[1]):
            right = self.boolean(node.right, "`or` takes")
        return lambda context: left(context) or right(context)

    def _negation(self, node: nodes.Not) -> Evaluator:
        value = self.boolean(node.node, "`not` takes")
        return lambda context: not value(context)

    def _concatenation(self, node: nodes.Concat) -> Evaluator:
        return template_runtime.concatenate([self._output(item, None) for item in node.nodes])

    def _arithmetic(self, node: nodes.BinExpr) -> Evaluator:
        sign = node.operator or ""
        for side in (node.left, node.right):
            if isinstance(side, nodes.Const) and isinstance(side.value, str):
                hint = "join strings with ~" if sign == "+" else "remove the quotes if it is a number"
                return self.reject(f"`{sign}` takes numbers, not a string", hint, side.value)
        left, right = self.expression(node.left), self.expression(node.right)
        run = template_runtime.ARITHMETIC[sign]
        return lambda context: template_runtime.arithmetic(run, sign, left(context), right(context))

    def _signed(self, node: nodes.UnaryExpr) -> Evaluator:
        value = self.expression(node.node)
        factor = -1 if isinstance(node, nodes.Neg) else 1
        return lambda context: factor * template_filters.require_number(value(context), "`-`")

    def _comparison(self, node: nodes.Compare) -> Evaluator:
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if any(isinstance(side, nodes.Const) and side.value is None for side in sides):
            return self.reject(
                "values cannot be compared with none", "write `is defined` or `is not defined`"
            )
        for left, operand, right in zip(sides, node.ops, sides[1:], strict=False):
            self._note_comparison(left, operand.op, right)
        first = self.expression(node.expr)
        rest = [
            (template_runtime.comparison(operand.op), self.expression(operand.expr)) for operand in node.ops
        ]
        if len(rest) == 1:
            [(compare, second)] = rest
            return lambda context: compare(first(context), second(context))

        def run(context: TemplateContext) -> bool:
            left = first(context)
            for compare, expression in rest:
                right = expression(context)
                if not compare(left, right):
                    return False
                left = right
            return True

        return run

    def _note_comparison(self, left: nodes.Expr, name: str, right: nodes.Expr) -> None:
        """Record a field that is compared with constants, so that the loader can check the constants."""
        if name in ("in", "notin"):
            items: Sequence[nodes.Expr] = right.items if isinstance(right, nodes.List | nodes.Tuple) else []
        else:
            left, items = (right, [left]) if isinstance(left, nodes.Const) else (left, [right])
        path = path_of(left)
        if path is not None:
            self.comparisons.update((path, item.value) for item in items if isinstance(item, nodes.Const))

    def _filter(self, node: nodes.Filter) -> Evaluator:
        if node.node is None:
            return self.reject("`{% filter %}` is not allowed", "write {{ value | filter }}")
        if node.name == "default" or (node.name == "table" and len(node.args) == 2):
            with self._tolerating():
                value = self.expression(node.node)
        else:
            value = self.expression(node.node)
        spec = _SPECIAL_FILTERS.get(node.name) or template_filters.FILTERS.get(node.name)
        if spec is None:
            return self.reject(
                f"no filter `{node.name[:40]}`",
                did_you_mean(_FILTER_ALIASES.get(node.name, node.name), template_filters.FILTER_NAMES),
                node.name,
            )
        arguments = self._arguments(node, spec)
        if arguments is None:
            return template_runtime.unusable
        if node.name == "default":
            return template_runtime.with_default(value, arguments)
        if node.name == "table":
            table = node.args[0].as_const()
            self.tables.add(table)
            return template_runtime.look_up_in_table(value, table, *arguments[1:])
        if node.name == "local":
            return lambda context: template_filters.local(
                value(context),
                context[template_runtime.TIME_ZONE],
                *(argument(context) for argument in arguments),
            )
        run = spec.run
        return lambda context: run(value(context), *(argument(context) for argument in arguments))

    def _arguments(self, node: nodes.Filter, spec: Filter) -> list[Evaluator] | None:
        if node.kwargs or node.dyn_args or node.dyn_kwargs:
            self.reject(f"`{node.name}` does not take named arguments", "remove the names", node.name)
            return None
        least, most = spec.min_args, spec.max_args
        if not least <= len(node.args) <= most:
            count = str(most) if least == most else f"{least} to {most}"
            self.reject(f"`{node.name}` takes {count} argument{'' if count == '1' else 's'}", "", node.name)
            return None
        for argument, check in zip(node.args, spec.constants, strict=False):
            expected = check(argument.value if isinstance(argument, nodes.Const) else None)
            if expected:
                self.reject(f"`{node.name}` takes {expected}", "", node.name)
                return None
        return [self.expression(argument) for argument in node.args]

    def _test(self, node: nodes.Test) -> Evaluator:
        if node.name in (*PRESENT_TESTS, *ABSENT_TESTS):
            with self._tolerating():
                value = self.expression(node.node)
        else:
            value = self.expression(node.node)
        if node.name not in template_filters.TEST_NAMES:
            return self.reject(
                f"no test `is {node.name[:40]}`",
                did_you_mean(node.name, template_filters.TEST_NAMES),
                node.name,
            )
        if node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
            return self.reject(f"`is {node.name}` takes no arguments", "", node.name)
        if node.name in template_filters.TESTS:
            test = template_filters.TESTS[node.name]
            return lambda context: test(value(context))
        if node.name == "filled":
            return lambda context: template_runtime.is_filled(value, context)
        expected = node.name == "defined"
        return lambda context: template_runtime.is_defined(value, context) is expected


_FILTER_ALIASES = dict.fromkeys(("fallback", "or", "else", "if_empty", "otherwise"), "default")
"""Common guess for a filter's name -> the filter."""
_SPECIAL_FILTERS = {
    "default": template_filters.DEFAULT_FILTER,
    "local": template_filters.LOCAL_FILTER,
    "table": template_filters.TABLE_FILTER,
}

_EXPRESSIONS: dict[type[nodes.Node], Callable[[Compiler, Any], Evaluator]] = {
    nodes.Name: Compiler._path,
    nodes.Getattr: Compiler._path,
    nodes.Getitem: Compiler._path,
    nodes.Const: Compiler._constant,
    nodes.Call: Compiler._call,
    nodes.List: Compiler._sequence,
    nodes.Tuple: Compiler._sequence,
    nodes.CondExpr: Compiler._conditional,
    nodes.And: Compiler._conjunction,
    nodes.Or: Compiler._disjunction,
    nodes.Not: Compiler._negation,
    nodes.Concat: Compiler._concatenation,
    nodes.Add: Compiler._arithmetic,
    nodes.Sub: Compiler._arithmetic,
    nodes.Mul: Compiler._arithmetic,
    nodes.Div: Compiler._arithmetic,
    nodes.FloorDiv: Compiler._arithmetic,
    nodes.Mod: Compiler._arithmetic,
    nodes.Neg: Compiler._signed,
    nodes.Pos: Compiler._signed,
    nodes.Compare: Compiler._comparison,
    nodes.Filter: Compiler._filter,
    nodes.Test: Compiler._test,
}
"""Every node that an expression can contain -> the method that compiles it."""


_TAGS = {
    "assign": "set",
    "assignblock": "set",
    "callblock": "call",
    "filterblock": "filter",
    "fromimport": "from",
}
"""Jinja's node name -> the tag in the template, where the two differ."""


def _not_allowed(node: nodes.Node) -> tuple[str, str, str]:
    if isinstance(node, nodes.Call):
        called = path_of(node.node)
        name = ".".join(called) if called else ""
        hint = f"write `| {called[-1]}`" if called and called[-1] in template_filters.FILTER_NAMES else ""
        text = f"`{name[:40]}(...)`: calls are not allowed"
        if name == "count":
            hint = "write `count('call.no-answer', '7d')`: event types and window, in quotes"
        return text, hint or "there are no functions; use a filter: {{ value | upper }}", name
    if isinstance(node, nodes.Pow):
        return "`**` is not allowed", "multiply with *", "**"
    if isinstance(node, nodes.Dict):
        return "objects are not allowed here", "write the object in YAML, with templates in its values", "{"
    return f"`{type(node).__name__.lower()}` is not allowed in a template", "", ""
