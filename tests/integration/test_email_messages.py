"""Messages to several colleagues, and headers whose text needs encoded words."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from email import message_from_bytes
from email.header import decode_header, make_header
from email.headerregistry import Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import PermanentError, TransientError
from bridge.sandbox import RunningSandbox
from bridge.testing import Connected, build_context, connect, event, load_connector

email_connector = load_connector("email")
send = email_connector.actions["send"]
messages = sys.modules[send.run.__module__.rpartition(".")[0] + ".message"]
TEAM = ["ann@harbourlight.example", "bo@harbourlight.example"]
MESSAGE = {"subject": "Missed call", "text": "Call back", "to": TEAM, "cc": "cy@harbourlight.example"}


@pytest.fixture
def email(sandbox: RunningSandbox) -> Iterator[Connected]:
    with connect(email_connector, sandbox.environment) as connected:
        yield connected


def internal() -> dict[str, object]:
    return {"context": build_context(event(), send, internal=True)}


def test_colleagues_get_one_message(email: Connected, sandbox: RunningSandbox) -> None:
    result = email.run("send", MESSAGE, **internal())
    [received] = sandbox.email.messages
    assert received.recipients == (*TEAM, "cy@harbourlight.example")
    assert (received.message["To"], received.message["Cc"]) == (", ".join(TEAM), "cy@harbourlight.example")
    assert "List-Unsubscribe" not in received.message
    assert result.detail == "accepted by the SMTP server"


def test_address_in_to_and_cc_gets_one_copy(email: Connected, sandbox: RunningSandbox) -> None:
    email.run("send", MESSAGE | {"cc": [TEAM[1], TEAM[1]]}, **internal())
    assert sandbox.email.messages[0].recipients == tuple(TEAM)


def test_refused_colleague_is_reported_and_the_others_get_the_message(
    email: Connected, sandbox: RunningSandbox
) -> None:
    sandbox.fault("email", method="RCPT", path="bo@*", status=550)
    result = email.run("send", MESSAGE, **internal())
    assert sandbox.email.messages[0].recipients == (TEAM[0], "cy@harbourlight.example")
    assert result.detail == "accepted by the SMTP server for 2 of 3 recipients; refused: 550 5.1.1"

    sandbox.fault("email", method="RCPT", status=550, times=3)
    with pytest.raises(PermanentError, match=r"550 5\.1\.1"):
        email.run("send", MESSAGE, **internal())


def test_greylisted_colleague_delays_the_whole_message(email: Connected, sandbox: RunningSandbox) -> None:
    sandbox.fault("email", method="RCPT", path="bo@*", status=451)
    with pytest.raises(TransientError):
        email.run("send", MESSAGE, **internal())
    assert sandbox.email.messages == []
    email.run("send", MESSAGE, **internal())
    assert len(sandbox.email.messages) == 1


def test_message_to_a_customer_has_one_recipient(email: Connected, sandbox: RunningSandbox) -> None:
    for params in (MESSAGE, MESSAGE | {"to": TEAM[0]}):
        with pytest.raises(PermanentError, match="only a message to the team"):
            email.run("send", params, event=event())
    assert sandbox.email.messages == []


texts = st.text(
    st.one_of(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), st.sampled_from(" ,;:\"<>()@=?_üß語👩‍👩‍👧")),
    min_size=1,
    max_size=300,
).map(lambda text: " ".join(text.split()))  # fmt: skip


@given(texts.filter(bool), texts)
def test_encoded_words_are_short_and_keep_the_text(subject: str, name: str) -> None:
    params = send.params(to="ines@okafor.example", subject=subject, text="Hello")
    message = messages.compose(
        Address(name, "hello", "harbourlight.example"), None, params, build_context(event(), send)
    )
    for utf8 in (False, True):
        raw = messages.payload(message, utf8=utf8)
        head = raw.partition(b"\r\n\r\n")[0]
        assert max(map(len, head.split(b"\r\n"))) <= 998
        words = re.findall(rb"=\?utf-8\?[bq]\?[^?]*\?=", head)
        assert all(len(word) <= 75 for word in words)
        parsed = message_from_bytes(raw)  # Python's newer parser adds spaces between the words of a name
        assert str(make_header(decode_header(re.sub(r"\r\n\s", " ", parsed["Subject"])))) == subject
        author = re.sub(r"\r\n\s", " ", parsed["From"])
        phrase, _, address = author.rpartition("<") if name else ("", "", author)
        assert address.rstrip(">") == "hello@harbourlight.example"
        if name and not name.isascii():
            assert str(make_header(decode_header(phrase.strip()))) == name
        if name.isascii() and "=?" not in name:
            assert str(Address(name, "hello", "harbourlight.example")) == author


def test_long_subject_is_split_into_encoded_words(email: Connected, sandbox: RunningSandbox) -> None:
    subject = (
        "Ihre Rückfrage zur Übergabe der Schlüssel für die Wohnung in der Königstraße: "
        + "wie besprochen " * 10
    )
    email.run(
        "send", {"to": "ines@okafor.example", "subject": subject.strip(), "text": "Hallo"}, event=event()
    )
    [received] = sandbox.email.messages
    assert received.message["Subject"] == subject.strip()
    assert all(len(line) <= 78 for line in received.raw.splitlines() if line.startswith((b"Subject", b" =?")))
