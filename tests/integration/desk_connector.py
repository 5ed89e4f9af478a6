"""A small, right connector for the tests of the conformance suite, in a form that a test can break in one place.

Its provider lists tickets in pages of two. Its one action finds or creates a contact and opens a ticket, so that an
attempt makes two writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from pydantic import SecretStr

from bridge.connector import (
    Action,
    Connector,
    ConnectorSettings,
    Context,
    Params,
    Properties,
    ProviderUrl,
    Success,
    failure_from_exception,
    failure_from_status,
    http_client,
    param,
    parse_retry_after,
    per_conversation,
)
from bridge.errors import DeliveryError, OutcomeUnknown
from bridge.testing import ConnectorConformance, Received, Reply, StubServer

PAGE = 2


class Settings(ConnectorSettings):
    """`DESK_URL`, `DESK_USER` and `DESK_TOKEN`."""

    url: ProviderUrl
    user: str
    token: SecretStr


class Ticket(Params):
    """A ticket."""

    subject: str = param(..., "Subject.", example="A call failed")
    text: str | None = param("{{ event.summary }}", "Text.", example="Wants to move a booking.")
    email: str | None = param("{{ contact.email }}", "Requester.", example="ines@okafor.example")
    properties: Properties = param({}, "Other fields.", example={"priority": "high"})


class Client:
    """The client. Tests override single methods of it."""

    def __init__(self, settings: Settings) -> None:
        self.http = self.build(settings)

    def build(self, settings: Settings) -> Any:
        return http_client(base_url=settings.url, auth=(settings.user, settings.token.get_secret_value()))

    def error(self, response: Any) -> DeliveryError:
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        return failure_from_status(
            response.status_code, f"the desk returned {response.status_code}", retry_after
        )

    def send(self, method: str, path: str, **content: Any) -> Any:
        return self.http.request(method, path, **content)

    def ask(self, method: str, path: str, holds: str, **content: Any) -> Any:
        response = self.send(method, path, **content)
        if not response.is_success:
            raise self.error(response)
        return self.read(response, holds)

    def read(self, response: Any, holds: str) -> Any:
        try:
            return response.json()[holds]
        except (ValueError, KeyError, TypeError):
            raise OutcomeUnknown("the response is not from the desk", reason="server_error") from None

    def contact(self, ticket: Ticket, context: Context) -> str:
        found = self.ask("GET", "/contacts", "contacts", params={"email": ticket.email})
        return found[0] if found else self.ask("POST", "/contacts", "id", json={"email": ticket.email})

    def reference(self, context: Context) -> str:
        return context.idempotency_token

    def body(self, ticket: Ticket, context: Context) -> dict[str, Any]:
        fields = {name: item.value for name, item in ticket.properties.items()}
        return {
            "subject": ticket.subject,
            "text": ticket.text,
            "reference": self.reference(context),
            **fields,
        }

    def save(self, ticket: Ticket, context: Context) -> Success:
        body = self.body(ticket, context) | {"contact": self.contact(ticket, context)}
        if context.existing_id:
            return Success(self.ask("PATCH", f"/tickets/{context.existing_id}", "id", json=body))
        return self.result(self.ask("POST", "/tickets", "id", json=body), ticket)

    def result(self, ticket_id: str, ticket: Ticket) -> Success:
        return Success(ticket_id, "created")

    def pages(self) -> Iterator[list[dict[str, Any]]]:
        page, more = 0, True
        while more:
            answer = self.ask("GET", "/tickets", "list", params={"page": page})
            more, page = answer["more"], page + 1
            yield answer["tickets"]

    def matches(self, entry: Mapping[str, Any], context: Context) -> bool:
        return entry["reference"] == self.reference(context)

    def find(self, ticket: Ticket, context: Context) -> Success | None:
        for page in self.pages():
            for entry in page:
                if self.matches(entry, context):
                    return Success(entry["id"])
        return None

    def check(self) -> str:
        self.ask("GET", "/me", "name")
        return "authenticated"

    def close(self) -> None:
        self.http.close()


def classify_error(error: Exception) -> DeliveryError | None:
    """Classify network errors."""
    return failure_from_exception(error)


def build_connector(
    desk: type[Any] = Client,
    *,
    settings: type[ConnectorSettings] = Settings,
    params: type[Params] = Ticket,
    classify: Callable[[Exception], DeliveryError | None] = classify_error,
    idempotent: bool | timedelta = False,
) -> Connector:
    """Return the connector `desk` whose client is this class."""
    connector = Connector("desk", settings=settings, description="Opens tickets.")

    @connector.client
    def client(settings: Any) -> Any:
        """Return the client."""
        return desk(settings)

    @connector.check
    def check(desk: Any) -> str:
        """Read the account."""
        return str(desk.check())

    connector.classify_error(classify)

    def open_ticket(desk: Any, ticket: Any, context: Context) -> Success:
        """Open a ticket."""
        return desk.save(ticket, context)  # type: ignore[no-any-return]

    open_ticket.__annotations__["ticket"] = params
    action: Action = connector.action(idempotency=per_conversation, idempotent=idempotent)(open_ticket)
    if idempotent is not True:

        @action.lookup
        def find_ticket(desk: Any, ticket: Any, context: Context) -> Success | None:
            """Find the ticket by its reference."""
            return desk.find(ticket, context)  # type: ignore[no-any-return]

    return connector


class FakeDesk:
    """The provider: contacts by address, and tickets in pages of two."""

    def __init__(self, server: StubServer, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.server = server
        self.contacts: list[str] = []
        self.tickets: list[dict[str, Any]] = []
        self.status = 201
        server.answer("GET", "/me", Reply(200, {"name": "Harbor Light"}))
        server.answer("GET", "/contacts", self.find_contacts)
        server.answer("POST", "/contacts", self.create_contact)
        server.answer("GET", "/tickets", self.list_tickets)
        server.answer("POST", "/tickets", self.create_ticket)
        server.answer("PATCH", "/tickets/*", self.update_ticket)

    def find_contacts(self, request: Received) -> Reply:
        found = [f"C-{n}" for n, email in enumerate(self.contacts) if email == request.query.get("email")]
        return Reply(200, {"contacts": found})

    def create_contact(self, request: Received) -> Reply:
        self.contacts.append(request.json["email"])
        return Reply(201, {"id": f"C-{len(self.contacts) - 1}"})

    def list_tickets(self, request: Received) -> Reply:
        start = int(request.query.get("page", 0)) * PAGE
        more = len(self.tickets) > start + PAGE
        return Reply(200, {"list": {"tickets": self.tickets[start : start + PAGE], "more": more}})

    def create_ticket(self, request: Received) -> Reply:
        key = request.headers.get("idempotency-key")
        known = [ticket for ticket in self.tickets if key and ticket["key"] == key]
        if known:
            return Reply(self.status, {"id": known[0]["id"]})
        self.tickets.append(request.json | {"id": f"T-{len(self.tickets) + 1}", "key": key})
        return Reply(self.status, {"id": self.tickets[-1]["id"]})

    def update_ticket(self, request: Received) -> Reply:
        ticket_id = request.path.rpartition("/")[2]
        [ticket] = [ticket for ticket in self.tickets if ticket["id"] == ticket_id]
        ticket.update(request.json)
        return Reply(200, {"id": ticket_id})

    def drop_next_response(self, when: Any, *, nth: int = 1, status: int | None = None) -> None:
        self.server.drop_next_write(when, nth=nth, status=status)

    def side_effect_count(self) -> int:
        return len(self.contacts) + len(self.tickets)

    def received_text(self) -> str:
        return self.server.received_text()


class TicketConformance(ConnectorConformance):
    """The suite for a connector of `build_connector`."""

    __test__ = False

    def environ(self, url: str) -> Mapping[str, str]:
        return {"DESK_URL": url, "DESK_USER": "bridge@harbor.example", "DESK_TOKEN": "desk-secret-token"}

    @contextmanager
    def provider(self) -> Iterator[FakeDesk]:
        with StubServer() as server:
            yield FakeDesk(server, self.environ(server.url))
