"""The whole web side on SQLite, behind a real server, with stored work to look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from bridge.clock import Clock
from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.rules.model import Problem, Rules
from bridge.rules.route import route
from bridge.store.connections import register
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.store.queries import list_events
from bridge.store.routing import route_unrouted
from bridge.telemetry import Metrics
from bridge.web.admin import Admin
from bridge.web.admin_service import Desk
from bridge.web.api import api_routes
from bridge.web.app import create_app
from bridge.web.dashboard import page_routes
from bridge.web.health import Counted
from bridge.web.html import static_routes
from bridge.web.unsubscribe import unsubscribe_routes
from bridge.web.webhook import Receiver, ReceiverSettings
from tests.asgi_server import serving
from tests.integration.engine import Engine

TOKEN = "the admin token of this test"
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
class Running:
    """The rules of the service, as `bridge.worker.rules_reloader` keeps them."""

    current: Rules
    path: Path = Path("rules.yaml")
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    trouble: str | None = None
    problems: tuple[Problem, ...] = ()


@dataclass
class Site:
    url: str
    database: Database
    engine: Engine
    rules: Running
    admin: Admin

    def client(self, token: str | None = TOKEN, **more: Any) -> httpx.Client:
        """A program that holds the token."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, **more)

    @contextmanager
    def browser(self, *, log_in: bool = True) -> Iterator[httpx.Client]:
        """What a browser sends, logged in by the form."""
        headers = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=20) as client:
            if log_in:
                assert client.post("/login", data={"token": TOKEN}).status_code == 303
            yield client

    def routed_event(self, name: str = "call.busy", **changes: Any) -> str:
        """Store an event and route it by the rules; returns its id."""
        self.engine.event(name, **changes)
        rules = self.rules.current
        assert route_unrouted(self.database, rules, lambda event, now: route(event, rules, now))[0]
        ident: str = list_events(self.database, limit=1).items[0]["id"]
        return ident


@contextmanager
def site(
    folder: Path, clock: Clock, *, secret: str | None = None, public_url: str | None = None
) -> Iterator[Site]:
    """Everything that `bridge serve` answers, without its worker."""
    database = Database(f"sqlite:///{folder}/bridge.db", clock)
    upgrade(database)
    register(database, {"desk": "a", "twilio": "b"})
    rules = Running(load_or_raise(RULES, path="rules.yaml", registry=Registry()))
    metrics = Metrics()
    receiver = Receiver(database, ReceiverSettings((b"secret",)), metrics, clock)
    admin = Admin(TOKEN, clock, secret=secret, public_url=public_url)
    desk = Desk(database, rules, Counted(database))
    app = create_app(
        database,
        receiver,
        metrics,
        guard=admin.guard,
        open_routes=[*admin.login_routes(), *static_routes(), *unsubscribe_routes(database, secret)],
        admin_routes=[*api_routes(desk), *page_routes(desk)],
    )
    with serving(app) as url:
        yield Site(url, database, Engine(database), rules, admin)
    database.close()
