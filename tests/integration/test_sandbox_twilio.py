"""Twilio's stand-in, driven by Twilio's own client: texts, opt-outs, receipts and replies."""

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
from bridge.sandbox.twilio.account import AUTH_TOKEN, NUMBER, SERVICE_SID
from bridge.sandbox.twilio.messages import PARAMETERS, Message

TO = "+14155550188"


@pytest.fixture
def client(sandbox: RunningSandbox) -> Iterator[Client]:
    env = sandbox.environment
    found = Client(env["TWILIO_ACCOUNT_SID"], env["TWILIO_AUTH_TOKEN"])
    found.api.base_url = env["TWILIO_URL"]
    found.messaging.base_url = env["TWILIO_URL"]
    yield found
    found.http_client.session.close()


def code(act: Callable[[], Any]) -> tuple[int, int]:
    """HTTP status and Twilio's code of a refusal."""
    with pytest.raises(TwilioRestException) as caught:
        act()
    assert caught.value.uri.startswith("/Accounts/")
    return caught.value.status, caught.value.code


def send(client: Client, **parameters: Any) -> MessageInstance:
    return client.messages.create(
        **({"to": TO, "from_": NUMBER, "body": "We tried to reach you."} | parameters)
    )


# What Twilio's own client knows of the API


def test_the_parameters_are_those_of_the_client() -> None:
    source = inspect.getsource(MessageList._create)
    assert set(re.findall(r'"([A-Z]\w+)":', source)) == PARAMETERS


def test_an_answer_has_every_field_that_the_client_reads(sandbox: RunningSandbox) -> None:
    read = set(re.findall(r'payload\.get\(\s*"(\w+)"', inspect.getsource(MessageInstance.__init__)))
    told = Message("SM1", TO, NUMBER, "x", "queued", "outbound-api", sandbox.clock.now()).as_json()
    assert set(told) == read


# Sending


def test_a_text_is_queued(sandbox: RunningSandbox, client: Client) -> None:
    made = send(client, validity_period=3600, status_callback="https://bridge.example.com/cb/1")
    assert re.fullmatch(r"SM[0-9a-f]{32}", made.sid)
    assert (made.status, made.direction, made.num_segments, made.date_sent) == (
        "queued",
        "outbound-api",
        "1",
        None,
    )
    kept = sandbox.twilio.messages[0]
    assert (kept.to, kept.from_, kept.body) == (TO, NUMBER, "We tried to reach you.")
    assert kept.parameters["ValidityPeriod"] == "3600"
    assert client.messages(made.sid).fetch().sid == made.sid


def test_a_service_accepts_first_and_chooses_a_sender_later(sandbox: RunningSandbox, client: Client) -> None:
    made = client.messages.create(to=TO, messaging_service_sid=SERVICE_SID, body="hi")
    assert (made.status, made.from_, made.num_segments) == ("accepted", None, "0")
    sandbox.twilio.send_status_callbacks(made.sid, ["sent"])
    later = client.messages(made.sid).fetch()
    assert (later.status, later.from_, later.num_segments) == ("sent", NUMBER, "1")


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
def test_what_twilio_refuses(
    sandbox: RunningSandbox, client: Client, parameters: dict[str, Any], expected: int
) -> None:
    status, found = code(lambda: send(client, **parameters))
    assert (status, found) == (404 if expected == 21701 else 400, expected)
    assert sandbox.twilio.messages == []


def test_an_empty_pool_cannot_send(sandbox: RunningSandbox, client: Client) -> None:
    sandbox.twilio.pool.clear()
    assert code(lambda: send(client, from_="", messaging_service_sid=SERVICE_SID)) == (400, 21703)


def test_unknown_and_repeated_parameters_are_refused(sandbox: RunningSandbox) -> None:
    env = sandbox.environment
    url = f"{env['TWILIO_URL']}/2010-04-01/Accounts/{env['TWILIO_ACCOUNT_SID']}/Messages.json"
    auth = (env["TWILIO_ACCOUNT_SID"], env["TWILIO_AUTH_TOKEN"])
    form = {"To": TO, "From": NUMBER, "Body": "x"}
    assert httpx.post(url, data=form | {"body": "y"}, auth=auth).json()["code"] == 20001
    twice = {"content-type": "application/x-www-form-urlencoded"}
    answer = httpx.post(url, content=b"To=%2B14155550188&Body=a&Body=b&From=x", headers=twice, auth=auth)
    assert answer.json()["code"] == 20001
    assert httpx.post(url, data=form, auth=auth).status_code == 201


def test_wrong_credentials_and_other_accounts(sandbox: RunningSandbox) -> None:
    env = sandbox.environment
    sid = env["TWILIO_ACCOUNT_SID"]
    for name, password, expected in ((sid, "wrong", (401, 20003)), (sid, AUTH_TOKEN, (404, 20404))):
        other = Client(name, password, account_sid="AC" + "0" * 32 if password == AUTH_TOKEN else sid)
        other.api.base_url = env["TWILIO_URL"]
        assert code(lambda other=other: send(other)) == expected
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


def test_a_service_schedules_and_a_scheduled_text_can_be_cancelled(
    sandbox: RunningSandbox, client: Client
) -> None:
    at = sandbox.clock.now() + timedelta(hours=2)
    made = send(
        client,
        from_="",
        messaging_service_sid=SERVICE_SID,
        schedule_type="fixed",
        send_at=at.replace(microsecond=0),
    )
    assert made.status == "scheduled"
    assert client.messages(made.sid).update(status="canceled").status == "canceled"
    assert code(lambda: client.messages(made.sid).update(status="canceled"))[1] == 30409
    for soon in (timedelta(minutes=14), timedelta(days=36)):
        late = sandbox.clock.now() + soon
        arguments = {"messaging_service_sid": SERVICE_SID, "schedule_type": "fixed", "send_at": late}
        assert code(lambda arguments=arguments: send(client, **arguments)) == (400, 35114)


def test_without_a_service_a_scheduled_text_goes_out_at_once(sandbox: RunningSandbox, client: Client) -> None:
    at = sandbox.clock.now() + timedelta(hours=2)
    assert send(client, schedule_type="fixed", send_at=at).status == "queued"


# Listing


def test_a_list_is_newest_first_and_filtered(sandbox: RunningSandbox, client: Client) -> None:
    first, second = send(client, body="one"), send(client, body="two")
    send(client, to="+13105550142", body="other")
    found = client.messages.list(to=TO, limit=20)
    assert [message.sid for message in found] == [second.sid, first.sid]
    assert [message.body for message in client.messages.list(from_=NUMBER)] == ["other", "two", "one"]


def test_a_list_goes_from_page_to_page(client: Client) -> None:
    sids = [send(client, body=str(number)).sid for number in range(5)]
    assert [message.sid for message in client.messages.list(to=TO, page_size=2)] == sids[::-1]


def test_a_queued_text_hides_from_the_date_filter(sandbox: RunningSandbox, client: Client) -> None:
    made = send(client)
    today = datetime.now(UTC).date()
    assert client.messages.list(to=TO, date_sent=today) == []
    sandbox.twilio.send_status_callbacks()
    assert [message.sid for message in client.messages.list(to=TO, date_sent=today)] == [made.sid]
    assert client.messages.list(date_sent_before=date(2020, 1, 1)) == []
    assert len(client.messages.list(date_sent_after=date(2020, 1, 1))) == 1


def test_a_list_lags_behind_when_asked_to(sandbox: RunningSandbox, client: Client) -> None:
    sandbox.fault("twilio", lag=5)
    made = send(client)
    assert client.messages.list(to=TO) == []
    assert client.messages(made.sid).fetch().sid == made.sid
    sandbox.clock.advance(seconds=6)
    assert len(client.messages.list(to=TO)) == 1


# The account


def test_account_numbers_and_service_can_be_looked_at(sandbox: RunningSandbox, client: Client) -> None:
    sid = sandbox.environment["TWILIO_ACCOUNT_SID"]
    assert client.api.accounts(sid).fetch().status == "active"
    assert [one.phone_number for one in client.incoming_phone_numbers.list(phone_number=NUMBER)] == [NUMBER]
    assert client.incoming_phone_numbers.list(phone_number="+19998887777") == []
    assert client.messaging.v1.services(SERVICE_SID).fetch().sid == SERVICE_SID
    assert [one.phone_number for one in client.messaging.v1.services(SERVICE_SID).phone_numbers.list()] == [
        NUMBER
    ]
    with pytest.raises(TwilioRestException) as caught:
        client.messaging.v1.services("MG" + "0" * 32).fetch()
    assert caught.value.status == 404
    assert code(lambda: client.messages("SM" + "0" * 32).fetch()) == (404, 20404)


# Opt-outs


def test_an_opted_out_number_is_refused_until_it_opts_in(sandbox: RunningSandbox, client: Client) -> None:
    sandbox.twilio.opt_out(TO)
    assert code(lambda: send(client)) == (400, 21610)
    sandbox.twilio.opt_in(TO)
    send(client)
    assert len(sandbox.twilio.messages) == 1


# Callbacks


class Bridge:
    """A server that receives Twilio's callbacks and remembers them."""

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
def bridge() -> Iterator[Bridge]:
    found = Bridge()
    yield found
    found.close()


def test_receipts_are_signed_and_sent_to_the_texts_own_url(
    sandbox: RunningSandbox, client: Client, bridge: Bridge
) -> None:
    url = f"{bridge.url}/webhooks/twilio/status?delivery=1"
    made = send(client, status_callback=url)
    silent = send(client)
    report = sandbox.twilio.send_status_callbacks()
    assert [(one["sid"], one["status"], one["http"]) for one in report] == [
        (made.sid, "sent", 204),
        (made.sid, "delivered", 204),
        (silent.sid, "sent", None),
        (silent.sid, "delivered", None),
    ]
    assert [fields["MessageStatus"] for _, fields, _ in bridge.received] == ["sent", "delivered"]
    for path, fields, signature in bridge.received:
        assert path == "/webhooks/twilio/status?delivery=1"
        assert RequestValidator(AUTH_TOKEN).validate(url, fields, signature)
        assert fields["MessageSid"] == made.sid
    assert sandbox.twilio.send_status_callbacks() == [], "what is delivered does not move any more"


def test_a_receipt_may_tell_of_a_failure(sandbox: RunningSandbox, client: Client, bridge: Bridge) -> None:
    made = send(client, status_callback=bridge.url + "/status")
    body = {"sid": made.sid, "statuses": ["undelivered"], "error_code": 30006}
    answer = httpx.post(sandbox.url + "/_sandbox/twilio/callbacks", json=body)
    assert answer.json()["result"] == [{"sid": made.sid, "status": "undelivered", "http": 204}]
    assert bridge.received[0][1]["ErrorCode"] == "30006"
    assert client.messages(made.sid).fetch().error_code == 30006


def test_a_status_that_does_not_exist_is_refused(sandbox: RunningSandbox, client: Client) -> None:
    send(client)
    answer = httpx.post(sandbox.url + "/_sandbox/twilio/callbacks", json={"statuses": ["arrived"]})
    assert (answer.status_code, "arrived" in answer.json()["error"]) == (400, True)


def test_stop_is_heeded_by_twilio_and_told_to_the_bridge(
    sandbox: RunningSandbox, client: Client, bridge: Bridge
) -> None:
    url = bridge.url + "/webhooks/twilio/inbound"
    body = {"from": TO, "body": " Stop ", "url": url}
    answer = httpx.post(sandbox.url + "/_sandbox/twilio/inbound", json=body).json()["result"]
    assert answer["http"] == 204
    _, fields, signature = bridge.received[0]
    assert (fields["From"], fields["To"], fields["Body"]) == (TO, NUMBER, " Stop ")
    assert RequestValidator(AUTH_TOKEN).validate(url, fields, signature)
    assert sandbox.twilio.opted_out == {TO}
    assert [message.body for message in sandbox.twilio.inbound] == [" Stop "]
    assert sandbox.twilio.messages == []
    assert code(lambda: send(client)) == (400, 21610)
    sandbox.twilio.receive(TO, "START", url)
    send(client)


def test_a_bridge_that_is_away_is_reported(sandbox: RunningSandbox, client: Client) -> None:
    send(client, status_callback="http://127.0.0.1:9/status")
    assert [one["http"] for one in sandbox.twilio.send_status_callbacks(statuses=["sent"])] == [None]
