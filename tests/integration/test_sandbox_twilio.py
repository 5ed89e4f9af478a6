"""Mock Twilio, driven by Twilio's own client: messages, opt-outs, status callbacks and inbound messages."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio.rest.api.v2010.account.message import MessageInstance, MessageList

from bridge.sandbox import RunningSandbox
from bridge.sandbox.twilio.account import AUTH_TOKEN, NUMBER, SERVICE_SID, WHATSAPP_NUMBER
from bridge.sandbox.twilio.messages import PARAMETERS, Message
from bridge.sandbox.twilio.templates import MISSED_CALL

TO = "+14155550188"


@pytest.fixture
def client(sandbox: RunningSandbox) -> Iterator[Client]:
    env = sandbox.environment
    twilio_client = Client(env["TWILIO_ACCOUNT_SID"], env["TWILIO_AUTH_TOKEN"])
    twilio_client.api.base_url = env["TWILIO_URL"]
    twilio_client.messaging.base_url = env["TWILIO_URL"]
    twilio_client.content.base_url = env["TWILIO_URL"]
    yield twilio_client
    twilio_client.http_client.session.close()


def error_code(call: Callable[[], Any]) -> tuple[int, int]:
    """Return the HTTP status and Twilio's error code of a rejected request."""
    with pytest.raises(TwilioRestException) as caught:
        call()
    assert caught.value.uri.startswith("/Accounts/")
    return caught.value.status, caught.value.code


def send(client: Client, **parameters: Any) -> MessageInstance:
    return client.messages.create(
        **({"to": TO, "from_": NUMBER, "body": "We tried to reach you."} | parameters)
    )


# Agreement with Twilio's own client


def test_parameters_match_the_client() -> None:
    source = inspect.getsource(MessageList._create)
    assert set(re.findall(r'"([A-Z]\w+)":', source)) == PARAMETERS


def test_response_has_every_field_the_client_reads(sandbox: RunningSandbox) -> None:
    expected = set(re.findall(r'payload\.get\(\s*"(\w+)"', inspect.getsource(MessageInstance.__init__)))
    response = Message("SM1", TO, NUMBER, "x", "queued", "outbound-api", sandbox.clock.now()).as_json()
    assert set(response) == expected


# Sending


def test_message_is_queued(sandbox: RunningSandbox, client: Client) -> None:
    created = send(client, validity_period=3600, status_callback="https://bridge.example.com/cb/1")
    assert re.fullmatch(r"SM[0-9a-f]{32}", created.sid)
    assert (created.status, created.direction, created.num_segments, created.date_sent) == (
        "queued",
        "outbound-api",
        "1",
        None,
    )
    stored = sandbox.twilio.messages[0]
    assert (stored.to, stored.from_, stored.body) == (TO, NUMBER, "We tried to reach you.")
    assert stored.parameters["ValidityPeriod"] == "3600"
    assert client.messages(created.sid).fetch().sid == created.sid


def test_service_message_is_accepted_before_sender_is_chosen(sandbox: RunningSandbox, client: Client) -> None:
    created = client.messages.create(to=TO, messaging_service_sid=SERVICE_SID, body="hi")
    assert (created.status, created.from_, created.num_segments) == ("accepted", None, "0")
    sandbox.twilio.send_status_callbacks(created.sid, ["sent"])
    updated = client.messages(created.sid).fetch()
    assert (updated.status, updated.from_, updated.num_segments) == ("sent", NUMBER, "1")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"to": ""}, 21604),
        ({"to": "4155550188"}, 21211),
        ({"to": "+1 415 555 0188"}, 21211),
        ({"to": "+0415"}, 21211),
        ({"to": NUMBER}, 21266),
        ({"from_": ""}, 21603),
        ({"from_": "2125550100"}, 21212),
        ({"from_": "+12125559999"}, 21606),
        ({"body": ""}, 21602),
        ({"body": "x" * 1601}, 21617),
        ({"validity_period": 0}, 90014),
        ({"validity_period": 36001}, 90007),
        ({"status_callback": "not a url"}, 21609),
        ({"status_callback": "https://my_host.example.com/cb"}, 21609),
        ({"status_callback": "ftp://example.com"}, 21609),
        ({"shorten_urls": True}, 20001),
        ({"messaging_service_sid": "MG" + "0" * 32}, 21701),
        ({"messaging_service_sid": SERVICE_SID, "from_": "+12125559999"}, 21712),
    ],
)
def test_invalid_message_is_rejected(
    sandbox: RunningSandbox, client: Client, parameters: dict[str, Any], expected: int
) -> None:
    status, actual = error_code(lambda: send(client, **parameters))
    assert (status, actual) == (404 if expected == 21701 else 400, expected)
    assert sandbox.twilio.messages == []


def test_service_with_empty_pool_rejects_message(sandbox: RunningSandbox, client: Client) -> None:
    sandbox.twilio.pool.clear()
    assert error_code(lambda: send(client, from_="", messaging_service_sid=SERVICE_SID)) == (400, 21703)


def test_unknown_and_repeated_parameters_are_rejected(sandbox: RunningSandbox) -> None:
    env = sandbox.environment
    url = f"{env['TWILIO_URL']}/2010-04-01/Accounts/{env['TWILIO_ACCOUNT_SID']}/Messages.json"
    auth = (env["TWILIO_ACCOUNT_SID"], env["TWILIO_AUTH_TOKEN"])
    form = {"To": TO, "From": NUMBER, "Body": "x"}
    assert httpx.post(url, data=form | {"body": "y"}, auth=auth).json()["code"] == 20001
    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = httpx.post(url, content=b"To=%2B14155550188&Body=a&Body=b&From=x", headers=headers, auth=auth)
    assert response.json()["code"] == 20001
    assert httpx.post(url, data=form, auth=auth).status_code == 201


def test_wrong_credentials_and_other_accounts_are_rejected(sandbox: RunningSandbox) -> None:
    env = sandbox.environment
    sid = env["TWILIO_ACCOUNT_SID"]
    for name, password, expected in ((sid, "wrong", (401, 20003)), (sid, AUTH_TOKEN, (404, 20404))):
        other = Client(name, password, account_sid="AC" + "0" * 32 if password == AUTH_TOKEN else sid)
        other.api.base_url = env["TWILIO_URL"]
        assert error_code(lambda other=other: send(other)) == expected
        other.http_client.session.close()


@pytest.mark.parametrize(
    ("body", "segments"),
    [
        ("x" * 160, "1"),
        ("x" * 161, "2"),
        ("€" * 81, "2"),
        ("x" * 70 + "“", "2"),
        ("🙂" * 35, "1"),
        ("🙂" * 36, "2"),
    ],
)
def test_segments_are_counted(client: Client, body: str, segments: str) -> None:
    assert send(client, body=body).num_segments == segments


# Scheduling


def test_service_message_is_scheduled_and_cancelled(sandbox: RunningSandbox, client: Client) -> None:
    send_at = sandbox.clock.now() + timedelta(hours=2)
    created = send(
        client,
        from_="",
        messaging_service_sid=SERVICE_SID,
        schedule_type="fixed",
        send_at=send_at.replace(microsecond=0),
    )
    assert created.status == "scheduled"
    assert client.messages(created.sid).update(status="canceled").status == "canceled"
    assert error_code(lambda: client.messages(created.sid).update(status="canceled"))[1] == 30409
    for delay in (timedelta(minutes=14), timedelta(days=36)):
        invalid_time = sandbox.clock.now() + delay
        arguments = {"messaging_service_sid": SERVICE_SID, "schedule_type": "fixed", "send_at": invalid_time}
        assert error_code(lambda arguments=arguments: send(client, **arguments)) == (400, 35114)


def test_scheduled_message_without_service_is_sent_immediately(
    sandbox: RunningSandbox, client: Client
) -> None:
    at = sandbox.clock.now() + timedelta(hours=2)
    assert send(client, schedule_type="fixed", send_at=at).status == "queued"


# Listing


def test_message_list_is_newest_first_and_filtered(client: Client) -> None:
    first, second = send(client, body="one"), send(client, body="two")
    send(client, to="+13105550142", body="other")
    listed = client.messages.list(to=TO, limit=20)
    assert [message.sid for message in listed] == [second.sid, first.sid]
    assert [message.body for message in client.messages.list(from_=NUMBER)] == ["other", "two", "one"]


def test_message_list_is_paged(client: Client) -> None:
    sids = [send(client, body=str(number)).sid for number in range(5)]
    assert [message.sid for message in client.messages.list(to=TO, page_size=2)] == sids[::-1]


def test_date_filter_excludes_queued_messages(sandbox: RunningSandbox, client: Client) -> None:
    created = send(client)
    today = datetime.now(UTC).date()
    assert client.messages.list(to=TO, date_sent=today) == []
    sandbox.twilio.send_status_callbacks()
    assert [message.sid for message in client.messages.list(to=TO, date_sent=today)] == [created.sid]
    assert client.messages.list(date_sent_before=date(2020, 1, 1)) == []
    assert len(client.messages.list(date_sent_after=date(2020, 1, 1))) == 1


def test_message_list_lags_with_lag_fault(sandbox: RunningSandbox, client: Client) -> None:
    sandbox.fault("twilio", lag=5)
    created = send(client)
    assert client.messages.list(to=TO) == []
    assert client.messages(created.sid).fetch().sid == created.sid
    sandbox.clock.advance(seconds=6)
    assert len(client.messages.list(to=TO)) == 1


# The account


def test_account_numbers_and_service_are_readable(sandbox: RunningSandbox, client: Client) -> None:
    sid = sandbox.environment["TWILIO_ACCOUNT_SID"]
    assert client.api.accounts(sid).fetch().status == "active"
    assert [number.phone_number for number in client.incoming_phone_numbers.list(phone_number=NUMBER)] == [
        NUMBER
    ]
    assert client.incoming_phone_numbers.list(phone_number="+19998887777") == []
    assert client.messaging.v1.services(SERVICE_SID).fetch().sid == SERVICE_SID
    assert [
        number.phone_number for number in client.messaging.v1.services(SERVICE_SID).phone_numbers.list()
    ] == [NUMBER]
    with pytest.raises(TwilioRestException) as caught:
        client.messaging.v1.services("MG" + "0" * 32).fetch()
    assert caught.value.status == 404
    assert error_code(lambda: client.messages("SM" + "0" * 32).fetch()) == (404, 20404)


# WhatsApp

WHATSAPP_TO = f"whatsapp:{TO}"


def send_template(client: Client, **parameters: Any) -> MessageInstance:
    template = {"content_sid": MISSED_CALL.sid, "content_variables": '{"1": "Ines"}'}
    sender = {"to": WHATSAPP_TO, "from_": f"whatsapp:{WHATSAPP_NUMBER}"}
    return client.messages.create(**(sender | template | parameters))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"to": TO}, 21910),
        ({"from_": NUMBER}, 21910),
        ({"from_": f"whatsapp:{NUMBER}"}, 63007),
        ({"to": "whatsapp:4155550188"}, 21211),
        ({"to": f"whatsapp:{WHATSAPP_NUMBER}"}, 21266),
        ({"content_sid": "HX" + "0" * 32}, 21655),
        ({"content_sid": "", "body": "Hi"}, 21654),
        ({"content_variables": "1"}, 21656),
        ({"content_variables": '{"1": null}'}, 21656),
        ({"content_variables": '{"1": ""}'}, 21656),
        ({"content_variables": '{"1": "a\\nb"}'}, 21656),
        ({"content_variables": '{"1": "a     b"}'}, 21656),
        ({"content_variables": '{"id name": "a"}'}, 21656),
    ],
)
def test_invalid_whatsapp_message_is_rejected(
    sandbox: RunningSandbox, client: Client, parameters: dict[str, Any], expected: int
) -> None:
    assert error_code(lambda: send_template(client, **parameters)) == (400, expected)
    assert sandbox.twilio.messages == []


def test_omitted_variable_becomes_the_sample(client: Client) -> None:
    assert send_template(client, content_variables="{}").body == MISSED_CALL.render({"1": "John"})


def test_window_opens_for_a_person_and_the_sender_they_wrote_to(
    sandbox: RunningSandbox, client: Client
) -> None:
    sandbox.twilio.configure(whatsapp_senders={WHATSAPP_NUMBER: "ONLINE", "+12125550108": "ONLINE"})
    sandbox.twilio.receive(WHATSAPP_TO, "Hello?")
    free = {"content_sid": "", "content_variables": "", "body": "Hi"}
    send_template(client, **free)
    send_template(client, **free, from_="whatsapp:+12125550108")
    send_template(client, **free | {"to": "whatsapp:+14155550199"})
    assert [message.refusal for message in sandbox.twilio.messages] == [None, 63016, 63016]
    sandbox.twilio.inbound[0].created_at -= timedelta(hours=24)
    send_template(client, **free)
    assert sandbox.twilio.messages[-1].refusal == 63016


def test_templates_and_senders_are_readable(client: Client) -> None:
    [found] = client.content.v2.contents.list(content_name="missed")
    assert (found.sid, found.friendly_name, found.language) == (MISSED_CALL.sid, "missed_call", "en")
    assert client.content.v2.contents.list(content_name="other") == []
    content = client.content.v1.contents(MISSED_CALL.sid)
    assert content.fetch().types == {"twilio/text": {"body": MISSED_CALL.body}}
    whatsapp = content.approval_fetch().fetch().whatsapp
    assert whatsapp is not None
    assert whatsapp["status"] == "approved"
    [sender] = client.messaging.v2.channels_senders.list(channel="whatsapp")
    assert (sender.sender_id, sender.status) == (f"whatsapp:{WHATSAPP_NUMBER}", "ONLINE")


# Opt-outs


def test_opted_out_number_is_rejected_until_opt_in(sandbox: RunningSandbox, client: Client) -> None:
    sandbox.twilio.opt_out(TO)
    assert error_code(lambda: send(client)) == (400, 21610)
    sandbox.twilio.opt_in(TO)
    send(client)
    assert len(sandbox.twilio.messages) == 1


# Callbacks


class CallbackServer:
    """A server that records the webhook requests of the mock."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], str]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                fields = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
                received.append((self.path, fields, self.headers["X-Twilio-Signature"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server() -> Iterator[CallbackServer]:
    callback_server = CallbackServer()
    yield callback_server
    callback_server.close()


def test_status_callbacks_are_signed_and_sent_to_message_url(
    sandbox: RunningSandbox, client: Client, server: CallbackServer
) -> None:
    url = f"{server.url}/webhooks/twilio/status?delivery=1"
    created = send(client, status_callback=url)
    without_callback = send(client)
    report = sandbox.twilio.send_status_callbacks()
    assert [(item["sid"], item["status"], item["http"]) for item in report] == [
        (created.sid, "sent", 204),
        (created.sid, "delivered", 204),
        (without_callback.sid, "sent", None),
        (without_callback.sid, "delivered", None),
    ]
    assert [fields["MessageStatus"] for _, fields, _ in server.received] == ["sent", "delivered"]
    for path, fields, signature in server.received:
        assert path == "/webhooks/twilio/status?delivery=1"
        assert RequestValidator(AUTH_TOKEN).validate(url, fields, signature)
        assert fields["MessageSid"] == created.sid
    assert sandbox.twilio.send_status_callbacks() == [], "a delivered message gets no further status"


def test_status_callback_reports_failure(
    sandbox: RunningSandbox, client: Client, server: CallbackServer
) -> None:
    created = send(client, status_callback=server.url + "/status")
    body = {"sid": created.sid, "statuses": ["undelivered"], "error_code": 30006}
    response = httpx.post(sandbox.url + "/_sandbox/twilio/callbacks", json=body)
    assert response.json()["result"] == [{"sid": created.sid, "status": "undelivered", "http": 204}]
    assert server.received[0][1]["ErrorCode"] == "30006"
    assert client.messages(created.sid).fetch().error_code == 30006


def test_unknown_status_is_rejected(sandbox: RunningSandbox, client: Client) -> None:
    send(client)
    response = httpx.post(sandbox.url + "/_sandbox/twilio/callbacks", json={"statuses": ["arrived"]})
    assert (response.status_code, "arrived" in response.json()["error"]) == (400, True)


def test_stop_reply_opts_out_and_calls_webhook(
    sandbox: RunningSandbox, client: Client, server: CallbackServer
) -> None:
    url = server.url + "/webhooks/twilio/inbound"
    body = {"from": TO, "body": " Stop ", "url": url}
    result = httpx.post(sandbox.url + "/_sandbox/twilio/inbound", json=body).json()["result"]
    assert result["http"] == 204
    _, fields, signature = server.received[0]
    assert (fields["From"], fields["To"], fields["Body"]) == (TO, NUMBER, " Stop ")
    assert RequestValidator(AUTH_TOKEN).validate(url, fields, signature)
    assert sandbox.twilio.opted_out == {TO}
    assert [message.body for message in sandbox.twilio.inbound] == [" Stop "]
    assert sandbox.twilio.messages == []
    assert error_code(lambda: send(client)) == (400, 21610)
    sandbox.twilio.receive(TO, "START", url)
    send(client)


def test_advanced_opt_out_names_the_kind_of_keyword(
    sandbox: RunningSandbox, client: Client, server: CallbackServer
) -> None:
    control = f"{sandbox.url}/_sandbox/twilio"
    settings = {"inbound_url": server.url + "/inbound", "more_stop_words": ["Arret"]}
    assert httpx.post(f"{control}/configure", json=settings).status_code == 200
    texts = [(TO, "STOP"), (TO, "arret"), (TO, "start"), (f"whatsapp:{TO}", "STOP"), (TO, "Stop please")]
    for advanced, kinds in (
        (False, [None] * 5),
        (True, ["STOP", "STOP", "START", None, None]),
    ):
        httpx.post(f"{control}/configure", json={"advanced_opt_out": advanced})
        server.received.clear()
        for sender, body in texts:
            result = httpx.post(f"{control}/inbound", json={"from": sender, "body": body}).json()["result"]
            assert result["http"] == 204
        assert [fields.get("OptOutType") for _, fields, _ in server.received] == kinds
    assert sandbox.twilio.opted_out == set(), (
        "START ended it, and Twilio knows neither STOP in WhatsApp nor sentences"
    )


def test_picture_message_lists_its_files(sandbox: RunningSandbox, server: CallbackServer) -> None:
    body = {"from": TO, "body": "", "url": server.url + "/inbound", "media": ["https://example.com/1.jpg"]}
    httpx.post(f"{sandbox.url}/_sandbox/twilio/inbound", json=body)
    _, fields, _ = server.received[0]
    assert (fields["NumMedia"], fields["MediaUrl0"]) == ("1", "https://example.com/1.jpg")
    assert fields["MessageSid"].startswith("MM")


def test_unreachable_callback_url_is_reported(sandbox: RunningSandbox, client: Client) -> None:
    send(client, status_callback="http://127.0.0.1:9/status")
    assert [item["http"] for item in sandbox.twilio.send_status_callbacks(statuses=["sent"])] == [None]
