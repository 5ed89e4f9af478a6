"""Test connector for a help desk, whose actions name the ticket that they change."""

from bridge.connector import Connector, ConnectorSettings, Context, Params, Success, param, per_event

connector = Connector("lantern", settings=ConnectorSettings)


class Ticket(Params):
    subject: str = param(..., "Ticket title.", example="A call failed")


class Comment(Params):
    ticket: str | None = param(None, "Ticket ID.", example="35436")
    comment: str = param(..., "Comment.", example="Called again", truncate=20)


@connector.action(idempotency=per_event, dedupe_by="subject")
def open_ticket(client: object, ticket: Ticket, context: Context) -> Success:
    """Open a ticket."""
    return Success()


@connector.action(idempotency=per_event, dedupe_by=("ticket", "comment"), serialize_by="ticket")
def comment(client: object, params: Comment, context: Context) -> Success:
    """Comment on a ticket."""
    return Success()
