"""Building a service in this process: accounts, connections, databases and errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bridge.cli.bootstrap import Role, Service, build_service
from bridge.cli.db import open_store
from bridge.cli.server_lock import sqlite_server_lock
from bridge.cli.web_service import build_receiver
from bridge.connector.discovery import Registry, read_settings
from bridge.errors import ConfigError, StoreUnavailable
from bridge.sandbox import RunningSandbox
from bridge.settings import Settings
from bridge.store import schema
from bridge.store.connection_status import all_connections
from bridge.worker.account import Account
from tests.acceptance.commands import DISABLED_RULE, RULES
from tests.asgi_server import serving


@contextmanager
def built(folder: Path, rules: str, role: Role = Role.WORKER, **environ: str) -> Iterator[Service]:
    """Build a service, and close it at the end of the block."""
    (folder / "rules.yaml").write_text(rules)
    basics = {
        "HEPPU_WEBHOOK_SECRET": "whsec_of_at_least_16",
        "BRIDGE_DATABASE_URL": f"sqlite:///{folder}/bridge.db",
        "BRIDGE_RULES_FILE": str(folder / "rules.yaml"),
    }
    service = build_service(role, basics | environ)
    try:
        yield service
    finally:
        service.close()


def slack(url: str, name: str = "slack") -> Account:
    connector = Registry().connector("slack")
    return Account(name, connector, read_settings(connector, name, {f"{name.upper()}_WEBHOOK_URL": url}))


def test_fingerprint_changes_only_with_settings() -> None:
    first = slack("https://hooks.example.com/a").fingerprint
    assert slack("https://hooks.example.com/a").fingerprint == first
    assert slack("https://hooks.example.com/b").fingerprint != first
    assert "hooks" not in first


def test_fingerprint_changes_with_key_file_content(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    environ = {
        "SALESFORCE_URL": "https://example.my.salesforce.com", "SALESFORCE_CONSUMER_KEY": "k",
        "SALESFORCE_USERNAME": "u@example.com", "SALESFORCE_PRIVATE_KEY_FILE": str(key),
    }  # fmt: skip
    connector = Registry().connector("salesforce")
    seen = set()
    for text in ("one", "two"):
        key.write_text(text)
        seen.add(
            Account("salesforce", connector, read_settings(connector, "salesforce", environ)).fingerprint
        )
    assert len(seen) == 2


def test_only_used_connections_are_opened(tmp_path: Path, providers: RunningSandbox) -> None:
    with built(tmp_path, RULES, **providers.environment) as service:
        assert {row["name"] for row in all_connections(service.database)} == {"hubspot", "slack", "twilio"}


def test_disabled_rule_needs_no_account(tmp_path: Path) -> None:
    with built(tmp_path, DISABLED_RULE) as service:
        assert all_connections(service.database) == []


def test_unfinished_deliveries_of_removed_rules_keep_their_connection(
    tmp_path: Path, providers: RunningSandbox
) -> None:
    with built(tmp_path, RULES, **providers.environment) as service, service.database.write() as connection:
        now = service.database.clock.now()
        row = {
            "id": "dlv_1", "trigger": "rule", "rule": "gone", "step_index": 0, "rules_hash": "", "action": "slack.post",
            "connection": "slack", "params": "{}", "options": "{}", "idempotency_key": "x", "occurred_at": now,
            "state": "pending", "run_at": now, "needs_follow_up": False, "created_at": now,
        }  # fmt: skip
        connection.execute(schema.deliveries.insert(), [row])
        connection.execute(schema.connections.delete())
    with built(tmp_path, DISABLED_RULE, **providers.environment) as service:
        assert [row["name"] for row in all_connections(service.database)] == ["slack"]
    with built(
        tmp_path, DISABLED_RULE
    ) as service:  # without settings, the delivery waits and the service starts
        assert service.worker is not None


def test_service_without_worker_needs_no_accounts(tmp_path: Path) -> None:
    with built(tmp_path, RULES, Role.RECEIVER) as service:
        assert service.worker is None
    with pytest.raises(ConfigError, match="HUBSPOT_ACCESS_TOKEN"), built(tmp_path, RULES):
        pass


@pytest.mark.parametrize(
    ("role", "routes", "runs_deliveries"),
    [
        (Role.SERVER, True, False),
        (Role.RECEIVER, False, False),
        (Role.WORKER, True, True),
        (Role.WORKER_PROCESS, False, True),
    ],
)
def test_role_decides_which_threads_a_process_has(
    tmp_path: Path, role: Role, routes: bool, runs_deliveries: bool
) -> None:
    with built(tmp_path, DISABLED_RULE):
        pass  # migrates the database, as the server of a worker process does
    with built(tmp_path, DISABLED_RULE, role) as service:
        assert (service.router is not None, service.worker is not None) == (routes, runs_deliveries)


@pytest.mark.parametrize("role", [Role.SERVER, Role.RECEIVER])
def test_changed_rules_open_the_accounts_and_callbacks_of_new_connections(
    tmp_path: Path, providers: RunningSandbox, role: Role
) -> None:
    with built(tmp_path, DISABLED_RULE, role, **providers.environment) as service:
        with serving(build_receiver(service).app) as url:
            assert httpx.post(f"{url}/webhooks/twilio/status").status_code == 404
            (tmp_path / "rules.yaml").write_text(RULES)
            assert service.rules.reload_if_changed()
            assert httpx.post(f"{url}/webhooks/twilio/status").status_code == 403
            assert httpx.post(f"{url}/webhooks/twilio/other").json() == {"error": "not found"}
        assert {row["name"] for row in all_connections(service.database)} == {"hubspot", "slack", "twilio"}


def test_missing_webhook_secret_requires_insecure(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(DISABLED_RULE)
    environ = {
        "BRIDGE_DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db",
        "BRIDGE_RULES_FILE": str(tmp_path / "rules.yaml"),
    }
    with pytest.raises(ConfigError, match="--insecure"):
        build_service(Role.SERVER, environ)
    build_service(Role.SERVER, environ, insecure=True).close()


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:////nowhere/at/all/bridge.db"])
def test_unusable_sqlite_url_raises_config_error(url: str) -> None:
    with pytest.raises(ConfigError), sqlite_server_lock(url):
        pass


def test_open_store_never_creates_a_database(tmp_path: Path) -> None:
    settings = Settings.load({"BRIDGE_DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db"})
    with pytest.raises(ConfigError, match="there is no database"), open_store(settings):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bridge.db").touch()
    with pytest.raises(ConfigError, match="the database is empty"), open_store(settings):
        pass


def test_unreachable_database_error_hides_the_password() -> None:
    settings = Settings.load({"BRIDGE_DATABASE_URL": "postgresql://bridge:hush@127.0.0.1:9/bridge"})
    with pytest.raises(StoreUnavailable) as error, open_store(settings):
        pass
    assert "hush" not in str(error.value)
