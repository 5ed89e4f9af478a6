"""The mock SMTP server, driven by smtplib: accepted emails and injected failures."""

from __future__ import annotations

import datetime as dt
import smtplib
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.service_process import eventually

FROM, TO = "hello@harbourlight.example", "priya@example.com"


def email_message(subject: str = "Hello") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = FROM, TO, subject
    message["Message-ID"] = "<1@harbourlight.example>"
    message.set_content("Grüße\n.a line with a dot\n")
    message.add_alternative("<p>Grüße</p>", subtype="html")
    return message


def connect(sandbox: RunningSandbox) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", sandbox.smtp_port, local_hostname="localhost", timeout=5)


def test_email_is_stored_with_its_envelope(sandbox: RunningSandbox) -> None:
    with connect(sandbox) as server:
        server.send_message(email_message())
        server.sendmail(
            "bounces@harbourlight.example", [TO, "other@example.com"], email_message("Second").as_bytes()
        )
    first, second = sandbox.email.messages
    assert (first.sender, first.recipients, first.tls, first.authenticated) == (FROM, (TO,), False, False)
    body = first.message.get_body(("plain",))
    assert body is not None
    assert body.get_content() == "Grüße\n.a line with a dot\n"
    assert first.message["Message-ID"] == "<1@harbourlight.example>"
    assert (second.sender, second.recipients) == ("bounces@harbourlight.example", (TO, "other@example.com"))
    state = httpx.get(sandbox.url + "/_sandbox/state?provider=email").json()["email"]["messages"]
    assert [message["headers"]["Subject"] for message in state] == ["Hello", "Second"]
    verbs = [(request.method, request.path, request.status) for request in sandbox.requests_to("email")[:3]]
    assert verbs == [("MAIL", FROM, 250), ("RCPT", TO, 250), ("DATA", TO, 250)]


def test_rcpt_fault_rejects_only_matching_recipient(sandbox: RunningSandbox) -> None:
    sandbox.fault("email", method="RCPT", path="bad@*", status=550, times=None)
    with connect(sandbox) as server:
        rejected = server.sendmail(FROM, [TO, "bad@example.com"], email_message().as_bytes())
        assert {name: reply[0] for name, reply in rejected.items()} == {"bad@example.com": 550}
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            server.sendmail(FROM, ["bad@example.com"], email_message().as_bytes())
    assert caught.value.recipients["bad@example.com"] == (550, b"5.1.1 Mailbox unavailable")
    assert [message.recipients for message in sandbox.email.messages] == [(TO,)]


@pytest.mark.parametrize(
    ("method", "status", "error"),
    [
        ("MAIL", 451, smtplib.SMTPSenderRefused),
        ("RCPT", 450, smtplib.SMTPRecipientsRefused),
        ("DATA", 452, smtplib.SMTPDataError),
        ("DATA", 554, smtplib.SMTPDataError),
        ("CONNECT", 421, smtplib.SMTPConnectError),
    ],
)
def test_fault_rejects_each_smtp_phase_once(
    sandbox: RunningSandbox, method: str, status: int, error: type[smtplib.SMTPException]
) -> None:
    sandbox.fault("email", method=method, status=status, body="4.7.1 come back later")
    with pytest.raises(error) as caught, connect(sandbox) as server:
        server.send_message(email_message())
    assert str(status) in str(caught.value)
    assert "come back later" in str(caught.value)
    assert sandbox.email.messages == []
    with connect(sandbox) as server:
        server.send_message(email_message())
    assert len(sandbox.email.messages) == 1


def test_drop_closes_connection_before_or_after_email_is_stored(sandbox: RunningSandbox) -> None:
    for drop, stored in (("before", 0), ("after", 1)):
        sandbox.fault("email", method="DATA", drop=drop)  # type: ignore[arg-type]
        with pytest.raises(smtplib.SMTPServerDisconnected), connect(sandbox) as server:
            server.send_message(email_message())
        assert len(sandbox.email.messages) == stored
    assert sandbox.requests_to("email")[-1].status is None
    with connect(sandbox) as server:
        server.send_message(email_message())
    assert len(sandbox.email.messages) == 2


def test_connect_drop_closes_connection_immediately(sandbox: RunningSandbox) -> None:
    sandbox.fault("email", method="CONNECT", drop="before")
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        connect(sandbox)
    with connect(sandbox) as server:
        assert server.noop()[0] == 250


def test_delayed_email_is_stored_after_client_disconnects(sandbox: RunningSandbox) -> None:
    sandbox.fault("email", method="DATA", delay=0.4)
    server = smtplib.SMTP("127.0.0.1", sandbox.smtp_port, local_hostname="localhost", timeout=0.2)
    with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
        server.send_message(email_message())
    server.close()
    assert sandbox.email.messages == []
    assert eventually(lambda: len(sandbox.email.messages) == 1)


def test_hanging_server_stores_no_email(sandbox: RunningSandbox) -> None:
    sandbox.fault("email", method="DATA", hang=True)
    server = smtplib.SMTP("127.0.0.1", sandbox.smtp_port, local_hostname="localhost", timeout=0.2)
    with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
        server.send_message(email_message())
    server.close()
    with connect(sandbox) as next_server:
        next_server.send_message(email_message("again"))
    assert [message.message["Subject"] for message in sandbox.email.messages] == ["again"]


def test_quota_limits_emails(sandbox: RunningSandbox) -> None:
    sandbox.fault("email", method="DATA", quota=1)
    with connect(sandbox) as server:
        server.send_message(email_message())
        with pytest.raises(smtplib.SMTPDataError) as caught:
            server.send_message(email_message())
    assert caught.value.smtp_code == 452
    assert len(sandbox.email.messages) == 1


def test_configured_password_is_required(sandbox: RunningSandbox) -> None:
    sandbox.email.username, sandbox.email.password = "bridge", "secret"
    with connect(sandbox) as server:
        with pytest.raises(smtplib.SMTPSenderRefused) as caught:
            server.send_message(email_message())
        assert caught.value.smtp_code == 530
    with connect(sandbox) as server, pytest.raises(smtplib.SMTPAuthenticationError):
        server.login("bridge", "wrong")
    sandbox.fault("email", method="AUTH", times=2, status=454, body="4.7.0 Temporary authentication failure")
    with connect(sandbox) as server:
        with pytest.raises(smtplib.SMTPAuthenticationError) as rejected:
            server.login("bridge", "secret")
        assert rejected.value.smtp_code == 454
        server.login("bridge", "secret")
        server.send_message(email_message())
    assert sandbox.email.messages[0].authenticated
    sandbox.reset()
    assert sandbox.email.username is None


def test_invalid_commands_are_rejected_and_session_continues(sandbox: RunningSandbox) -> None:
    with connect(sandbox) as server:
        server.ehlo()
        assert server.docmd("NONSENSE")[0] == 500
        assert server.docmd("RCPT", "TO:<a@example.com>")[0] == 503
        assert server.mail(FROM)[0] == 250
        assert server.rcpt("no-domain")[0] == 550
        assert server.docmd("DATA")[0] == 503
        server.rset()
        server.send_message(email_message())
    assert len(sandbox.email.messages) == 1


def test_non_ascii_addresses_need_smtputf8(sandbox: RunningSandbox) -> None:
    with connect(sandbox) as server:
        server.ehlo()
        assert server.has_extn("smtputf8")
        server.mail("ö@example.com", ["SMTPUTF8"])
        assert server.rcpt("ü@example.com")[0] == 250
        server.rset()
        server.command_encoding = "utf-8"
        assert server.docmd("MAIL", "FROM:<ö@example.com>") == (
            553,
            b"5.6.7 Non-ASCII addresses need SMTPUTF8",
        )
        assert server.mail(FROM)[0] == 250
        assert server.docmd("RCPT", "TO:<ü@example.com>")[0] == 553
        assert server.rcpt("a@example.com")[0] == 250
        assert server.data("To: ü@example.com\r\n\r\nHello".encode())[0] == 554
    sandbox.email.smtputf8 = False
    with connect(sandbox) as server:
        server.ehlo()
        assert not server.has_extn("smtputf8")
    assert sandbox.email.messages == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + cert.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_sandbox(certificate: Path) -> Iterator[RunningSandbox]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with start_sandbox(tls=context) as running:
        yield running


def test_starttls_is_offered_and_certificate_is_verified(
    tls_sandbox: RunningSandbox, certificate: Path
) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate))
    with smtplib.SMTP("localhost", tls_sandbox.smtp_port, local_hostname="localhost", timeout=5) as server:
        server.ehlo()
        assert server.has_extn("starttls")
        server.starttls(context=trusted)
        server.send_message(email_message())
    assert tls_sandbox.email.messages[0].tls
    with (
        smtplib.SMTP("localhost", tls_sandbox.smtp_port, local_hostname="localhost", timeout=5) as server,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        server.starttls(context=ssl.create_default_context())


def test_starttls_is_not_offered_without_certificate(sandbox: RunningSandbox) -> None:
    with connect(sandbox) as server:
        server.ehlo()
        assert not server.has_extn("starttls")
