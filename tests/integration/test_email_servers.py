"""SMTP servers with invalid replies, and one that offers delivery status notifications (DSN)."""

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

email_connector = load_connector("email")
MESSAGE = {"to": "ines@okafor.example", "subject": "Hello", "text": "Hello"}
DEFAULT_REPLIES = {
    "EHLO": b"250 here",
    "NOOP": b"250 ok",
    "MAIL": b"250 ok",
    "RCPT": b"250 ok",
    "DATA": b"354 go",
    ".": b"250 ok",
}


class ScriptedServer:
    """SMTP server for one client at a time that replies by command; the reply None closes the connection."""

    def __init__(self, replies: dict[str, bytes | None]) -> None:
        self.replies = {**DEFAULT_REPLIES, "greeting": b"220 hi", **replies}
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
                self.handle(client.sendall, lines)

    def handle(self, send: Callable[[bytes], None], lines: Iterator[bytes]) -> None:
        if not self.reply(send, "greeting"):
            return
        in_body = False
        for line in lines:
            self.lines.append(line)
            if in_body and line != b".\r\n":
                continue
            command = "." if in_body else line.split()[0].decode().upper()
            in_body = command == "DATA" and (self.replies["DATA"] or b"").startswith(b"354")
            if not self.reply(send, command):
                return

    def reply(self, send: Callable[[bytes], None], command: str) -> bool:
        reply = self.replies.get(command, b"502 what?")
        if reply is None:
            return False
        send(reply + b"\r\n")
        return True


@contextmanager
def scripted_server(**replies: bytes | None) -> Iterator[ScriptedServer]:
    server = ScriptedServer(
        {"." if command == "dot" else command: reply for command, reply in replies.items()}
    )
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        thread.join(5)


def test_dsn_is_requested_if_server_supports_it() -> None:
    with (
        scripted_server(EHLO=b"250-here\r\n250 DSN") as server,
        connect(email_connector, server.environ) as email,
    ):
        email.run("send", MESSAGE)
    envelope = [line.decode().strip() for line in server.lines if line[:4] in (b"mail", b"rcpt")]
    assert envelope[0].startswith("mail FROM:<hello@harbourlight.example> RET=HDRS ENVID=")
    assert envelope[1] == "rcpt TO:<ines@okafor.example> NOTIFY=FAILURE"


def test_envelope_is_plain_without_dsn_support() -> None:
    with scripted_server() as server, connect(email_connector, server.environ) as email:
        email.run("send", MESSAGE)
    assert b"mail FROM:<hello@harbourlight.example>\r\n" in server.lines
    assert b"rcpt TO:<ines@okafor.example>\r\n" in server.lines


@pytest.mark.parametrize("reply", [b"hello", b"999 ok", b"100 hm", b"2", b"x" * 9000, b"\xff\xfe", None])
def test_invalid_reply_after_final_dot_raises_outcome_unknown(reply: bytes | None) -> None:
    with scripted_server(dot=reply) as server, connect(email_connector, server.environ) as email:
        with pytest.raises(OutcomeUnknown) as caught:
            email.run("send", MESSAGE, seconds=2)
        assert caught.value.reason in ("server_error", "network")


@pytest.mark.parametrize("command", ["greeting", "EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("reply", [b"hello", b"999 ok", b"x" * 9000, None])
def test_invalid_reply_before_final_dot_sends_nothing(command: str, reply: bytes | None) -> None:
    with scripted_server(**{command: reply}) as server, connect(email_connector, server.environ) as email:
        # A server that rejects every EHLO and HELO needs an operator.
        with pytest.raises((TransientError, AuthenticationError)):
            email.run("send", MESSAGE, seconds=2)
        assert b".\r\n" not in server.lines


def test_5xx_after_final_dot_is_permanent() -> None:
    with (
        scripted_server(dot=b"554 5.7.1 spam from ines@okafor.example") as server,
        connect(email_connector, server.environ) as email,
        pytest.raises(PermanentError, match=r"554 5\.7\.1") as caught,
    ):
        email.run("send", MESSAGE)
    assert "okafor" not in str(caught.value)


def test_threads_share_connections_and_send_each_message_once() -> None:
    recipients = [f"person{number}@okafor.example" for number in range(40)]
    with start_sandbox() as sandbox, connect(email_connector, sandbox.environment) as email:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda to: email.run("send", MESSAGE | {"to": to}, event=event()), recipients))
        assert len(email.client._idle) <= 4
        assert sorted(message.recipients[0] for message in sandbox.email.messages) == sorted(recipients)
