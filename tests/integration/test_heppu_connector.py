"""Calls scheduled at Heppu over real HTTP, and found again when the answer was lost."""

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

PERSON = "+12125550167"
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


def missed(clock: Clock, **changes: Any) -> Event:
    """A call that nobody answered: the second of three."""
    set_ = {"metadata.contactPhone": PERSON, "callMetadata.context.previousAttempts": 1} | changes
    return event("call.no-answer", set_, clock=clock)


@pytest.fixture
def context(clock: Clock) -> Context:
    return build_context(missed(clock), schedule_call, now=clock.now())


def test_the_person_is_called_again_soon_at_an_instant_with_an_offset(
    api: Connected, sandbox: RunningSandbox, clock: Clock, context: Context
) -> None:
    sent = api.run("schedule_call", context=context)

    [call] = sandbox.heppu.calls
    assert sent.id == call.id
    assert sent.detail == "attempt 3 of 3"
    asked = call.request
    assert asked["contactPhone"] == PERSON
    assert asked["agentId"] == context.event.body["agentId"]
    instant = datetime.fromisoformat(asked["scheduledAt"])
    assert instant.utcoffset() is not None
    assert timedelta(0) < instant - clock.now() <= timedelta(minutes=1)


def test_heppu_does_not_repeat_the_call_itself_nor_let_it_jump_the_queue(
    api: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    api.run("schedule_call", context=context)
    asked = sandbox.heppu.calls[0].request
    assert (asked["maxRetries"], asked["priority"]) == (0, 5)


def test_the_next_event_tells_how_many_calls_there_were(
    api: Connected, sandbox: RunningSandbox, clock: Clock
) -> None:
    changes = {
        "callMetadata.custom": {"orderId": "A-17"},
        "callMetadata.timezone": "Europe/Prague",
        "callMetadata.context.maxAttempts": 4,
    }
    api.run("schedule_call", event=missed(clock, **changes))
    metadata = sandbox.heppu.calls[0].request["callMetadata"]
    assert metadata["custom"] == {"orderId": "A-17"}
    assert metadata["timezone"] == "Europe/Prague"
    assert metadata["context"] | {"previousAttempts": 2, "maxAttempts": 4} == metadata["context"]


@pytest.mark.parametrize(
    ("previous", "most", "called"), [(0, 3, True), (1, 3, True), (2, 3, False), (7, 3, False), (0, 1, False)]
)
def test_after_the_last_attempt_nobody_is_called(
    api: Connected, sandbox: RunningSandbox, clock: Clock, previous: int, most: int, called: bool
) -> None:
    about = missed(
        clock,
        **{"callMetadata.context.previousAttempts": previous, "callMetadata.context.maxAttempts": most},
    )
    sent = api.run("schedule_call", event=about)
    assert len(sandbox.heppu.calls) == called
    if not called:
        assert sent.detail == f"not scheduled: attempt {previous + 1} of {most} was the last"


def test_an_event_that_counts_nothing_is_the_first_of_three(
    api: Connected, sandbox: RunningSandbox, clock: Clock
) -> None:
    about = event("call.busy", {"metadata.contactPhone": PERSON, "callMetadata": None}, clock=clock)
    assert api.run("schedule_call", event=about).detail == "attempt 2 of 3"


def test_a_rule_can_set_the_most_itself(api: Connected, sandbox: RunningSandbox, clock: Clock) -> None:
    api.run("schedule_call", {"max_attempts": 2}, event=missed(clock))
    assert sandbox.heppu.calls == []


# ------------------------------------------------------------ lookup


def test_a_call_whose_answer_was_lost_is_found_by_its_mark(
    api: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    sandbox.fault("heppu", path=SCHEDULE, drop="after")
    with pytest.raises(OutcomeUnknown):
        api.run("schedule_call", context=context)
    found = api.find("schedule_call", context=context)
    assert found is not None
    assert found.id == sandbox.heppu.calls[0].id


def test_another_deliverys_call_to_the_same_person_is_not_ours(
    api: Connected, sandbox: RunningSandbox, clock: Clock, context: Context
) -> None:
    api.run("schedule_call", context=build_context(missed(clock), schedule_call, idempotency_key="another"))
    assert api.find("schedule_call", context=context) is None


def test_a_call_that_does_not_show_its_mark_leaves_it_to_a_person(
    api: Connected, sandbox: RunningSandbox, context: Context
) -> None:
    """Whether Heppu gives metadata back is not documented."""
    api.run("schedule_call", context=context)
    sandbox.heppu.calls[0].request["metadata"] = None
    with pytest.raises(LookupInconclusive):
        api.find("schedule_call", context=context)


def test_a_call_from_before_is_not_asked_about(
    api: Connected, sandbox: RunningSandbox, clock: Clock, context: Context
) -> None:
    api.run("schedule_call", context=context)
    clock.advance(hours=1)
    later = build_context(missed(clock), schedule_call, now=clock.now())
    sandbox.clear_requests()
    assert api.find("schedule_call", context=later) is None
    assert [request.path for request in sandbox.requests] == ["/api/v1/calls"]


def test_the_lookup_reads_every_page(api: Connected, sandbox: RunningSandbox, clock: Clock) -> None:
    mine = build_context(missed(clock), schedule_call, now=clock.now())
    api.run("schedule_call", context=mine)
    for number in range(100):
        api.run(
            "schedule_call",
            context=build_context(
                missed(clock), schedule_call, now=clock.now(), idempotency_key=f"other {number}"
            ),
        )
    found = api.find("schedule_call", context=mine)
    assert found is not None
    assert found.id == sandbox.heppu.calls[0].id


def test_a_page_without_a_list_is_no_proof_of_absence(context: Context) -> None:
    with StubServer() as proxy:
        environ = {"HEPPU_API_URL": proxy.url, "HEPPU_API_KEY": "k"}
        for body in ("<html>hello</html>", {"data": {}}, {"data": None}, {"data": {"calls": [1]}}, []):
            proxy.otherwise = Reply(200, body)
            with connect(heppu, environ) as api, pytest.raises(OutcomeUnknown):
                api.find("schedule_call", context=context)


# ------------------------------------------------------------ answers


@pytest.mark.parametrize(
    "answer",
    [
        {"data": {"id": "call_1"}, "meta": {"timestamp": "2026-01-01T00:00:00Z"}},
        {"success": True, "data": {"id": "call_1"}},
        {"data": {"id": "call_1", "status": "scheduled"}, "message": "ok"},
        {"data": {"id": "call_1"}},
    ],
)
def test_each_of_heppus_four_envelopes_is_opened(context: Context, answer: dict[str, Any]) -> None:
    with StubServer() as partner:
        partner.otherwise = Reply(201, answer)
        with connect(heppu, {"HEPPU_API_URL": partner.url, "HEPPU_API_KEY": "k"}) as api:
            assert api.run("schedule_call", context=context).id == "call_1"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": f"{PERSON} is wrong", "status": 422, "code": "validation_failed"}},
        {"error": {"message": f"{PERSON} is wrong", "status": 422}},
        {"error": {"message": f"{PERSON} is wrong", "code": 422}},
        {"success": False, "error": {"message": f"{PERSON} is wrong", "code": 200}},
        {"error": PERSON},
        f"<html>{PERSON}</html>",
        None,
    ],
)
def test_an_error_is_judged_by_its_http_status_alone(context: Context, body: Any) -> None:
    with StubServer() as partner:
        partner.otherwise = Reply(422, body)
        with (
            connect(heppu, {"HEPPU_API_URL": partner.url, "HEPPU_API_KEY": "k"}) as api,
            pytest.raises(PermanentError, match=r"Heppu answered 422 to POST /calls") as refused,
        ):
            api.run("schedule_call", context=context)
    assert PERSON not in str(refused.value)


def test_heppus_wait_is_kept(api: Connected, sandbox: RunningSandbox, context: Context) -> None:
    sandbox.fault("heppu", path=SCHEDULE, status=429, retry_after=11)
    with pytest.raises(RateLimited) as limited:
        api.run("schedule_call", context=context)
    assert limited.value.retry_after == timedelta(seconds=11)


def test_check_logs_in_and_says_when_the_key_is_wrong(api: Connected, sandbox: RunningSandbox) -> None:
    assert api.check() == "logged in"
    environ = sandbox.environment | {"HEPPU_API_KEY": "wrong-key"}
    with connect(heppu, environ) as other, pytest.raises(AuthenticationError, match="401") as refused:
        other.check()
    assert "wrong-key" not in str(refused.value)
