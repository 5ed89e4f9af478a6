"""`bridge connectors new NAME`: a connector that works, and its test, to change into one's own."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from bridge.connector.discovery import shipped_folder
from bridge.errors import ConfigError

_CONNECTOR = Template('''\
"""$title: say in one sentence what it does for a call or a chat."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import SecretStr

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Limits,
    Params,
    ProviderUrl,
    Success,
    failure_from_exception,
    failure_from_status,
    http_client,
    param,
    parse_retry_after,
    per_event,
)
from bridge.errors import DeliveryError, OutcomeUnknown


class Settings(ConnectorSettings):
    """`${capitals}_URL` and `${capitals}_TOKEN`, from the environment."""

    url: ProviderUrl
    """The account's address."""
    token: SecretStr
    """An API token of the account."""


connector = Connector(
    "$name",
    settings=Settings,
    limits=Limits(per_second=5, concurrency=4),
    description="Opens tickets in $title.",
)


class Api:
    """$title's API. `http_client` ends every request within the attempt's deadline and follows no redirect."""

    def __init__(self, settings: Settings) -> None:
        token = settings.token.get_secret_value()
        self._http = http_client(base_url=settings.url, headers={"Authorization": f"Bearer {token}"})

    def ask(self, method: str, path: str, **content: Any) -> Any:
        """The JSON of the answer; raises a DeliveryError for everything that is no success."""
        response = self._http.request(method, path, **content)
        if response.is_success:
            return _json(response)
        # Never put the partner's words into an error: they repeat what was sent, and with it the person.
        raise failure_from_status(
            response.status_code,
            f"$title answered {response.status_code}",
            parse_retry_after(response.headers.get("Retry-After")),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise OutcomeUnknown("the answer is not $title's", reason="server_error") from None


@connector.client
def client(settings: Settings) -> Api:
    """Built once per connection."""
    return Api(settings)


@connector.check
def check(api: Api) -> str:
    """Log in and read something; writes nothing."""
    api.ask("GET", "/me")
    return "logged in"


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """What an exception means; None for what nobody thought of, which is then reported as a bug."""
    return failure_from_exception(error)


class Ticket(Params):
    """What a rule writes under `with:`. A default in {{ }} is taken from the event."""

    title: str = param(..., "What the ticket is called.", example="A call failed", max_length=200)
    summary: str | None = param("{{ event.summary }}", "What was said.", example="Wants to move a booking.")
    email: str | None = param("{{ contact.email }}", "Who asked.", example="ines@okafor.example")


@connector.action(idempotency=per_event, dedupe_by="title")
def open_ticket(api: Api, ticket: Ticket, context: Context) -> Success:
    """Open a ticket."""
    answer = api.ask("POST", "/tickets", json=ticket.model_dump() | {"reference": context.idempotency_token})
    if not isinstance(answer, dict) or "id" not in answer:
        raise OutcomeUnknown("the answer names no ticket", reason="server_error")
    return Success(id=str(answer["id"]))


@open_ticket.lookup
def find_ticket(api: Api, ticket: Ticket, context: Context) -> Success | None:
    """After an attempt of unknown outcome: is the ticket there? None is proof that it is not."""
    del ticket
    answer = api.ask("GET", "/tickets", params={"reference": context.idempotency_token})
    if not isinstance(answer, dict) or not isinstance(answer.get("tickets"), list):
        raise OutcomeUnknown("the answer holds no list of tickets", reason="server_error")
    return next((Success(id=str(found["id"])) for found in answer["tickets"]), None)
''')

_TEST = Template('''\
"""$title: what reaches it, and that it behaves like every other connector."""

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


class Desk:
    """$title on this machine: it keeps tickets, and finds them by their reference."""

    def __init__(self, server: StubServer) -> None:
        self.environ = environ(server.url)
        self.server = server
        self.tickets: list[dict[str, Any]] = []
        server.answer("GET", "/me", Reply(200, {"name": "the bridge"}))
        server.answer("POST", "/tickets", self.open)
        server.answer("GET", "/tickets", self.find)

    def open(self, request: Received) -> Reply:
        self.tickets.append(request.json | {"id": len(self.tickets) + 1})
        return Reply(201, self.tickets[-1])

    def find(self, request: Received) -> Reply:
        wanted = request.query["reference"]
        return Reply(200, {"tickets": [ticket for ticket in self.tickets if ticket["reference"] == wanted]})

    def drop_next_response(self, when: Literal["before", "after"]) -> None:
        self.server.fail(Reply(drop=when))

    def side_effect_count(self) -> int:
        return len(self.tickets)


def environ(url: str) -> dict[str, str]:
    return {"${capitals}_URL": url, "${capitals}_TOKEN": "a-secret-of-this-test"}


@contextmanager
def desk() -> Iterator[Desk]:
    with StubServer() as server:
        yield Desk(server)


def test_a_failed_call_opens_a_ticket() -> None:
    with desk() as here:
        failed = event("call.failed", {"metadata.contactEmail": "ines@okafor.example"})
        wanted = {"title": "A call failed"}
        sent = run_action(connector, "open_ticket", wanted, environ=here.environ, event=failed)
        [ticket] = here.tickets
    assert sent.id == "1"
    assert (ticket["title"], ticket["email"]) == ("A call failed", "ines@okafor.example")


class TestConformance(ConnectorConformance):
    """Every status, lost answers, timeouts, nothing told that must not be: the suite of all connectors."""

    connector = connector

    def environ(self, url: str) -> Mapping[str, str]:
        return environ(url)

    def partner(self) -> Any:
        return desk()
''')


def new_connector(name: str, folder: Path) -> tuple[Path, Path]:
    """Write `folder/NAME.py` and `folder/tests/test_NAME.py`; raises ConfigError when that cannot be.

    `folder` is the `connectors` folder beside rules.yaml, where the bridge finds the file by itself.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise ConfigError(
            f"`{name}` is no name for a connector: small letters, digits and _ only, like ticket_desk"
        )
    if (shipped_folder() / f"{name}.py").exists():
        raise ConfigError(f"there is a shipped connector called `{name}` already; choose another name")
    made = (folder / f"{name}.py", folder / "tests" / f"test_{name}.py")
    for path in made:
        if path.exists():
            raise ConfigError(f"{path} is there already; nothing was written")
    words = {"name": name, "capitals": name.upper(), "title": name.replace("_", " ").title()}
    try:
        made[1].parent.mkdir(parents=True, exist_ok=True)
        for path, text in zip(made, (_CONNECTOR, _TEST), strict=True):
            path.write_text(text.substitute(words), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from error
    return made
