"""The Heppu connector: calls scheduled over real HTTP, and found again after a lost response."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from bridge.connector import Context
from bridge.errors import AuthenticationError, LookupInconclusive, OutcomeUnknown, PermanentError, RateLimited
from bridge.events import Event
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.testing import Clock, Connected, Reply, StubServer, build_context, connect, event, load_connector

PHONE = "+12125550167"
SCHEDULE = "*/calls/schedule"
heppu = load_connector("heppu")
schedule_call = heppu.actions["schedule_call"]


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[RunningSandbox]:
    with start_sandbox(clock=clock) as running:
        yield running


@pytest.fixture
def api(sandbox: RunningSandbox) -> Iterator[Connected]:
    with connect(heppu, sandbox.environment) as connected:
        yield connected


def missed_call(clock: Clock, **changes: Any) -> Event:
    """Return an event of an unanswered call, the second of three."""
    fields = {"metadata.contactPhone": PHONE, "callMetadata.context.previousAttempts": 1} | changes
    return event("call.no-answer", fields, clock=clock)


@pytest.fixture
def context(clock: Clock) -> Context:
    return build_context(missed_call(clock), schedule_call, now=clock.now())


def test_schedule_call_within_a_minute_with_utc_offset(
    api: Connected, sandbox: RunningSandbox, clock: Clock, context: Context
) -> None:
    result = api.run("schedule_call", context=context)

    [call] = sandbox.heppu.calls
    assert result.id == call.id
    assert result.detail == "attempt 3 of 3 scheduled"
    request = call.request
    assert request["contactPhone"] == PHONE
    assert request["agentId"] == context.event.body["agentId"]
    scheduled_at = datetime.fromisoformat(request["scheduledAt"])
    assert scheduled_at.utcoffset() is not None
    assert timedelta(0) < scheduled_at - clock.now() <= timedelta(minutes=1)


def test_schedule_call_disables_heppu_retries_and_sets_priority(
    api: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    api.run("schedule_call", context=context)
    request = sandbox.heppu.calls[0].request
    assert (request["maxRetries"], request["priority"]) == (0, 5)


def test_schedule_call_increments_attempts_in_call_metadata(
    api: Connected, sandbox: RunningSandbox, clock: Clock
) -> None:
    changes = {
        "callMetadata.custom": {"orderId": "A-17"},
        "callMetadata.timezone": "Europe/Prague",
        "callMetadata.context.maxAttempts": 4,
    }
    api.run("schedule_call", event=missed_call(clock, **changes))
    metadata = sandbox.heppu.calls[0].request["callMetadata"]
    assert metadata["custom"] == {"orderId": "A-17"}
    assert metadata["timezone"] == "Europe/Prague"
    assert metadata["context"] | {"previousAttempts": 2, "maxAttempts": 4} == metadata["context"]


@pytest.mark.parametrize(
    ("previous", "maximum", "scheduled"),
    [(0, 3, True), (1, 3, True), (2, 3, False), (7, 3, False), (0, 1, False)],
)
def test_schedule_call_stops_after_max_attempts(
    api: Connected, sandbox: RunningSandbox, clock: Clock, previous: int, maximum: int, scheduled: bool
) -> None:
    call_event = missed_call(
        clock,
        **{"callMetadata.context.previousAttempts": previous, "callMetadata.context.maxAttempts": maximum},
    )
    result = api.run("schedule_call", event=call_event)
    assert len(sandbox.heppu.calls) == scheduled
    if not scheduled:
        assert result.detail == f"not scheduled: attempt {previous + 1} of {maximum} was the last"


def test_event_without_attempt_count_is_first_of_three(api: Connected, clock: Clock) -> None:
    busy_call = event("call.busy", {"metadata.contactPhone": PHONE, "callMetadata": None}, clock=clock)
    assert api.run("schedule_call", event=busy_call).detail == "attempt 2 of 3 scheduled"


def test_max_attempts_param_overrides_event(api: Connected, sandbox: RunningSandbox, clock: Clock) -> None:
    api.run("schedule_call", {"max_attempts": 2}, event=missed_call(clock))
    assert sandbox.heppu.calls == []


# ------------------------------------------------------------ lookup


def test_find_call_by_token_after_response_is_lost(
    api: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    sandbox.fault("heppu", path=SCHEDULE, drop="after")
    with pytest.raises(OutcomeUnknown):
        api.run("schedule_call", context=context)
    call = api.find("schedule_call", context=context)
    assert call is not None
    assert call.id == sandbox.heppu.calls[0].id


def test_find_call_ignores_call_of_another_delivery(api: Connected, clock: Clock, context: Context) -> None:
    api.run(
        "schedule_call", context=build_context(missed_call(clock), schedule_call, idempotency_key="another")
    )
    assert api.find("schedule_call", context=context) is None


def test_find_call_is_inconclusive_without_metadata(
    api: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    """Heppu does not document whether it returns metadata."""
    api.run("schedule_call", context=context)
    sandbox.heppu.calls[0].request["metadata"] = None
    with pytest.raises(LookupInconclusive):
        api.find("schedule_call", context=context)


def test_find_call_skips_calls_before_first_attempt(
    api: Connected, sandbox: RunningSandbox, clock: Clock, context: Context
) -> None:
    api.run("schedule_call", context=context)
    clock.advance(hours=1)
    later = build_context(missed_call(clock), schedule_call, now=clock.now())
    sandbox.clear_requests()
    assert api.find("schedule_call", context=later) is None
    assert [request.path for request in sandbox.requests] == ["/api/v1/calls"]


def test_find_call_reads_every_page(api: Connected, sandbox: RunningSandbox, clock: Clock) -> None:
    context = build_context(missed_call(clock), schedule_call, now=clock.now())
    api.run("schedule_call", context=context)
    for number in range(100):
        api.run(
            "schedule_call",
            context=build_context(
                missed_call(clock), schedule_call, now=clock.now(), idempotency_key=f"other {number}"
            ),
        )
    call = api.find("schedule_call", context=context)
    assert call is not None
    assert call.id == sandbox.heppu.calls[0].id


def test_find_call_with_unreadable_list_raises_outcome_unknown(context: Context) -> None:
    with StubServer() as proxy:
        environ = {"HEPPU_API_URL": proxy.url, "HEPPU_API_KEY": "k"}
        for body in ("<html>hello</html>", {"data": {}}, {"data": None}, {"data": {"calls": [1]}}, []):
            proxy.otherwise = Reply(200, body)
            with connect(heppu, environ) as api, pytest.raises(OutcomeUnknown):
                api.find("schedule_call", context=context)


def test_find_call_reads_a_numeric_id(context: Context) -> None:
    with StubServer() as server, connect(heppu, {"HEPPU_API_URL": server.url, "HEPPU_API_KEY": "k"}) as api:
        details = {"metadata": {"bridgeIdempotencyToken": context.idempotency_token}}
        server.answer("GET", "/calls/7", Reply(200, {"data": details}))
        server.otherwise = Reply(200, {"data": {"calls": [{"id": 7}]}})
        found = api.find("schedule_call", context=context)
    assert found is not None
    assert found.id == "7"


def test_find_call_without_a_readable_id_is_inconclusive(context: Context) -> None:
    with StubServer() as server, connect(heppu, {"HEPPU_API_URL": server.url, "HEPPU_API_KEY": "k"}) as api:
        server.otherwise = Reply(200, {"data": {"calls": [{"id": ["call_1"]}]}})
        with pytest.raises(LookupInconclusive):
            api.find("schedule_call", context=context)


# ------------------------------------------------------------ responses


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"id": "call_1"}, "meta": {"timestamp": "2026-01-01T00:00:00Z"}},
        {"success": True, "data": {"id": "call_1"}},
        {"data": {"id": "call_1", "status": "scheduled"}, "message": "ok"},
        {"data": {"id": "call_1"}},
    ],
)
def test_schedule_call_reads_each_documented_envelope(context: Context, body: dict[str, Any]) -> None:
    with StubServer() as server:
        server.otherwise = Reply(201, body)
        with connect(heppu, {"HEPPU_API_URL": server.url, "HEPPU_API_KEY": "k"}) as api:
            assert api.run("schedule_call", context=context).id == "call_1"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": f"{PHONE} is wrong", "status": 422, "code": "validation_failed"}},
        {"error": {"message": f"{PHONE} is wrong", "status": 422}},
        {"error": {"message": f"{PHONE} is wrong", "code": 422}},
        {"success": False, "error": {"message": f"{PHONE} is wrong", "code": 200}},
        {"error": PHONE},
        f"<html>{PHONE}</html>",
        None,
    ],
)
def test_error_response_is_mapped_by_http_status_only(context: Context, body: Any) -> None:
    with StubServer() as server:
        server.otherwise = Reply(422, body)
        with (
            connect(heppu, {"HEPPU_API_URL": server.url, "HEPPU_API_KEY": "k"}) as api,
            pytest.raises(PermanentError, match=r"Heppu answered 422 to POST /calls") as caught,
        ):
            api.run("schedule_call", context=context)
    assert PHONE not in str(caught.value)


def test_schedule_call_keeps_retry_after(api: Connected, sandbox: RunningSandbox, context: Context) -> None:
    sandbox.fault("heppu", path=SCHEDULE, status=429, retry_after=11)
    with pytest.raises(RateLimited) as caught:
        api.run("schedule_call", context=context)
    assert caught.value.retry_after == timedelta(seconds=11)


def test_check_authenticates_and_reports_wrong_key(api: Connected, sandbox: RunningSandbox) -> None:
    assert api.check() == "authenticated"
    environ = sandbox.environment | {"HEPPU_API_KEY": "wrong-key"}
    with connect(heppu, environ) as other, pytest.raises(AuthenticationError, match="401") as caught:
        other.check()
    assert "wrong-key" not in str(caught.value)
