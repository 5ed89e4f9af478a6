"""A connector's mistake is told when its file is read, not at the first delivery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.connector import Connector, ConnectorSettings, Context, Params, Success, param, per_event
from bridge.connector.discovery import Registry
from bridge.errors import ConfigError


class Ticket(Params):
    """One ticket."""

    title: str = param(..., "What it is called.", example="A call failed")


def a_connector() -> Connector:
    return Connector("mistaken", settings=ConnectorSettings)


def test_apart_by_has_to_name_a_param() -> None:
    with pytest.raises(TypeError, match="open_ticket: dedupe_by='titel' is no param of Ticket"):

        @a_connector().action(idempotency=per_event, dedupe_by="titel")
        def open_ticket(client: object, ticket: Ticket, context: Context) -> Success:
            """Open a ticket."""
            return Success()


def test_recipient_has_to_name_a_param() -> None:
    with pytest.raises(TypeError, match="text: recipient='to' is no param of Ticket"):

        @a_connector().action(idempotency=per_event, channel="sms")
        def text(client: object, ticket: Ticket, context: Context) -> Success:
            """Text a person."""
            return Success()


def no_context(client: object, ticket: Ticket) -> Success:
    """It lacks the context."""
    return Success()


def three(client: object, ticket: Ticket, context: Context) -> Success:
    """It takes one delivery."""
    return Success()


@pytest.mark.parametrize(
    ("function", "batch", "wanted"),
    [(no_context, 1, r"\(client, params, context\)"), (three, 5, r"\(client, jobs\)")],
)
def test_an_action_takes_what_it_is_called_with(
    function: Callable[..., Success], batch: int, wanted: str
) -> None:
    with pytest.raises(TypeError, match=wanted):
        a_connector().action(idempotency=per_event, batch=batch)(function)


def test_a_file_that_ends_the_process_is_reported(tmp_path: Path) -> None:
    (tmp_path / "leaving.py").write_text("import sys\n\nsys.exit(3)\n")
    with pytest.raises(ConfigError, match=r"leaving\.py cannot be imported: SystemExit: 3"):
        Registry([tmp_path]).connector("leaving")
