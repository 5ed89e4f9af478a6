"""Reads the connector author's API from its source: signatures, fields and docstrings as they are written there."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

MAX_LINE = 100
"""Characters of a signature in one line."""


@dataclass(frozen=True)
class Definition:
    """One exported name: a class, a function, a constant or a type."""

    name: str
    module: str
    node: ast.stmt
    doc: str

    @property
    def is_class(self) -> bool:
        """Whether it is a class."""
        return isinstance(self.node, ast.ClassDef)


@dataclass(frozen=True)
class Field:
    """A field or property of a class."""

    name: str
    type: str
    default: str
    doc: str


def exported(package: str) -> list[Definition]:
    """Return what a package exports, in the order in which it imports the names."""
    module = f"{package}.exports" if find_spec(f"{package}.exports") else package
    return [
        definition(statement.module, alias.name)
        for statement in ast.walk(_source(module))  # some are imported for type checkers, and on first use
        if isinstance(statement, ast.ImportFrom) and statement.module and statement.module.startswith("bridge.")
        for alias in statement.names
    ]


def definition(module: str, name: str) -> Definition:
    """Return the definition of a name at the top of a module. Raise LookupError if it has none."""
    body = _source(module).body
    for position, node in enumerate(body):
        if _defined_name(node) == name:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                return Definition(name, module, node, ast.get_docstring(node) or "")
            return Definition(name, module, node, _text_after(body, position))
        if isinstance(node, ast.ImportFrom) and node.module:
            imported = {alias.asname or alias.name: alias.name for alias in node.names}
            if name in imported:
                return definition(node.module, imported[name])
    raise LookupError(f"{module} does not define {name}")


def defined_in(module: str) -> Iterator[Definition]:
    """Yield the classes and constants of a module, in their order."""
    for node in _source(module).body:
        name = _defined_name(node)
        if name and not name.startswith("_"):
            yield definition(module, name)


def signature(item: Definition) -> str:
    """Return the code that shows how a name is used: `param(default, ...)`, `class Limits(...)`."""
    node = item.node
    if isinstance(node, ast.FunctionDef):
        return _call(item.name, node)
    if not isinstance(node, ast.ClassDef):
        return ast.unparse(node)
    bases = [ast.unparse(base) for base in node.bases if ast.unparse(base) not in ("Protocol", "Generic[P]")]
    shown = f"class {item.name}({', '.join(bases)})" if bases else f"class {item.name}"
    constructor = next((method for method in _methods(node) if method.name == "__init__"), None)
    return f"{shown}\n{_call(item.name, constructor)}" if constructor else shown


def fields(item: Definition) -> list[Field]:
    """Return the public fields and properties of a class, without those that its constructor does not take."""
    node = item.node
    if not isinstance(node, ast.ClassDef):
        return []
    found = []
    for position, child in enumerate(node.body):
        doc = _text_after(node.body, position)
        if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            default = "" if child.value is None else _default(child.value)
            if default is not None:
                found.append(Field(child.target.id, ast.unparse(child.annotation), default, doc))
        elif isinstance(child, ast.Assign) and isinstance(child.targets[0], ast.Name):
            found.append(Field(child.targets[0].id, "", ast.unparse(child.value), doc))  # of an enumeration
        elif isinstance(child, ast.FunctionDef) and _is_property(child):
            doc = ast.get_docstring(child) or ""
            found.append(Field(child.name, ast.unparse(child.returns) if child.returns else "", "", doc))
    return [field for field in found if not field.name.startswith("_") and field.name != "model_config"]


def methods(item: Definition) -> list[tuple[str, str]]:
    """Return signature and docstring of the public methods of a class."""
    if not isinstance(item.node, ast.ClassDef):
        return []
    return [
        (_call(f".{method.name}", method), ast.get_docstring(method) or "")
        for method in _methods(item.node)
        if not method.name.startswith("_") and not _is_property(method)
    ]


@cache
def _source(module: str) -> ast.Module:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise LookupError(f"there is no module {module}")
    return ast.parse(Path(spec.origin).read_text("utf-8"))


def _defined_name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else None


def _text_after(body: Sequence[ast.stmt], position: int) -> str:
    """Return the string that follows a statement: the docstring of a constant or a field."""
    following = body[position + 1] if position + 1 < len(body) else None
    if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
        return inspect.cleandoc(str(following.value.value))
    return ""


def _default(value: ast.expr) -> str | None:
    """Return the default of a field; None if a constructor does not take the field."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        keywords = {keyword.arg: keyword.value for keyword in value.keywords}
        if "init" in keywords:
            return None
        if factory := keywords.get("default_factory"):
            return f"{ast.unparse(factory)}()"
        return ast.unparse(keywords["default"]) if "default" in keywords else ""
    return ast.unparse(value)


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [child for child in node.body if isinstance(child, ast.FunctionDef)]


def _is_property(method: ast.FunctionDef) -> bool:
    names = {ast.unparse(decorator) for decorator in method.decorator_list}
    return not names.isdisjoint({"property", "cached_property", "lazy"})


def _call(name: str, function: ast.FunctionDef) -> str:
    arguments = [text for text in _arguments(function.args) if text not in ("self", "cls")]
    returns = ast.unparse(function.returns) if function.returns else ""
    result = "" if returns in ("", "None") else f" -> {returns}"
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) <= MAX_LINE:
        return line
    return "\n".join((f"{name}(", *(f"    {argument}," for argument in arguments), f"){result}"))


def _arguments(arguments: ast.arguments) -> list[str]:
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    shown = [_argument(*pair) for pair in zip(plain, defaults, strict=True)]
    if arguments.vararg:
        shown.append(f"*{_argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        shown.append("*")
    shown += [_argument(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        shown.append(f"**{_argument(arguments.kwarg, None)}")
    return shown


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    if default is None:
        return argument.arg + annotation
    return f"{argument.arg}{annotation}{' = ' if annotation else '='}{ast.unparse(default)}"
