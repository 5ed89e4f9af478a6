"""Email accounts as they really are: logins without passwords, senders, blocks and daily limits."""

from __future__ import annotations

import base64
import json
import smtplib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bridge.errors import (
    AccountError,
    AuthenticationError,
    ConfigError,
    DeliveryError,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.sandbox import RunningSandbox
from bridge.sandbox.oauth_tokens import (
    CLIENT_ID,
    CLIENT_SECRET,
    EXCHANGE_SCOPE,
    MAILBOX,
    REFRESH_TOKEN,
    TENANT,
)
from bridge.testing import Connected, connect, event, load_connector

email_connector = load_connector("email")
package = email_connector.actions["send"].run.__module__.rpartition(".")[0]
replies = sys.modules[f"{package}.replies"]
MESSAGE = {"subject": "Your question", "text": "Hello", "to": "ines@okafor.example"}


def account(sandbox: RunningSandbox, **variables: str) -> Connected:
    return connect(
        email_connector, sandbox.environment | {f"EMAIL_{name}": value for name, value in variables.items()}
    )


def exchange(sandbox: RunningSandbox, **variables: str) -> Connected:
    """An account at Exchange Online, whose server accepts OAuth only."""
    sandbox.email.mechanisms = ("XOAUTH2",)
    sandbox.email.username, sandbox.email.password = "nobody", "can log in with this"
    return account(sandbox, **(exchange_variables(sandbox) | variables))


def exchange_variables(sandbox: RunningSandbox) -> dict[str, str]:
    return {
        "OAUTH_TENANT": TENANT,
        "OAUTH_CLIENT_ID": CLIENT_ID,
        "OAUTH_CLIENT_SECRET": CLIENT_SECRET,
        "OAUTH_TOKEN_URL": f"{sandbox.url}/email/{TENANT}/oauth2/v2.0/token",
    }


def log_out(email: Connected) -> None:
    """Close the connections, so that the next message logs in again."""
    while email.client._idle:
        email.client._idle.pop()[0].close()


def token_requests(sandbox: RunningSandbox) -> list[Any]:
    return [request for request in sandbox.requests_to("email") if request.path.endswith("/token")]


# ------------------------------------------------------------ the mock server


def test_sandbox_accepts_only_tokens_for_exchange_that_have_not_expired(sandbox: RunningSandbox) -> None:
    sandbox.email.mechanisms = ("XOAUTH2",)
    form = {
        "grant_type": "client_credentials",
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "scope": EXCHANGE_SCOPE,
    }
    url = f"{sandbox.url}/email/{TENANT}/oauth2/v2.0/token"

    def log_in(token: str, user: str = MAILBOX) -> int:
        with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, "localhost", timeout=5) as server:
            server.ehlo()
            assert server.esmtp_features["auth"].split() == ["XOAUTH2"]
            line = base64.b64encode(f"user={user}\x01auth=Bearer {token}\x01\x01".encode()).decode()
            code, _ = server.docmd("AUTH", f"XOAUTH2 {line}")
            return server.docmd("")[0] if code == 334 else code

    token = httpx.post(url, data=form).json()["access_token"]
    assert log_in(token) == 235
    assert log_in(token, "other@harbourlight.example") == 535
    assert log_in("made-up") == 535
    graph = httpx.post(url, data=form | {"scope": "https://graph.microsoft.com/.default"}).json()[
        "access_token"
    ]
    assert log_in(graph) == 535
    wrong = httpx.post(url, data=form | {"client_secret": "wrong"})
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    sandbox.email.tokens.lifetime = timedelta(seconds=0)
    assert log_in(httpx.post(url, data=form).json()["access_token"]) == 535


# ------------------------------------------------------------ OAuth


def test_exchange_online_is_used_with_one_token_for_many_messages(sandbox: RunningSandbox) -> None:
    with exchange(sandbox) as email:
        assert email.check() == "logged in, sender at harbourlight.example accepted"
        for _ in range(3):
            log_out(email)
            email.run("send", MESSAGE, event=event())
    assert [message.authenticated for message in sandbox.email.messages] == [True] * 3
    assert len(token_requests(sandbox)) == 1


def test_token_is_renewed_before_it_expires(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with exchange(sandbox) as email:
        email.run("send", MESSAGE, event=event())
        log_out(email)
        started = datetime.now(UTC)
        for seconds, requests in ((3450, 1), (3500, 2)):
            later = SimpleNamespace(now=lambda _, seconds=seconds: started + timedelta(seconds=seconds))
            monkeypatch.setattr("bridge.connector.tokens.datetime", later)
            log_out(email)
            email.check()
            assert len(token_requests(sandbox)) == requests


def test_revoked_token_is_replaced_once(sandbox: RunningSandbox) -> None:
    with exchange(sandbox) as email:
        email.check()
        sandbox.email.tokens.revoke_all()
        log_out(email)
        email.run("send", MESSAGE, event=event())
        assert len(token_requests(sandbox)) == 2

        sandbox.email.tokens.mailboxes.clear()
        log_out(email)
        with pytest.raises(
            AuthenticationError, match="535 to the login, although the app has a token"
        ) as caught:
            email.run("send", MESSAGE, event=event())
        assert "SMTP.SendAsApp" in caught.value.fix
        assert len(token_requests(sandbox)) == 2, "another new token would be refused as well"


@pytest.mark.parametrize(
    ("changed", "fix"),
    [
        ({"OAUTH_CLIENT_SECRET": "QX02ZJVK"}, "copy the secret's value, not its ID"),
        ({"OAUTH_CLIENT_ID": "QX02ZJVK"}, "EMAIL_OAUTH_CLIENT_ID is not an app of this tenant"),
        ({"OAUTH_TOKEN_URL": "{url}/email/QX02ZJVK/oauth2/v2.0/token"}, "EMAIL_OAUTH_TENANT is not a tenant"),
    ],
)
def test_refused_app_names_the_setting(sandbox: RunningSandbox, changed: dict[str, str], fix: str) -> None:
    changed = {name: value.replace("{url}", sandbox.url) for name, value in changed.items()}
    with exchange(sandbox, **changed) as email, pytest.raises(AuthenticationError) as caught:
        email.check()
    assert fix in caught.value.fix
    assert "QX02" not in caught.value.pause_reason


def test_token_endpoint_that_fails_is_transient(sandbox: RunningSandbox) -> None:
    for fault, error in (
        ({"status": 503}, TransientError),
        ({"status": 429, "retry_after": 7}, RateLimited),
        ({"status": 200, "body": "<html>"}, TransientError),
        ({"drop": "before"}, TransientError),
    ):
        sandbox.fault("email", path="*/token", **fault)  # type: ignore[arg-type]
        with exchange(sandbox) as email, pytest.raises(error) as caught:
            email.run("send", MESSAGE, event=event())
        assert not isinstance(caught.value, AccountError)
        if error is RateLimited:
            assert caught.value.retry_after == timedelta(seconds=7)


def test_gmail_by_refresh_token(sandbox: RunningSandbox) -> None:
    sandbox.email.mechanisms = ("LOGIN", "PLAIN", "XOAUTH2")
    variables = {
        "OAUTH_CLIENT_ID": CLIENT_ID,
        "OAUTH_CLIENT_SECRET": CLIENT_SECRET,
        "OAUTH_TOKEN_URL": f"{sandbox.url}/email/token",
    }
    with account(sandbox, OAUTH_REFRESH_TOKEN=REFRESH_TOKEN, **variables) as email:
        email.run("send", MESSAGE, event=event())
    assert sandbox.email.messages[0].authenticated
    with account(sandbox, OAUTH_REFRESH_TOKEN="QX02ZJVK", **variables) as email:
        with pytest.raises(AuthenticationError, match="400 invalid_grant") as caught:
            email.run("send", MESSAGE, event=event())
        assert "QX02" not in repr(email.settings) + caught.value.pause_reason


def test_gmail_by_service_account(sandbox: RunningSandbox, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    issuer = "bridge@project.iam.gserviceaccount.example"
    sandbox.email.mechanisms = ("XOAUTH2",)
    sandbox.email.tokens.service_accounts[issuer] = (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"client_email": issuer, "private_key": pem, "private_key_id": "k1"}))
    variables = {"OAUTH_SERVICE_ACCOUNT_FILE": str(file), "OAUTH_TOKEN_URL": f"{sandbox.url}/email/token"}
    with account(sandbox, **variables) as email:
        email.run("send", MESSAGE, event=event())
    assert sandbox.email.messages[0].authenticated
    with account(sandbox, OAUTH_USER="stranger@harbourlight.example", **variables) as email:
        with pytest.raises(AuthenticationError, match="unauthorized_client") as caught:
            email.check()
        assert "domain-wide delegation" in caught.value.fix
    file.write_text(json.dumps({"client_email": issuer, "private_key": "QX02ZJVK"}))
    with account(sandbox, **variables) as email, pytest.raises(AuthenticationError) as caught:
        email.check()
    assert "EMAIL_OAUTH_SERVICE_ACCOUNT_FILE" in caught.value.detail
    assert "QX02" not in caught.value.pause_reason


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OAUTH_TENANT": "t"}, "EMAIL_OAUTH_CLIENT_ID and EMAIL_OAUTH_CLIENT_SECRET"),
        (
            {"OAUTH_CLIENT_ID": "c", "OAUTH_CLIENT_SECRET": "s"},
            "EMAIL_OAUTH_TENANT .* or EMAIL_OAUTH_REFRESH_TOKEN",
        ),
        ({"OAUTH_USER": "a@b.example"}, "OAuth needs EMAIL_OAUTH_TENANT"),
        ({"OAUTH_TENANT": "t", "OAUTH_REFRESH_TOKEN": "r"}, "set one of them"),
        ({"SMTP_URL": "smtp://u:p@smtp.office365.com"}, "remove the user and password from EMAIL_SMTP_URL"),
        ({"SMTP_URL": "smtp://smtp.office365.com:25"}, "OAuth needs port 587"),
        ({"SMTP_URL": "smtp://smtp.office365.com", "FROM": "büro@b.example"}, "only ASCII before the @"),
    ],
)
def test_incomplete_oauth_settings_are_reported(
    sandbox: RunningSandbox, variables: dict[str, str], message: str
) -> None:
    if "SMTP_URL" in variables:
        variables = exchange_variables(sandbox) | variables
    with pytest.raises(ConfigError, match=message):
        account(sandbox, **variables)


# ------------------------------------------------------------ set-up


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("smtp://u:p@mail.example:465", "port 465 needs smtps://"),
        ("smtps://u:p@mail.example:587", "port 587 starts without TLS and needs smtp://"),
        ("smtps://u:p@mail.example:25", "port 25 starts without TLS and needs smtp://"),
        ("smtp://u:p@mail.example:0", "not a valid SMTP server URL"),
        ("smtp://u:p@ss@mail.example", "percent-encode special characters"),
        ("smtp://u:p@mail.example/inbox", "not a valid SMTP server URL"),
        ("smtp://u@mail.example", "needs both a user and a password"),
    ],
)
def test_wrong_scheme_or_port_is_explained_without_a_connection(
    sandbox: RunningSandbox, url: str, advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice):
        account(sandbox, SMTP_URL=url)


@pytest.mark.parametrize(
    ("mechanisms", "refusal", "detail", "fix"),
    [
        (("XOAUTH2",), None, "accepts no passwords, only OAuth", "EMAIL_OAUTH_TENANT"),
        ((), None, "offers no login", "remove user and password"),
        (
            ("LOGIN", "XOAUTH2"),
            "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
            "no longer accepts logins with a password",
            "log in by OAuth",
        ),
        (
            ("LOGIN", "XOAUTH2"),
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
            "switched off SMTP logins",
            "turn on Authenticated SMTP",
        ),
        (
            ("PLAIN",),
            "534 5.7.9 Application-specific password required.",
            "app password",
            "create an app password",
        ),
        (
            ("PLAIN",),
            "535 5.7.8 Username and Password not accepted.",
            "answered 535 5.7.8",
            "check user and password",
        ),
    ],
)
def test_login_that_the_server_refuses_is_explained(
    sandbox: RunningSandbox, mechanisms: tuple[str, ...], refusal: str | None, detail: str, fix: str
) -> None:
    sandbox.email.mechanisms, sandbox.email.plain_login_refusal = mechanisms, refusal
    url = f"smtp://user:QX02ZJVK@127.0.0.1:{sandbox.smtp_port}"
    with account(sandbox, SMTP_URL=url) as email:
        for action in (email.check, lambda: email.run("send", MESSAGE, event=event())):
            with pytest.raises(AuthenticationError, match=detail) as caught:
                action()
            assert fix in caught.value.fix
            assert "QX02" not in caught.value.pause_reason


def test_password_with_other_characters_than_ascii_is_sent_as_utf_8(sandbox: RunningSandbox) -> None:
    sandbox.email.username, sandbox.email.password = "büro", "pässwörd"
    url = f"smtp://b%C3%BCro:{quote('pässwörd')}@127.0.0.1:{sandbox.smtp_port}"
    with account(sandbox, SMTP_URL=url) as email:
        email.run("send", MESSAGE, event=event())
    assert sandbox.email.messages[0].authenticated
    with account(sandbox, SMTP_URL=url.replace("b%C3%BCro", "x")) as email:
        with pytest.raises(AuthenticationError, match="535"):
            email.check()
        sandbox.email.mechanisms = ("LOGIN",)
        with pytest.raises(AuthenticationError, match="offers only the login methods LOGIN"):
            email.check()


# ------------------------------------------------------------ senders, blocks and limits


def test_sender_that_the_account_may_not_use_pauses_the_account(sandbox: RunningSandbox) -> None:
    sandbox.email.senders = {"other@harbourlight.example"}
    with account(sandbox) as email:
        for action in (email.check, lambda: email.run("send", MESSAGE, event=event())):
            with pytest.raises(
                AccountError, match=r"may not send from this address: .* 550 5\.7\.60 to the sender"
            ):
                action()
    # The envelope is fine, but not the From header, which no check can see.
    with account(sandbox, RETURN_PATH="other@harbourlight.example") as email:
        email.check()
        with pytest.raises(AccountError, match=r"554 5\.2\.252 to the message") as caught:
            email.run("send", MESSAGE, event=event())
    assert "Send As" in caught.value.fix


def test_account_is_configured_over_http(sandbox: RunningSandbox) -> None:
    url = f"{sandbox.url}/_sandbox/email/configure"
    assert httpx.post(url, json={"daily_limit": 0, "senders": ["hello@harbourlight.example"]}).is_success
    with account(sandbox) as email, pytest.raises(QuotaExhausted):
        email.run("send", MESSAGE, event=event())
    assert httpx.post(url, json={"color": "red"}).status_code == 400


def test_daily_limit_is_a_quota_and_block_an_account_error(sandbox: RunningSandbox) -> None:
    sandbox.email.daily_limit = 1
    with account(sandbox) as email:
        email.run("send", MESSAGE, event=event())
        with pytest.raises(QuotaExhausted, match="as much as it may in 24 hours"):
            email.run("send", MESSAGE, event=event())
        sandbox.email.daily_limit, sandbox.email.blocked = None, True
        with pytest.raises(AccountError, match=r"blocked the account: .* 550 5\.1\.8"):
            email.run("send", MESSAGE, event=event())


ACCOUNT, QUOTA, PERMANENT, TRANSIENT, LOGIN = (
    AccountError,
    QuotaExhausted,
    PermanentError,
    TransientError,
    AuthenticationError,
)
SENDER, RECIPIENT, CONTENT = "sender address", "recipient address", "message"


@pytest.mark.parametrize(
    ("stage", "reply", "expected"),
    [
        # Gmail
        (SENDER, "550 5.4.5 Daily user sending limit exceeded.", QUOTA),
        (RECIPIENT, "550-5.4.5 Daily user sending limit exceeded.", QUOTA),
        (RECIPIENT, "550 5.2.1 The email account that you tried to reach is disabled.", PERMANENT),
        (CONTENT, "550 5.7.1 Message rejected as likely unsolicited mail", PERMANENT),
        (CONTENT, "550 5.7.26 This mail is unauthenticated, which poses a security risk", PERMANENT),
        # Exchange Online
        (CONTENT, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed", QUOTA),
        (CONTENT, "554 5.2.0 STOREDRV.Deliver.Exception:StoragePermanentException; recipient", PERMANENT),
        (CONTENT, "550 5.2.2 Submission quota exceeded", QUOTA),
        (RECIPIENT, "552 5.2.2 The mailbox is full", PERMANENT),
        (CONTENT, "550 5.1.90 You have reached your daily limit for message recipients", QUOTA),
        (CONTENT, "550 5.7.233 tenant exceeded its daily limit", QUOTA),
        (CONTENT, "554 5.2.252 SendAsDenied; a@b.example not allowed to send as c@d.example", ACCOUNT),
        (SENDER, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", ACCOUNT),
        (CONTENT, "550 5.1.8 Access denied, bad outbound sender AS(42004)", ACCOUNT),
        (SENDER, "530 5.7.57 Client not authenticated to send mail.", LOGIN),
        (RECIPIENT, "550 5.7.501 Access denied, spam abuse detected", ACCOUNT),
        (RECIPIENT, "550 5.7.504 Recipient address rejected: Access denied", PERMANENT),
        (RECIPIENT, "550 5.7.505 Access denied, banned recipient", PERMANENT),
        (RECIPIENT, "550 5.7.507 Access denied, rejected by recipient", PERMANENT),
        (RECIPIENT, "550 5.7.606 Access denied, banned sending IP", ACCOUNT),
        (CONTENT, "550 5.7.705 Access denied, tenant has exceeded threshold", ACCOUNT),
        (
            CONTENT,
            "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP",
            ACCOUNT,
        ),
        (RECIPIENT, "550 5.7.133 Sender not authenticated for group", PERMANENT),
        (CONTENT, "432 4.3.2 Concurrent connections limit exceeded", RateLimited),
        # Postfix names the sender only after it knows the recipient.
        (RECIPIENT, "553 5.7.1 <a@b.example>: Sender address rejected: not owned by user c", ACCOUNT),
        (RECIPIENT, "550 5.1.8 <a@b.example>: Sender address rejected: Domain not found", ACCOUNT),
        (RECIPIENT, "450 4.1.8 <a@b.example>: Sender address rejected: Domain not found", TRANSIENT),
        (RECIPIENT, "554 5.7.1 <a@b.example>: Relay access denied", PERMANENT),
        (RECIPIENT, "450 4.7.1 Greylisted, try again later", TRANSIENT),
        # Words and codes of the account, said about the recipient or the message
        (RECIPIENT, "550 The domain is not verified at this server", PERMANENT),
        (RECIPIENT, "550 You are not authorized to perform deliveries to this group", PERMANENT),
        (CONTENT, "550 5.7.9 Message does not meet the security policy of the recipient", PERMANENT),
        (RECIPIENT, "550 5.1.1 <a@b.example>: User unknown", PERMANENT),
        # Amazon SES, SendGrid
        (
            CONTENT,
            "554 Message rejected: Email address is not verified. The following identities failed",
            ACCOUNT,
        ),
        (CONTENT, "554 Access denied: User x is not authorized to perform ses:SendRawEmail", ACCOUNT),
        (CONTENT, "454 Throttling failure: Daily message quota exceeded", QUOTA),
        (CONTENT, "454 Throttling failure: Maximum sending rate exceeded", RateLimited),
        (CONTENT, "550 The from address does not match a verified Sender Identity", ACCOUNT),
        (CONTENT, "451 You have exceeded your messaging limits", QUOTA),
        # Any server: MAIL speaks of the sender only, unless it speaks of the message.
        (SENDER, "550 no", ACCOUNT),
        (SENDER, "550 5.7.1 not authorized", ACCOUNT),
        (SENDER, "552 5.3.4 message size exceeds limit", PERMANENT),
        (SENDER, "450 4.7.1 try again", TRANSIENT),
        (CONTENT, "554 5.7.1 spam", PERMANENT),
    ],
)
def test_reply_means_what_its_words_and_stage_say(
    stage: str, reply: str, expected: type[DeliveryError]
) -> None:
    code, text = int(reply[:3]), reply[4:]
    error = replies.error_from_reply(code, text.encode(), stage)
    assert type(error) is expected
    assert "b.example" not in str(error)
    if isinstance(error, AccountError):
        assert error.fix
    if isinstance(error, PermanentError):
        assert error.undeliverable is ("5.1.1" in reply)
