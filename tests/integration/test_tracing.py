"""Traces: off by default; one trace per event over the processes, without personal data."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.samples import refresh_sample, sample
from bridge.telemetry import tracing
from bridge.telemetry.tracing import configure_tracing, span_ids
from tests.acceptance.service_process import eventually, running_service

TARGET_RULES = """
version: 1
rules:
  - name: post
    when: call.busy
    do: [{use: http.post, with: {url: "TARGET", body: {phone: "{{ contact.phone }}"}}}]
"""


class Collector:
    """An OTLP/HTTP collector that keeps the spans, and a service that keeps the headers of what is posted to it."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.posted: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.receive(self.path, body, dict(self.headers))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def receive(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if path != "/v1/traces":
            self.posted.append({name.lower(): value for name, value in headers.items()})
            return
        self.bodies.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            about = {item.key: item.value.string_value for item in resource.resource.attributes}
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                attributes = {
                    item.key: item.value.string_value or item.value.int_value for item in span.attributes
                }
                self.spans.append(
                    {
                        "name": span.name,
                        "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "process": about["service.instance.id"],
                        "service": about["service.name"],
                        "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        "error": span.status.message,
                        **attributes,
                    }
                )


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def test_trace_of_an_event_spans_both_processes(tmp_path: Path, collector: Collector) -> None:
    (tmp_path / "rules.yaml").write_text(TARGET_RULES.replace("TARGET", f"{collector.url}/orders"))
    environ = {
        "HTTP_ALLOWED_HOSTS": collector.url.removeprefix("http://"),
        "HTTP_SECRET": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with running_service(tmp_path, environ) as service:
        body = refresh_sample(sample("call.busy"), datetime.now(UTC))
        assert service.post(body).status_code == 200
        names = ["attempt", "route", "store", "webhook"]
        assert eventually(lambda: sorted(span["name"] for span in collector.spans) == names), collector.spans
        metadata = json.loads(body)["metadata"] if isinstance(body, bytes) else body["metadata"]
    spans = {span["name"]: span for span in collector.spans}
    assert len({span["trace"] for span in collector.spans}) == 1
    root, attempt = spans["webhook"], spans["attempt"]
    assert {span["parent"] for span in collector.spans} == {"", root["id"]}
    assert spans["webhook"]["process"] == spans["route"]["process"] != attempt["process"]
    assert {span["service"] for span in collector.spans} == {"bridge"}
    assert (root["bridge.event.type"], root["bridge.result"]) == ("call.busy", "stored")
    assert (spans["route"]["bridge.rules.fired"], spans["route"]["bridge.deliveries"]) == (1, 1)
    assert (attempt["bridge.action"], attempt["bridge.attempt.outcome"]) == ("http.post", "succeeded")
    assert (attempt["bridge.delivery.state"], attempt["error"]) == ("succeeded", "")
    assert all(0 <= span["seconds"] < 30 for span in collector.spans)
    assert root["seconds"] >= spans["store"]["seconds"]
    [posted] = collector.posted
    assert posted["traceparent"] == f"00-{root['trace']}-{attempt['id']}-01"
    assert root["trace"] == f"{span_ids(root['bridge.event.id'], 'webhook').trace:032x}"
    exported = b"".join(collector.bodies)
    for value in metadata.values():
        assert str(value).encode() not in exported, "spans have no personal data"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_traces_are_off_unless_an_endpoint_is_set(environ: dict[str, str]) -> None:
    configure_tracing(environ)
    assert tracing.tracer() is None


def test_sdk_is_not_imported_while_traces_are_off() -> None:
    code = """
import sys
import bridge.cli.worker_process, bridge.cli.web_service
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[]"


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "bridge.telemetry.otel", raising=False)
    with pytest.raises(ConfigError, match=r"install heppu-bridge\[otel\], or unset the variable"):
        configure_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})


def test_ids_follow_from_the_event_and_differ_by_step() -> None:
    first, again, other = span_ids("evt_1", "route"), span_ids("evt_1", "route"), span_ids("evt_1", "store")
    assert first == again
    assert (first.trace == other.trace, first.span == other.span) == (True, False)
    assert span_ids("evt_2", "route").trace != first.trace
