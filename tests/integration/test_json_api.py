"""JsonApi against a stub server: what each response proves about reads and writes."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from bridge.clock import uptime
from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    JsonApi,
    Params,
    ProviderUrl,
    Success,
    json_object,
    param,
    per_event,
)
from bridge.connector.deadline import attempt_deadline, count_requests
from bridge.errors import (
    AuthenticationError,
    ConfigError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.testing import Received, Reply, StubServer, conformance_errors, connect
from bridge.testing.wire import HOSTILE_RESPONSES

PERSONAL = "ines@okafor.example"
HTML = "<html>Please log in</html>"


@pytest.fixture
def api(server: StubServer) -> Iterator[JsonApi]:
    with closing(JsonApi("Desk", server.url + "/api", bearer=SecretStr("desk-secret"))) as client:
        yield client


def failure_of(call: Any, *arguments: Any, **options: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        call(*arguments, **options)
    return raised.value


# ------------------------------------------------------------ requests


def test_read_returns_the_value_that_the_response_holds(server: StubServer, api: JsonApi) -> None:
    server.answer("GET", "/api/users", Reply(200, {"data": {"users": [{"id": 1}]}}))
    assert api.read("/users", query={"q": "a b", "page": None}, holds="data.users", kind=list) == [{"id": 1}]
    [request] = server.requests
    assert request.query == {"q": "a b"}
    assert request.headers["authorization"] == "Bearer desk-secret"


def test_write_sends_json_to_the_quoted_path(server: StubServer, api: JsonApi) -> None:
    server.answer("PUT", "*", Reply(200, {"ticket": {"id": 1}}))
    assert api.write(
        "PUT", "/tickets/{}", "a?b", json={"x": 1}, headers={"Idempotency-Key": "k"}, holds="ticket"
    ) == {"id": 1}
    [request] = server.requests
    assert (request.path, request.json, request.headers["idempotency-key"]) == (
        "/api/tickets/a%3Fb",
        {"x": 1},
        "k",
    )


def test_search_with_a_body_is_a_read(server: StubServer, api: JsonApi) -> None:
    server.answer("POST", "/api/search", Reply(502))
    assert type(failure_of(api.read, "/search", json={"email": PERSONAL})) is TransientError


def test_basic_login_and_own_header(server: StubServer) -> None:
    server.otherwise = Reply(200, {})
    for api in (
        JsonApi("Desk", server.url, basic=("agent", SecretStr("pass:ö"))),
        JsonApi("Desk", SecretStr(server.url), headers={"X-Api-Key": SecretStr("key-1")}),
    ):
        with closing(api):
            api.read("/me")
    first, second = server.requests
    assert base64.b64decode(first.headers["authorization"].removeprefix("Basic ")).decode() == "agent:pass:ö"
    assert second.headers["x-api-key"] == "key-1"


def test_query_of_the_base_url_is_kept(server: StubServer) -> None:
    server.otherwise = Reply(200, {})
    with closing(JsonApi("Desk", server.url + "/hook?sig=s")) as api:
        api.write("POST", "", json={}, query={"a": 1})
    assert (server.requests[0].path, server.requests[0].query) == ("/hook", {"sig": "s", "a": "1"})


@pytest.mark.parametrize("token", ["secret-1\n", "secret-1 ", "sécret-1", "secret-1\r\nX-Other: 1"])
def test_token_that_no_header_can_hold_is_a_config_error(token: str) -> None:
    with pytest.raises(ConfigError, match="copy the credentials again") as raised:
        JsonApi("Desk", "https://desk.example", headers={"X-Api-Key": token})
    assert "cret-1" not in str(raised.value)


@pytest.mark.parametrize("value", ["../users/1", "1/../../x?y=1#z", ""])
def test_hostile_id_sends_nothing(server: StubServer, api: JsonApi, value: str) -> None:
    for call in (
        lambda: api.write("PUT", "/tickets/{}", value, json={}),
        lambda: api.read("/tickets/{}", value),
    ):
        assert isinstance(failure_of(call), PermanentError)
    assert server.requests == []


def test_body_that_json_cannot_hold_is_a_permanent_error(server: StubServer, api: JsonApi) -> None:
    for body in ({"x": float("nan")}, {"x": "\ud800"}):
        assert isinstance(failure_of(api.write, "POST", "/tickets", json=body), PermanentError)
    assert isinstance(failure_of(api.read, "/tickets", query={"q": "x" * 70_000}), PermanentError)
    assert isinstance(failure_of(api.read, "/tickets", query={"q": "\ud800"}), PermanentError)
    assert server.requests == []


# ------------------------------------------------------------ responses


@pytest.mark.parametrize(
    ("status", "read", "write"),
    [
        (400, PermanentError, PermanentError),
        (401, AuthenticationError, AuthenticationError),
        (403, AuthenticationError, AuthenticationError),
        (404, PermanentError, PermanentError),
        (409, PermanentError, PermanentError),
        (422, PermanentError, PermanentError),
        (429, RateLimited, RateLimited),
        (301, TransientError, OutcomeUnknown),
        (302, TransientError, OutcomeUnknown),
        (307, TransientError, OutcomeUnknown),
        (204, TransientError, OutcomeUnknown),
        (408, TransientError, OutcomeUnknown),
        (500, TransientError, OutcomeUnknown),
        (502, TransientError, OutcomeUnknown),
        (503, TransientError, OutcomeUnknown),
        (529, TransientError, OutcomeUnknown),
    ],
)
def test_status_decides_what_is_proven(
    server: StubServer, api: JsonApi, status: int, read: type[DeliveryError], write: type[DeliveryError]
) -> None:
    body = None if status == 204 else {"error": f"{PERSONAL} is wrong"}
    server.otherwise = Reply(status, body, {"Retry-After": "7", "Location": "http://127.0.0.1:9/other"})
    for error, expected in (
        (failure_of(api.read, "/tickets"), read),
        (failure_of(api.write, "POST", "/tickets", json={}), write),
    ):
        assert type(error) is expected
        assert PERSONAL not in str(error)
        if status in (429, 503):
            assert error.retry_after == timedelta(seconds=7)
    assert len(server.requests) == 2


def test_403_about_a_record_does_not_pause_the_account(server: StubServer, api: JsonApi) -> None:
    server.otherwise = Reply(403, {})
    assert type(failure_of(api.write, "PUT", "/tickets/{}", 17, json={})) is PermanentError
    assert type(failure_of(api.read, "/tickets/{}", 17)) is PermanentError
    assert str(failure_of(api.read, "/tickets/{}", 17)) == "Desk returned 403 to GET /tickets/{}"


@pytest.mark.parametrize(
    ("body", "holds", "kind", "message"),
    [
        (HTML, None, None, "is not JSON, so it is not from Desk"),
        ("[" * 200_000, None, None, "is not JSON"),
        ([], None, None, "is a list, not an object"),
        ({}, "ticket", None, "has no `ticket`"),
        ({"ticket": None}, "ticket", None, "has no `ticket`"),
        ({"tickets": PERSONAL}, "tickets", list, "`tickets` in Desk's response to"),
    ],
)
def test_success_without_the_expected_content_proves_nothing(
    server: StubServer, api: JsonApi, body: Any, holds: str | None, kind: type | None, message: str
) -> None:
    server.otherwise = Reply(200, body)
    read = failure_of(api.read, "/tickets", holds=holds, kind=kind)
    write = failure_of(api.write, "POST", "/tickets", json={}, holds=holds, kind=kind)
    assert (type(read), type(write)) == (TransientError, OutcomeUnknown)
    assert message in read.detail
    assert PERSONAL not in read.detail


def test_success_without_a_body_counts_where_it_is_expected(server: StubServer, api: JsonApi) -> None:
    server.otherwise = Reply(204)
    assert api.write("DELETE", "/tickets/{}", 1, may_be_empty=True) == {}
    server.otherwise = Reply(200, HTML)
    assert isinstance(failure_of(api.write, "DELETE", "/tickets/{}", 1, may_be_empty=True), OutcomeUnknown)


def test_find_returns_none_only_if_the_provider_says_so(server: StubServer, api: JsonApi) -> None:
    server.answer("GET", "/api/tickets/1", Reply(404, {"error": "no such ticket"}))
    server.answer("GET", "/api/tickets/2", Reply(404, HTML))
    server.answer("GET", "/api/tickets/3", Reply(200, {"id": 3}))
    server.answer("GET", "/api/tickets/4", Reply(500, {}))
    assert api.find("/tickets/{}", 1) is None
    assert isinstance(failure_of(api.find, "/tickets/{}", 2), PermanentError)
    assert api.find("/tickets/{}", 3) == {"id": 3}
    assert type(failure_of(api.find, "/tickets/{}", 4)) is TransientError


def test_refusal_classifies_the_providers_own_codes_at_every_status(server: StubServer) -> None:
    def refusal(response: httpx.Response) -> DeliveryError | None:
        return QuotaExhausted("no tickets left") if json_object(response).get("code") == "quota" else None

    with closing(JsonApi("Desk", server.url, refusal=refusal)) as api:
        for status in (200, 400, 500):
            server.otherwise = Reply(status, {"code": "quota"})
            assert isinstance(failure_of(api.write, "POST", "/tickets", json={}), QuotaExhausted)
        server.otherwise = Reply(500, HTML)
        assert isinstance(failure_of(api.write, "POST", "/tickets", json={}), OutcomeUnknown)


# ------------------------------------------------------------ no response


@pytest.mark.parametrize("when", ["before", "after"])
def test_lost_response_proves_something_of_a_read_only(server: StubServer, api: JsonApi, when: Any) -> None:
    server.fail(Reply(drop=when), times=2)
    assert type(failure_of(api.read, "/tickets")) is TransientError
    assert type(failure_of(api.write, "POST", "/tickets", json={})) is OutcomeUnknown
    assert len(server.requests) == 2


def test_refused_connection_proves_that_nothing_happened() -> None:
    with StubServer() as stopped:
        url = stopped.url
    with closing(JsonApi("Desk", url)) as api:
        assert type(failure_of(api.write, "POST", "/tickets", json={})) is TransientError
        assert type(failure_of(api.read, "/tickets")) is TransientError


@pytest.mark.parametrize("response", HOSTILE_RESPONSES)
def test_hostile_response_ends_with_the_attempt(server: StubServer, api: JsonApi, response: str) -> None:
    server.otherwise = HOSTILE_RESPONSES[response]
    started = time.monotonic()
    with attempt_deadline(uptime() + 0.2):
        error = failure_of(api.write, "POST", "/tickets", json={})
    assert time.monotonic() - started < 20  # the response never ends
    assert isinstance(error, OutcomeUnknown)


def test_read_after_a_write_in_the_same_attempt_proves_nothing(server: StubServer, api: JsonApi) -> None:
    server.answer("POST", "*", Reply(200, {}))
    server.answer("PUT", "*", Reply(422, {}))
    server.answer("GET", "*", Reply(500, {}))
    with attempt_deadline(uptime() + 5):
        failure_of(api.write, "PUT", "/tickets", json={})  # rejected: nothing was written
        assert type(failure_of(api.read, "/tickets")) is TransientError
        api.write("POST", "/tickets", json={})
        assert type(failure_of(api.read, "/tickets")) is OutcomeUnknown
        assert type(failure_of(lambda: list(api.pages("/tickets", items="tickets")))) is OutcomeUnknown
    with attempt_deadline(uptime() + 5):
        assert type(failure_of(api.read, "/tickets")) is TransientError


# ------------------------------------------------------------ pages


def pages_by_cursor(request: Received) -> Reply:
    page = int(request.query.get("page[after]", 0))
    meta = {"after": str(page + 1), "more": page < 2}
    return Reply(200, {"tickets": [{"id": page, "q": request.query["q"]}], "meta": meta})


def test_pages_follow_the_cursor(server: StubServer, api: JsonApi) -> None:
    server.answer("GET", "/api/tickets", pages_by_cursor)
    found = api.pages(
        "/tickets", items="tickets", query={"q": "x"}, cursor=("meta.after", "page[after]"), more="meta.more"
    )
    assert list(found) == [{"id": 0, "q": "x"}, {"id": 1, "q": "x"}, {"id": 2, "q": "x"}]


@pytest.mark.parametrize("absolute", [True, False])
def test_pages_follow_the_link(server: StubServer, api: JsonApi, absolute: bool) -> None:
    link = (server.url if absolute else "") + "/api/tickets?page=2"

    def answer(request: Received) -> Reply:
        last = request.query.get("page") == "2"
        return Reply(200, {"tickets": [{"id": 2 if last else 1}], "links": {"next": None if last else link}})

    server.answer("GET", "/api/tickets", answer)
    assert [item["id"] for item in api.pages("/tickets", items="tickets", link="links.next")] == [1, 2]


def test_pages_follow_the_link_header_of_a_list(server: StubServer, api: JsonApi) -> None:
    def answer(request: Received) -> Reply:
        last = "page" in request.query
        return Reply(200, [{"id": last}], {} if last else {"Link": '</api/tickets?page=2>; rel="next"'})

    server.answer("GET", "/api/tickets", answer)
    assert [item["id"] for item in api.pages("/tickets", items=None)] == [False, True]


@pytest.mark.parametrize(
    "link",
    ["http://127.0.0.1:9/tickets", "https://other.example/x", "//other.example/x", "http://u:p@{host}/x"],
)
def test_link_to_another_host_is_refused(server: StubServer, api: JsonApi, link: str) -> None:
    link = link.replace("{host}", server.url.removeprefix("http://"))
    server.otherwise = Reply(200, {"tickets": [{"id": 1}], "next": link})
    with pytest.raises(PermanentError, match="on another host"):
        list(api.pages("/tickets", items="tickets", link="next"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("link", [17, {"href": "/x"}, "http://[::1", "/x\x00"])
def test_invalid_link_is_an_error(server: StubServer, api: JsonApi, link: Any) -> None:
    server.otherwise = Reply(200, {"tickets": [], "next": link})
    with pytest.raises(TransientError, match="invalid link"):
        list(api.pages("/tickets", items="tickets", link="next"))


def test_pages_that_repeat_are_inconclusive(server: StubServer, api: JsonApi) -> None:
    server.otherwise = Reply(200, {"tickets": [{"id": 1}], "next": "same"})
    with pytest.raises(LookupInconclusive, match="repeats a page"):
        list(api.pages("/tickets", items="tickets", cursor=("next", "after")))
    assert len(server.requests) == 2


def test_pages_beyond_the_limit_are_inconclusive(server: StubServer, api: JsonApi) -> None:
    server.answer("GET", "*", lambda _: Reply(200, {"tickets": [{}], "next": len(server.requests)}))
    with pytest.raises(LookupInconclusive, match="more than 3 pages"):
        list(api.pages("/tickets", items="tickets", cursor=("next", "after"), max_pages=3))
    assert len(server.requests) == 3


def test_pages_end_in_time(server: StubServer, api: JsonApi) -> None:
    server.answer("GET", "*", lambda _: Reply(200, {"tickets": [{}], "next": len(server.requests)}))
    with pytest.raises(TransientError) as raised:
        for _ in api.pages(
            "/tickets", items="tickets", cursor=("next", "after"), max_pages=10**6, max_seconds=0.2
        ):
            pass
    assert raised.value.reason == "timeout"


def test_pages_by_number_end_with_an_empty_page_or_the_key_of_more(server: StubServer, api: JsonApi) -> None:
    sizes = [2, 1, 2, 0]  # a short page is not the last one

    def page(request: Received) -> Reply:
        number = int(request.query["page"])
        return Reply(200, {"items": [{"id": f"{number}-{n}"} for n in range(sizes[number])]})

    server.answer("GET", "*", page)
    found = [item["id"] for item in api.pages("/t", items="items", page_number="page", first_page=0)]
    assert found == ["0-0", "0-1", "1-0", "2-0", "2-1"]
    server.answer("GET", "*", lambda request: Reply(200, {"items": [request.query], "more": False}))
    query = {"per_page": 50}
    assert list(api.pages("/t", items="items", query=query, page_number="page", more="more")) == [
        {"per_page": "50", "page": "1"}
    ]


def test_pages_by_offset_count_what_was_read(server: StubServer, api: JsonApi) -> None:
    records = [{"id": number} for number in range(5)]

    def page(request: Received) -> Reply:
        start = int(request.query["start"])
        return Reply(200, records[start : start + 2])

    server.answer("GET", "*", page)
    assert list(api.pages("/t", items=None, offset="start")) == records
    assert [request.query["start"] for request in server.requests] == ["0", "2", "4", "5"]


@pytest.mark.parametrize("paging", [{"page_number": "page"}, {"offset": "start"}])
def test_provider_that_ignores_the_number_of_the_page_is_inconclusive(
    server: StubServer, api: JsonApi, paging: dict[str, str]
) -> None:
    server.otherwise = Reply(200, {"tickets": [{"id": 1}]})
    with pytest.raises(LookupInconclusive, match="repeats a page"):
        list(api.pages("/tickets", items="tickets", **paging))
    assert len(server.requests) == 2


def test_only_one_kind_of_pagination_is_possible(api: JsonApi) -> None:
    with pytest.raises(TypeError, match="pass one of"):
        list(api.pages("/tickets", items="tickets", link="next", offset="start"))


@pytest.mark.parametrize("body", [{}, {"tickets": {}}, {"tickets": [1]}, {"tickets": None}, HTML])
def test_page_without_its_list_is_not_an_empty_page(server: StubServer, api: JsonApi, body: Any) -> None:
    server.otherwise = Reply(200, body)
    assert type(failure_of(lambda: list(api.pages("/tickets", items="tickets")))) is TransientError


def test_failure_of_the_second_page_is_an_error(server: StubServer, api: JsonApi) -> None:
    server.answer(
        "GET", "*", lambda request: Reply(502) if request.query else Reply(200, {"tickets": [], "next": 2})
    )
    assert (
        type(failure_of(lambda: list(api.pages("/t", items="tickets", cursor=("next", "p")))))
        is TransientError
    )


# ------------------------------------------------------------ threads


def test_threads_share_the_client(server: StubServer, api: JsonApi) -> None:
    server.answer("POST", "*", lambda request: Reply(200, {"echo": request.json["n"]}))

    def write(number: int) -> tuple[int, int]:
        with count_requests() as count:
            return api.write("POST", "/tickets", json={"n": number}, holds="echo"), count.sent

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, range(40))) == [(number, 1) for number in range(40)]


def test_deadline_that_has_passed_sends_nothing(server: StubServer, api: JsonApi) -> None:
    with attempt_deadline(uptime() - 1):
        assert type(failure_of(api.write, "POST", "/tickets", json={})) is TransientError
    assert server.requests == []


def test_close_closes_the_connections(server: StubServer, api: JsonApi) -> None:
    server.otherwise = Reply(200, {})
    api.read("/me")
    api.close()
    with pytest.raises(RuntimeError):
        api.read("/me")


# ------------------------------------------------------------ connectors


class DeskSettings(ConnectorSettings):
    """`DESK_URL` and `DESK_TOKEN`."""

    url: ProviderUrl
    token: SecretStr


class Ticket(Params):
    """Params of a ticket."""

    subject: str = param(..., "Ticket title.", example="A call failed")


def desk() -> Connector:
    connector = Connector(
        "desk",
        settings=DeskSettings,
        description="Opens tickets.",
        build_client=lambda settings: JsonApi("Desk", settings.url, bearer=settings.token),
    )

    @connector.check
    def check(api: JsonApi) -> str:
        """Authenticate."""
        return f"authenticated for {api.read('/me', holds='name')}"

    @connector.action(idempotency=per_event, idempotent=True)
    def open_ticket(api: JsonApi, ticket: Ticket, context: Context) -> Success:
        """Open a ticket."""
        del context
        return Success(id=str(api.write("POST", "/tickets", json=ticket.model_dump(), holds="id")))

    return connector


def test_connector_of_a_json_api_needs_no_client_and_no_classification(server: StubServer) -> None:
    server.answer("GET", "/me", Reply(200, {"name": "Harbor Light"}))
    server.answer("POST", "/tickets", Reply(201, {"id": 17}))
    environ = {"DESK_URL": server.url, "DESK_TOKEN": "desk-secret"}
    assert conformance_errors(desk()) == []
    with connect(desk(), environ) as connected:
        assert connected.check() == "authenticated for Harbor Light"
        assert connected.run("open_ticket", {"subject": "A call failed"}).id == "17"


@pytest.mark.parametrize(
    ("status", "expected"), [(401, AuthenticationError), (422, PermanentError), (503, OutcomeUnknown)]
)
def test_status_that_an_http_library_raises_is_classified_without_a_function_of_the_connector(
    status: int, expected: type[DeliveryError]
) -> None:
    response = httpx.Response(status, request=httpx.Request("GET", f"https://desk.example/?email={PERSONAL}"))
    with pytest.raises(httpx.HTTPStatusError) as raised:
        response.raise_for_status()
    failure = desk().classify(raised.value)
    assert type(failure) is expected
    assert PERSONAL not in str(failure)
    assert desk().classify(KeyError("x")) is None
