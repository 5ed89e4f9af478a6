"""Responses that come byte by byte, have no end or are far too large, in each transport that connectors use."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import requests
import urllib3

from bridge.clock import uptime
from bridge.connector import DeadlineAdapter, enforce_deadline, failure_from_exception, http_client
from bridge.connector.deadline import attempt_deadline
from bridge.connector.response_limits import MAX_RESPONSE_BYTES
from bridge.errors import DeliveryError, OutcomeUnknown
from bridge.testing import Reply, StubServer
from bridge.testing.wire import HOSTILE_RESPONSES

Get = Callable[[str], bytes]


def get_by_httpx(url: str) -> bytes:
    with http_client() as client:
        return client.get(url).content


def get_by_requests(url: str) -> bytes:
    with requests.Session() as session:
        session.mount("http://", DeadlineAdapter())
        return session.get(url).content


def get_by_urllib3(url: str) -> bytes:
    with urllib3.PoolManager(retries=0) as manager:
        enforce_deadline(manager)
        return manager.request("GET", url).data


TRANSPORTS = {"httpx": get_by_httpx, "requests": get_by_requests, "urllib3": get_by_urllib3}


@pytest.fixture(params=TRANSPORTS)
def get(request: pytest.FixtureRequest) -> Get:
    return TRANSPORTS[request.param]


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


def failure_of(get: Get, url: str, seconds: float = 0.3) -> DeliveryError | None:
    """Return the error of a request, None if its response was complete."""
    try:
        with attempt_deadline(uptime() + seconds):
            get(url)
    except Exception as error:
        return failure_from_exception(error) or error  # type: ignore[return-value]
    return None


@pytest.mark.parametrize("response", ["drips its headers", "drips its body"])
def test_dripping_response_is_over_with_the_attempt(get: Get, server: StubServer, response: str) -> None:
    server.otherwise = HOSTILE_RESPONSES[response]
    started = time.monotonic()
    failure = failure_of(get, server.url)
    assert time.monotonic() - started < 20  # the response never ends
    assert isinstance(failure, OutcomeUnknown)
    assert (failure.reason, failure.detail) == ("timeout", "no complete response within 0.3 s")


@pytest.mark.parametrize("response", ["announces 700 MB", "has no end", "has no length and no end"])
def test_response_is_read_up_to_the_limit(get: Get, server: StubServer, response: str) -> None:
    server.otherwise = HOSTILE_RESPONSES[response]
    failure, peak = _with_peak(lambda: failure_of(get, server.url, 10))
    assert isinstance(failure, OutcomeUnknown)
    assert (failure.reason, failure.detail) == ("server_error", "the response exceeds 5 MiB")
    assert peak < 4 * MAX_RESPONSE_BYTES


def test_compressed_response_is_not_decompressed(get: Get, server: StubServer) -> None:
    server.otherwise = HOSTILE_RESPONSES["is a gzip bomb"]
    failure, peak = _with_peak(lambda: failure_of(get, server.url, 10))
    assert failure is None
    assert peak < 4 * MAX_RESPONSE_BYTES
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}


def test_response_below_the_limit_is_complete(get: Get, server: StubServer) -> None:
    server.otherwise = Reply(200, "x" * (MAX_RESPONSE_BYTES - 1000))
    assert len(get(server.url)) == MAX_RESPONSE_BYTES - 1000


def test_next_response_on_the_same_connection_has_limits_of_its_own(server: StubServer) -> None:
    server.otherwise = Reply(200, "x" * (MAX_RESPONSE_BYTES * 2 // 3))
    with http_client() as client, requests.Session() as session:
        session.mount("http://", DeadlineAdapter())
        for _ in range(2):
            assert client.get(server.url).is_success
            assert session.get(server.url).ok


def test_large_request_is_sent_completely(server: StubServer) -> None:
    server.otherwise = Reply(200)
    body = bytes(range(256)) * 1000
    with http_client() as client, requests.Session() as session:
        session.mount("http://", DeadlineAdapter())
        client.post(server.url, content=body)
        session.post(server.url, data=body)
    assert [request.body for request in server.requests] == [body, body]


def _with_peak(call: Callable[[], DeliveryError | None]) -> tuple[DeliveryError | None, int]:
    """Return the result of `call` and the bytes that were allocated at the same time, the server's included."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
