"""The worker's modules share nothing but what a constructor passes, so two services can run in one process."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections import deque
from contextvars import ContextVar
from queue import Queue, SimpleQueue

import pytest

from bridge import worker

MODULES = [f"bridge.worker.{module.name}" for module in pkgutil.iter_modules(worker.__path__)]
SHARED = (
    dict,
    list,
    set,
    deque,
    bytearray,
    Queue,
    SimpleQueue,
    threading.Event,
    threading.Condition,
    ContextVar,
)


@pytest.mark.parametrize("module", MODULES)
def test_module_has_no_mutable_state(module: str) -> None:
    values = vars(importlib.import_module(module))
    state = [
        name for name, value in values.items() if isinstance(value, SHARED) and not name.startswith("__")
    ]
    assert state == []
