"""Composition root: builds a service from settings, store, rules, connections, worker and web application.

`build_service` builds a complete service from an environment and starts nothing.
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
from bridge.connector.discovery import Registry, read_settings
from bridge.errors import ConfigError
from bridge.rules.model import Rules
from bridge.settings import Settings
from bridge.store.connections import register_accounts
from bridge.store.database import Database
from bridge.store.opt_outs import hash_address
from bridge.store.pg_notify import ChangeNotifier
from bridge.store.queries import connections_in_use
from bridge.telemetry import Metrics, log
from bridge.web.admin import AdminAuth
from bridge.web.admin_service import AdminService
from bridge.web.api import api_routes
from bridge.web.app import create_app
from bridge.web.callbacks import callback_routes
from bridge.web.dashboard import dashboard_routes
from bridge.web.health import CachedStats, WorkerMetrics
from bridge.web.html import static_routes
from bridge.web.unsubscribe import unsubscribe_link, unsubscribe_routes
from bridge.web.webhook import Receiver, ReceiverSettings
from bridge.worker.account import Account, open_accounts
from bridge.worker.attempt import AttemptRunner
from bridge.worker.router import Router
from bridge.worker.rules_reloader import RulesFile
from bridge.worker.service import Worker, WorkerSettings


@dataclass
class Service:
    """The components that `bridge serve` runs, built but not started."""

    settings: Settings
    database: Database
    rules: RulesFile
    receiver: Receiver
    app: Starlette
    metrics: Metrics
    notices: ChangeNotifier
    router: Router | None
    """None if this process only receives (`--no-worker`), or if another process routes."""
    worker: Worker | None
    """None if this process only receives (`--no-worker`), or if the worker is another process."""
    admin_token: str
    token_is_generated: bool
    """Whether BRIDGE_ADMIN_TOKEN is not set, so that the generated token must be shown to the operator."""

    def start(self) -> None:
        """Start the router and the worker, if this process has them."""
        self.notices.start()
        if self.worker is not None:
            self.worker.start()
        if self.router is not None:
            self.router.start()

    def stop(self, timeout: float = 25.0) -> bool:
        """Stop, and wait up to `timeout` seconds for running attempts. Return whether all of them finished."""
        if self.router is not None:
            self.router.stop()
        clean = self.worker is None or self.worker.stop(timeout)
        self.notices.stop()
        return clean

    def close(self) -> None:
        """Close the database."""
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
    """Build a service. Raise ConfigError with every error in rules and settings, or StoreUnavailable.

    Without `work`, the service only receives. Without `route`, it only runs deliveries next to a server that has
    migrated the database and runs `running_rules`. With `worker_metrics`, the worker is a separate process whose
    metrics this function returns.
    """
    settings = Settings.load(environ)
    if not settings.heppu_webhook_secret and not insecure:
        raise ConfigError(
            "HEPPU_WEBHOOK_SECRET is not set, so Heppu's events cannot be verified: set it to the secret of the "
            "webhook, or use --insecure to accept unsigned events"
        )
    registry = registry_for(settings.bridge_rules_file)
    rules = RulesFile(
        settings.bridge_rules_file,
        registry,
        environ if work else None,
        quiet=not route,
        fallback_text=running_rules,
    )
    database = Database(settings.bridge_database_url, clock)
    try:
        if route:
            migrate(database)
        return _build(settings, environ, registry, rules, database, work, route, worker_metrics)
    except BaseException:
        database.close()
        raise


def _build(
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
    has_own_worker = work and worker_metrics is None
    worker = _worker(settings, rules, connections, database, metrics) if has_own_worker else None
    receiver = Receiver(
        database,
        ReceiverSettings(settings.secrets, settings.heppu_timestamp_tolerance),
        metrics,
        database.clock,
    )
    token = settings.bridge_admin_token
    admin_token = token.get_secret_value() if token else secrets.token_urlsafe(24)
    app = _application(settings, admin_token, rules, connections, database, receiver, metrics, worker_metrics)

    def open_new_connections(rules: Rules) -> None:
        """Open the connections that changed rules use for the first time."""
        used = connections_used_by(rules, registry)
        new = {name: connector for name, connector in used.items() if name not in connections}
        opened = open_accounts(new, environ) if work else {}
        _register(database, opened)
        connections.update(opened)
        if worker is not None:
            worker.add_accounts(opened)
        app.router.routes[:0] = callback_routes(database, opened, settings.bridge_public_url)

    rules.before_change = open_new_connections
    return Service(
        settings,
        database,
        rules,
        receiver,
        app,
        metrics,
        ChangeNotifier(database),
        Router(database, rules) if work and route else None,
        worker,
        admin_token,
        token is None,
    )


def _worker(
    settings: Settings,
    rules: RulesFile,
    connections: Mapping[str, Account],
    database: Database,
    metrics: Metrics,
) -> Worker:
    link = unsubscribe_link(settings.bridge_public_url, _secret(settings))
    attempts = AttemptRunner(database, settings.bridge_public_url, link)
    limits = WorkerSettings(
        settings.bridge_recipient_allowlist, settings.bridge_retention, address_hasher(settings)
    )
    return Worker(database, rules, connections, attempts, limits, metrics)


def _application(
    settings: Settings,
    admin_token: str,
    rules: RulesFile,
    connections: Mapping[str, Account],
    database: Database,
    receiver: Receiver,
    metrics: Metrics,
    worker_metrics: WorkerMetrics | None,
) -> Starlette:
    secret, public_url = _secret(settings), settings.bridge_public_url
    admin = AdminAuth(admin_token, database.clock, secret=secret, public_url=public_url)
    admin_service = AdminService(database, rules, CachedStats(database))
    return create_app(
        database,
        receiver,
        metrics,
        require_admin=admin.require_admin,
        public_routes=[
            *admin.login_routes(),
            *static_routes(),
            *callback_routes(database, connections, public_url),
            *unsubscribe_routes(database, secret),
        ],
        admin_routes=[*api_routes(admin_service), *dashboard_routes(admin_service)],
        worker_metrics=worker_metrics,
        rules_load_error=lambda: rules.load_error,
    )


def _secret(settings: Settings) -> str | None:
    return settings.bridge_secret_key.get_secret_value() if settings.bridge_secret_key else None


def _register(database: Database, connections: Mapping[str, Account]) -> None:
    register_accounts(database, {name: account.fingerprint for name, account in connections.items()})


def address_hasher(settings: Settings) -> Callable[[str], str] | None:
    """Return the function that hashes erased addresses, or None if BRIDGE_SECRET_KEY is not set."""
    secret = _secret(settings)
    return partial(hash_address, secret.encode()) if secret else None


def registry_for(rules: Path) -> Registry:
    """Return the connectors: shipped, in `connectors/` next to the rules file, and installed as packages."""
    return Registry([rules.resolve().parent / "connectors"])


def connections_used_by(rules: Rules, registry: Registry) -> dict[str, Connector]:
    """Return the connections that enabled rules and alerts use. Only their connectors are imported."""
    steps = [step for rule in rules.rules if rule.enabled for step in (*rule.do, *rule.on_failure)]
    return {step.connection: registry.connector(step.action.connector) for step in (*steps, *rules.alerts)}


def _connections(
    rules: Rules, registry: Registry, environ: Mapping[str, str], database: Database, strict: bool
) -> dict[str, Account]:
    """Return every connection needed by the rules or by unfinished deliveries of earlier rules.

    If the service runs deliveries (`strict`), the settings of the rules' connections are required. A service that only
    receives accepts the callbacks of the connections whose settings exist.
    """
    connectors = connections_used_by(rules, registry)
    _reject_retired_variables(connectors, environ)
    accounts = open_accounts(connectors, environ) if strict else {}
    for name, action in connections_in_use(database):
        try:
            connectors.setdefault(name, registry.connector(action.partition(".")[0]))
        except (KeyError, ConfigError) as error:
            _warn_unavailable(name, error)
    for name in connectors.keys() - accounts.keys():
        try:
            accounts[name] = Account(name, connectors[name], read_settings(connectors[name], name, environ))
        except ConfigError as error:
            if strict:
                _warn_unavailable(name, error)
    return accounts


def _reject_retired_variables(connectors: Mapping[str, Connector], environ: Mapping[str, str]) -> None:
    """Raise ConfigError for variables under an old name, even if a service that only receives needs no accounts."""
    messages = [
        message
        for name, connector in sorted(connectors.items())
        for message in connector.settings.retired_variables(environ, connector.settings.prefix(name))
    ]
    if messages:
        raise ConfigError("; ".join(messages))


def _warn_unavailable(name: str, error: Exception) -> None:
    log.warning(
        "connection unavailable",
        connection=name,
        error=str(error),
        advice=f"its deliveries stay pending: see `bridge deliveries --connection {name}`",
    )
