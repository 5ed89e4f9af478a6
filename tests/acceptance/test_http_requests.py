"""Requests to secret targets from the real service, and a connector whose refresh token changes, over a restart."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from bridge.samples import refresh_sample, sample
from bridge.testing import Received, Reply, StubServer
from tests.acceptance.service_process import eventually, running_service

RULES = """
version: 1
rules:
  - name: into-the-workflow
    when: call.busy
    do:
      - use: http.request
        with: {target: n8n, id_from: ticket, body: {name: "{{ contact.name }}"}}
      - use: http.request
        with: {target: refused}
      - use: ledger.add
"""
LEDGER = '''
from pydantic import SecretStr

from bridge.connector import (
    Connector, ConnectorSettings, JsonApi, Params, ProviderUrl, Success, per_event, request_token,
)


class Settings(ConnectorSettings):
    url: ProviderUrl
    refresh_token: SecretStr


connector = Connector(
    "ledger",
    settings=Settings,
    description="Adds entries.",
    first_refresh_token="refresh_token",
    build_client=lambda settings, tokens: JsonApi("Ledger", settings.url, token=tokens),
)


@connector.token
def token(settings, previous):
    refresh = previous.refresh if previous else settings.refresh_token
    return request_token(f"{settings.url}/token", {"refresh_token": refresh}, previous=previous)


@connector.action(idempotency=per_event, idempotent=True)
def add(api, params: Params, context):
    """Add an entry."""
    return Success(id=str(api.write("POST", "/entries", json={}, holds="id")))
'''
SECRETS = ("QX02-of-the-url", "QX02-of-the-header", "QX02-refresh-0", "QX02-refresh-1", "QX02-access-1")


class Ledger:
    """A provider that accepts each refresh token once."""

    def __init__(self, server: StubServer) -> None:
        self.refreshes = 0
        self.entries = 0
        server.answer("POST", "/token", self.issue)
        server.answer("POST", "/entries", self.add)

    def issue(self, request: Received) -> Reply:
        if request.form["refresh_token"] != [f"QX02-refresh-{self.refreshes}"]:
            return Reply(400, {"error": "invalid_grant"})
        self.refreshes += 1
        answer = {
            "access_token": f"QX02-access-{self.refreshes}",
            "refresh_token": f"QX02-refresh-{self.refreshes}",
        }
        return Reply(200, answer)

    def add(self, request: Received) -> Reply:
        if request.headers["authorization"] != f"Bearer QX02-access-{self.refreshes}":
            return Reply(401)
        self.entries += 1
        return Reply(201, {"id": self.entries})


def test_secret_targets_and_tokens_work_over_a_restart_and_show_nowhere(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES, "utf-8")
    (tmp_path / "connectors").mkdir()
    (tmp_path / "connectors" / "ledger.py").write_text(LEDGER, "utf-8")
    with StubServer() as server:
        ledger = Ledger(server)
        server.answer("POST", "/n8n", Reply(200, {"ticket": "T-7"}))
        environ = {
            "BRIDGE_SECRET_KEY": "a secret key of the tests with 32 characters",
            "HTTP_TARGETS_N8N": f"{server.url}/n8n?key={SECRETS[0]}",
            "HTTP_TARGETS_N8N_HEADER": f"X-Key: {SECRETS[1]}",
            "HTTP_TARGETS_REFUSED": f"{server.url}/refused/{SECRETS[0]}",
            "LEDGER_URL": server.url,
            "LEDGER_REFRESH_TOKEN": "QX02-refresh-0",
        }
        for number in (1, 2):
            with running_service(tmp_path, environ) as running:
                running.post(refresh_sample(sample("call.busy"), datetime.now(UTC)))
                done = [f"/refused/{SECRETS[0]}", "/entries", "/n8n"] * number
                assert eventually(
                    lambda done=done: (
                        sorted(done) == sorted(r.path for r in server.requests if r.path != "/token")
                    )
                )
                shown = repr(running.api_items("deliveries?limit=20") + running.api_items("connections"))
                log = running.log.read_text("utf-8", "replace")
            assert not [secret for secret in SECRETS if secret in shown + log]
        to_n8n = [request for request in server.requests if request.path == "/n8n"]
        assert [request.headers["x-key"] for request in to_n8n] == [SECRETS[1]] * 2
        assert (ledger.entries, ledger.refreshes) == (2, 1), (
            "the second process uses the token that the first one stored"
        )
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("bridge.db*"))
    assert stored
    assert not [secret for secret in SECRETS if secret.encode() in stored]
