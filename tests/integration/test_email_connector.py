"""The email connector: messages sent over real SMTP to a server in this process, compared byte by byte."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage, Message
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from bridge.connector import Context
from bridge.errors import (
    AccountError,
    AuthenticationError,
    ConfigError,
    OutcomeUnknown,
    PermanentError,
    TransientError,
)
from bridge.events import Event
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.testing import Connected, build_context, connect, event, load_connector

MESSAGE = {"subject": "Your question", "text": "Hello,\n\nhow can we help?"}
LONG_LINK = (
    "https://bridge.example.com/unsubscribe/" + "eyJjIjoiZW1haWwiLCJhIjoiaW5lc0Bva2Fmb3IuZXhhbXBsZSJ9." * 4
)
email_connector = load_connector("email")


@pytest.fixture
def email(sandbox: RunningSandbox) -> Iterator[Connected]:
    with connect(email_connector, sandbox.environment) as connected:
        yield connected


@pytest.fixture
def abandoned_chat() -> Event:
    return event("chat.abandoned", {"metadata.contactEmail": "ines@okafor.example"})


def context(source: Event, **fields: Any) -> Context:
    return build_context(source, email_connector.actions["send"], **fields)


def content(part: Message | None) -> str:
    """Return a part's text with LF line ends; on the wire every line ends in CRLF."""
    assert isinstance(part, EmailMessage)
    text: str = part.get_content()
    return text.replace("\r\n", "\n")


# ------------------------------------------------------------ message


def test_send_to_one_recipient_as_text_and_html(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event
) -> None:
    result = email.run("send", MESSAGE, event=abandoned_chat)

    [received] = sandbox.email.messages
    assert received.recipients == ("ines@okafor.example",)
    assert received.sender == "hello@harbourlight.example"
    message = received.message
    assert message["From"] == "Harbour Light <hello@harbourlight.example>"
    assert message["To"] == "ines@okafor.example"
    assert message["Subject"] == "Your question"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == result.id
    assert "Bcc" not in message
    assert "Precedence" not in message
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert content(text) == "Hello,\n\nhow can we help?\n"
    assert content(html) == "<p>Hello,</p>\n<p>how can we help?</p>\n"


def test_message_is_byte_identical_in_every_attempt(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event
) -> None:
    first = datetime(2026, 3, 2, 15, 20, tzinfo=UTC)
    for attempt, delay in enumerate((0, 60, 3600), 1):
        fields = {"now": first + timedelta(seconds=delay), "first_attempt_at": first, "attempt": attempt}
        email.run("send", MESSAGE, context=context(abandoned_chat, **fields))

    original, *retries = (message.raw for message in sandbox.email.messages)
    assert all(retry == original for retry in retries)
    assert sandbox.email.messages[0].message["Date"].datetime == first


def test_message_id_differs_between_deliveries(email: Connected, abandoned_chat: Event) -> None:
    ids = {
        email.run("send", MESSAGE, context=context(abandoned_chat, idempotency_key=idempotency_key)).id
        for idempotency_key in ("one", "two")
    }
    assert len(ids) == 2
    assert all(str(message_id).endswith("@harbourlight.example>") for message_id in ids)


def test_lines_with_leading_dots_are_escaped(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event
) -> None:
    text = "one\n.\n..two\n.three\nQUIT\r\n.\r\nMAIL FROM:<x@y.example>"
    email.run("send", {"subject": "Dots", "text": text}, event=abandoned_chat)
    [received] = sandbox.email.messages
    body = received.message.get_body(("plain",))
    assert content(body) == text.replace("\r\n", "\n") + "\n"


def test_non_ascii_text_is_sent_as_7bit(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event
) -> None:
    params = {"subject": "Grüße, Ωμέγα 👋", "text": "Žluťoučký kůň 👋\n" + "ü" * 2000}
    email.run("send", params, event=abandoned_chat)
    [received] = sandbox.email.messages
    assert received.raw.isascii()
    assert max(map(len, received.raw.splitlines())) <= 998
    assert received.message["Subject"] == "Grüße, Ωμέγα 👋"
    body = received.message.get_body(("plain",))
    assert content(body) == params["text"] + "\n"


# ------------------------------------------------------------ visitor input


@pytest.mark.parametrize(
    "address",
    [
        "a@b.example, evil@elsewhere.example",
        "a@b.example\nBcc: evil@elsewhere.example",
        "group: a@b.example;",
        "Ines <a@b.example>",
        "a@b.example evil@elsewhere.example",
    ],
)
def test_address_with_second_recipient_is_rejected(
    email: Connected, sandbox: RunningSandbox, address: str
) -> None:
    with pytest.raises(ValidationError):
        email.run("send", MESSAGE | {"to": address})
    with pytest.raises(ValidationError):  # the same value in an event is not read as an address
        email.run("send", MESSAGE, event=event("chat.abandoned", {"metadata.contactEmail": address}))
    assert sandbox.email.messages == []


def test_line_break_in_subject_becomes_space(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event
) -> None:
    email.run("send", MESSAGE | {"subject": "Hi\r\nBcc: evil@elsewhere.example"}, event=abandoned_chat)
    [received] = sandbox.email.messages
    assert received.message["Subject"] == "Hi Bcc: evil@elsewhere.example"
    assert "Bcc" not in received.message
    assert received.recipients == ("ines@okafor.example",)


def test_event_values_are_escaped_in_html(email: Connected, sandbox: RunningSandbox) -> None:
    visitor = event(
        "chat.abandoned",
        {
            "metadata.contactEmail": "a@b.example",
            "metadata.contactName": "<a href='https://evil.example'>Win</a>",
        },
    )
    email.run("send", MESSAGE | {"text": "Hi {{ contact.name }}"}, event=visitor)
    email.run("send", MESSAGE | {"html": "<b>Hi {{ contact.name }}</b>"}, event=visitor)
    for received in sandbox.email.messages:
        html = received.message.get_body(("html",))
        assert "<a href" not in content(html)
        assert "&lt;a href" in content(html)


@pytest.mark.parametrize(
    ("address", "recipient"),
    [
        ("ines@bücher.example", "ines@xn--bcher-kva.example"),
        ("info@straße.example", "info@xn--strae-oqa.example"),  # not strasse.example, another person's server
        ("info@ς.example", "info@xn--3xa.example"),
    ],
)
def test_international_domain_is_sent_by_idna_2008(
    email: Connected, sandbox: RunningSandbox, address: str, recipient: str
) -> None:
    sandbox.email.smtputf8 = False
    email.run("send", MESSAGE | {"to": address})
    [received] = sandbox.email.messages
    assert received.recipients == (recipient,)
    assert received.message["To"] == recipient
    assert received.raw.isascii()


def test_non_ascii_address_is_sent_with_smtputf8(email: Connected, sandbox: RunningSandbox) -> None:
    email.run("send", MESSAGE | {"to": "ünes@bücher.example", "reply_to": "ö@harbourlight.example"})
    email.run("send", MESSAGE)
    with_utf8, plain = sandbox.email.messages
    assert with_utf8.recipients == ("ünes@xn--bcher-kva.example",)
    assert with_utf8.message["To"] == "ünes@xn--bcher-kva.example"
    assert with_utf8.message["Reply-To"] == "ö@harbourlight.example"
    assert "To: ünes@xn--bcher-kva.example\r\n".encode() in with_utf8.raw
    assert plain.raw.isascii()


def test_non_ascii_address_fails_without_smtputf8(email: Connected, sandbox: RunningSandbox) -> None:
    sandbox.email.smtputf8 = False
    with pytest.raises(PermanentError, match="does not offer SMTPUTF8") as caught:
        email.run("send", MESSAGE | {"to": "ünes@okafor.example"})
    assert "okafor" not in str(caught.value)
    assert sandbox.email.messages == []


def test_non_ascii_sender_needs_smtputf8(sandbox: RunningSandbox, abandoned_chat: Event) -> None:
    environ = sandbox.environment | {"EMAIL_FROM": "Büro <büro@straße.example>"}
    with connect(email_connector, environ) as email:
        assert email.check() == "logged in, sender at xn--strae-oqa.example accepted"
        email.run("send", MESSAGE, event=abandoned_chat)
    [received] = sandbox.email.messages
    assert received.sender == "büro@xn--strae-oqa.example"
    assert received.message["From"] == "Büro <büro@xn--strae-oqa.example>"
    sandbox.email.smtputf8 = False
    with connect(email_connector, environ) as email:
        for action in (email.check, lambda: email.run("send", MESSAGE, event=abandoned_chat)):
            with pytest.raises(AccountError, match="does not offer SMTPUTF8") as caught:
                action()
            assert "use only ASCII before the @ in EMAIL_FROM" in caught.value.fix


@pytest.mark.parametrize(
    "address", ["a@b..example", f"a@{'ü' * 80}.example", "in..fo@b.example", "info@-b.example"]
)
def test_invalid_address_is_rejected_before_sending(
    email: Connected, sandbox: RunningSandbox, address: str
) -> None:
    with pytest.raises(ValidationError):
        email.run("send", MESSAGE | {"to": address})
    assert sandbox.requests_to("email") == []


# ------------------------------------------------------------ unsubscribe link


def test_unsubscribe_header_keeps_long_link_on_one_line(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event
) -> None:
    assert len(LONG_LINK) > 78
    email.run("send", MESSAGE, context=context(abandoned_chat, unsubscribe_url=LONG_LINK))
    [received] = sandbox.email.messages
    assert f"List-Unsubscribe: <{LONG_LINK}>\r\n".encode() in received.raw
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in received.raw
    text, html = received.message.iter_parts()
    assert content(text).endswith(f"-- \nUnsubscribe: {LONG_LINK}\n")
    assert f'<a href="{LONG_LINK}">Unsubscribe</a>' in content(html)


def test_unsubscribe_param_sets_label_and_empty_omits_link(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event
) -> None:
    for label in ("Abmelden", ""):
        email.run(
            "send",
            MESSAGE | {"unsubscribe": label},
            context=context(abandoned_chat, unsubscribe_url=LONG_LINK),
        )
    with_link, without_link = sandbox.email.messages
    assert b"Abmelden" in with_link.raw
    assert b"List-Unsubscribe" not in without_link.raw
    assert LONG_LINK.encode() not in without_link.raw


def test_one_click_header_requires_https(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event
) -> None:
    email.run(
        "send",
        MESSAGE,
        context=context(abandoned_chat, unsubscribe_url="http://127.0.0.1:8080/unsubscribe/x"),
    )
    assert "List-Unsubscribe" in sandbox.email.messages[0].message
    assert "List-Unsubscribe-Post" not in sandbox.email.messages[0].message


# ------------------------------------------------------------ envelope and replies


def test_reply_to_and_return_path_are_configurable(sandbox: RunningSandbox, abandoned_chat: Event) -> None:
    environ = sandbox.environment | {
        "EMAIL_REPLY_TO": "desk@harbourlight.example",
        "EMAIL_RETURN_PATH": "bounces@mail.harbourlight.example",
    }
    with connect(email_connector, environ) as email:
        email.run("send", MESSAGE, event=abandoned_chat)
        email.run("send", MESSAGE | {"reply_to": "nora@harbourlight.example"}, event=abandoned_chat)
    first, second = sandbox.email.messages
    assert first.message["Reply-To"] == "desk@harbourlight.example"
    assert second.message["Reply-To"] == "nora@harbourlight.example"
    assert first.sender == "bounces@mail.harbourlight.example"


def test_own_addresses_are_sent_by_idna_2008(sandbox: RunningSandbox, abandoned_chat: Event) -> None:
    environ = sandbox.environment | {
        "EMAIL_FROM": "Straße <hello@straße.example>",
        "EMAIL_REPLY_TO": "desk@straße.example",
        "EMAIL_RETURN_PATH": "bounces@straße.example",
    }
    with connect(email_connector, environ) as email:
        email.run("send", MESSAGE, event=abandoned_chat)
    [received] = sandbox.email.messages
    assert received.sender == "bounces@xn--strae-oqa.example"
    assert received.message["From"] == "Straße <hello@xn--strae-oqa.example>"
    assert received.message["Reply-To"] == "desk@xn--strae-oqa.example"
    assert received.message["Message-ID"].endswith("@xn--strae-oqa.example>")


@pytest.mark.parametrize("name", ["EMAIL_REPLY_TO", "EMAIL_RETURN_PATH"])
def test_invalid_own_address_is_reported(sandbox: RunningSandbox, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*write the address alone"):
        connect(email_connector, sandbox.environment | {name: "in..fo@b.example"})


# ------------------------------------------------------------ reply codes


@pytest.mark.parametrize("code", [421, 450, 451, 452])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_4xx_reply_is_retried_after_two_minutes(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event, verb: str, code: int
) -> None:
    sandbox.fault("email", method=verb, status=code)
    with pytest.raises(TransientError) as caught:
        email.run("send", MESSAGE, event=abandoned_chat)
    assert caught.value.retry_after == timedelta(minutes=2)
    email.run("send", MESSAGE, event=abandoned_chat)
    assert len(sandbox.email.messages) == 1


@pytest.mark.parametrize(
    ("verb", "code"),
    [("RCPT", 550), ("RCPT", 551), ("RCPT", 553), ("DATA", 552), ("DATA", 554)],
)
def test_5xx_reply_is_permanent_and_states_code_only(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event, verb: str, code: int
) -> None:
    sandbox.fault("email", method=verb, status=code, body="5.1.1 <ines@okafor.example> unknown")
    with pytest.raises(PermanentError, match=f"answered {code} 5.1.1") as caught:
        email.run("send", MESSAGE, event=abandoned_chat)
    assert "okafor" not in str(caught.value)
    assert caught.value.code == f"{code} 5.1.1"
    assert caught.value.undeliverable


@pytest.mark.parametrize(
    ("status", "undeliverable"),
    [("5.1.2", True), ("5.1.10", True), ("5.1.0", False), ("5.2.2", False), ("5.7.1", False), ("", False)],
)
def test_only_statuses_of_a_dead_address_make_it_undeliverable(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event, status: str, undeliverable: bool
) -> None:
    sandbox.fault("email", method="RCPT", status=550, body=f"{status} refused")
    with pytest.raises(PermanentError) as caught:
        email.run("send", MESSAGE, event=abandoned_chat)
    assert caught.value.undeliverable is undeliverable


@pytest.mark.parametrize("code", [530, 535, 538])
def test_authentication_reply_raises_authentication_error(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event, code: int
) -> None:
    sandbox.fault("email", method="MAIL", status=code)
    with pytest.raises(AuthenticationError, match=str(code)) as caught:
        email.run("send", MESSAGE, event=abandoned_chat)
    assert "EMAIL_SMTP_URL" in caught.value.fix


# ------------------------------------------------------------ broken connections


@pytest.mark.parametrize("verb", ["CONNECT", "MAIL", "RCPT"])
@pytest.mark.parametrize("fault", [{"drop": "before"}, {"hang": True}])
def test_failure_before_submission_is_transient(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event, verb: str, fault: dict[str, Any]
) -> None:
    sandbox.fault("email", method=verb, **fault)
    with pytest.raises(TransientError):
        email.run("send", MESSAGE, event=abandoned_chat, seconds=0.5)
    assert sandbox.email.messages == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [({"drop": "after"}, "network"), ({"drop": "before"}, "network"), ({"hang": True}, "timeout")],
)
def test_failure_after_final_dot_raises_outcome_unknown(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event, fault: dict[str, Any], reason: str
) -> None:
    sandbox.fault("email", method="DATA", **fault)
    with pytest.raises(OutcomeUnknown) as caught:
        email.run("send", MESSAGE, event=abandoned_chat, seconds=1)
    assert caught.value.reason == reason


def test_send_has_no_lookup_and_is_not_idempotent() -> None:
    """SMTP offers no lookup, so an unknown outcome goes to an operator."""
    action = email_connector.actions["send"]
    assert not action.idempotent
    assert action.run_lookup is None


# ------------------------------------------------------------ connections


def test_connection_is_reused(email: Connected, sandbox: RunningSandbox, abandoned_chat: Event) -> None:
    sandbox.fault("email", method="CONNECT", status=421, times=None)
    with pytest.raises(TransientError):
        email.run("send", MESSAGE, event=abandoned_chat)
    sandbox.clear_faults()
    email.run("send", MESSAGE, event=abandoned_chat)
    sandbox.fault(
        "email", method="CONNECT", status=421, times=None
    )  # no new connection is possible from here on
    for _ in range(3):
        email.run("send", MESSAGE, event=abandoned_chat)
    assert len(sandbox.email.messages) == 4


def test_dead_connection_is_replaced_before_sending(
    email: Connected, sandbox: RunningSandbox, abandoned_chat: Event
) -> None:
    email.run("send", MESSAGE, event=abandoned_chat)
    for smtp, _ in email.client._idle:
        smtp.sock.close()
    email.run("send", MESSAGE, event=abandoned_chat)
    assert len(sandbox.email.messages) == 2


def test_old_connection_is_not_reused(email: Connected, abandoned_chat: Event) -> None:
    email.run("send", MESSAGE, event=abandoned_chat)
    [(smtp, opened_at)] = email.client._idle
    email.client._idle[0] = (smtp, opened_at - 301)
    email.run("send", MESSAGE, event=abandoned_chat)
    assert email.client._idle[0][0] is not smtp


# ------------------------------------------------------------ TLS and login


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and a self-signed certificate for mail.harbourlight.example and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.harbourlight.example")])
    now = dt.datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("mail.harbourlight.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "mail.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def remote_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat 127.0.0.1 as a remote host, so that TLS is required."""
    package = email_connector.actions["send"].run.__module__.rpartition(".")[0]
    monkeypatch.setattr(sys.modules[f"{package}.client"], "is_loopback", lambda _: False)


def server_context(certificate: Path) -> ssl.SSLContext:
    tls_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls_context.load_cert_chain(certificate)
    return tls_context


@pytest.mark.usefixtures("remote_host")
def test_send_to_remote_host_uses_starttls_and_login(
    certificate: Path, abandoned_chat: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with start_sandbox(tls=server_context(certificate)) as sandbox:
        sandbox.email.username, sandbox.email.password = "bridge@hl", "p@ss:word/%"
        url = f"smtp://bridge%40hl:p%40ss%3Aword%2F%25@127.0.0.1:{sandbox.smtp_port}"
        with connect(email_connector, sandbox.environment | {"EMAIL_SMTP_URL": url}) as email:
            assert email.check() == "logged in, sender at harbourlight.example accepted"
            email.run("send", MESSAGE, event=abandoned_chat)
        [received] = sandbox.email.messages
        assert received.tls
        assert received.authenticated


@pytest.mark.usefixtures("remote_host")
def test_untrusted_certificate_prevents_sending(certificate: Path, abandoned_chat: Event) -> None:
    with start_sandbox(tls=server_context(certificate)) as sandbox:
        with (
            connect(email_connector, sandbox.environment) as email,
            pytest.raises(TransientError, match="certificate"),
        ):
            email.run("send", MESSAGE, event=abandoned_chat)
        assert sandbox.requests_to("email") == []


@pytest.mark.usefixtures("remote_host")
def test_remote_server_without_starttls_gets_no_password(
    sandbox: RunningSandbox, abandoned_chat: Event
) -> None:
    url = f"smtp://user:secret-password@127.0.0.1:{sandbox.smtp_port}"
    environ = sandbox.environment | {"EMAIL_SMTP_URL": url}
    with connect(email_connector, environ) as email, pytest.raises(AuthenticationError, match="STARTTLS"):
        email.run("send", MESSAGE, event=abandoned_chat)
    assert sandbox.requests_to("email") == []


def test_wrong_password_raises_authentication_error_without_password(abandoned_chat: Event) -> None:
    with start_sandbox() as sandbox:
        sandbox.email.username, sandbox.email.password = "user", "right-password"
        url = f"smtp://user:wrong-password@127.0.0.1:{sandbox.smtp_port}"
        with connect(email_connector, sandbox.environment | {"EMAIL_SMTP_URL": url}) as email:
            with pytest.raises(AuthenticationError, match="535") as caught:
                email.run("send", MESSAGE, event=abandoned_chat)
            assert "wrong-password" not in f"{caught.value}{email.settings!r}{email.client!r}"


def test_smtps_to_plaintext_port_is_transient(sandbox: RunningSandbox, abandoned_chat: Event) -> None:
    url = f"smtps://127.0.0.1:{sandbox.smtp_port}"
    with (
        connect(email_connector, sandbox.environment | {"EMAIL_SMTP_URL": url}) as email,
        pytest.raises(TransientError),
    ):
        email.run("send", MESSAGE, event=abandoned_chat, seconds=1)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@mail.example",
        "smtp://",
        "smtp://user:hunter2@mail.example:notaport",
        "smtp://hunter2@mail.example",
        "hunter2",
    ],
)
def test_invalid_smtp_url_is_reported_without_its_value(sandbox: RunningSandbox, url: str) -> None:
    with pytest.raises(ConfigError, match="EMAIL_SMTP_URL") as caught:
        connect(email_connector, sandbox.environment | {"EMAIL_SMTP_URL": url})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "sender", ["no-address", "a@b.example, c@d.example", "A <in..fo@b.example>", "A <a@na\u200cme.example>"]
)
def test_invalid_sender_is_reported(sandbox: RunningSandbox, sender: str) -> None:
    with pytest.raises(ConfigError, match="EMAIL_FROM"):
        connect(email_connector, sandbox.environment | {"EMAIL_FROM": sender})


def test_check_reports_rejected_sender(email: Connected, sandbox: RunningSandbox) -> None:
    assert email.check() == "logged in, sender at harbourlight.example accepted"
    sandbox.fault("email", method="MAIL", status=550)
    with pytest.raises(AccountError, match=r"answered 550 .* to the sender address") as caught:
        email.check()
    assert "set EMAIL_FROM and EMAIL_RETURN_PATH" in caught.value.fix
    assert sandbox.email.messages == []
