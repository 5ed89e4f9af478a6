"""Secret targets, methods, headers and bodies of `http.request`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.connector.discovery import Registry
from bridge.errors import ConfigError, OutcomeUnknown, PermanentError
from bridge.rules.load import load
from bridge.testing import (
    Connected,
    Received,
    Reply,
    StubServer,
    build_context,
    connect,
    event,
    load_connector,
)
from bridge.worker.account import Account

http = load_connector("http")
sender_module = sys.modules[f"{http.actions['request'].run.__module__.rpartition('.')[0]}.sender"]
SECRET_PART = "QX02ZJVK"


@pytest.fixture
def service() -> Iterator[StubServer]:
    with StubServer() as running:
        running.otherwise = Reply(200, {"status": "success"})
        yield running


@pytest.fixture
def sender(service: StubServer) -> Iterator[Connected]:
    with connect(http, environ(service)) as connected:
        yield connected


def environ(service: StubServer, **more: str) -> dict[str, str]:
    url = f"{service.url}/hooks/catch/{SECRET_PART}/"
    return {"HTTP_TARGETS_ZAPIER": url} | {f"HTTP_{name}": value for name, value in more.items()}


def test_target_is_called_without_a_signing_secret(sender: Connected, service: StubServer) -> None:
    called = event()
    result = sender.run("request", {"target": "zapier"}, event=called)
    [request] = service.requests
    assert (request.method, request.path) == ("POST", f"/hooks/catch/{SECRET_PART}/")
    assert request.json == called.body
    assert "webhook-signature" not in request.headers
    assert request.headers["webhook-id"] == request.headers["idempotency-key"] == result.id


def test_target_gets_its_header(service: StubServer) -> None:
    settings = environ(
        service, TARGETS_N8N=f"{service.url}/webhook/calls", TARGETS_N8N_HEADER=f"X-Key:  {SECRET_PART} "
    )
    with connect(http, settings) as sender:
        sender.run("request", {"target": "N8N", "headers": {"X-Source": "heppu", "x-key": "of the rule"}})
        sender.run("request", {"target": "zapier"})
    first, second = service.requests
    assert (first.path, first.headers["x-key"], first.headers["x-source"]) == (
        "/webhook/calls",
        SECRET_PART,
        "heppu",
    )
    assert "x-key" not in second.headers
    assert SECRET_PART not in repr(sender.settings)


def test_target_can_be_in_a_file(service: StubServer, tmp_path: Path) -> None:
    file = tmp_path / "hook"
    file.write_text(f"{service.url}/from-a-file\n")
    with connect(http, {"HTTP_TARGETS_MAKE_FILE": str(file)}) as sender:
        sender.run("request", {"target": "make"})
    assert service.requests[0].path == "/from-a-file"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_method_of_the_request(sender: Connected, service: StubServer, method: str) -> None:
    sender.run("request", {"target": "zapier", "method": method, "body": {"a": 1}})
    [request] = service.requests
    assert request.method == method
    assert request.body == (b"" if method == "DELETE" else b'{"a":1}')
    assert ("content-type" in request.headers) is (method != "DELETE")


def test_form_has_the_id_in_a_field(sender: Connected, service: StubServer) -> None:
    form = {"name": "Zoë & Co", "calls": 3, "open": True, "none": None}
    result = sender.run("request", {"target": "zapier", "form": form, "id_field": "request_id"})
    [request] = service.requests
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.form == {"name": ["Zoë & Co"], "calls": ["3"], "open": ["true"], "request_id": [result.id]}


def test_repeated_request_has_the_same_id_in_the_body(sender: Connected, service: StubServer) -> None:
    context = build_context(event(), http.actions["request"])
    for _ in range(2):
        sender.run("request", {"target": "zapier", "body": {"a": 1}, "id_field": "id"}, context=context)
    first, second = (request.json for request in service.requests)
    assert first == second == {"a": 1, "id": service.requests[0].headers["webhook-id"]}
    with pytest.raises(PermanentError, match="`id_field` needs a body that is an object"):
        sender.run("request", {"target": "zapier", "body": [1], "id_field": "id"})


@pytest.mark.parametrize(
    ("answer", "expected", "detail"),
    [
        ({"data": {"id": "row-17"}}, "row-17", "service answered 200"),
        ({"data": {"id": 17}}, "17", "service answered 200"),
        ({"data": {"id": True}}, None, "service answered 200 without `data.id`"),
        ({"data": []}, None, "service answered 200 without `data.id`"),
        ("<html>", None, "service answered 200 without `data.id`"),
        ({"data": {"id": "x" * 100_000}}, None, "service answered 200 without `data.id`"),
    ],
)
def test_id_of_the_answer_becomes_the_external_id(
    sender: Connected, service: StubServer, answer: Any, expected: str | None, detail: str
) -> None:
    service.otherwise = Reply(200, answer)
    result = sender.run("request", {"target": "zapier", "id_from": "data.id"})
    assert result.id == (expected or service.requests[0].headers["webhook-id"])
    assert result.detail == detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "x"),
        ("webhook-id", "x"),
        ("Content-Type", "x"),
        ("X Y", "x"),
        ("X", "a\r\nHost: b"),
        ("X", "ü"),
    ],
)
def test_header_that_cannot_be_sent_is_a_permanent_error(
    sender: Connected, service: StubServer, name: str, value: str
) -> None:
    with pytest.raises(PermanentError, match="the header"):
        sender.run("request", {"target": "zapier", "headers": {name: value}})
    assert service.requests == []


def test_error_of_a_target_names_no_part_of_its_url(sender: Connected, service: StubServer) -> None:
    for reply in (
        Reply(404),
        Reply(302, headers={"Location": "https://x.example"}),
        Reply(503),
        Reply(drop="before"),
    ):
        service.otherwise = reply
        with pytest.raises((PermanentError, OutcomeUnknown)) as raised:
            sender.run("request", {"target": "zapier"})
        assert SECRET_PART not in repr(raised.value)
    account = Account("http", http, sender.settings)
    assert SECRET_PART not in account.fingerprint
    assert SECRET_PART not in repr(account)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TARGETS_ZAPIER": SECRET_PART}, "HTTP_TARGETS_ZAPIER: write a whole URL"),
        ({"TARGETS_ZAPIER": f"https://u:{SECRET_PART}@a.example"}, "without a user or password"),
        (
            {"TARGETS_ZAPIER": f"http://n8n.example/{SECRET_PART}"},
            "HTTP_TARGETS_ZAPIER must start with https://",
        ),
        ({"TARGETS_N8N_HEADER": f"X-Key: {SECRET_PART}"}, "HTTP_TARGETS_N8N_HEADER needs HTTP_TARGETS_N8N"),
        (
            {"TARGETS_ZAPIER_HEADER": SECRET_PART},
            "HTTP_TARGETS_ZAPIER_HEADER: write the name of the header, a colon",
        ),
        (
            {"TARGETS_ZAPIER_HEADER": f"Host: {SECRET_PART}"},
            "HTTP_TARGETS_ZAPIER_HEADER: the header is set by the bridge",
        ),
        ({"TARGETS_ZAPIER_HEADER": f"X-Key: ü{SECRET_PART}"}, "ASCII characters"),
        ({"TARGETS_ZAPIER": "", "TARGETS_MAKE_FILE": "/no/such/file"}, "HTTP_TARGETS_MAKE_FILE: cannot read"),
    ],
)
def test_wrong_target_is_reported_without_its_value(
    service: StubServer, variables: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        connect(http, environ(service, **variables))
    assert message in str(raised.value)
    assert SECRET_PART not in str(raised.value)


def test_second_connection_has_targets_of_its_own(service: StubServer) -> None:
    settings = {"HTTP_EU_TARGETS_ZAPIER": f"{service.url}/eu", "HTTP_TARGETS_ZAPIER": f"{service.url}/us"}
    with connect(http, settings, "http_eu") as sender:
        sender.run("request", {"target": "zapier"})
    assert service.requests[0].path == "/eu"
    with pytest.raises(ConfigError, match="HTTP_EU_TARGETS_ZAPIER: write a whole URL"):
        connect(http, {"HTTP_EU_TARGETS_ZAPIER": "x"}, "http_eu")


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ("{target: zapier}", None),
        (
            "{target: zapir}",
            "there is no target `zapir`: set HTTP_TARGETS_ZAPIR to its URL; did you mean `zapier`?",
        ),
        ('{target: zapier, url: "https://a.example"}', "write either `target` or `url`, not both"),
        ("{}", "the step needs `target`"),
        ('{url: "https://xn--/"}', "invalid URL"),
        ('{url: "https://a.example/x"}', "the URL's host is not in HTTP_ALLOWED_HOSTS"),
        ("{target: zapier, headers: {Authorization: Bearer x}}", "the header Authorization is a secret"),
        ("{target: zapier, headers: {Host: x}}", "the header 'Host' is set by the bridge itself"),
        ('{target: zapier, headers: {X-Event: "{{ event.event }}"}}', None),
        ("{target: zapier, method: GET}", "method"),
        ("{target: zapier, body: {a: 1}, form: {a: 1}}", "write either `body` or `form`, not both"),
        ('{target: zapier, body: {a: "{{ event.event }}"}, form: {a: 1}}', "either `body` or `form`"),
        ("{target: zapier, form: {a: 1}}", None),
        ("{target: zapier, method: DELETE, body: {a: 1}}", "a DELETE has no body"),
        ("{target: zapier, method: DELETE}", None),
        ('{target: "{{ event.event }}"}', None),
    ],
)
def test_receiver_is_checked_when_the_rules_are_loaded(
    service: StubServer, params: str, problem: str | None
) -> None:
    text = f"version: 1\nrules: [{{name: a, when: call.busy, do: [{{use: http.request, with: {params}}}]}}]\n"
    loaded = load(text, path="rules.yaml", registry=Registry(), environ=environ(service))
    found = [f"{diagnostic.text} {diagnostic.hint or ''}" for diagnostic in loaded.diagnostics]
    assert len(found) == (problem is not None), found
    if problem is not None:
        assert problem in found[0]


def test_missing_target_of_a_second_connection_names_its_variable(service: StubServer) -> None:
    text = "version: 1\nrules: [{name: a, when: call.busy, do: [{use: http.request, connection: http_eu, %s}]}]\n"
    settings = {"HTTP_EU_TARGETS_ZAPIER": f"{service.url}/eu"}
    loaded = load(text % "with: {target: make}", path="rules.yaml", registry=Registry(), environ=settings)
    assert "set HTTP_EU_TARGETS_MAKE to its URL" in loaded.diagnostics[0].text


def test_old_name_is_still_accepted(service: StubServer) -> None:
    with connect(http, {"HTTP_ALLOWED_HOSTS": urlsplit(service.url).netloc}) as sender:
        sender.run("post", {"url": f"{service.url}/heppu", "body": {"a": 1}})
    assert service.requests[0].json == {"a": 1}


# ------------------------------------------------------------ Google Apps Script


@pytest.fixture
def script(service: StubServer, monkeypatch: pytest.MonkeyPatch) -> StubServer:
    """A web app of Apps Script: it runs, and redirects to its output."""
    host = urlsplit(service.url).netloc
    monkeypatch.setattr(sender_module, "APPS_SCRIPT", host)
    monkeypatch.setattr(sender_module, "APPS_SCRIPT_OUTPUT", host)
    service.answer(
        "POST", "*", Reply(302, headers={"Location": f"{service.url}/macros/echo?user_content_key=k"})
    )
    service.answer("GET", "/macros/echo", Reply(200, {"ok": True, "row": 7}))
    return service


def test_script_has_run_once_it_redirects_to_its_output(sender: Connected, script: StubServer) -> None:
    result = sender.run("request", {"target": "zapier", "id_from": "row"})
    assert (result.id, result.detail) == ("7", "the script ran")
    post, get = script.requests
    assert (post.method, get.method, get.body) == ("POST", "GET", b"")
    assert not {"webhook-id", "idempotency-key"} & set(get.headers)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (Reply(200, "<html>Exception: x</html>"), PermanentError, "did not run to its end"),
        (Reply(302, headers={"Location": "https://accounts.google.com/x"}), PermanentError, "anyone may use"),
        (Reply(302), PermanentError, "did not run to its end"),
        (Reply(500), OutcomeUnknown, "the service answered 500"),
        (Reply(429), Exception, "asks for fewer requests"),
    ],
)
def test_script_that_did_not_run(
    sender: Connected, script: StubServer, answer: Reply, kind: type[Exception], message: str
) -> None:
    script.answer("POST", "*", answer)
    with pytest.raises(kind, match=message):
        sender.run("request", {"target": "zapier"})


def test_output_of_a_script_decides(sender: Connected, script: StubServer) -> None:
    def output(request: Received) -> Reply:
        return Reply(200, {"ok": False, "error": "no such sheet"})

    script.answer("GET", "/macros/echo", output)
    with pytest.raises(PermanentError, match="the script answered that it did not do it"):
        sender.run("request", {"target": "zapier"})
    script.answer("GET", "/macros/echo", Reply(503))
    with pytest.raises(OutcomeUnknown):
        sender.run("request", {"target": "zapier"})
