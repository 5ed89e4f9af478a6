"""Telemetry: what the service reports about itself.

logs      one line per event with fields, and the masking of personal data; imported from this package
metrics   counters and histograms for Prometheus
tracing   spans for OpenTelemetry
"""

from bridge.telemetry.logs import (
    MAX_FIELD_LENGTH,
    LogStream,
    buffered_logging,
    configure_logging,
    log,
    mask,
    mask_address,
)

__all__ = [
    "MAX_FIELD_LENGTH",
    "LogStream",
    "buffered_logging",
    "configure_logging",
    "log",
    "mask",
    "mask_address",
]
