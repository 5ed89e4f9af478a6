"""Test connector with a default that no event can fill, and with an action that has no room for a text."""

from bridge.connector import Connector, ConnectorSettings, Context, Params, Success, param, per_event

connector = Connector("survey", settings=ConnectorSettings)


class Answer(Params):
    phone: str | None = param("{{ contact.fone }}", "Phone number.", example="+14155550123")
    note: str | None = param("{{ event.summary | uper }}", "Note.", example="Wants it by email")


class Score(Params):
    name: str = param(..., "Name of the score.", example="calls")
    points: int | None = param("{{ event.duration }}", "Points.", example=3)


@connector.action(idempotency=per_event)
def answer(client: object, params: Answer, context: Context) -> Success:
    """Store an answer."""
    return Success()


@connector.action(idempotency=per_event)
def score(client: object, params: Score, context: Context) -> Success:
    """Add points to a score."""
    return Success()
