"""An invalid connector is reported when its file is loaded, not at the first delivery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.connector import Connector, ConnectorSettings, Context, Params, Success, param, per_event
from bridge.connector.discovery import Registry
from bridge.errors import ConfigError


class Ticket(Params):
    """One ticket."""

    title: str = param(..., "Ticket title.", example="A call failed")


def new_connector() -> Connector:
    return Connector("tickets", settings=ConnectorSettings)


def test_dedupe_by_must_name_a_param() -> None:
    with pytest.raises(TypeError, match="open_ticket: dedupe_by='titel' is not a param of Ticket"):

        @new_connector().action(idempotency=per_event, dedupe_by="titel")
        def open_ticket(client: object, ticket: Ticket, context: Context) -> Success:
            """Open a ticket."""
            return Success()


def test_serialize_by_must_name_a_param() -> None:
    with pytest.raises(
        TypeError, match="serialize_by='titel' is not a param of Ticket; did you mean `title`"
    ):

        @new_connector().action(idempotency=per_event, serialize_by="titel")
        def open_ticket(client: object, ticket: Ticket, context: Context) -> Success:
            """Open a ticket."""
            return Success()


def test_each_of_several_dedupe_by_must_name_a_param() -> None:
    with pytest.raises(TypeError, match="dedupe_by='comment' is not a param"):

        @new_connector().action(idempotency=per_event, dedupe_by=("title", "comment"))
        def open_ticket(client: object, ticket: Ticket, context: Context) -> Success:
            """Open a ticket."""
            return Success()


def test_recipient_must_name_a_param() -> None:
    with pytest.raises(TypeError, match="send: recipient='to' is not a param of Ticket"):

        @new_connector().action(idempotency=per_event, channel="sms")
        def send(client: object, ticket: Ticket, context: Context) -> Success:
            """Send a text message."""
            return Success()


def without_context(client: object, ticket: Ticket) -> Success:
    """Lack the parameter `context`."""
    return Success()


def single_delivery(client: object, ticket: Ticket, context: Context) -> Success:
    """Take one delivery instead of a batch."""
    return Success()


@pytest.mark.parametrize(
    ("function", "batch", "expected"),
    [(without_context, 1, r"\(client, params, context\)"), (single_delivery, 5, r"\(client, items\)")],
)
def test_action_with_wrong_signature_is_rejected(
    function: Callable[..., Success], batch: int, expected: str
) -> None:
    with pytest.raises(TypeError, match=expected):
        new_connector().action(idempotency=per_event, batch=batch)(function)


def test_file_that_exits_on_import_is_reported(tmp_path: Path) -> None:
    (tmp_path / "exiting.py").write_text("import sys\n\nsys.exit(3)\n")
    with pytest.raises(ConfigError, match=r"exiting\.py cannot be imported: SystemExit: 3"):
        Registry([tmp_path]).connector("exiting")
