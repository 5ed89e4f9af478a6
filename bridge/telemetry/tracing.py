"""Traces: one per event, from the webhook over routing to each attempt, in whatever process each step runs.

Traces are off unless an OTLP endpoint is set by the standard variables of OpenTelemetry; only then its SDK (the extra
`otel`) is imported. The IDs of a trace and of its spans follow from those of the event and the delivery, so that no
process has to pass them on and nothing is stored.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from bridge.telemetry.otel import EventTracer

ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_active: EventTracer | None = None


class SpanIds(NamedTuple):
    """The IDs of a span, as integers of 128 and 64 bits."""

    trace: int
    span: int


def span_ids(trace_key: str, span_key: str) -> SpanIds:
    """Return the IDs of a span. `trace_key` is the ID of the event; `span_key` names the step in its trace."""
    trace = hashlib.sha256(trace_key.encode()).digest()[:16]
    span = hashlib.sha256(f"{trace_key} {span_key}".encode()).digest()[:8]
    return SpanIds(int.from_bytes(trace), int.from_bytes(span))


def configure_tracing(environ: Mapping[str, str]) -> None:
    """Start to export traces if the variables say so. Raise ConfigError if the SDK is not installed."""
    global _active
    is_disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_disabled or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return
    if not any(environ.get(name) for name in ENDPOINT_VARIABLES):
        return
    for name, value in environ.items():  # those of `.env` too: the SDK reads the environment itself
        if name.startswith("OTEL_"):
            os.environ.setdefault(name, value)
    try:
        otel = importlib.import_module("bridge.telemetry.otel")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{' or '.join(ENDPOINT_VARIABLES)} is set, but OpenTelemetry is not installed (no module "
            f"{error.name}): install heppu-bridge[otel], or unset the variable"
        ) from None
    _active = otel.EventTracer()


def tracer() -> EventTracer | None:
    """Return the tracer, or None if traces are off."""
    return _active


def flush_traces() -> None:
    """Export the spans that wait, for at most two seconds."""
    if _active is not None:
        _active.flush()
