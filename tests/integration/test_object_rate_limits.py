"""Limits of one record: only deliveries with the same concurrency key wait, and the connection goes on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
import requests

from bridge.connector import failure_from_exception
from bridge.errors import AuthenticationError, PermanentError, RateLimited
from bridge.store.connection_status import connection_statuses
from bridge.store.results import SAME_RECORD
from tests.integration.engine import Engine, raising

TICKET, OTHER_TICKET = "desk|ticket 1", "desk|ticket 2"


def limited(**arguments: timedelta) -> Callable[[], None]:
    return raising(RateLimited("ticket 1 is edited too often", per_object=True, **arguments))


def test_only_deliveries_about_the_same_record_wait(engine: Engine) -> None:
    clock = engine.database.clock
    first, second = (engine.deliver("post", idempotency_key=key, concurrency_key=TICKET) for key in "ab")
    clock.advance(seconds=1)
    engine.provider.before = limited(retry_after=timedelta(minutes=1))
    assert engine.step() == 1
    engine.provider.before = None
    other = engine.deliver("post", idempotency_key="c", concurrency_key=OTHER_TICKET)
    engine.run_due()
    assert engine.show(other)["state"] == "succeeded"
    assert [(engine.show(item)["state"], engine.show(item)["attempts"]) for item in (first, second)] == [
        ("retrying", 0),
        ("pending", 0),
    ]
    assert engine.show(second)["detail"] == SAME_RECORD
    assert not any(status.pause for status in connection_statuses(engine.database))
    clock.advance(seconds=61)
    engine.run_due()
    assert engine.states() == {"succeeded": 3}


def test_without_a_wait_it_grows_with_the_time_since_the_first_attempt(engine: Engine) -> None:
    delivery = engine.deliver("post", concurrency_key=TICKET)
    engine.provider.before = limited()
    waits = []
    for _ in range(10):
        engine.step()
        wait = engine.show(delivery)["run_at"] - engine.database.clock.now()
        waits.append(round(wait.total_seconds()))
        engine.database.clock.advance(seconds=wait.total_seconds() + 0.001)
    assert waits[:2] == [10, 10]
    assert waits[-1] > 20
    engine.database.clock.advance(hours=1)
    engine.step()
    wait = engine.show(delivery)["run_at"] - engine.database.clock.now()
    assert wait.total_seconds() == pytest.approx(300, abs=5)


def test_record_that_stays_limited_fails_after_the_retry_limit(engine: Engine) -> None:
    delivery = engine.deliver("post", concurrency_key=TICKET)
    engine.provider.before = limited()
    engine.step()
    engine.database.clock.advance(days=3)
    engine.step()
    assert (engine.show(delivery)["state"], engine.show(delivery)["reason"]) == ("failed", "rate_limited")


@pytest.mark.parametrize("library", [httpx, requests], ids=["httpx", "requests"])
@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v2/tickets/35436", PermanentError),
        ("/v2/tickets/T-35436-a/comments", PermanentError),
        ("/v2/tickets", AuthenticationError),
        ("/services/data/v58.0/sobjects", AuthenticationError),
    ],
)
def test_forbidden_record_does_not_pause_the_connection(
    library: object, path: str, error: type[Exception]
) -> None:
    """`raise_for_status` of httpx and requests: a 403 is about the record if the path contains an ID."""
    url = f"https://desk.example{path}"
    response: httpx.Response | requests.Response
    if library is httpx:
        response = httpx.Response(403, request=httpx.Request("PUT", url))
    else:
        response = requests.Response()
        response.status_code, response.url = 403, url
    with pytest.raises((httpx.HTTPStatusError, requests.HTTPError)) as raised:
        response.raise_for_status()
    assert type(failure_from_exception(raised.value)) is error
