"""Links to Zendesk: the page of a ticket, and where to look for one that may not exist."""

from __future__ import annotations

from bridge.connector import ProviderRecord, UncertainDelivery, WhereToLook

from .settings import Settings, connector


@connector.record_url
def record_url(settings: Settings, record: ProviderRecord) -> str | None:
    """Return the page of a ticket, or of a user."""
    if not record.external_id.isdecimal() or len(record.external_id) > 15:
        return None
    kind = "users" if record.action == "contact" else "tickets"
    return f"{settings.url}/agent/{kind}/{record.external_id}"


@connector.where_to_look
def where_to_look(settings: Settings, delivery: UncertainDelivery) -> WhereToLook:
    """Return where the ticket or the comment would be."""
    ticket = str(delivery.params.get("ticket") or "")
    if delivery.action == "update_ticket" and ticket.isdecimal():
        return WhereToLook(
            "Open the ticket: the comment or change is in its events.",
            f"{settings.url}/agent/tickets/{ticket}",
        )
    return WhereToLook(
        f"Search Zendesk for the ticket with external_id:{delivery.idempotency_token}, or for {delivery.conversation}."
    )
