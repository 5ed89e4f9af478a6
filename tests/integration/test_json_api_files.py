"""Forms and files of JsonApi: what is sent, and which URLs a file is downloaded from."""

from __future__ import annotations

import email
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from email.policy import HTTP
from typing import Any

import pytest

from bridge.clock import uptime
from bridge.connector import FileContent, JsonApi, download_file
from bridge.connector.deadline import attempt_deadline, note_write
from bridge.errors import DeliveryError, OutcomeUnknown, PermanentError, TransientError
from bridge.testing import Reply, StubServer

RECORDING = b"ID3" + bytes(range(256)) * 8


def audio(content: bytes = RECORDING, head: bytes = b"Content-Type: audio/mpeg\r\n") -> Reply:
    """Return a response with bytes that are no text."""
    lines = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (head, len(content))
    return Reply(wire=lambda: [lines, content])


@pytest.fixture
def api(server: StubServer) -> Iterator[JsonApi]:
    with closing(JsonApi("Desk", server.url, bearer="desk-secret")) as client:
        yield client


def failure_of(call: Callable[..., Any], *arguments: Any, **options: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        call(*arguments, **options)
    return raised.value


# ------------------------------------------------------------ forms and uploads


def test_form_is_sent_without_fields_that_are_none(server: StubServer, api: JsonApi) -> None:
    server.answer("POST", "/calls", Reply(200, {"id": 1}))
    form = {"to": "+12125550193", "note": "Grüße & more", "tag": ["a", "b"], "open": True, "owner": None}
    api.write("POST", "/calls", form=form)
    [request] = server.requests
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.form == {
        "to": ["+12125550193"],
        "note": ["Grüße & more"],
        "tag": ["a", "b"],
        "open": ["true"],
    }


def test_form_that_cannot_be_sent_is_a_permanent_error(server: StubServer, api: JsonApi) -> None:
    assert isinstance(failure_of(api.write, "POST", "/calls", form={"note": "\ud800"}), PermanentError)
    assert server.requests == []


def test_file_is_sent_as_the_body(server: StubServer, api: JsonApi) -> None:
    server.answer("POST", "/uploads", Reply(201, {"upload": {"token": "t1"}}))
    file = FileContent("call.mp3", RECORDING, "audio/mpeg")
    query = {"filename": file.name}
    assert api.write("POST", "/uploads", query=query, content=file, holds="upload.token") == "t1"
    [request] = server.requests
    assert (request.body, request.headers["content-type"]) == (RECORDING, "audio/mpeg")


def test_files_are_sent_as_multipart_with_the_fields_of_the_form(server: StubServer, api: JsonApi) -> None:
    server.answer("POST", "/files", Reply(200, {}))
    file = FileContent('a"b\r\nX: y.mp3', RECORDING, "audio/mpeg")
    api.write("POST", "/files", form={"deal": 17}, files={"recording": file})
    [request] = server.requests
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.body, policy=HTTP)
    deal, recording = message.iter_parts()
    assert (deal.get_param("name", header="content-disposition"), deal.get_payload().strip()) == (
        "deal",
        "17",
    )
    assert recording.get_content_type() == "audio/mpeg"
    assert recording["X"] is None
    assert RECORDING in request.body


@pytest.mark.parametrize("bodies", [{"json": {}, "form": {}}, {"form": {}, "content": FileContent("a", b"")}])
def test_request_has_one_body(api: JsonApi, bodies: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="pass one of"):
        api.write("POST", "/x", **bodies)


# ------------------------------------------------------------ downloads


def test_download_returns_the_file_without_sending_credentials(server: StubServer, api: JsonApi) -> None:
    server.answer("GET", "/r/call%201.mp3", audio())
    server.answer("GET", "/r/call 1.mp3", audio())
    file = api.download(f"{server.url}/r/call%201.mp3?sig=s3cret")
    assert file == FileContent("call_1.mp3", RECORDING, "audio/mpeg")
    assert "authorization" not in server.requests[0].headers
    assert "ID3" not in repr(file)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "file.mp3"),
        ("/..", "file.mp3"),
        ("/abc", "abc.mp3"),
        ("/" + "x" * 300 + ".wav", "x" * 96 + ".wav"),
    ],
)
def test_name_of_a_downloaded_file(server: StubServer, api: JsonApi, path: str, name: str) -> None:
    server.answer("GET", "*", audio())
    assert api.download(server.url + path).name == name
    assert api.download(server.url + path, name="call.mp3").name == "call.mp3"


def test_download_follows_redirects_to_allowed_hosts_only(server: StubServer, api: JsonApi) -> None:
    server.answer("GET", "/old", Reply(302, headers={"Location": "/new"}))
    server.answer("GET", "/new", audio())
    assert api.download(server.url + "/old").content == RECORDING
    for target in (
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "https://10.0.0.8/",
        "http://a.example/",
    ):
        server.answer("GET", "/old", Reply(302, headers={"Location": target}))
        assert isinstance(failure_of(api.download, server.url + "/old"), PermanentError)
    server.answer("GET", "/old", Reply(302, headers={"Location": "/old"}))
    assert "too often" in failure_of(api.download, server.url + "/old").detail


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example/a.mp3",
        "ftp://files.example/a.mp3",
        "file:///etc/passwd",
        "https://user:password@files.example/a.mp3",
        "https://10.0.0.8/a.mp3",
        "https://[::ffff:127.0.0.1]/a.mp3",
        "https://127.0.0.1/a.mp3",
        "https://localhost/a.mp3",
        "https:///a.mp3",
        "http://[::1/",
        "https://xn--/a.mp3",
        "",
        "a.mp3",
    ],
)
def test_url_that_is_not_https_on_a_public_host_is_not_fetched(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("resolved"))
    failure = failure_of(download_file, url)
    assert isinstance(failure, PermanentError)
    assert "password" not in failure.detail.replace("user or password", "")


@pytest.mark.parametrize("address", ["10.0.0.8", "169.254.169.254", "127.0.0.1"])
def test_host_name_that_resolves_to_a_private_address_is_not_fetched(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [answer])
    failure = failure_of(download_file, "https://files.example/a.mp3")
    assert (type(failure), getattr(failure, "code", "")) == (PermanentError, "host")


@pytest.mark.parametrize("host", ["files..example", "f" * 64 + ".example"])
def test_host_that_cannot_be_a_name_is_a_permanent_error(host: str) -> None:
    """Python refuses such a name with an exception of its codec, before it asks DNS."""
    failure = failure_of(download_file, f"https://{host}/a.mp3")
    assert (type(failure), getattr(failure, "code", "")) == (PermanentError, "host")


@pytest.mark.parametrize("declared", [True, False])
def test_file_that_is_too_large_is_not_read(server: StubServer, api: JsonApi, declared: bool) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 99999999\r\n\r\n" if declared else b"\r\n")
        while True:
            sent += 100_000
            yield b"x" * 100_000

    server.answer("GET", "*", Reply(wire=endless))
    failure = failure_of(api.download, server.url + "/a.mp3", max_bytes=1024 * 1024)
    assert (type(failure), failure.detail, failure.code) == (
        PermanentError,
        "the file has more than 1 MiB",
        "size",
    )  # type: ignore[attr-defined]
    assert sent < 10_000_000


def test_file_larger_than_other_responses_is_downloaded(server: StubServer, api: JsonApi) -> None:
    content = b"x" * (8 * 1024 * 1024)
    server.answer("GET", "*", audio(content))
    assert api.download(server.url + "/a.mp3").content == content


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, PermanentError),
        (401, PermanentError),
        (403, PermanentError),
        (204, TransientError),
        (503, TransientError),
        (429, TransientError),
    ],
)
def test_failed_download_never_pauses_the_connection(
    server: StubServer, api: JsonApi, status: int, kind: type[DeliveryError]
) -> None:
    server.otherwise = Reply(status, headers={"Retry-After": "7"})
    failure = failure_of(api.download, server.url + "/a.mp3?sig=s3cret")
    assert type(failure) is kind
    assert "s3cret" not in failure.detail


@pytest.mark.parametrize(
    "reply", [Reply(drop="before"), Reply(wire=lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])]
)
def test_download_that_breaks_off_had_no_effect(server: StubServer, api: JsonApi, reply: Reply) -> None:
    server.otherwise = reply
    assert type(failure_of(api.download, server.url + "/a.mp3")) is TransientError
    with attempt_deadline(uptime() + 5):
        note_write()
        assert type(failure_of(api.download, server.url + "/a.mp3")) is OutcomeUnknown


def test_download_ends_at_the_deadline(server: StubServer, api: JsonApi) -> None:
    def slow() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x"

    server.answer("GET", "*", Reply(wire=slow, pause=0.02))
    with attempt_deadline(uptime() + 0.3):
        failure = failure_of(api.download, server.url + "/a.mp3")
    assert (type(failure), failure.reason) == (TransientError, "timeout")
