"""OpenTelemetry: the spans of an event. Imported only if traces are on (`bridge.telemetry.tracing`).

Spans are made when a step is over, with its start and end, so that tracing adds nothing to the step itself. Their
attributes are IDs, names of rules and actions, and fixed words: no personal data.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from bridge import __version__
from bridge.telemetry.tracing import SpanIds, span_ids

FLUSH_MILLISECONDS: Final = 2000
ROOT: Final = "webhook"
"""The first span of an event's trace."""
Attributes = Mapping[str, str | int | None]


class _PresetIds(RandomIdGenerator):
    """Generates the IDs that were set for the next span of the thread."""

    def __init__(self) -> None:
        self._next = threading.local()

    def preset(self, ids: SpanIds) -> None:
        """Set the IDs of the next span."""
        self._next.ids = ids

    def generate_trace_id(self) -> int:
        """Return the trace ID of the next span."""
        return int(self._next.ids.trace)

    def generate_span_id(self) -> int:
        """Return the ID of the next span."""
        return int(self._next.ids.span)


class EventTracer:
    """Exports the spans of events. Its methods are thread-safe. Times are nanoseconds since 1970."""

    def __init__(self) -> None:
        # Each failed export is retried and logged; the last failure is an error.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.ERROR)
        self._ids = _PresetIds()
        resource = Resource.create(
            {
                "service.name": os.environ.get("OTEL_SERVICE_NAME") or "bridge",
                "service.version": __version__,
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            }
        )
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("bridge", __version__)

    def received(
        self,
        event_id: str,
        event_type: str,
        result: str,
        started_at: int,
        store_started_at: int,
        ended_at: int,
    ) -> None:
        """Export the spans of a webhook request and of storing its event."""
        attributes = {"bridge.event.id": event_id, "bridge.event.type": event_type, "bridge.result": result}
        error = result if result == "unavailable" else None
        self._span(ROOT, event_id, ROOT, attributes, started_at, ended_at, SpanKind.SERVER, error)
        self._span("store", event_id, "store", attributes, store_started_at, ended_at, error=error)

    def routed(
        self, event_id: str, fired: int, deliveries: int, rules_hash: str, started_at: int, ended_at: int
    ) -> None:
        """Export the span of evaluating the rules for an event and storing its deliveries."""
        attributes: Attributes = {
            "bridge.event.id": event_id,
            "bridge.rules.hash": rules_hash[:12],
            "bridge.rules.fired": fired,
            "bridge.deliveries": deliveries,
        }
        self._span("route", event_id, "route", attributes, started_at, ended_at)

    def attempted(
        self,
        trace_key: str,
        attempt_key: str,
        attributes: Attributes,
        error: str | None,
        started_at: int,
        ended_at: int,
    ) -> None:
        """Export the span of an attempt. `error` is the reason of a failed one."""
        self._span(
            "attempt", trace_key, attempt_key, attributes, started_at, ended_at, SpanKind.CLIENT, error
        )

    def traceparent(self, trace_key: str, attempt_key: str) -> str:
        """Return the header by which a provider continues the trace of an attempt (W3C Trace Context)."""
        ids = span_ids(trace_key, attempt_key)
        return f"00-{ids.trace:032x}-{ids.span:016x}-{int(self._is_sampled(ids.trace)):02x}"

    def flush(self) -> None:
        """Export the spans that wait."""
        self._provider.force_flush(FLUSH_MILLISECONDS)

    def _span(
        self,
        name: str,
        trace_key: str,
        span_key: str,
        attributes: Attributes,
        started_at: int,
        ended_at: int,
        kind: SpanKind = SpanKind.INTERNAL,
        error: str | None = None,
    ) -> None:
        ids = span_ids(trace_key, span_key)
        if not self._is_sampled(ids.trace):
            return
        self._ids.preset(ids)
        span = self._tracer.start_span(
            name,
            Context() if span_key == ROOT else self._parent(trace_key),
            kind,
            {key: value for key, value in attributes.items() if value is not None},
            start_time=started_at,
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(ended_at)

    def _parent(self, trace_key: str) -> Context:
        ids = span_ids(trace_key, ROOT)
        flags = TraceFlags(TraceFlags.SAMPLED)
        return set_span_in_context(
            NonRecordingSpan(SpanContext(ids.trace, ids.span, is_remote=True, trace_flags=flags)), Context()
        )

    def _is_sampled(self, trace_id: int) -> bool:
        """Return what the sampler decides about the trace; it is the same in every process."""
        decision = self._provider.sampler.should_sample(None, trace_id, ROOT).decision
        return decision is not Decision.DROP
