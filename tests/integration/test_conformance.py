"""The conformance suite, run over every shipped connector."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal
from urllib.parse import unquote_plus, urlsplit

from bridge.connector import Action
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.testing import ConnectorConformance, Received, Reply, StubServer, connect, load_connector

When = Literal["before", "after"]
PATHS = {
    "slack": "/services/*",
    "teams": "*/invoke",
    "twilio": "*/Messages.json",
    "heppu": "*/calls/schedule",
    "email": "*",
}
METHODS = {"email": "DATA"}
PHONE, EMAIL = "+12125550193", "wilhelmina.q@quistgaard.example"
"""The contact of the suite's events."""
WORKING = "Working - Contacted"


class SandboxProvider:
    """A mock provider of the sandbox whose responses can be dropped."""

    def __init__(self, sandbox: RunningSandbox, name: str) -> None:
        self.environ: Mapping[str, str] = sandbox.environment
        self.sandbox = sandbox
        self.name = name

    def drop_next_response(self, when: When, *, nth: int = 1, status: int | None = None) -> None:
        self.spoil(METHODS.get(self.name, "POST"), PATHS[self.name], when, nth, status)

    def spoil(self, method: str, path: str, when: When, nth: int, status: int | None) -> None:
        if nth > 1:
            self.sandbox.fault(self.name, method=method, path=path, times=nth - 1, delay=0)  # as usual
        self.sandbox.fault(self.name, method=method, path=path, drop=when, status=status)

    def received_text(self) -> str:
        requests = self.sandbox.requests_to(self.name)
        return "\n".join(
            f"{unquote_plus(request.path)} {request.query} {request.body}" for request in requests
        )

    def side_effect_count(self) -> int:
        records = {"heppu": "calls"}.get(self.name, "messages")
        return len(getattr(getattr(self.sandbox, self.name), records))


class WebhookReceiver:
    """A service that processes each `webhook-id` once, as Standard Webhooks requires."""

    def __init__(self, service: StubServer, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.service = service
        self.processed_ids: set[str] = set()
        service.answer("POST", "/heppu", self.receive)

    def receive(self, request: Received) -> Reply:
        self.processed_ids.add(request.headers["webhook-id"])
        return Reply(204)

    def drop_next_response(self, when: When, *, nth: int = 1, status: int | None = None) -> None:
        self.service.drop_next_write(when, nth=nth, status=status)

    def received_text(self) -> str:
        return self.service.received_text()

    def side_effect_count(self) -> int:
        return len(self.processed_ids)


@cache
def _hubspot_properties() -> dict[str, dict[str, Any]]:
    """Return the properties by object type after set-up, which takes more requests than most tests."""
    with start_sandbox() as sandbox:
        with connect(TestHubspot.connector, sandbox.environment) as portal:
            portal.setup()
        return {name: dict(kind.properties) for name, kind in sandbox.hubspot.crm.types.items()}


class HubspotProvider(SandboxProvider):
    """A HubSpot account with the suite's contact and an open ticket, so that every action writes with one request."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        super().__init__(sandbox, "hubspot")
        self.account = sandbox.hubspot
        for kind, properties in _hubspot_properties().items():
            self.account.crm.types[kind].properties |= properties
        contact = self.account.add("contacts", email=EMAIL, phone=PHONE)
        ticket = self.account.add("tickets", hs_pipeline_stage="911201", subject="Help")
        self.account.link("tickets", ticket.id, "contacts", contact.id)
        self.members = self.account.add_list("Test ride interest").members

    def drop_next_response(self, when: When, *, nth: int = 1, status: int | None = None) -> None:
        writes = (
            ("POST", "*/batch/create"),
            ("PATCH", "*"),
            ("POST", "*/unsubscribe-all"),
            ("PUT", "*/memberships/add"),
        )
        for method, path in writes:
            self.spoil(method, path, when, nth, status)

    def side_effect_count(self) -> int:
        kinds = ("calls", "notes", "tasks", "tickets", "communications", "emails", "deals", "meetings")
        created = sum(len(self.account.objects(kind)) for kind in kinds) - 1
        # A new record also fills in the contact's name.
        named = 0 if created else sum("firstname" in contact.properties for contact in self.account.contacts)
        closed = sum(ticket.properties["hs_pipeline_stage"] == "911204" for ticket in self.account.tickets)
        unsubscribed = len(self.account.crm.unsubscribed)
        contacts = len(self.account.contacts) - 1
        return created + named + closed + unsubscribed + contacts + len(self.members)


class SalesforceProvider(SandboxProvider):
    """An org with the suite's contact, as a Contact with an open case and as a Lead."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        super().__init__(sandbox, "salesforce")
        self.org = sandbox.salesforce
        contact = self.org.add("Contact", LastName="Quistgaard", Email=EMAIL, Phone=PHONE)
        self.org.add("Case", ContactId=contact.id)
        self.org.add("Lead", LastName="Quistgaard", Company="Cycles", Email=EMAIL, Phone=PHONE)
        self.org.add_campaign("Spring test rides")
        autumn = self.org.add_campaign("Autumn test rides")
        self.org.add("CampaignMember", CampaignId=autumn.id, ContactId=contact.id)

    def drop_next_response(self, when: When, *, nth: int = 1, status: int | None = None) -> None:
        self.spoil("PATCH", "*", when, nth, status)
        self.spoil("POST", "*/composite/sobjects", when, nth, status)

    def side_effect_count(self) -> int:
        activities = len(self.org.tasks) + len(self.org.records_of("Event"))
        members = self.org.records_of("CampaignMember")
        joined = len(members) - 1 + (members[0]["Status"] == "Responded")
        # A Task, an Event and a new member also fill in the contact's name.
        is_filled = activities or joined
        named = 0 if is_filled else sum(bool(contact["FirstName"]) for contact in self.org.contacts)
        working = sum(lead["Status"] == WORKING for lead in self.org.leads)
        closed = sum(case["Status"] == "Closed" for case in self.org.cases)
        opted_out = any(contact["HasOptedOutOfEmail"] for contact in self.org.contacts)
        return activities + joined + named + working + closed + opted_out + len(self.org.contacts) - 1


class ZendeskProvider(SandboxProvider):
    """A Zendesk account with a ticket to update, and lists of two records a page."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        super().__init__(sandbox, "zendesk")
        self.account = sandbox.zendesk
        self.account.page_size = 2
        self.account.add_ticket(subject="Help")

    def drop_next_response(self, when: When, *, nth: int = 1, status: int | None = None) -> None:
        for method in ("POST", "PUT"):
            self.spoil(method, "/api/v2/*", when, nth, status)

    def side_effect_count(self) -> int:
        records = self.account.records()
        return len(records["users"]) + len(records["tickets"]) + len(self.account.audits[1]) - 2


@contextmanager
def sandbox_provider(name: str) -> Iterator[SandboxProvider]:
    with start_sandbox() as sandbox:
        yield SandboxProvider(sandbox, name)


class TestSlack(ConnectorConformance):
    connector = load_connector("slack")

    def environ(self, url: str) -> Mapping[str, str]:
        return {"SLACK_WEBHOOK_URL": f"{url}/services/T0001/B0001/secret-of-the-webhook"}

    def provider(self):
        return sandbox_provider("slack")

    def confirming_statuses(self, action: Action) -> Collection[int]:
        return (204,)  # servers that accept Slack's messages


class SlackBotProvider(SandboxProvider):
    """A workspace whose lists have pages of two."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        super().__init__(sandbox, "slack")
        self.environ = sandbox.slack_bot_environment | {"SLACK_CHANNEL": "C00TEAM01"}
        sandbox.slack.workspace.page_size = 2

    def spoil(self, method: str, path: str, when: When, nth: int, status: int | None) -> None:
        super().spoil(method, "/api/chat.postMessage", when, nth, status)


class TestSlackBot(ConnectorConformance):
    connector = load_connector("slack")

    def environ(self, url: str) -> Mapping[str, str]:
        return {"SLACK_BOT_TOKEN": "xoxb-secret-token", "SLACK_CHANNEL": "C00TEAM01", "SLACK_URL": url}

    @contextmanager
    def provider(self):
        with start_sandbox() as sandbox:
            yield SlackBotProvider(sandbox)


class TestApprise(ConnectorConformance):
    connector = load_connector("apprise")
    http = False  # the library says only whether a service took a message

    def environ(self, url: str) -> Mapping[str, str]:
        return {"APPRISE_URL": f"{url.replace('http', 'json')}/secret-of-the-service"}


class TestTeams(ConnectorConformance):
    connector = load_connector("teams")

    def environ(self, url: str) -> Mapping[str, str]:
        return {
            "TEAMS_WEBHOOK_URL": f"{url}/workflows/0a1b/triggers/manual/paths/invoke?sig=secret-of-the-workflow"
        }

    def provider(self):
        return sandbox_provider("teams")


class TestTwilio(ConnectorConformance):
    connector = load_connector("twilio")

    def environ(self, url: str) -> Mapping[str, str]:
        return {
            "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
            "TWILIO_AUTH_TOKEN": "secret-auth-token",
            "TWILIO_FROM": "+15005550006",
            "TWILIO_WHATSAPP_FROM": "+15005550006",
            "TWILIO_URL": url,
        }

    def params(self, action: Action) -> Mapping[str, Any]:
        if action.name == "send_whatsapp":
            return {"body": "We call you back today."}
        return super().params(action)

    def params_not_sent(self, action: Action) -> Collection[str]:
        return {"template", "variables", "language"}  # the person has just written, so free text is sent

    def provider(self):
        return sandbox_provider("twilio")


class TestHeppu(ConnectorConformance):
    connector = load_connector("heppu")

    def environ(self, url: str) -> Mapping[str, str]:
        return {"HEPPU_API_URL": f"{url}/api/v1", "HEPPU_API_KEY": "secret-api-key"}

    def provider(self):
        return sandbox_provider("heppu")


class TestEmail(ConnectorConformance):
    connector = load_connector("email")
    http = False

    def environ(self, url: str) -> Mapping[str, str]:
        parts = urlsplit(url)
        return {
            "EMAIL_SMTP_URL": f"smtp://{parts.hostname}:{parts.port}",
            "EMAIL_FROM": "Harbour Light <hello@harbourlight.example>",
        }

    def params_not_sent(self, action: Action) -> Collection[str]:
        return {"unsubscribe"}  # whether a message that may have a link to unsubscribe gets one

    def provider(self):
        return sandbox_provider("email")


class TestHttp(ConnectorConformance):
    connector = load_connector("http")
    one_account = False
    url = ""

    def environ(self, url: str) -> Mapping[str, str]:
        self.url = url
        return {
            "HTTP_ALLOWED_HOSTS": urlsplit(url).netloc,
            "HTTP_SECRET": "whsec_" + base64.b64encode(b"thirty-two bytes of a secret key").decode(),
            "HTTP_TARGETS_ERP": f"{url}/heppu?key=secret-of-the-target",
            "HTTP_TARGETS_ERP_HEADER": "X-Key: secret-of-the-header",
        }

    def params(self, action: Action) -> Mapping[str, Any]:
        return {"target": "erp"} if action.name == "request" else {"url": f"{self.url}/heppu"}

    def params_not_sent(self, action: Action) -> Collection[str]:
        return {"url", "target", "method", "headers", "id_from"}  # the receiver, and what is not in the body

    @contextmanager
    def provider(self) -> Iterator[WebhookReceiver]:
        with StubServer() as service:
            yield WebhookReceiver(service, self.environ(service.url))

    def confirming_statuses(self, action: Action) -> Collection[int]:
        return range(200, 300)


class TestHubspot(ConnectorConformance):
    connector = load_connector("hubspot")

    def params_not_sent(self, action: Action) -> Collection[str]:
        # The fake provider has the contact. Names of outcomes, pipelines and stages become IDs. Texts have no subject.
        own = {
            "log_call": {"disposition"},
            "create_ticket": {"pipeline", "stage"},
            "create_deal": {"pipeline", "stage", "closes_in"},
            "create_meeting": {
                "start",
                "end",
                "duration",
                "time_zone",
                "properties",
            },  # times become milliseconds
            "add_to_list": {"list"},
            "log_message": {"subject"},
        }
        return {"new_contact"} | own.get(action.name, set())

    def environ(self, url: str) -> Mapping[str, str]:
        return {"HUBSPOT_ACCESS_TOKEN": "pat-na1-secret-token", "HUBSPOT_URL": url}

    def params(self, action: Action) -> Mapping[str, Any]:
        own = {"close_ticket": {"without_id": "newest"}, "set_opt_out": {"channel": "email"}}
        return own.get(action.name) or super().params(action)

    @contextmanager
    def provider(self) -> Iterator[HubspotProvider]:
        with start_sandbox() as sandbox:
            yield HubspotProvider(sandbox)


class TestSalesforce(ConnectorConformance):
    connector = load_connector("salesforce")

    def params_not_sent(self, action: Action) -> Collection[str]:
        # The fake provider has the contact, and its Tasks lack fields and choices of the examples.
        own = {
            "log_call": {"call_type", "status", "properties"},
            "log_chat": {"properties"},
            "upsert_contact": {"last_name"},
            "create_event": {"start", "end", "duration", "time_zone", "properties"},  # times become UTC
            "add_to_campaign": {"campaign", "properties"},
            "update_campaign_member": {"campaign", "properties"},
        }
        return {"new_contact"} | own.get(action.name, set())

    def environ(self, url: str) -> Mapping[str, str]:
        return {
            "SALESFORCE_URL": url,
            "SALESFORCE_CONSUMER_KEY": "consumer-key",
            "SALESFORCE_CONSUMER_SECRET": "secret-of-the-consumer",
        }

    def prepare(self, server: StubServer) -> None:
        session = {"access_token": "secret-session", "instance_url": "https://acme.my.salesforce.com"}
        server.answer("POST", "/services/oauth2/token", Reply(200, session))

    def params(self, action: Action) -> Mapping[str, Any]:
        own = {
            "close_case": {"without_id": "newest"},
            "update_lead": {"status": WORKING},
            "set_opt_out": {"channel": "email"},
            "update_campaign_member": {"campaign": "Autumn test rides", "status": "Responded"},
        }
        return own.get(action.name) or super().params(action)

    @contextmanager
    def provider(self) -> Iterator[SalesforceProvider]:
        with start_sandbox() as sandbox:
            yield SalesforceProvider(sandbox)


class TestZendesk(ConnectorConformance):
    connector = load_connector("zendesk")

    def params_not_sent(self, action: Action) -> Collection[str]:
        # Names become IDs, and a recording needs both numbers.
        named = {"group", "brand", "form", "assignee", "custom_fields"}
        return named | {"from_number", "to_number", "direction", "recording_url", "phone"}

    def environ(self, url: str) -> Mapping[str, str]:
        return {
            "ZENDESK_URL": url,
            "ZENDESK_CLIENT_ID": "heppu_bridge",
            "ZENDESK_CLIENT_SECRET": "secret-of-the-client",
        }

    def prepare(self, server: StubServer) -> None:
        session = {"access_token": "secret-session", "token_type": "bearer", "expires_in": 1800}
        server.answer("POST", "/oauth/tokens", Reply(200, session))

    def params(self, action: Action) -> Mapping[str, Any]:
        own = {
            "update_ticket": {"ticket": "1", "status": "open", "comment": "The caller asks for a new date."}
        }
        return own.get(action.name) or super().params(action)

    @contextmanager
    def provider(self) -> Iterator[ZendeskProvider]:
        with start_sandbox() as sandbox:
            yield ZendeskProvider(sandbox)


class PipedriveProvider(SandboxProvider):
    """A Pipedrive account in which set-up was run, with the suite's contact without a name."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        super().__init__(sandbox, "pipedrive")
        self.environ = {**self.environ, "PIPEDRIVE_SEARCHES_PER_SECOND": "10000"}
        self.account = sandbox.pipedrive
        with connect(TestPipedrive.connector, self.environ) as company:
            company.setup()
        self.account.add("person", name=PHONE, email=EMAIL, phone=PHONE)
        self.account.add_field("person", "Plan", "enum", "Gold", "Silver")
        self.account.add_field("deal", "Source", "varchar")

    def drop_next_response(self, when: When, *, nth: int = 1, status: int | None = None) -> None:
        paths = ("POST", "/api/v2/activities"), ("POST", "/api/v2/deals"), ("PATCH", "/api/v2/persons/*")
        for method, path in paths:
            self.spoil(method, path, when, nth, status)

    def side_effect_count(self) -> int:
        created = len(self.account.activities) + len(self.account.deals) + len(self.account.persons) - 1
        # A new record also fills in the person's name.
        return created + (0 if created else sum(bool(person["last_name"]) for person in self.account.persons))


class TestPipedrive(ConnectorConformance):
    connector = load_connector("pipedrive")

    def params_not_sent(self, action: Action) -> Collection[str]:
        # The fake provider has the contact. Names of options, stages and types become IDs or keys.
        own = {
            "log_call": {"call_type", "properties"},
            "log_chat": {"chat_type", "properties"},
            "upsert_person": {"first_name", "properties"},
            "create_deal": {"pipeline", "stage"},
        }
        return {"new_contact"} | own[action.name]

    def environ(self, url: str) -> Mapping[str, str]:
        return {
            "PIPEDRIVE_API_TOKEN": "secret-token",
            "PIPEDRIVE_URL": url,
            "PIPEDRIVE_DO_NOT_CALL_FILTER": "17",
        }

    @contextmanager
    def provider(self) -> Iterator[PipedriveProvider]:
        with start_sandbox() as sandbox:
            yield PipedriveProvider(sandbox)
