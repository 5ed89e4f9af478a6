"""Composition root: builds the components of a process from settings, store, rules and accounts.

`build_service` builds the threads of a process by its `Role`, and starts nothing. Web applications are built in
`bridge.cli.web_service`, so that a worker does not load their libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from bridge.cli.accounts import AccountOpener
from bridge.cli.db import migrate
from bridge.cli.file_permissions import require_safe_connectors
from bridge.clock import Clock
from bridge.connector.discovery import Registry
from bridge.connector.egress import configure_egress
from bridge.errors import ConfigError
from bridge.rules.files import base_folder
from bridge.rules.model import Rules
from bridge.settings import Settings
from bridge.store.database import Database
from bridge.store.opt_outs import AddressHasher, hash_address
from bridge.store.pg_notify import ChangeNotifier
from bridge.store.reencryption import check_keys
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.tracing import configure_tracing, flush_traces
from bridge.unsubscribe_links import unsubscribe_link
from bridge.worker.account import Accounts
from bridge.worker.attempt import AttemptRunner
from bridge.worker.earlier_deliveries import report_reload
from bridge.worker.provider_links import ProviderLinks
from bridge.worker.router import Router
from bridge.worker.rules_reloader import RulesFile
from bridge.worker.service import Worker, WorkerSettings
from bridge.worker.service_watch import ServiceWatch
from bridge.worker.worker_exits import WorkerExits


class Role(Enum):
    """A kind of process; its value says whether the process receives events, routes them and runs deliveries."""

    SERVER = (True, True, False)
    """`bridge serve`. Its worker process runs the deliveries."""
    RECEIVER = (True, False, False)
    """`bridge serve --no-worker`."""
    WORKER = (False, True, True)
    """`bridge worker`."""
    WORKER_PROCESS = (False, False, True)
    """The worker process of a server, which migrates the database, and follows and logs the rules file."""

    def __init__(self, receives: bool, routes: bool, runs_deliveries: bool) -> None:
        self.receives = receives
        self.routes = routes
        self.runs_deliveries = runs_deliveries

    @property
    def needs_accounts(self) -> bool:
        """True if this process or its worker process runs deliveries."""
        return self is not Role.RECEIVER


@dataclass(frozen=True)
class Service:
    """The components of a process, built but not started."""

    settings: Settings
    database: Database
    rules: RulesFile
    accounts: Accounts
    metrics: Metrics
    notifier: ChangeNotifier
    router: Router | None
    worker: Worker | None
    watch: ServiceWatch | None
    worker_exits: WorkerExits
    """Exits of the worker process; its supervisor adds them."""

    def start(self) -> None:
        """Start the router and the worker, if this process has them."""
        self.notifier.start()
        if self.worker is not None:
            self.worker.start()
        if self.router is not None:
            self.router.start()
        if self.watch is not None:
            self.watch.start()

    def is_alive(self) -> bool:
        """Return whether the threads of the router and the worker run."""
        return all(part is None or part.is_running for part in (self.router, self.worker, self.watch))

    def stop(self, timeout: float = 25.0) -> bool:
        """Stop, and wait up to `timeout` seconds for running attempts. Return whether all of them finished."""
        if self.watch is not None:
            self.watch.stop()
            self.watch.join(timeout=5)
        if self.router is not None:
            self.router.stop()
        clean = self.worker is None or self.worker.stop(timeout)
        self.notifier.stop()
        return clean

    def close(self) -> None:
        """Export the traces that wait, and close the database."""
        flush_traces()
        self.database.close()


def build_service(
    role: Role,
    environ: Mapping[str, str],
    *,
    insecure: bool = False,
    fallback_rules: str | None = None,
    clock: Clock | None = None,
    before_threads: Callable[[], None] = lambda: None,
) -> Service:
    """Build the components of a process. Raise ConfigError with every error in rules and settings, or StoreUnavailable.

    `insecure` accepts unsigned events. `fallback_rules` is the text of the rules that a worker process uses while the
    rules file has errors. `before_threads` is called once the rules and their connectors are loaded, while there are
    neither threads nor connections to the database.
    """
    settings = Settings.load(environ)
    if role.receives and not (settings.heppu_webhook_secret or insecure):
        raise ConfigError(
            "HEPPU_WEBHOOK_SECRET is not set, so Heppu's events cannot be verified: set it to the secret of the "
            "webhook, or use --insecure to accept unsigned events"
        )
    registry = registry_for(settings.bridge_rules_file, settings)
    database = Database(
        settings.bridge_database_url,
        clock,
        default_country=settings.bridge_default_country,
        drop_fields=settings.bridge_drop_fields,
        encryption_keys=settings.encryption_keys,
    )
    if settings.bridge_delete_after is not None:
        database.has_deleted_events = True  # soon, by this process or another one
    try:
        opener = AccountOpener(
            database, registry, environ, required=role.needs_accounts, token_keys=settings.secret_keys
        )

        def prepare(changed: Rules) -> None:
            """Refuse rules whose tests fail, and open the accounts that they use."""
            if settings.bridge_require_tests:
                from bridge.dryrun.required_tests import require_passing_tests

                require_passing_tests(changed, registry, settings.bridge_default_country)
            opener.open_used(changed)

        is_quiet = role is Role.WORKER_PROCESS  # its server logs the same
        rules = RulesFile(
            settings.bridge_rules_file,
            registry,
            environ if role.needs_accounts else None,
            before_change=prepare,
            after_reload=(lambda _: None) if is_quiet else partial(report_reload, database),
            quiet=is_quiet,
            fallback_text=fallback_rules,
        )
        before_threads()
        configure_tracing(environ)
        configure_egress(settings)
        if role is not Role.WORKER_PROCESS:
            migrate(database)
            check_keys(database)
        prepare(rules.current)
        opener.open_unfinished()
        accounts, metrics, exits = opener.accounts, Metrics(), WorkerExits()
        return Service(
            settings,
            database,
            rules,
            accounts,
            metrics,
            ChangeNotifier(database),
            Router(database, rules, metrics.process) if role.routes else None,
            build_worker(settings, database, rules, accounts, metrics) if role.runs_deliveries else None,
            ServiceWatch(database, rules, exits, only_receives=role is Role.RECEIVER)
            if role is not Role.WORKER_PROCESS
            else None,
            exits,
        )
    except BaseException:
        database.close()
        raise


def build_worker(
    settings: Settings, database: Database, rules: RulesFile, accounts: Accounts, metrics: Metrics
) -> Worker:
    """Build the worker that runs the deliveries of these accounts."""
    link = unsubscribe_link(settings.bridge_public_url, settings.secret_keys)
    attempts = AttemptRunner(database, settings.bridge_public_url, link, ProviderLinks(accounts.get))
    limits = WorkerSettings(
        settings.bridge_recipient_allowlist,
        settings.bridge_retention,
        address_hasher(settings),
        settings.bridge_delete_after,
    )
    return Worker(database, rules, accounts, attempts, limits, metrics)


def address_hasher(settings: Settings) -> AddressHasher | None:
    """Return the function that hashes erased addresses, or None if BRIDGE_SECRET_KEY is not set."""
    keys = [key.encode() for key in settings.secret_keys]
    return partial(hash_address, keys) if keys else None


def connectors_folder(rules: Path, settings: Settings) -> Path:
    """Return the folder of your own connectors: BRIDGE_CONNECTORS_DIR, or `connectors` in the folder of the rules."""
    return settings.bridge_connectors_dir or base_folder(rules.resolve()) / "connectors"


def registry_for(rules: Path, settings: Settings) -> Registry:
    """Return the connectors: shipped, your own, and installed as packages.

    Raise ConfigError if every user of the machine can write your own ones.
    """
    folder = connectors_folder(rules, settings)
    require_safe_connectors(folder)
    return Registry([folder])
