"""`bridge serve` and `bridge worker`: run the service."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Annotated

import typer

_PANEL = "Run"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel=_PANEL)(serve)
    app.command(rich_help_panel=_PANEL)(worker)


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on. Default: BRIDGE_HOST, otherwise 127.0.0.1.", show_default=False
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port to listen on; 0 picks a free port. Default: BRIDGE_PORT, otherwise 8080.",
            show_default=False,
        ),
    ] = None,
    no_worker: Annotated[
        bool,
        typer.Option("--no-worker", help="Receive and store events only; a `bridge worker` does the rest."),
    ] = False,
    share_port: Annotated[
        bool,
        typer.Option(
            "--share-port",
            help="Share the port with other `bridge serve --share-port` of this machine. Linux distributes the "
            "connections. Needs PostgreSQL.",
        ),
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Accept unsigned events from any sender. For testing only."),
    ] = False,
) -> None:
    """Receive events, route them and run the actions of the rules.

    SIGTERM shuts down gracefully: new events get a 503, running attempts finish, and the exit code is 0. A changed
    rules file is reloaded automatically; SIGHUP reloads it immediately.
    """
    gc.disable()  # until `tune_gc`: what is loaded until then stays, and visiting it takes a twelfth of the start
    from bridge.cli.bootstrap import Role, build_service
    from bridge.cli.listener import require_shareable, server_listeners, url_of
    from bridge.cli.server_lock import sqlite_server_lock
    from bridge.cli.worker_start import WorkerStarter
    from bridge.secret_settings import WEAK_SECRET_ADVICE
    from bridge.settings import Settings, environment
    from bridge.telemetry import configure_logging, log

    environ = environment()
    settings = Settings.load(environ)
    configure_logging(settings.bridge_log_format, settings.bridge_log_level)
    _warn_about_unrecognized_variables(environ)
    if share_port:
        require_shareable(settings)
    host, port = host or settings.bridge_host, settings.bridge_port if port is None else port
    with (
        sqlite_server_lock(settings.bridge_database_url) as lock_fds,
        server_listeners(host, port, settings, share_port=share_port) as listeners,
        WorkerStarter(environ, lock_fds, listeners) as starter,
    ):
        if no_worker:
            service = build_service(Role.RECEIVER, environ, insecure=insecure)
        else:
            service = build_service(Role.SERVER, environ, insecure=insecure, before_threads=starter.fork)
        # Only now, because the worker has no use for the HTTP server.
        from bridge.cli import server
        from bridge.cli.generated_token import show_generated_token, write_generated_token
        from bridge.cli.web_service import build_receiver
        from bridge.cli.worker_supervisor import Supervisor

        supervisor = (
            None
            if no_worker
            else Supervisor(
                starter, service.database, service.rules, service.metrics.process, service.worker_exits
            )
        )
        shared = listeners[0] if share_port else None
        web = build_receiver(
            service,
            supervisor.metrics if supervisor else None,
            shared_port=shared.getsockname()[1] if shared else None,
        )
        url = url_of(listeners[0])
        token_file = write_generated_token(settings, web.generated_token) if web.generated_token else None

        def on_ready() -> None:
            log.info(
                "serving",
                url=url,
                webhook=f"{settings.bridge_public_url or url}/webhooks/heppu",
                rules=str(settings.bridge_rules_file),
                database="SQLite" if service.database.is_sqlite else "PostgreSQL",
                worker=not no_worker,
            )
            if insecure and not settings.secrets:
                log.warning(
                    "signature verification disabled",
                    advice="set HEPPU_WEBHOOK_SECRET before you use this in production",
                )
            for name in settings.weak_secrets:
                log.warning("weak secret", variable=name, advice=WEAK_SECRET_ADVICE)
            if web.generated_token:
                show_generated_token(url, web.generated_token, token_file)

        server.ServiceRunner(service, web, listeners, supervisor, on_ready, shared=shared).run()


def _warn_about_unrecognized_variables(environ: Mapping[str, str]) -> None:
    from bridge.telemetry import log
    from bridge.unrecognized_variables import unrecognized_variables

    for name, advice in unrecognized_variables(environ).items():
        log.warning("unrecognized environment variable", variable=name, advice=advice)


def worker() -> None:
    """Route events and run deliveries without receiving webhooks.

    Needs PostgreSQL. Any number of `bridge worker` and `bridge serve` processes can share one database. With
    BRIDGE_METRICS_PORT, it serves its metrics and health checks.
    """
    gc.disable()  # until `tune_gc`, as in `serve`
    from bridge.cli.process import exit_process
    from bridge.cli.worker_runner import run_worker
    from bridge.errors import ConfigError
    from bridge.settings import Settings, environment
    from bridge.telemetry import configure_logging

    environ = environment()
    settings = Settings.load(environ)
    configure_logging(settings.bridge_log_format, settings.bridge_log_level)
    _warn_about_unrecognized_variables(environ)
    if settings.bridge_database_url.startswith("sqlite"):
        raise ConfigError(
            "`bridge worker` needs PostgreSQL: set BRIDGE_DATABASE_URL=postgresql://... "
            "With SQLite, `bridge serve` runs the only worker"
        )
    exit_process(run_worker(environ))
