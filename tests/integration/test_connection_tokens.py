"""Tokens of connections: refreshed once for all threads and processes, and stored sealed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from bridge.cli.account_check import check_accounts
from bridge.clock import uptime
from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    JsonApi,
    Params,
    ProviderUrl,
    Success,
    Token,
    TokenSource,
    param,
    per_event,
    request_token,
)
from bridge.connector.deadline import attempt_deadline, has_written
from bridge.connector.discovery import Registry
from bridge.connector.tokens import CLAIM_SECONDS, MemoryTokenStore, StoredToken, TokenStore
from bridge.errors import (
    AccountError,
    AuthenticationError,
    ConfigError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    StoreUnavailable,
    TransientError,
)
from bridge.rules.load import load
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.tokens import StoredTokens
from bridge.testing import Received, Reply, StubServer
from bridge.worker.account import shared_token_store

KEYS = ("a key with which tokens are sealed",)


class Provider:
    """Issues tokens that expire, and counts them."""

    def __init__(self, lifetime: timedelta | None = timedelta(hours=1)) -> None:
        self.lifetime = lifetime
        self.previous: list[str | None] = []
        """The refresh tokens that it was given."""
        self.failure: Exception | None = None
        self.entered, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    @property
    def issued(self) -> int:
        return len(self.previous)

    def obtain(self, previous: Token | None) -> Token:
        self.entered.set()
        assert self.may_answer.wait(5)
        if self.failure is not None:
            raise self.failure
        refresh = previous.refresh.get_secret_value() if previous and previous.refresh else None
        self.previous.append(refresh)
        expires_at = datetime.now(UTC) + self.lifetime if self.lifetime is not None else None
        return Token(SecretStr(f"access-{self.issued}"), expires_at, SecretStr(f"refresh-{self.issued}"))

    def source(self, store: TokenStore | None = None) -> TokenSource:
        return TokenSource(self.obtain, store)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as opened:
        yield opened


def store(
    database: Database, fingerprint: str = "f", keys: tuple[str, ...] = KEYS, required: bool = False
) -> StoredTokens:
    """Return the store as one process has it."""
    return StoredTokens(database, "desk", fingerprint, keys, required=required)


def access(token: Token) -> str:
    return token.access.get_secret_value()


# ------------------------------------------------------------ one process


def test_token_is_obtained_once_and_used_until_shortly_before_it_expires(provider: Provider) -> None:
    source = provider.source()
    assert [access(source.current()) for _ in range(3)] == ["access-1"] * 3
    assert provider.previous == [None]
    provider = Provider(timedelta(seconds=0.2))
    source = provider.source()
    first = source.current()
    held = StoredToken(first, datetime.now(UTC))
    assert first.expires_at is not None
    assert held.is_fresh(first.expires_at - timedelta(seconds=0.05))
    assert not held.is_fresh(first.expires_at - timedelta(seconds=0.01))
    hour = StoredToken(Token(SecretStr("a"), held.issued_at + timedelta(hours=1)), held.issued_at)
    assert hour.is_fresh(held.issued_at + timedelta(minutes=57, seconds=59))
    assert not hour.is_fresh(held.issued_at + timedelta(minutes=58))


def test_expired_token_is_refreshed_with_its_refresh_token(provider: Provider) -> None:
    provider.lifetime = timedelta(seconds=-1)
    source = provider.source()
    assert [access(source.current()) for _ in range(3)] == ["access-1", "access-2", "access-3"]
    assert provider.previous == [None, "refresh-1", "refresh-2"]


def test_refused_token_is_replaced_once_for_all_threads(provider: Provider) -> None:
    source = provider.source()
    refused = source.current()
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: access(source.current(refused)), range(8)))
    assert tokens == ["access-2"] * 8
    assert provider.issued == 2


def test_provider_that_refuses_every_token_is_not_asked_for_more(provider: Provider) -> None:
    source = provider.source()
    second = source.current(source.current())
    assert source.current(second) == second
    assert provider.issued == 2
    source._replaced_at -= 60
    assert access(source.current(second)) == "access-3"


def test_token_that_is_still_valid_is_used_while_another_thread_refreshes_it(provider: Provider) -> None:
    shared = MemoryTokenStore()
    soon = datetime.now(UTC) + timedelta(seconds=30)
    shared.save(StoredToken(Token(SecretStr("old"), soon), soon - timedelta(hours=1)))
    source = provider.source(shared)
    source._held = shared.read()
    provider.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        refreshed = pool.submit(source.current)
        assert provider.entered.wait(5)
        assert access(source.current()) == "old"
        provider.may_answer.set()
        assert access(refreshed.result()) == "access-1"


def test_early_refresh_that_fails_leaves_the_valid_token(provider: Provider) -> None:
    shared = MemoryTokenStore()
    soon = datetime.now(UTC) + timedelta(seconds=30)
    shared.save(StoredToken(Token(SecretStr("old"), soon), soon - timedelta(hours=1)))
    source = provider.source(shared)
    source._held = shared.read()
    provider.failure = TransientError("503")
    assert [access(source.current()) for _ in range(3)] == ["old"] * 3
    with pytest.raises(TransientError):
        source.current(shared.read().token)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (OutcomeUnknown("503", reason="server_error"), TransientError),
        (RateLimited("429"), RateLimited),
        (PermanentError("400 invalid_grant"), AuthenticationError),
        (AccountError("suspended", fix="pay"), AccountError),
        (ConfigError("set X"), ConfigError),
        (KeyError("access_token"), KeyError),
    ],
)
def test_failure_to_obtain_a_token_had_no_effect(
    provider: Provider, raised: Exception, kind: type[Exception]
) -> None:
    provider.failure = raised
    with attempt_deadline(uptime() + 5):
        with pytest.raises(kind) as caught:
            provider.source().current()
        assert not has_written()
    assert type(caught.value) is kind
    if kind is AuthenticationError:
        assert caught.value.fix  # type: ignore[attr-defined]


# ------------------------------------------------------------ several processes


def test_processes_share_one_token(database: Database, provider: Provider) -> None:
    processes = [provider.source(store(database)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(lambda source: access(source.current()), processes))
    assert tokens == ["access-1"] * 4
    assert provider.issued == 1
    first = processes[0].current()
    assert [access(source.current(first)) for source in processes] == ["access-2"] * 4
    assert provider.issued == 2


def test_process_waits_for_the_one_that_refreshes(database: Database, provider: Provider) -> None:
    provider.may_answer.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(provider.source(store(database)).current)
        assert provider.entered.wait(5)
        with attempt_deadline(uptime() + 0.05), pytest.raises(TransientError, match="another process"):
            provider.source(store(database)).current()
        second = pool.submit(provider.source(store(database)).current)
        provider.may_answer.set()
        assert access(first.result()) == access(second.result()) == "access-1"
    assert provider.issued == 1


def test_claim_of_a_process_that_died_ends_by_itself(database: Database) -> None:
    first, second = store(database), store(database)
    assert first.claim(CLAIM_SECONDS)
    assert not second.claim(CLAIM_SECONDS)
    with database.write() as conn:
        past = database.now(conn) - timedelta(seconds=1)
        conn.execute(update(schema.connection_tokens).values(claimed_until=past))
    assert second.claim(CLAIM_SECONDS)
    first.save(StoredToken(Token(SecretStr("late")), datetime.now(UTC)))
    assert access(second.read().token) == "late"  # type: ignore[union-attr]
    assert not first.claim(CLAIM_SECONDS)
    second.save(StoredToken(Token(SecretStr("later")), datetime.now(UTC)))
    first.save(StoredToken(Token(SecretStr("late")), datetime.now(UTC)))
    assert access(first.read().token) == "later"  # type: ignore[union-attr]
    assert first.claim(CLAIM_SECONDS)


def test_token_that_was_stored_late_is_not_lost(
    database: Database, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was down for longer than the claim, and the other process used the old refresh token in vain."""
    first, second = store(database), store(database)
    ours, theirs = provider.source(first), provider.source(second)
    old = ours.current()
    assert theirs.current() == old
    with monkeypatch.context() as patched:
        patched.setattr(first, "save", _unavailable)
        assert access(ours.current(old)) == "access-2"
    with database.write() as conn:
        past = database.now(conn) - timedelta(seconds=1)
        conn.execute(update(schema.connection_tokens).values(claimed_until=past))
    provider.failure = PermanentError("400 invalid_grant")
    with pytest.raises(AuthenticationError):
        theirs.current(old)
    assert access(ours.current()) == "access-2"
    assert access(theirs.current(old)) == "access-2"


def test_refused_refresh_uses_the_token_that_was_stored_meanwhile(database: Database) -> None:
    first, second = store(database), store(database)
    assert first.claim(0)

    def obtain(_: Token | None) -> Token:
        first.save(StoredToken(Token(SecretStr("first")), datetime.now(UTC)))
        raise AuthenticationError("400 invalid_grant")

    assert access(TokenSource(obtain, second).current()) == "first"


@pytest.mark.parametrize("returned", [None, "access", {"access_token": "a"}])
def test_function_that_returns_no_token_is_named(returned: Any) -> None:
    with pytest.raises(TypeError, match="not Token"):
        TokenSource(lambda _: returned).current()
    with pytest.raises(TypeError, match="time zone"):
        Token(SecretStr("a"), datetime(2030, 1, 1))  # noqa: DTZ001


def test_stored_token_is_sealed(database: Database, provider: Provider) -> None:
    provider.source(store(database)).current()
    with database.read() as conn:
        row = conn.execute(select(schema.connection_tokens)).one()
    assert row.value.startswith("sealed:")
    assert "access-1" not in str(row)
    assert "refresh-1" not in str(row)
    assert "access-1" not in repr(store(database).read())


def test_token_counts_as_absent_after_the_settings_changed(database: Database, provider: Provider) -> None:
    provider.source(store(database)).current()
    assert store(database, fingerprint="other").read() is None
    assert access(provider.source(store(database, fingerprint="other")).current()) == "access-2"
    assert provider.previous == [None, None]


def test_rotated_key_still_opens_the_token(database: Database, provider: Provider) -> None:
    provider.source(store(database)).current()
    assert store(database, keys=("new", *KEYS)).read() is not None
    assert store(database, keys=("new",)).read() is None
    with pytest.raises(AccountError) as raised:
        store(database, keys=("new",), required=True).read()
    assert "BRIDGE_SECRET_KEY" in raised.value.fix


def test_token_that_cannot_be_stored_is_kept_and_stored_later(
    database: Database, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store(database)
    source = provider.source(first)
    with monkeypatch.context() as patched:
        patched.setattr(first, "save", _unavailable)
        assert access(source.current()) == "access-1"
        assert access(source.current()) == "access-1"
    assert store(database).read() is None
    assert access(source.current()) == "access-1"
    assert access(store(database).read().token) == "access-1"  # type: ignore[union-attr]


def test_database_that_is_not_available_prevents_a_refresh(
    database: Database, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store(database)
    monkeypatch.setattr(first, "claim", _unavailable)
    with pytest.raises(TransientError, match="no token can be obtained"):
        provider.source(first).current()
    assert provider.issued == 0


def _unavailable(*_: Any) -> Any:
    raise StoreUnavailable("the database is locked")


# ------------------------------------------------------------ connections


class DeskSettings(ConnectorSettings):
    """`DESK_URL`, `DESK_CLIENT_SECRET` and `DESK_REFRESH_TOKEN`."""

    url: ProviderUrl
    client_secret: SecretStr = SecretStr("desk-client-secret")
    refresh_token: SecretStr = SecretStr("refresh-0")
    pipeline: str = "sales"


class Ticket(Params):
    """Params of a ticket."""

    subject: str = param(..., "Ticket title.", example="A call failed")


def desk(**options: Any) -> Connector:
    connector = Connector(
        "desk",
        settings=DeskSettings,
        description="Opens tickets.",
        build_client=lambda settings, tokens: JsonApi("Desk", settings.url, token=tokens),
        **options,
    )

    @connector.token
    def token(settings: DeskSettings, previous: Token | None) -> Token:
        """Exchange the refresh token."""
        refresh = previous.refresh if previous and previous.refresh else settings.refresh_token
        form: dict[str, str | SecretStr] = {
            "grant_type": "refresh_token",
            "refresh_token": refresh,
            "client_id": "bridge",
        }
        return request_token(
            f"{settings.url}/token", form, basic=("bridge", settings.client_secret), previous=previous
        )

    @connector.action(idempotency=per_event, idempotent=True)
    def open_ticket(api: JsonApi, ticket: Ticket, context: Context) -> Success:
        """Open a ticket."""
        del context
        return Success(id=str(api.write("POST", "/tickets", json=ticket.model_dump(), holds="id")))

    return connector


def test_request_is_sent_once_more_after_a_401(server: StubServer) -> None:
    accepted = ["Bearer a-2"]

    def token(request: Received) -> Reply:
        number = sum(received.path == "/token" for received in server.requests)
        return Reply(200, {"access_token": f"a-{number}", "refresh_token": f"r-{number}", "expires_in": 3600})

    def ticket(request: Received) -> Reply:
        return Reply(201, {"id": 17}) if request.headers["authorization"] in accepted else Reply(401)

    server.answer("POST", "/token", token)
    server.answer("POST", "/tickets", ticket)
    api = desk().open_client(DeskSettings(url=server.url))
    with closing(api), attempt_deadline(uptime() + 5):
        assert api.write("POST", "/tickets", json={}, holds="id") == 17
        paths = [request.path for request in server.requests]
        assert paths == ["/token", "/tickets", "/token", "/tickets"]
        assert [r.form["refresh_token"] for r in server.requests if r.path == "/token"] == [
            ["refresh-0"],
            ["r-1"],
        ]
        accepted.clear()
        with pytest.raises(AuthenticationError):
            api.write("POST", "/tickets", json={})


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply(503, headers={"Retry-After": "9"}), TransientError, "503"),
        (Reply(200, "<html>"), TransientError, "without a token"),
        (Reply(200, {"access_token": "a\nb"}), TransientError, "without a token"),
        (Reply(drop="after"), TransientError, "connection lost"),
        (Reply(429, headers={"Retry-After": "9"}), RateLimited, "429"),
        (
            Reply(400, {"error": "invalid_grant", "error_description": "QX02ZJVK"}),
            AuthenticationError,
            "400 invalid_grant",
        ),
        (Reply(401, {"error": "QX02ZJVK"}), AuthenticationError, "answered 401"),
    ],
)
def test_answer_of_the_token_endpoint(
    server: StubServer, reply: Reply, kind: type[Exception], text: str
) -> None:
    server.otherwise = reply
    with pytest.raises(kind, match=text) as raised:
        request_token(server.url, {"grant_type": "client_credentials"}, fixes={"invalid_client": "x"})
    assert type(raised.value) is kind
    assert "QX02" not in str(raised.value)
    assert kind is not AuthenticationError or raised.value.fix  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("lifetime", "known"),
    [(3600, True), ("3599", True), (None, False), (True, False), ("x", False), (10**12, False)],
)
def test_lifetime_of_a_token(server: StubServer, lifetime: Any, known: bool) -> None:
    server.otherwise = Reply(200, {"access_token": "a", "expires_in": lifetime})
    previous = Token(SecretStr("b"), refresh=SecretStr("r"))
    token = request_token(server.url, {}, previous=previous)
    assert (token.expires_at is not None) is known
    assert token.refresh == previous.refresh


def test_refresh_token_that_changes_needs_a_key(database: Database) -> None:
    settings = DeskSettings(url="https://desk.example")
    rotating = desk(first_refresh_token="refresh_token")
    assert shared_token_store(database, desk(), "desk", settings, ()) is None
    with pytest.raises(ConfigError, match="BRIDGE_SECRET_KEY"):
        shared_token_store(database, rotating, "desk", settings, ())
    with pytest.raises(TypeError, match="not one of its settings"):
        desk(first_refresh_token="refresh")


def test_rules_are_checked_for_the_key_that_seals_tokens(tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(
        "from tests.integration.test_connection_tokens import desk\n"
        "connector = desk(first_refresh_token='refresh_token')\n"
    )
    rule = (
        "version: 1\nrules: [{name: a, when: call.busy, do: [{use: desk.open_ticket, with: {subject: a}}]}]\n"
    )
    environ = {"DESK_URL": "https://desk.example"}
    registry = Registry([tmp_path])
    [found] = load(rule, path="rules.yaml", registry=registry, environ=environ).diagnostics
    assert (found.level, found.connection) == ("error", "desk")
    assert "set BRIDGE_SECRET_KEY" in found.text
    environ["BRIDGE_SECRET_KEY"] = "a key with which tokens are sealed"
    assert load(rule, path="rules.yaml", registry=registry, environ=environ).diagnostics == ()


def test_refresh_token_that_changed_outlives_changes_of_other_settings(
    database: Database, provider: Provider
) -> None:
    def stored(connector: Connector, **changes: Any) -> StoredToken | None:
        settings = DeskSettings(url="https://desk.example", **changes)
        found = shared_token_store(database, connector, "desk", settings, KEYS)
        assert found is not None
        if not changes:
            provider.source(found).current()
        return found.read()

    rotating = desk(first_refresh_token="refresh_token")
    assert stored(rotating) is not None
    assert stored(rotating, pipeline="support", client_secret=SecretStr("new")) is not None
    assert stored(rotating, refresh_token=SecretStr("granted again")) is None
    assert stored(desk()) is not None
    assert stored(desk(), pipeline="support") is None


def test_check_uses_the_current_refresh_token_of_the_service(
    server: StubServer, sqlite_url: str, provider: Provider
) -> None:
    """The one in the settings has been used up, and another login would use up that of the service."""
    rotating = desk(first_refresh_token="refresh_token")

    @rotating.check
    def check(api: JsonApi) -> str:
        """Authenticate."""
        return str(api.read("/me", holds="name"))

    server.answer("GET", "/me", Reply(200, {"name": "Harbour Light"}))
    environ = {"DESK_URL": server.url, "BRIDGE_DATABASE_URL": sqlite_url, "BRIDGE_SECRET_KEY": KEYS[0]}
    with closing(Database(sqlite_url)) as database:
        found = shared_token_store(database, rotating, "desk", DeskSettings(url=server.url), KEYS)
        provider.source(found).current()
        [result] = check_accounts({"desk": rotating}, {}, environ)
    assert (result.ok, result.text) == (True, "Harbour Light")
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer access-1"]
    [result] = check_accounts({"desk": rotating}, {}, environ | {"BRIDGE_SECRET_KEY": ""})
    assert not result.ok
    assert "set BRIDGE_SECRET_KEY" in result.text
