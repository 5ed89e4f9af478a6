"""Finds every log line in the code: its event, level and fields, for the reference page and its test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = ("debug", "info", "warning", "error")
LOGGERS = ("log", "logger")
REJECTION_LOG = "bridge/web/rejection_log.py"
"""Logs the events that are passed to its `report`."""


@dataclass
class LogEvent:
    """A line that the service can log."""

    event: str
    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class VariableEvent:
    """A line whose event is not a fixed string."""

    place: str


def log_events(root: Path = ROOT) -> tuple[list[LogEvent], list[VariableEvent]]:
    """Return the log lines of the service, by event, and those whose event is not a fixed string."""
    events: dict[str, LogEvent] = {}
    variable: list[VariableEvent] = []
    for file in sorted([*(root / "bridge").rglob("*.py"), *(root / "connectors").rglob("*.py")]):
        path = str(file.relative_to(root))
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(call, ast.Call) or not (levels := set(_levels(call, path))):
                continue
            names = list(_strings(_event_argument(call)))
            if not names and path != REJECTION_LOG:
                variable.append(VariableEvent(f"{path}:{call.lineno}"))
            for name in names:
                event = events.setdefault(name, LogEvent(name))
                event.levels |= levels
                event.fields |= {_field(keyword.arg) for keyword in call.keywords if keyword.arg}
                event.fields |= {"reason", "peer"} if _is_rejection(call) else set()
                event.files.add(path)
    return sorted(events.values(), key=lambda event: event.event), variable


def _field(name: str) -> str:
    return "exception" if name == "exc_info" else name


def _is_rejection(call: ast.Call) -> bool:
    """Return whether a call is `rejection_log.report(kind, event, scope, **fields)`."""
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "report"
        and "rejection_log" in ast.unparse(function.value)
    )


def _event_argument(call: ast.Call) -> ast.expr | None:
    index = 1 if _is_rejection(call) else 0
    return call.args[index] if len(call.args) > index else None


def _levels(call: ast.Call, path: str) -> Iterator[str]:
    """Yield the levels of a call, if it logs."""
    if _is_rejection(call) and not path.endswith("tests.py"):
        yield "warning"
        return
    functions = [call.func.body, call.func.orelse] if isinstance(call.func, ast.IfExp) else [call.func]
    for function in functions:
        if (
            isinstance(function, ast.Attribute)
            and function.attr in LEVELS
            and isinstance(function.value, ast.Name)
            and function.value.id in LOGGERS
        ):
            yield function.attr


def _strings(node: ast.expr | None) -> Iterator[str]:
    """Yield the fixed strings that an expression can be; nothing if it can be another one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        branches = [list(_strings(node.body)), list(_strings(node.orelse))]
        if all(branches):
            yield from (name for branch in branches for name in branch)
