"""A real server with the whole web application on SQLite, for tests of the dashboard and the API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from bridge.clock import Clock
from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.rules.model import Diagnostic, Rules
from bridge.rules.route import route
from bridge.secret_settings import AccessToken
from bridge.store.connections import register_accounts
from bridge.store.database import Database
from bridge.store.queries import list_events
from bridge.store.routing import route_unrouted
from bridge.telemetry.metrics import Metrics
from bridge.web.access import Access, TokenTable
from bridge.web.accounts import AccountDirectory
from bridge.web.admin import AdminAuth
from bridge.web.admin_service import AdminService
from bridge.web.api import api_routes
from bridge.web.app import create_app
from bridge.web.dashboard import dashboard_routes
from bridge.web.health import CachedStats
from bridge.web.html import static_routes
from bridge.web.proxy_login import ProxyLogin
from bridge.web.rejection_log import RejectionLog
from bridge.web.rules_trial import RulesTrial
from bridge.web.unsubscribe import unsubscribe_routes
from bridge.web.webhook import Receiver, ReceiverSettings
from bridge.web.wrong_tokens import WrongTokens
from tests.asgi_server import serving
from tests.integration.api_contract import check_response
from tests.integration.engine import Engine
from tests.sqlite import create_sqlite

TOKEN = "an admin token for tests"
NAMED_TOKEN = "the admin token of ada"
READ_TOKEN = "a token that only reads"
METRICS_TOKEN = "the token of prometheus"
TOKENS = TokenTable(
    {
        Access.ADMIN: [AccessToken(None, SecretStr(TOKEN)), AccessToken("ada", SecretStr(NAMED_TOKEN))],
        Access.READ: [AccessToken("grace", SecretStr(READ_TOKEN))],
        Access.METRICS: [AccessToken(None, SecretStr(METRICS_TOKEN))],
    }
)
RULES = """\
version: 1
rules:
  - name: text-when-not-reached
    when: [call.busy, call.no-answer]
    where:
      event.direction: outbound
      contact.phone: {exists: true}
    if: event.duration < 5
    do:
      - use: twilio.send_sms
        with: {body: "Hi {{ contact.first_name | default('there') }}, we tried to reach you."}
  - name: post-every-resolved-chat
    when: chat.resolved
    do:
      - use: slack.post
        with: {text: resolved}
  - name: only-in-german
    when: call.*
    where:
      event.language: de
    shadow: true
    do:
      - use: slack.post
        with: {text: hallo}
"""


@dataclass
class FixedRules:
    """Active rules with the attributes of the rules reloader, which a test can change."""

    current: Rules
    path: Path = Path("rules.yaml")
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    load_error: str | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Site:
    url: str
    database: Database
    engine: Engine
    rules: FixedRules
    admin: AdminAuth

    def client(self, token: str | None = TOKEN, **more: Any) -> httpx.Client:
        """Return an HTTP client that sends the admin token, as a program does, and checks responses of the API."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        hooks = {"response": [check_response]}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, event_hooks=hooks, **more)

    @contextmanager
    def browser(self, *, log_in: bool = True, token: str = TOKEN) -> Iterator[httpx.Client]:
        """Open an HTTP client that sends a browser's headers and logs in with the form."""
        headers = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=20) as client:
            if log_in:
                assert client.post("/login", data={"token": token}).status_code == 303
            yield client

    def routed_event(self, event_type: str = "call.busy", **changes: Any) -> str:
        """Store an event, route it with the rules and return its ID."""
        self.engine.event(event_type, **changes)
        rules = self.rules.current
        assert route_unrouted(
            self.database, rules, lambda event, now, history: route(event, rules, now, history)
        )[0]
        event_id: str = list_events(self.database, limit=1).items[0]["id"]
        return event_id


@cache
def _rules() -> Rules:
    return load_or_raise(RULES, path="rules.yaml", registry=Registry())


@contextmanager
def running_site(
    folder: Path,
    clock: Clock,
    *,
    keys: Sequence[str] = (),
    public_url: str | None = None,
    proxy_login: ProxyLogin | None = None,
    trial: RulesTrial | None = None,
    accounts: AccountDirectory | None = None,
) -> Iterator[Site]:
    """Serve everything that `bridge serve --no-worker` serves."""
    file = folder / "bridge.db"
    url = f"sqlite:///{file}" if file.exists() else create_sqlite(file)  # it exists if the site was restarted
    database = Database(url, clock)
    register_accounts(database, {"desk": "a", "twilio": "b"})
    rules = FixedRules(_rules())
    metrics = Metrics()
    rejection_log = RejectionLog(metrics)
    receiver = Receiver(database, ReceiverSettings((b"secret",)), metrics, rejection_log, clock)
    wrong_tokens = WrongTokens(database, metrics, rejection_log)
    admin = AdminAuth(TOKENS, database, metrics, wrong_tokens, public_url=public_url, proxy_login=proxy_login)
    admin_service = AdminService(
        database,
        rules,
        CachedStats(database),
        erase_keys=[key.encode() for key in keys],
        trial=trial,
        accounts=accounts,
    )
    app = create_app(
        database,
        receiver,
        metrics,
        require_admin=admin.require_admin,
        public_routes=[*admin.login_routes(), *static_routes(), *unsubscribe_routes(database, keys)],
        admin_routes=[*api_routes(admin_service), *dashboard_routes(admin_service)],
    )
    with serving(app) as url:
        yield Site(url, database, Engine(database), rules, admin)
    database.close()
