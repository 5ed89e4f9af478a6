"""Docstrings below the attributes of a class, which Python keeps only in the source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise


def attribute_docstrings(cls: type) -> dict[str, str]:
    """Return the docstrings of a class' own annotated attributes, by name; none if its source is not installed."""
    try:
        source = inspect.getsource(cls)
    except OSError:
        return {}
    found = {}
    [definition] = ast.parse(textwrap.dedent(source)).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - for the type checker
    for statement, following in pairwise(definition.body):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                found[name] = inspect.cleandoc(text)
    return found
