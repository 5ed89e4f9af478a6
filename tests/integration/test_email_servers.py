"""Mail servers that answer what no polite one would, and one that offers delivery notifications."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from bridge.errors import AuthenticationError, OutcomeUnknown, PermanentError, TransientError
from bridge.sandbox import start_sandbox
from bridge.testing import connect, event, load_connector

mailer = load_connector("email")
MAIL = {"to": "ines@okafor.example", "subject": "Hello", "text": "Hello"}
POLITE = {
    "EHLO": b"250 here",
    "NOOP": b"250 ok",
    "MAIL": b"250 ok",
    "RCPT": b"250 ok",
    "DATA": b"354 go",
    ".": b"250 ok",
}


class Script:
    """One client at a time, answered by the first word of its line; None hangs up."""

    def __init__(self, replies: dict[str, bytes | None]) -> None:
        self.replies = {**POLITE, "greeting": b"220 hi", **replies}
        self.lines: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.environ = {
            "EMAIL_SMTP_URL": f"smtp://127.0.0.1:{self.listener.getsockname()[1]}",
            "EMAIL_FROM": "hello@harbourlight.example",
        }

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines, suppress(OSError):
                self.talk(client.sendall, lines)

    def talk(self, send: Callable[[bytes], None], lines: Iterator[bytes]) -> None:
        if not self.say(send, "greeting"):
            return
        body = False
        for line in lines:
            self.lines.append(line)
            if body and line != b".\r\n":
                continue
            word = "." if body else line.split()[0].decode().upper()
            body = word == "DATA" and (self.replies["DATA"] or b"").startswith(b"354")
            if not self.say(send, word):
                return

    def say(self, send: Callable[[bytes], None], word: str) -> bool:
        reply = self.replies.get(word, b"502 what?")
        if reply is None:
            return False
        send(reply + b"\r\n")
        return True


@contextmanager
def scripted(**replies: bytes | None) -> Iterator[Script]:
    script = Script({"." if word == "dot" else word: reply for word, reply in replies.items()})
    thread = threading.Thread(target=script.serve, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        script.listener.shutdown(socket.SHUT_RDWR)
        script.listener.close()
        thread.join(5)


def test_a_server_that_can_is_asked_to_report_what_could_not_be_delivered() -> None:
    with scripted(EHLO=b"250-here\r\n250 DSN") as server, connect(mailer, server.environ) as mailbox:
        mailbox.run("send", MAIL)
    envelope = [line.decode().strip() for line in server.lines if line[:4] in (b"mail", b"rcpt")]
    assert envelope[0].startswith("mail FROM:<hello@harbourlight.example> RET=HDRS ENVID=")
    assert envelope[1] == "rcpt TO:<ines@okafor.example> NOTIFY=FAILURE"


def test_a_server_that_cannot_gets_the_plain_envelope() -> None:
    with scripted() as server, connect(mailer, server.environ) as mailbox:
        mailbox.run("send", MAIL)
    assert b"mail FROM:<hello@harbourlight.example>\r\n" in server.lines
    assert b"rcpt TO:<ines@okafor.example>\r\n" in server.lines


@pytest.mark.parametrize("reply", [b"hello", b"999 ok", b"100 hm", b"2", b"x" * 9000, b"\xff\xfe", None])
def test_nonsense_after_the_dot_is_unknown(reply: bytes | None) -> None:
    with scripted(dot=reply) as server, connect(mailer, server.environ) as mailbox:
        with pytest.raises(OutcomeUnknown) as unknown:
            mailbox.run("send", MAIL, seconds=2)
        assert unknown.value.reason in ("server_error", "network")


@pytest.mark.parametrize("word", ["greeting", "EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("reply", [b"hello", b"999 ok", b"x" * 9000, None])
def test_nonsense_before_the_dot_proves_that_nothing_went(word: str, reply: bytes | None) -> None:
    with scripted(**{word: reply}) as server, connect(mailer, server.environ) as mailbox:
        with pytest.raises(
            (TransientError, AuthenticationError)
        ):  # a server that refuses every hello needs its operator
            mailbox.run("send", MAIL, seconds=2)
        assert b".\r\n" not in server.lines


def test_a_refusal_after_the_dot_is_final() -> None:
    with (
        scripted(dot=b"554 5.7.1 spam from ines@okafor.example") as server,
        connect(mailer, server.environ) as mailbox,
        pytest.raises(PermanentError, match=r"554 5\.7\.1") as refused,
    ):
        mailbox.run("send", MAIL)
    assert "okafor" not in str(refused.value)


def test_many_threads_share_the_connections_and_mail_each_person_once() -> None:
    people = [f"person{number}@okafor.example" for number in range(40)]
    with start_sandbox() as sandbox, connect(mailer, sandbox.environment) as mailbox:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda to: mailbox.run("send", MAIL | {"to": to}, event=event()), people))
        assert len(mailbox.client._idle) <= 4
        assert sorted(mail.recipients[0] for mail in sandbox.email.messages) == sorted(people)
