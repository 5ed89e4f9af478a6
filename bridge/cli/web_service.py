"""Builds the web application of a server: webhook, callbacks, API and dashboard."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.applications import Starlette

from bridge.cli.account_directory import ServerAccounts
from bridge.cli.bootstrap import Service, address_hasher
from bridge.cli.rules_trial import TrialProcess
from bridge.secret_settings import AccessToken
from bridge.settings import Settings, environment
from bridge.web.access import Access, TokenTable
from bridge.web.admin import AdminAuth
from bridge.web.admin_service import AdminService
from bridge.web.api import api_routes
from bridge.web.app import create_app
from bridge.web.callbacks import callback_routes
from bridge.web.dashboard import dashboard_routes
from bridge.web.health import CachedStats
from bridge.web.html import static_routes
from bridge.web.metrics import MetricsOfWorker
from bridge.web.proxy_login import ProxyLogin
from bridge.web.rejection_log import RejectionLog
from bridge.web.unsubscribe import unsubscribe_routes
from bridge.web.webhook import Receiver, ReceiverSettings
from bridge.web.wrong_tokens import WrongTokens
from bridge.worker.provider_links import ProviderLinks


@dataclass(frozen=True)
class WebService:
    """The web application of a server."""

    app: Starlette
    receiver: Receiver
    rejection_log: RejectionLog
    generated_token: str | None
    """The admin token that opens it if BRIDGE_ADMIN_TOKEN is not set; it must be shown to the operator."""


def build_receiver(
    service: Service, worker_metrics: MetricsOfWorker | None = None, *, shared_port: int | None = None
) -> WebService:
    """Build the web application of a process: webhook, callbacks, API and dashboard.

    `worker_metrics` returns the metrics of the worker process, if there is one. Other processes listen on the
    `shared_port`, too.
    """
    settings, database, rules = service.settings, service.database, service.rules
    public_url = settings.bridge_public_url
    for name, account in service.accounts.all().items():
        service.metrics.web.add_callbacks(name, account.connector.callbacks)
    rejection_log = RejectionLog(service.metrics, settings.bridge_trusted_proxies)
    receiver = Receiver(
        database,
        ReceiverSettings(settings.secrets, settings.heppu_timestamp_tolerance),
        service.metrics,
        rejection_log,
        database.clock,
    )
    generated_token = None if settings.bridge_admin_token else secrets.token_urlsafe(24)
    wrong_tokens = WrongTokens(database, service.metrics, rejection_log, settings.bridge_trusted_proxies)
    admin = AdminAuth(
        _token_table(settings, generated_token),
        database,
        service.metrics,
        wrong_tokens,
        public_url=public_url,
        proxy_login=ProxyLogin(settings.bridge_auth_header, settings.bridge_trusted_proxies),
    )
    admin_service = AdminService(
        database,
        rules,
        CachedStats(database),
        address_hasher(settings),
        links=ProviderLinks(service.accounts.get),
        erase_keys=[key.encode() for key in settings.secret_keys],
        allowlist=settings.bridge_recipient_allowlist,
        retention=settings.bridge_retention,
        trial=TrialProcess(environment()),
        accounts=ServerAccounts(service.accounts.get, lambda: rules.current, environment()),
    )
    app = create_app(
        database,
        receiver,
        service.metrics,
        require_admin=admin.require_admin,
        public_routes=[
            *admin.login_routes(),
            *static_routes(),
            *callback_routes(database, service.accounts.get, public_url, service.metrics, rejection_log),
            *unsubscribe_routes(database, settings.secret_keys),
        ],
        admin_routes=[*api_routes(admin_service), *dashboard_routes(admin_service)],
        worker_metrics=worker_metrics,
        shared_port=shared_port,
        rules=rules,
    )
    return WebService(app, receiver, rejection_log, generated_token)


def _token_table(settings: Settings, generated_token: str | None) -> TokenTable:
    generated = [AccessToken(None, SecretStr(generated_token))] if generated_token else []
    return TokenTable(
        {
            Access.ADMIN: [*settings.bridge_admin_token, *generated],
            Access.READ: settings.bridge_read_token,
            Access.METRICS: settings.bridge_metrics_token,
        }
    )
