"""The suite that every connector passes, run over every connector that is shipped."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

from bridge.connector import Action
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.testing import ConnectorConformance, Received, Reply, StandIn, load_connector

PATHS = {"slack": "/services/*", "twilio": "*/Messages.json", "heppu": "*/calls/schedule", "email": "*"}
METHODS = {"email": "DATA"}


class SandboxDouble:
    """The sandbox as the partner whose answers get lost."""

    def __init__(self, sandbox: RunningSandbox, partner: Any) -> None:
        self.environ: Mapping[str, str] = sandbox.environment
        self.sandbox = sandbox
        self.partner = partner

    def lose(self, when: Literal["before", "after"]) -> None:
        self.sandbox.fault(
            self.partner, path=PATHS[self.partner], method=METHODS.get(self.partner, "POST"), drop=when
        )

    def effects(self) -> int:
        kind = {"heppu": "calls"}.get(self.partner, "messages")
        return len(getattr(getattr(self.sandbox, self.partner), kind))


class Receiver:
    """A service that takes each `webhook-id` once, as Standard Webhooks asks of it."""

    def __init__(self, service: StandIn, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.service = service
        self.taken: set[str] = set()
        service.answer("POST", "/heppu", self.take)

    def take(self, request: Received) -> Reply:
        self.taken.add(request.headers["webhook-id"])
        return Reply(204)

    def lose(self, when: Literal["before", "after"]) -> None:
        self.service.fail(Reply(drop=when))

    def effects(self) -> int:
        return len(self.taken)


@contextmanager
def sandbox_double(partner: str) -> Iterator[SandboxDouble]:
    with start_sandbox() as sandbox:
        yield SandboxDouble(sandbox, partner)


class TestSlack(ConnectorConformance):
    connector = load_connector("slack")

    def environ(self, url: str) -> Mapping[str, str]:
        return {"SLACK_WEBHOOK_URL": f"{url}/services/T0001/B0001/secret-of-the-webhook"}

    def partner(self):
        return sandbox_double("slack")


class TestTwilio(ConnectorConformance):
    connector = load_connector("twilio")

    def environ(self, url: str) -> Mapping[str, str]:
        return {
            "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
            "TWILIO_AUTH_TOKEN": "secret-auth-token",
            "TWILIO_FROM": "+15005550006",
            "TWILIO_URL": url,
        }

    def partner(self):
        return sandbox_double("twilio")


class TestHeppu(ConnectorConformance):
    connector = load_connector("heppu")

    def environ(self, url: str) -> Mapping[str, str]:
        return {"HEPPU_API_URL": f"{url}/api/v1", "HEPPU_API_KEY": "secret-api-key"}

    def partner(self):
        return sandbox_double("heppu")


class TestEmail(ConnectorConformance):
    connector = load_connector("email")
    http = False

    def environ(self, url: str) -> Mapping[str, str]:
        parts = urlsplit(url)
        return {
            "EMAIL_SMTP_URL": f"smtp://{parts.hostname}:{parts.port}",
            "EMAIL_FROM": "Harbour Light <hello@harbourlight.example>",
        }

    def partner(self):
        return sandbox_double("email")


class TestHttp(ConnectorConformance):
    connector = load_connector("http")
    url = ""

    def environ(self, url: str) -> Mapping[str, str]:
        self.url = url
        return {
            "HTTP_ALLOWED_HOSTS": urlsplit(url).netloc,
            "HTTP_SECRET": "whsec_" + base64.b64encode(b"thirty-two bytes of a secret key").decode(),
        }

    def params(self, action: Action) -> Mapping[str, Any]:
        return {"url": f"{self.url}/heppu"}

    @contextmanager
    def partner(self) -> Iterator[Receiver]:
        with StandIn() as service:
            yield Receiver(service, self.environ(service.url))

    def judges_bodies(self, action: Action) -> bool:
        return False


class TestHubspot(ConnectorConformance):
    connector = load_connector("hubspot")

    def environ(self, url: str) -> Mapping[str, str]:
        return {"HUBSPOT_ACCESS_TOKEN": "pat-na1-secret-token", "HUBSPOT_URL": url}


class TestSalesforce(ConnectorConformance):
    connector = load_connector("salesforce")

    def environ(self, url: str) -> Mapping[str, str]:
        return {
            "SALESFORCE_URL": url,
            "SALESFORCE_CONSUMER_KEY": "consumer-key",
            "SALESFORCE_CONSUMER_SECRET": "secret-of-the-consumer",
        }

    def prepare(self, stand_in: StandIn) -> None:
        session = {"access_token": "secret-session", "instance_url": "https://acme.my.salesforce.com"}
        stand_in.answer("POST", "/services/oauth2/token", Reply(200, session))
