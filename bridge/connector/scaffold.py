"""Scaffold for `bridge connectors new NAME`: writes a working connector and its test, to be adapted."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from bridge.connector.crm_scaffold import CRM_CONNECTOR, CRM_TEST
from bridge.connector.discovery import shipped_folder, sources_in
from bridge.errors import ConfigError

_CONNECTOR = Template('''\
"""$title: open tickets for calls and chats."""

from __future__ import annotations

from pydantic import SecretStr

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    JsonApi,
    Limits,
    Params,
    ProviderUrl,
    Success,
    param,
    per_event,
)


class Settings(ConnectorSettings):
    """`${capitals}_URL` and `${capitals}_TOKEN`, from the environment."""

    url: ProviderUrl
    """URL of the account."""
    token: SecretStr
    """API token of the account."""


# JsonApi keeps every request within the attempt's deadline, and knows what each failure proves.
connector = Connector(
    "$name",
    settings=Settings,
    limits=Limits(per_second=5, concurrency=4),
    description="Opens tickets in $title.",
    build_client=lambda settings: JsonApi("$title", settings.url, bearer=settings.token),
)


@connector.check
def check(api: JsonApi) -> str:
    """Authenticate and return what was verified. Writes nothing."""
    api.read("/me")
    return "authenticated"


class Ticket(Params):
    """The params that a rule sets under `with:`. A default in {{ }} is a template of the event."""

    title: str = param(..., "Ticket title.", example="A call failed", max_length=200)
    summary: str | None = param("{{ event.summary }}", "Description.", example="Wants to move a booking.")
    email: str | None = param("{{ contact.email }}", "Email address.", example="ines@okafor.example")


@connector.action(idempotency=per_event, dedupe_by="title")
def open_ticket(api: JsonApi, ticket: Ticket, context: Context) -> Success:
    """Open a ticket."""
    body = ticket.model_dump() | {"reference": context.idempotency_token}
    return Success(id=str(api.write("POST", "/tickets", json=body, holds="id")))


@open_ticket.lookup
def find_ticket(api: JsonApi, ticket: Ticket, context: Context) -> Success | None:
    """Return the ticket that an attempt with unknown outcome created. None is proof that it created none."""
    del ticket
    tickets = api.read("/tickets", query={"reference": context.idempotency_token}, holds="tickets", kind=list)
    return next((Success(id=str(match["id"])) for match in tickets), None)
''')

_TEST = Template('''\
"""Tests of the $title connector: the requests it sends, and the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from bridge.testing import (
    ConnectorConformance,
    Received,
    Reply,
    StubServer,
    event,
    load_connector,
    run_action,
)

connector = load_connector("$name", Path(__file__).parents[1])


class FakeTickets:
    """A fake $title: it stores tickets and finds them by their reference."""

    def __init__(self, server: StubServer) -> None:
        self.environ = environ(server.url)
        self.server = server
        self.tickets: list[dict[str, Any]] = []
        server.answer("GET", "/me", Reply(200, {"name": "the bridge"}))
        server.answer("POST", "/tickets", self.create)
        server.answer("GET", "/tickets", self.find)

    def create(self, request: Received) -> Reply:
        self.tickets.append(request.json | {"id": len(self.tickets) + 1})
        return Reply(201, self.tickets[-1])

    def find(self, request: Received) -> Reply:
        reference = request.query["reference"]
        matches = [ticket for ticket in self.tickets if ticket["reference"] == reference]
        return Reply(200, {"tickets": matches})

    def drop_next_response(
        self, when: Literal["before", "after"], *, nth: int = 1, status: int | None = None
    ) -> None:
        self.server.drop_next_write(when, nth=nth, status=status)

    def side_effect_count(self) -> int:
        return len(self.tickets)

    def received_text(self) -> str:
        return self.server.received_text()


def environ(url: str) -> dict[str, str]:
    return {"${capitals}_URL": url, "${capitals}_TOKEN": "a-secret-of-this-test"}


@contextmanager
def fake_provider() -> Iterator[FakeTickets]:
    with StubServer() as server:
        yield FakeTickets(server)


def test_open_ticket_sends_title_and_email() -> None:
    with fake_provider() as provider:
        result = run_action(
            connector,
            "open_ticket",
            {"title": "A call failed"},
            environ=provider.environ,
            event=event("call.failed", {"metadata.contactEmail": "ines@okafor.example"}),
        )
        [ticket] = provider.tickets
    assert result.id == "1"
    assert (ticket["title"], ticket["email"]) == ("A call failed", "ines@okafor.example")


class TestConformance(ConnectorConformance):
    """HTTP statuses, lost responses, lookups, timeouts, secrets: the suite that every connector passes."""

    connector = connector

    def environ(self, url: str) -> Mapping[str, str]:
        return environ(url)

    def provider(self) -> Any:
        return fake_provider()
''')


def new_connector(name: str, folder: Path, *, crm: bool = False) -> tuple[Path, Path]:
    """Write `folder/NAME.py` and `folder/tests/test_NAME.py` and return both paths. Raise ConfigError on failure.

    The connector opens tickets; if it is for a `crm`, it logs calls and finds or creates their contacts.

    `folder` is the `connectors` folder next to rules.yaml, where the bridge discovers the file automatically.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise ConfigError(
            f"`{name}` is not a valid connector name: use lowercase letters, digits and _ only, like ticket_desk"
        )
    if any(name == source.name for source in sources_in(shipped_folder())):
        raise ConfigError(f"a shipped connector named `{name}` already exists; choose another name")
    paths = (folder / f"{name}.py", folder / "tests" / f"test_{name}.py")
    for path in (folder / name, *paths):
        if path.exists():
            raise ConfigError(f"{path} already exists; nothing was written")
    values = {"name": name, "capitals": name.upper(), "title": name.replace("_", " ").title()}
    templates = (CRM_CONNECTOR, CRM_TEST) if crm else (_CONNECTOR, _TEST)
    try:
        paths[1].parent.mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, templates, strict=True):
            path.write_text(content.substitute(values), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from error
    return paths
