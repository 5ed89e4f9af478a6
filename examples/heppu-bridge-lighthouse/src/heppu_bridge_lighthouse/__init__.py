"""Lighthouse: put up a note on the team's status board for a call or chat."""

from __future__ import annotations

from pydantic import SecretStr

from bridge.connector import (
    Connector,
    ConnectorGroup,
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
    """`LIGHTHOUSE_URL` and `LIGHTHOUSE_TOKEN`, from the environment."""

    url: ProviderUrl
    """URL of the board."""
    token: SecretStr
    """API token of the board."""


connector = Connector(
    "lighthouse",
    settings=Settings,
    limits=Limits(per_second=5, concurrency=4),
    description="Puts up notes on a Lighthouse board.",
    group=ConnectorGroup.TEAM_MESSAGES,
    build_client=lambda settings: JsonApi("Lighthouse", settings.url, bearer=settings.token),
)


@connector.check
def check(api: JsonApi) -> str:
    """Authenticate and read the name of the board. Writes nothing."""
    return f"authenticated for the board {api.read('/board', holds='name')}"


class Note(Params):
    """Params of a note."""

    text: str = param(
        "{{ event.summary }}", "Text of the note.", example="Wants to move a booking.", max_length=2000
    )
    color: str = param("yellow", "Color of the note.", example="red")


@connector.action(idempotency=per_event, dedupe_by="text")
def put_up_note(api: JsonApi, note: Note, context: Context) -> Success:
    """Put up a note."""
    body = note.model_dump() | {"reference": context.idempotency_token}
    return Success(id=str(api.write("POST", "/notes", json=body, holds="id")))


@put_up_note.lookup
def find_note(api: JsonApi, note: Note, context: Context) -> Success | None:
    """Return the note with our reference. None is proof that an attempt with unknown outcome put up none."""
    del note
    notes = api.read("/notes", query={"reference": context.idempotency_token}, holds="notes", kind=list)
    return next((Success(id=str(match["id"])) for match in notes), None)
