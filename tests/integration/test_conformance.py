"""The suite that every connector passes, run over every connector that is shipped."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

from bridge.connector import Action
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.testing import ConnectorConformance, Received, Reply, StubServer, connect, load_connector

PATHS = {"slack": "/services/*", "twilio": "*/Messages.json", "heppu": "*/calls/schedule", "email": "*"}
METHODS = {"email": "DATA"}
PHONE, EMAIL = "+12125550193", "wilhelmina.q@quistgaard.example"
"""The person of the suite's events."""
WORKED = "Working - Contacted"


class SandboxDouble:
    """The sandbox as the partner whose answers get lost."""

    def __init__(self, sandbox: RunningSandbox, partner: Any) -> None:
        self.environ: Mapping[str, str] = sandbox.environment
        self.sandbox = sandbox
        self.partner = partner

    def drop_next_response(self, when: Literal["before", "after"]) -> None:
        self.sandbox.fault(
            self.partner, path=PATHS[self.partner], method=METHODS.get(self.partner, "POST"), drop=when
        )

    def idempotency_keys(self) -> int:
        kind = {"heppu": "calls"}.get(self.partner, "messages")
        return len(getattr(getattr(self.sandbox, self.partner), kind))


class Receiver:
    """A service that takes each `webhook-id` once, as Standard Webhooks asks of it."""

    def __init__(self, service: StubServer, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.service = service
        self.taken: set[str] = set()
        service.answer("POST", "/heppu", self.take)

    def take(self, request: Received) -> Reply:
        self.taken.add(request.headers["webhook-id"])
        return Reply(204)

    def drop_next_response(self, when: Literal["before", "after"]) -> None:
        self.service.fail(Reply(drop=when))

    def idempotency_keys(self) -> int:
        return len(self.taken)


class HubspotDouble(SandboxDouble):
    """A portal that knows the suite's person, who has an open ticket: every action then writes in one request."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        super().__init__(sandbox, "hubspot")
        self.account = sandbox.hubspot
        with connect(TestHubspot.connector, self.environ) as portal:
            portal.setup()
        person = self.account.add("contacts", email=EMAIL, phone=PHONE)
        ticket = self.account.add("tickets", hs_pipeline_stage="911201", subject="Help")
        self.account.link("tickets", ticket.id, "contacts", person.id)

    def drop_next_response(self, when: Literal["before", "after"]) -> None:
        for method, path in (("POST", "*/batch/create"), ("PATCH", "*")):
            self.sandbox.fault("hubspot", method=method, path=path, drop=when)

    def idempotency_keys(self) -> int:
        made = len(self.account.calls) + len(self.account.notes) + len(self.account.tasks)
        named = sum("firstname" in contact.properties for contact in self.account.contacts)
        closed = sum(ticket.properties["hs_pipeline_stage"] == "911204" for ticket in self.account.tickets)
        return made + named + closed + len(self.account.contacts) - 1


class SalesforceDouble(SandboxDouble):
    """An org that knows the suite's person as a contact with an open case, and as a lead."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        super().__init__(sandbox, "salesforce")
        self.org = sandbox.salesforce
        person = self.org.add("Contact", LastName="Quistgaard", Email=EMAIL, Phone=PHONE)
        self.org.add("Case", ContactId=person.id)
        self.org.add("Lead", LastName="Quistgaard", Company="Cycles", Email=EMAIL, Phone=PHONE)

    def drop_next_response(self, when: Literal["before", "after"]) -> None:
        self.sandbox.fault("salesforce", method="PATCH", drop=when)

    def idempotency_keys(self) -> int:
        named = sum(bool(contact["FirstName"]) for contact in self.org.contacts)
        worked = sum(lead["Status"] == WORKED for lead in self.org.leads)
        closed = sum(case["Status"] == "Closed" for case in self.org.cases)
        return len(self.org.tasks) + named + worked + closed + len(self.org.contacts) - 1


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
        with StubServer() as service:
            yield Receiver(service, self.environ(service.url))

    def judges_bodies(self, action: Action) -> bool:
        return False


class TestHubspot(ConnectorConformance):
    connector = load_connector("hubspot")

    def environ(self, url: str) -> Mapping[str, str]:
        return {"HUBSPOT_ACCESS_TOKEN": "pat-na1-secret-token", "HUBSPOT_URL": url}

    @contextmanager
    def partner(self) -> Iterator[HubspotDouble]:
        with start_sandbox() as sandbox:
            yield HubspotDouble(sandbox)


class TestSalesforce(ConnectorConformance):
    connector = load_connector("salesforce")

    def environ(self, url: str) -> Mapping[str, str]:
        return {
            "SALESFORCE_URL": url,
            "SALESFORCE_CONSUMER_KEY": "consumer-key",
            "SALESFORCE_CONSUMER_SECRET": "secret-of-the-consumer",
        }

    def prepare(self, stand_in: StubServer) -> None:
        session = {"access_token": "secret-session", "instance_url": "https://acme.my.salesforce.com"}
        stand_in.answer("POST", "/services/oauth2/token", Reply(200, session))

    def params(self, action: Action) -> Mapping[str, Any]:
        return {"status": WORKED} if action.name == "update_lead" else super().params(action)

    @contextmanager
    def partner(self) -> Iterator[SalesforceDouble]:
        with start_sandbox() as sandbox:
            yield SalesforceDouble(sandbox)
