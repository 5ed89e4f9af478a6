"""Putting the parts together: settings, store, rules, connections, worker, web.

`build_service` makes a whole service out of an environment and starts nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.applications import Starlette

from bridge.cli.db import migrate
from bridge.clock import Clock
from bridge.connector import Connector
from bridge.connector.discovery import Registry, settings_of
from bridge.errors import ConfigError
from bridge.rules.model import Rules
from bridge.settings import Settings
from bridge.store.connections import register
from bridge.store.database import Database
from bridge.store.opt_outs import kept_as
from bridge.store.pg_notify import Notices
from bridge.store.queries import unfinished_actions
from bridge.telemetry import Metrics, log
from bridge.web.admin import Admin
from bridge.web.admin_service import Desk
from bridge.web.api import api_routes
from bridge.web.app import create_app
from bridge.web.callbacks import callback_routes
from bridge.web.dashboard import page_routes
from bridge.web.health import Counted, WorkerMetrics
from bridge.web.html import static_routes
from bridge.web.unsubscribe import unsubscribe_link, unsubscribe_routes
from bridge.web.webhook import Receiver, ReceiverSettings
from bridge.worker.attempt import Attempts, Connection, open_connections
from bridge.worker.router import Router
from bridge.worker.rules_reloader import RulesFile
from bridge.worker.service import Worker, WorkerSettings


@dataclass
class Service:
    """Everything that `bridge serve` runs, built but not started."""

    settings: Settings
    database: Database
    rules: RulesFile
    receiver: Receiver
    app: Starlette
    metrics: Metrics
    notices: Notices
    router: Router | None
    """None: it only receives (`--no-worker`), or the process beside this one routes."""
    worker: Worker | None
    """None: it only receives (`--no-worker`), or the process beside this one works."""
    admin_token: str
    token_is_new: bool
    """BRIDGE_ADMIN_TOKEN is not set: the token was made now and has to be told."""

    def start(self) -> None:
        """Begin to route and to work, as far as that is done here."""
        self.notices.start()
        if self.worker is not None:
            self.worker.start()
        if self.router is not None:
            self.router.start()

    def stop(self, timeout: float = 25.0) -> bool:
        """Let what runs end within `timeout` seconds; returns whether all of it did."""
        if self.router is not None:
            self.router.stop()
        clean = self.worker is None or self.worker.stop(timeout)
        self.notices.stop()
        return clean

    def close(self) -> None:
        """Close what is open."""
        self.database.close()


def build_service(
    environ: Mapping[str, str],
    *,
    insecure: bool = False,
    work: bool = True,
    route: bool = True,
    running_rules: str | None = None,
    worker_metrics: WorkerMetrics | None = None,
    clock: Clock | None = None,
) -> Service:
    """Build a service; raises ConfigError, which names all that is wrong in rules and settings, or StoreUnavailable.

    Without `work` it only receives; without `route` it only works, beside a server that has brought the database to
    this version and runs `running_rules`. With `worker_metrics`, which asks it, the worker is another process.
    """
    settings = Settings.load(environ)
    if not settings.heppu_webhook_secret and not insecure:
        raise ConfigError(
            "HEPPU_WEBHOOK_SECRET is not set, so nobody could tell Heppu's events from a stranger's; "
            "set it to the webhook's secret, or say --insecure to take events from anybody"
        )
    registry = registry_for(settings.bridge_rules_file)
    rules = RulesFile(
        settings.bridge_rules_file,
        registry,
        environ if work else None,
        silent=not route,
        running=running_rules,
    )
    database = Database(settings.bridge_database_url, clock)
    try:
        if route:
            migrate(database)
        return _assembled(settings, environ, registry, rules, database, work, route, worker_metrics)
    except BaseException:
        database.close()
        raise


def _assembled(
    settings: Settings,
    environ: Mapping[str, str],
    registry: Registry,
    rules: RulesFile,
    database: Database,
    work: bool,
    route: bool,
    worker_metrics: WorkerMetrics | None,
) -> Service:
    metrics = Metrics()
    connections = _connections(rules.current, registry, environ, database, work)
    _register(database, connections)
    works_here = work and worker_metrics is None
    worker = _worker(settings, rules, connections, database, metrics) if works_here else None
    receiver = Receiver(
        database,
        ReceiverSettings(settings.secrets, settings.heppu_timestamp_tolerance),
        metrics,
        database.clock,
    )
    token = settings.bridge_admin_token
    admin_token = token.get_secret_value() if token else secrets.token_urlsafe(24)
    app = _application(settings, admin_token, rules, connections, database, receiver, metrics, worker_metrics)

    def open_new(changed: Rules) -> None:
        """Open what new rules use for the first time."""
        wanted = connections_of(changed, registry)
        new = {name: connector for name, connector in wanted.items() if name not in connections}
        opened = open_connections(new, environ) if work else {}
        _register(database, opened)
        connections.update(opened)
        if worker is not None:
            worker.add(opened)
        app.router.routes[:0] = callback_routes(database, opened, settings.bridge_public_url)

    rules.before_change = open_new
    return Service(
        settings,
        database,
        rules,
        receiver,
        app,
        metrics,
        Notices(database),
        Router(database, rules) if work and route else None,
        worker,
        admin_token,
        token is None,
    )


def _worker(
    settings: Settings,
    rules: RulesFile,
    connections: Mapping[str, Connection],
    database: Database,
    metrics: Metrics,
) -> Worker:
    link = unsubscribe_link(settings.bridge_public_url, _secret(settings))
    attempts = Attempts(database, settings.bridge_public_url, link)
    limits = WorkerSettings(
        settings.bridge_recipient_allowlist, settings.bridge_retention, erased_as(settings)
    )
    return Worker(database, rules, connections, attempts, limits, metrics)


def _application(
    settings: Settings,
    admin_token: str,
    rules: RulesFile,
    connections: Mapping[str, Connection],
    database: Database,
    receiver: Receiver,
    metrics: Metrics,
    worker_metrics: WorkerMetrics | None,
) -> Starlette:
    secret, public_url = _secret(settings), settings.bridge_public_url
    admin = Admin(admin_token, database.clock, secret=secret, public_url=public_url)
    desk = Desk(database, rules, Counted(database))
    return create_app(
        database,
        receiver,
        metrics,
        guard=admin.guard,
        open_routes=[
            *admin.login_routes(),
            *static_routes(),
            *callback_routes(database, connections, public_url),
            *unsubscribe_routes(database, secret),
        ],
        admin_routes=[*api_routes(desk), *page_routes(desk)],
        worker_metrics=worker_metrics,
        rules_trouble=lambda: rules.trouble,
    )


def _secret(settings: Settings) -> str | None:
    return settings.bridge_secret_key.get_secret_value() if settings.bridge_secret_key else None


def _register(database: Database, connections: Mapping[str, Connection]) -> None:
    register(database, {name: found.fingerprint for name, found in connections.items()})


def erased_as(settings: Settings) -> Callable[[str], str] | None:
    """What stands for addresses of people who were erased; it needs BRIDGE_SECRET_KEY."""
    secret = _secret(settings)
    return partial(kept_as, secret.encode()) if secret else None


def registry_for(rules: Path) -> Registry:
    """The connectors: shipped, beside the rules file, and installed."""
    return Registry([rules.resolve().parent / "connectors"])


def connections_of(rules: Rules, registry: Registry) -> dict[str, Connector]:
    """The connections that enabled rules and the alerts name; imports only their connectors."""
    steps = [step for rule in rules.rules if rule.enabled for step in (*rule.do, *rule.on_failure)]
    return {step.connection: registry.connector(step.action.connector) for step in (*steps, *rules.alerts)}


def _connections(
    rules: Rules, registry: Registry, environ: Mapping[str, str], database: Database, strict: bool
) -> dict[str, Connection]:
    """Every connection that the rules, or deliveries made by earlier rules, need.

    Those of the rules must have their settings when the service works (`strict`). One that only receives takes the
    callbacks of those that have them.
    """
    wanted = connections_of(rules, registry)
    found = open_connections(wanted, environ) if strict else {}
    for name, action in unfinished_actions(database):
        try:
            wanted.setdefault(name, registry.connector(action.partition(".")[0]))
        except (KeyError, ConfigError) as error:
            _cannot_open(name, error)
    for name in wanted.keys() - found.keys():
        try:
            found[name] = Connection(name, wanted[name], settings_of(wanted[name], name, environ))
        except ConfigError as error:
            if strict:
                _cannot_open(name, error)
    return found


def _cannot_open(name: str, error: Exception) -> None:
    log.warning(
        "a connection cannot be used here",
        connection=name,
        error=str(error),
        advice=f"what waits for it, waits on: `bridge deliveries --connection {name}`",
    )
