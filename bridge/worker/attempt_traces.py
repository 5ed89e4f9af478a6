"""Spans of attempts."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.results import AttemptResult
from bridge.telemetry import tracing


def trace_attempts(results: Sequence[AttemptResult], seconds: float) -> None:
    """Export the spans of the attempts of one call, which took `seconds` and is over now."""
    tracer = tracing.tracer()
    if tracer is None:
        return
    ended_at = time.time_ns()
    for result in results:
        delivery = result.delivery
        attributes = {
            "bridge.event.id": delivery.event_id,
            "bridge.delivery.id": delivery.id,
            "bridge.rule": delivery.rule,
            "bridge.action": delivery.action,
            "bridge.connection": delivery.connection,
            "bridge.attempt.number": result.claimed.fencing_token,
            "bridge.attempt.kind": delivery.kind,
            "bridge.attempt.outcome": str(result.outcome),
            "bridge.delivery.state": str(result.transition.state),
        }
        error = result.failure.reason if result.failure else None
        started_at = ended_at - int(seconds * 1e9)
        tracer.attempted(*_keys(result.claimed), attributes, error, started_at, ended_at)


def traceparent_of(claimed: ClaimedDelivery) -> str | None:
    """Return the header by which a provider continues the trace of an attempt; None if traces are off."""
    tracer = tracing.tracer()
    return tracer.traceparent(*_keys(claimed)) if tracer else None


def _keys(claimed: ClaimedDelivery) -> tuple[str, str]:
    """Return the keys of the trace and of the span of an attempt. An alert about the service has a trace of its own."""
    delivery = claimed.delivery
    return delivery.event_id or delivery.id, f"{delivery.id} {claimed.fencing_token}"
