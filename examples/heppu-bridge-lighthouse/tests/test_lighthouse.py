"""Tests of the Lighthouse connector: the requests it sends, and the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

from heppu_bridge_lighthouse import connector

from bridge.testing import ConnectorConformance, Received, Reply, StubServer, event, run_action


class FakeBoard:
    """A fake Lighthouse: it stores notes and finds them by their reference."""

    def __init__(self, server: StubServer) -> None:
        self.server = server
        self.environ = environ(server.url)
        self.notes: list[dict[str, Any]] = []
        server.answer("GET", "/board", Reply(200, {"name": "Front desk"}))
        server.answer("POST", "/notes", self.put_up)
        server.answer("GET", "/notes", self.find)

    def put_up(self, request: Received) -> Reply:
        self.notes.append(request.json | {"id": len(self.notes) + 1})
        return Reply(201, self.notes[-1])

    def find(self, request: Received) -> Reply:
        matches = [note for note in self.notes if note["reference"] == request.query["reference"]]
        return Reply(200, {"notes": matches})

    def drop_next_response(
        self, when: Literal["before", "after"], *, nth: int = 1, status: int | None = None
    ) -> None:
        self.server.drop_next_write(when, nth=nth, status=status)

    def side_effect_count(self) -> int:
        return len(self.notes)

    def received_text(self) -> str:
        return self.server.received_text()


def environ(url: str) -> dict[str, str]:
    return {"LIGHTHOUSE_URL": url, "LIGHTHOUSE_TOKEN": "a-secret-of-this-test"}


@contextmanager
def fake_board() -> Iterator[FakeBoard]:
    with StubServer() as server:
        yield FakeBoard(server)


def test_note_says_what_the_call_was_about() -> None:
    with fake_board() as board:
        happened = event("call.completed", {"summary": "Wants to move a booking."})
        result = run_action(connector, "put_up_note", {"color": "red"}, environ=board.environ, event=happened)
        [note] = board.notes
    assert result.id == "1"
    assert (note["text"], note["color"]) == ("Wants to move a booking.", "red")


class TestConformance(ConnectorConformance):
    """HTTP statuses, lost responses, lookups, timeouts, secrets: the suite that every connector passes."""

    connector = connector

    def environ(self, url: str) -> Mapping[str, str]:
        return environ(url)

    def provider(self) -> AbstractContextManager[FakeBoard]:
        return fake_board()
