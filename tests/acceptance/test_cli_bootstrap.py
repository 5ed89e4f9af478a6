"""Putting a service together, in this process: what is opened, refused, remembered and told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.cli.bootstrap import Service, build_service
from bridge.cli.db import open_store
from bridge.cli.server import only_server
from bridge.connector.discovery import Registry, settings_of
from bridge.errors import ConfigError, StoreUnavailable
from bridge.sandbox import RunningSandbox
from bridge.settings import Settings
from bridge.store import schema
from bridge.store.connections import all_connections
from bridge.worker.attempt import Connection
from tests.acceptance.commands import NOTHING, RULES


@contextmanager
def built(folder: Path, rules: str, *, work: bool = True, **environ: str) -> Iterator[Service]:
    """A service, built and closed again."""
    (folder / "rules.yaml").write_text(rules)
    basics = {
        "HEPPU_WEBHOOK_SECRET": "whsec_x",
        "BRIDGE_DATABASE_URL": f"sqlite:///{folder}/bridge.db",
        "BRIDGE_RULES_FILE": str(folder / "rules.yaml"),
    }
    service = build_service(basics | environ, work=work)
    try:
        yield service
    finally:
        service.close()


def slack(url: str, name: str = "slack") -> Connection:
    connector = Registry().connector("slack")
    return Connection(name, connector, settings_of(connector, name, {f"{name.upper()}_WEBHOOK_URL": url}))


def test_a_changed_secret_changes_the_fingerprint_and_nothing_else_does() -> None:
    first = slack("https://hooks.example.com/a").fingerprint
    assert slack("https://hooks.example.com/a").fingerprint == first
    assert slack("https://hooks.example.com/b").fingerprint != first
    assert "hooks" not in first


def test_a_changed_key_file_changes_the_fingerprint(tmp_path: Path) -> None:
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
            Connection("salesforce", connector, settings_of(connector, "salesforce", environ)).fingerprint
        )
    assert len(seen) == 2


def test_only_connections_in_use_are_opened(tmp_path: Path, partners: RunningSandbox) -> None:
    with built(tmp_path, RULES, **partners.environment) as service:
        assert {row["name"] for row in all_connections(service.database)} == {"hubspot", "slack", "twilio"}


def test_a_rule_that_is_switched_off_needs_no_account(tmp_path: Path) -> None:
    with built(tmp_path, NOTHING) as service:
        assert all_connections(service.database) == []


def test_deliveries_of_rules_that_are_gone_keep_their_connection(
    tmp_path: Path, partners: RunningSandbox
) -> None:
    with built(tmp_path, RULES, **partners.environment) as service, service.database.write() as connection:
        now = service.database.clock.now()
        row = {
            "id": "dlv_1", "trigger": "rule", "rule": "gone", "step_index": 0, "rules_hash": "", "action": "slack.post",
            "connection": "slack", "params": "{}", "options": "{}", "idempotency_key": "x", "occurred_at": now,
            "state": "pending", "run_at": now, "needs_follow_up": False, "created_at": now,
        }  # fmt: skip
        connection.execute(schema.deliveries.insert(), [row])
        connection.execute(schema.connections.delete())
    with built(tmp_path, NOTHING, **partners.environment) as service:
        assert [row["name"] for row in all_connections(service.database)] == ["slack"]
    with built(
        tmp_path, NOTHING
    ) as service:  # without settings it waits, and the service starts all the same
        assert service.worker is not None


def test_one_that_only_receives_needs_no_accounts(tmp_path: Path) -> None:
    with built(tmp_path, RULES, work=False) as service:
        assert service.worker is None
    with pytest.raises(ConfigError, match="HUBSPOT_ACCESS_TOKEN"), built(tmp_path, RULES):
        pass


def test_events_from_anybody_are_taken_only_when_somebody_says_so(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(NOTHING)
    environ = {
        "BRIDGE_DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db",
        "BRIDGE_RULES_FILE": str(tmp_path / "rules.yaml"),
    }
    with pytest.raises(ConfigError, match="--insecure"):
        build_service(environ)
    build_service(environ, insecure=True).close()


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:////nowhere/at/all/bridge.db"])
def test_a_database_that_cannot_be_kept_is_refused(url: str) -> None:
    with pytest.raises(ConfigError), only_server(url):
        pass


def test_looking_never_makes_a_database(tmp_path: Path) -> None:
    settings = Settings.load({"BRIDGE_DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db"})
    with pytest.raises(ConfigError, match="there is no database"), open_store(settings):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bridge.db").touch()
    with pytest.raises(ConfigError, match="the database is empty"), open_store(settings):
        pass


def test_a_database_that_is_away_is_told_without_its_password() -> None:
    settings = Settings.load({"BRIDGE_DATABASE_URL": "postgresql://bridge:hush@127.0.0.1:9/bridge"})
    with pytest.raises(StoreUnavailable) as error, open_store(settings):
        pass
    assert "hush" not in str(error.value)
