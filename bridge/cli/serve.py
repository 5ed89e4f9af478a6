"""`bridge serve` and `bridge worker`: the service itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

_PANEL = "Run"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel=_PANEL)(serve)
    app.command(rich_help_panel=_PANEL)(worker)


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; BRIDGE_HOST, else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; BRIDGE_PORT, else 8080; 0 takes a free one.")
    ] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Only receive events; another process routes and delivers.")
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Take events without a signature, from anybody. For trials only."),
    ] = False,
) -> None:
    """Receive events, route them and carry out what the rules say.

    SIGTERM stops in order: new events are answered 503, what runs is finished, exit 0. SIGHUP reads the rules again
    (a change of the file is noticed without it).
    """
    from bridge.cli import server
    from bridge.cli.bootstrap import build_service
    from bridge.cli.output import note
    from bridge.cli.worker_supervisor import Supervisor
    from bridge.settings import Settings, environment
    from bridge.telemetry import configure_logging, log

    environ = environment()
    settings = Settings.load(environ)
    configure_logging(settings.bridge_log_format)
    _warn_of_slips(environ)
    host, port = host or settings.bridge_host, settings.bridge_port if port is None else port
    with (
        server.only_server(settings.bridge_database_url) as held,
        server.listen(host, port) as listener,
    ):
        supervisor = None if no_worker else Supervisor(environ, held)
        service = build_service(
            environ,
            insecure=insecure,
            work=not no_worker,
            worker_metrics=supervisor.metrics if supervisor else None,
        )
        url = server.url_of(listener)

        def on_ready() -> None:
            log.info(
                "serving",
                url=url,
                webhook=f"{settings.bridge_public_url or url}/webhooks/heppu",
                rules=str(settings.bridge_rules_file),
                database="SQLite" if service.database.is_sqlite else "PostgreSQL",
                works=not no_worker,
            )
            if insecure and not settings.secrets:
                log.warning(
                    "events are not verified", advice="set HEPPU_WEBHOOK_SECRET before anybody relies on it"
                )
            if service.token_is_new:
                page = f"{url}/login#token={service.admin_token}"
                if settings.bridge_log_format == "json":
                    log.info("log page", url=page, advice="set BRIDGE_ADMIN_TOKEN to keep one token")
                else:
                    note(f"log page: {page}  (set BRIDGE_ADMIN_TOKEN to keep one token)")

        server.Serving(service, listener, supervisor, on_ready).run()


def _warn_of_slips(environ: Mapping[str, str]) -> None:
    from bridge.settings import not_read
    from bridge.telemetry import log

    for name, advice in not_read(environ).items():
        log.warning("a variable that nothing reads", variable=name, advice=advice)


def worker() -> None:
    """Route and work without receiving, beside other processes on the same PostgreSQL database."""
    from bridge.cli import server
    from bridge.cli.bootstrap import build_service
    from bridge.errors import ConfigError
    from bridge.settings import Settings, environment
    from bridge.telemetry import configure_logging

    environ = environment()
    settings = Settings.load(environ)
    configure_logging(settings.bridge_log_format)
    _warn_of_slips(environ)
    if settings.bridge_database_url.startswith("sqlite"):
        raise ConfigError(
            "`bridge worker` needs PostgreSQL: on SQLite the one `bridge serve` does the work; "
            "set BRIDGE_DATABASE_URL=postgresql://..."
        )
    server.leave(server.work_until_stopped(build_service(environ, insecure=True)))
