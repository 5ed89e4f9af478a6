"""Lazy attributes, computed on first access, and modules that are imported on first access, or not at all."""

from __future__ import annotations

import sys
from functools import cached_property
from importlib import import_module
from typing import Any, TypeVar, overload

_Value = TypeVar("_Value")


class lazy(cached_property[_Value]):  # noqa: N801
    """`cached_property` without the lock of Python 3.11, which costs more than most of the values that it protects.

    All objects of the class share that lock, and Python 3.12 removed it. Two threads may both compute the value, so it
    has to be the same each time.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> lazy[_Value]: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> _Value: ...

    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> lazy[_Value] | _Value:
        """Compute the value and store it in the object, which from then on returns it without this call."""
        if instance is None:
            return self
        value = instance.__dict__[self.func.__name__] = self.func(instance)
        return value


class LazyModule:
    """Stands for a module that only some processes need: imports it with the first attribute that is read.

    Python 3.15 has `lazy import` for this. The library's classes cannot be the bases of a class in the same module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        """Return the attribute of the module."""
        return getattr(import_module(self._name), attribute)


class LoadedModule:
    """Stands for a module whose exceptions are recognized, and never imports it.

    An import can fail for the reason of the error that is looked at: there are no more file descriptors. As long as
    nothing has imported the module, it has raised nothing, and `()` takes the place of each of its classes: no object
    is an instance of that. Two such classes are therefore joined in a tuple and not with `|`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        """Return the attribute of the module; `()` if it is not imported, or another thread is importing it."""
        return getattr(sys.modules.get(self._name), attribute, ())
