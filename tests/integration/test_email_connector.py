"""Mails over real SMTP to a server in this process, looked at byte by byte."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
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
from bridge.errors import AuthenticationError, ConfigError, OutcomeUnknown, PermanentError, TransientError
from bridge.events import Event
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.testing import Connected, build_context, connect, event, load_connector

MAIL = {"subject": "Your question", "text": "Hello,\n\nhow can we help?"}
LONG_LINK = (
    "https://bridge.example.com/unsubscribe/" + "eyJjIjoiZW1haWwiLCJhIjoiaW5lc0Bva2Fmb3IuZXhhbXBsZSJ9." * 4
)
mailer = load_connector("email")


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox() as running:
        yield running


@pytest.fixture
def mailbox(sandbox: RunningSandbox) -> Iterator[Connected]:
    with connect(mailer, sandbox.environment) as connected:
        yield connected


@pytest.fixture
def abandoned() -> Event:
    return event("chat.abandoned", {"metadata.contactEmail": "ines@okafor.example"})


def context(about: Event, **facts: Any) -> Context:
    return build_context(about, mailer.actions["send"], **facts)


def content(part: Message | None) -> str:
    """A part's text as it was written; on the wire every line ends in CRLF."""
    assert isinstance(part, EmailMessage)
    text: str = part.get_content()
    return text.replace("\r\n", "\n")


# ------------------------------------------------------------ the mail itself


def test_a_mail_goes_to_one_person_as_text_and_html(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    sent = mailbox.run("send", MAIL, event=abandoned)

    [mail] = sandbox.email.messages
    assert mail.recipients == ("ines@okafor.example",)
    assert mail.sender == "hello@harbourlight.example"
    message = mail.message
    assert message["From"] == "Harbour Light <hello@harbourlight.example>"
    assert message["To"] == "ines@okafor.example"
    assert message["Subject"] == "Your question"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == sent.id
    assert "Bcc" not in message
    assert "Precedence" not in message
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert content(text) == "Hello,\n\nhow can we help?\n"
    assert content(html) == "<p>Hello,</p>\n<p>how can we help?</p>\n"


def test_a_mail_is_the_same_to_the_last_byte_whenever_it_is_tried(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    first = datetime(2026, 3, 2, 15, 20, tzinfo=UTC)
    for attempt, later in enumerate((0, 60, 3600), 1):
        facts = {"now": first + timedelta(seconds=later), "first_attempt_at": first, "attempt": attempt}
        mailbox.run("send", MAIL, context=context(abandoned, **facts))

    one, *others = (mail.raw for mail in sandbox.email.messages)
    assert all(other == one for other in others)
    assert sandbox.email.messages[0].message["Date"].datetime == first


def test_another_delivery_has_another_message_id(mailbox: Connected, abandoned: Event) -> None:
    ids = {
        mailbox.run("send", MAIL, context=context(abandoned, idempotency_key=idempotency_key)).id
        for idempotency_key in ("one", "two")
    }
    assert len(ids) == 2
    assert all(str(found).endswith("@harbourlight.example>") for found in ids)


def test_no_line_of_a_mail_ends_it_early(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    text = "one\n.\n..two\n.three\nQUIT\r\n.\r\nMAIL FROM:<x@y.example>"
    mailbox.run("send", {"subject": "Dots", "text": text}, event=abandoned)
    [mail] = sandbox.email.messages
    body = mail.message.get_body(("plain",))
    assert content(body) == text.replace("\r\n", "\n") + "\n"


def test_letters_of_every_language_arrive_over_seven_bits(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    mail = {"subject": "Grüße, Ωμέγα 👋", "text": "Žluťoučký kůň 👋\n" + "ü" * 2000}
    mailbox.run("send", mail, event=abandoned)
    [received] = sandbox.email.messages
    assert received.raw.isascii()
    assert max(map(len, received.raw.splitlines())) <= 998
    assert received.message["Subject"] == "Grüße, Ωμέγα 👋"
    body = received.message.get_body(("plain",))
    assert content(body) == mail["text"] + "\n"


# ------------------------------------------------------------ what visitors type


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
def test_an_address_of_a_visitor_never_reaches_a_second_person(
    mailbox: Connected, sandbox: RunningSandbox, address: str
) -> None:
    with pytest.raises(ValidationError):
        mailbox.run("send", MAIL | {"to": address})
    with pytest.raises(ValidationError):  # and from an event it is no address at all
        mailbox.run("send", MAIL, event=event("chat.abandoned", {"metadata.contactEmail": address}))
    assert sandbox.email.messages == []


def test_a_line_break_in_a_subject_becomes_a_space(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    mailbox.run("send", MAIL | {"subject": "Hi\r\nBcc: evil@elsewhere.example"}, event=abandoned)
    [mail] = sandbox.email.messages
    assert mail.message["Subject"] == "Hi Bcc: evil@elsewhere.example"
    assert "Bcc" not in mail.message
    assert mail.recipients == ("ines@okafor.example",)


def test_what_a_visitor_types_is_text_in_the_html(mailbox: Connected, sandbox: RunningSandbox) -> None:
    visitor = event(
        "chat.abandoned",
        {
            "metadata.contactEmail": "a@b.example",
            "metadata.contactName": "<a href='https://evil.example'>Win</a>",
        },
    )
    mailbox.run("send", MAIL | {"text": "Hi {{ contact.name }}"}, event=visitor)
    mailbox.run("send", MAIL | {"html": "<b>Hi {{ contact.name }}</b>"}, event=visitor)
    for mail in sandbox.email.messages:
        html = mail.message.get_body(("html",))
        assert "<a href" not in content(html)
        assert "&lt;a href" in content(html)


def test_an_international_domain_is_written_in_ascii(mailbox: Connected, sandbox: RunningSandbox) -> None:
    mailbox.run("send", MAIL | {"to": "ines@bücher.example"})
    [mail] = sandbox.email.messages
    assert mail.recipients == ("ines@xn--bcher-kva.example",)
    assert mail.message["To"] == "ines@xn--bcher-kva.example"


@pytest.mark.parametrize("address", ["ünes@okafor.example", "a@b..example", f"a@{'ü' * 80}.example"])
def test_an_address_that_plain_smtp_cannot_carry_is_refused_before_anything_is_sent(
    mailbox: Connected, sandbox: RunningSandbox, address: str
) -> None:
    with pytest.raises((PermanentError, ValidationError)) as refused:
        mailbox.run("send", MAIL | {"to": address})
    assert "okafor" not in str(refused.value)
    assert sandbox.requests_to("email") == []


# ------------------------------------------------------------ unsubscribing


def test_one_click_unsubscribe_survives_a_long_link(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    assert len(LONG_LINK) > 78
    mailbox.run("send", MAIL, context=context(abandoned, unsubscribe_url=LONG_LINK))
    [mail] = sandbox.email.messages
    assert f"List-Unsubscribe: <{LONG_LINK}>\r\n".encode() in mail.raw
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in mail.raw
    text, html = mail.message.iter_parts()
    assert content(text).endswith(f"-- \nUnsubscribe: {LONG_LINK}\n")
    assert f'<a href="{LONG_LINK}">Unsubscribe</a>' in content(html)


def test_the_words_of_the_link_are_the_rules_and_empty_words_leave_it_out(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    for words in ("Abmelden", ""):
        mailbox.run(
            "send", MAIL | {"unsubscribe": words}, context=context(abandoned, unsubscribe_url=LONG_LINK)
        )
    german, none = sandbox.email.messages
    assert b"Abmelden" in german.raw
    assert b"List-Unsubscribe" not in none.raw
    assert LONG_LINK.encode() not in none.raw


def test_one_click_is_promised_for_https_alone(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    mailbox.run(
        "send", MAIL, context=context(abandoned, unsubscribe_url="http://127.0.0.1:8080/unsubscribe/x")
    )
    assert "List-Unsubscribe" in sandbox.email.messages[0].message
    assert "List-Unsubscribe-Post" not in sandbox.email.messages[0].message


# ------------------------------------------------------------ envelope and answers


def test_answers_and_bounces_go_where_somebody_reads(sandbox: RunningSandbox, abandoned: Event) -> None:
    environ = sandbox.environment | {
        "EMAIL_REPLY_TO": "desk@harbourlight.example",
        "EMAIL_RETURN_PATH": "bounces@mail.harbourlight.example",
    }
    with connect(mailer, environ) as mailbox:
        mailbox.run("send", MAIL, event=abandoned)
        mailbox.run("send", MAIL | {"reply_to": "nora@harbourlight.example"}, event=abandoned)
    first, second = sandbox.email.messages
    assert first.message["Reply-To"] == "desk@harbourlight.example"
    assert second.message["Reply-To"] == "nora@harbourlight.example"
    assert first.sender == "bounces@mail.harbourlight.example"


# ------------------------------------------------------------ reply codes


@pytest.mark.parametrize("code", [421, 450, 451, 452])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_a_4xx_is_tried_again_after_minutes(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event, verb: str, code: int
) -> None:
    sandbox.fault("email", method=verb, status=code)
    with pytest.raises(TransientError) as later:
        mailbox.run("send", MAIL, event=abandoned)
    assert later.value.retry_after == timedelta(minutes=2)
    mailbox.run("send", MAIL, event=abandoned)
    assert len(sandbox.email.messages) == 1


@pytest.mark.parametrize(
    ("verb", "code"),
    [("RCPT", 550), ("RCPT", 551), ("RCPT", 553), ("DATA", 552), ("DATA", 554), ("MAIL", 553)],
)
def test_a_5xx_is_final_and_names_the_code_only(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event, verb: str, code: int
) -> None:
    sandbox.fault("email", method=verb, status=code, body="5.1.1 <ines@okafor.example> unknown")
    with pytest.raises(PermanentError, match=f"answered {code} 5.1.1") as refused:
        mailbox.run("send", MAIL, event=abandoned)
    assert "okafor" not in str(refused.value)
    assert refused.value.code == f"{code} 5.1.1"


@pytest.mark.parametrize("code", [530, 535, 538])
def test_a_server_that_wants_other_credentials_stops_the_connection(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event, code: int
) -> None:
    sandbox.fault("email", method="MAIL", status=code)
    with pytest.raises(AuthenticationError, match="EMAIL_SMTP_URL"):
        mailbox.run("send", MAIL, event=abandoned)


# ------------------------------------------------------------ broken connections


@pytest.mark.parametrize("verb", ["CONNECT", "MAIL", "RCPT"])
@pytest.mark.parametrize("fault", [{"drop": "before"}, {"hang": True}])
def test_what_breaks_before_the_mail_is_handed_over_proves_that_none_went(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event, verb: str, fault: dict[str, Any]
) -> None:
    sandbox.fault("email", method=verb, **fault)
    with pytest.raises(TransientError):
        mailbox.run("send", MAIL, event=abandoned, seconds=0.5)
    assert sandbox.email.messages == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [({"drop": "after"}, "network"), ({"drop": "before"}, "network"), ({"hang": True}, "timeout")],
)
def test_what_breaks_after_the_dot_is_unknown(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event, fault: dict[str, Any], reason: str
) -> None:
    sandbox.fault("email", method="DATA", **fault)
    with pytest.raises(OutcomeUnknown) as unknown:
        mailbox.run("send", MAIL, event=abandoned, seconds=1)
    assert unknown.value.reason == reason


def test_an_unknown_outcome_goes_to_a_person_for_smtp_cannot_be_asked() -> None:
    action = mailer.actions["send"]
    assert not action.idempotent
    assert action.finder is None


# ------------------------------------------------------------ connections


def test_a_connection_is_used_for_many_mails(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    sandbox.fault("email", method="CONNECT", status=421, times=None)
    with pytest.raises(TransientError):
        mailbox.run("send", MAIL, event=abandoned)
    sandbox.clear_faults()
    mailbox.run("send", MAIL, event=abandoned)
    sandbox.fault("email", method="CONNECT", status=421, times=None)  # nobody connects from here on
    for _ in range(3):
        mailbox.run("send", MAIL, event=abandoned)
    assert len(sandbox.email.messages) == 4


def test_a_connection_that_died_in_between_is_noticed_before_the_mail(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    mailbox.run("send", MAIL, event=abandoned)
    for smtp, _ in mailbox.client._idle:
        smtp.sock.close()
    mailbox.run("send", MAIL, event=abandoned)
    assert len(sandbox.email.messages) == 2


def test_a_connection_too_old_is_not_used_again(
    mailbox: Connected, sandbox: RunningSandbox, abandoned: Event
) -> None:
    mailbox.run("send", MAIL, event=abandoned)
    [(smtp, opened)] = mailbox.client._idle
    mailbox.client._idle[0] = (smtp, opened - 301)
    mailbox.run("send", MAIL, event=abandoned)
    assert mailbox.client._idle[0][0] is not smtp


# ------------------------------------------------------------ TLS and login


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for mail.harbourlight.example and 127.0.0.1."""
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
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 127.0.0.1 were a host on the network, so that TLS is asked for."""
    monkeypatch.setattr(
        __import__("sys").modules[mailer.actions["send"].run.__module__], "is_loopback", lambda _: False
    )


def server_context(certificate: Path) -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(certificate)
    return found


@pytest.mark.usefixtures("elsewhere")
def test_over_the_network_a_mail_goes_encrypted_and_only_after_login(
    certificate: Path, abandoned: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with start_sandbox(tls=server_context(certificate)) as sandbox:
        sandbox.email.username, sandbox.email.password = "bridge@hl", "p@ss:word/%"
        url = f"smtp://bridge%40hl:p%40ss%3Aword%2F%25@127.0.0.1:{sandbox.smtp_port}"
        with connect(mailer, sandbox.environment | {"EMAIL_SMTP_URL": url}) as mailbox:
            assert mailbox.check() == "logged in, mail from harbourlight.example is taken"
            mailbox.run("send", MAIL, event=abandoned)
        [mail] = sandbox.email.messages
        assert mail.tls
        assert mail.authenticated


@pytest.mark.usefixtures("elsewhere")
def test_a_certificate_that_nobody_vouches_for_stops_the_mail(certificate: Path, abandoned: Event) -> None:
    with start_sandbox(tls=server_context(certificate)) as sandbox:
        with (
            connect(mailer, sandbox.environment) as mailbox,
            pytest.raises(TransientError, match="certificate"),
        ):
            mailbox.run("send", MAIL, event=abandoned)
        assert sandbox.requests_to("email") == []


@pytest.mark.usefixtures("elsewhere")
def test_a_server_without_starttls_gets_neither_password_nor_mail(
    sandbox: RunningSandbox, abandoned: Event
) -> None:
    url = f"smtp://user:secret-password@127.0.0.1:{sandbox.smtp_port}"
    environ = sandbox.environment | {"EMAIL_SMTP_URL": url}
    with connect(mailer, environ) as mailbox, pytest.raises(AuthenticationError, match="STARTTLS"):
        mailbox.run("send", MAIL, event=abandoned)
    assert sandbox.requests_to("email") == []


def test_a_wrong_password_stops_the_connection_and_is_not_shown(abandoned: Event) -> None:
    with start_sandbox() as sandbox:
        sandbox.email.username, sandbox.email.password = "user", "right-password"
        url = f"smtp://user:wrong-password@127.0.0.1:{sandbox.smtp_port}"
        with connect(mailer, sandbox.environment | {"EMAIL_SMTP_URL": url}) as mailbox:
            with pytest.raises(AuthenticationError, match="535") as refused:
                mailbox.run("send", MAIL, event=abandoned)
            assert "wrong-password" not in f"{refused.value}{mailbox.settings!r}{mailbox.client!r}"


def test_a_server_without_tls_at_all_on_the_tls_port_is_no_connection(
    sandbox: RunningSandbox, abandoned: Event
) -> None:
    url = f"smtps://127.0.0.1:{sandbox.smtp_port}"
    with (
        connect(mailer, sandbox.environment | {"EMAIL_SMTP_URL": url}) as mailbox,
        pytest.raises(TransientError),
    ):
        mailbox.run("send", MAIL, event=abandoned, seconds=1)


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
def test_a_bad_url_is_explained_without_being_shown(sandbox: RunningSandbox, url: str) -> None:
    with pytest.raises(ConfigError, match="EMAIL_SMTP_URL") as wrong:
        connect(mailer, sandbox.environment | {"EMAIL_SMTP_URL": url})
    assert "hunter2" not in str(wrong.value)


@pytest.mark.parametrize("sender", ["nobody", "a@b.example, c@d.example", "Ü <ü@b.example>"])
def test_a_sender_that_is_none_is_explained(sandbox: RunningSandbox, sender: str) -> None:
    with pytest.raises(ConfigError, match="EMAIL_FROM"):
        connect(mailer, sandbox.environment | {"EMAIL_FROM": sender})


def test_check_says_when_the_sender_is_not_taken(mailbox: Connected, sandbox: RunningSandbox) -> None:
    assert mailbox.check() == "logged in, mail from harbourlight.example is taken"
    sandbox.fault("email", method="MAIL", status=550)
    with pytest.raises(ConfigError, match=r"550 .*; set EMAIL_FROM"):
        mailbox.check()
    assert sandbox.email.messages == []
