"""People with a history, for tests of the pages about contacts and events."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.connector import InboundMessage, StatusUpdate
from bridge.store.connections import register_accounts
from bridge.store.contact_cache import StoredContactCache
from bridge.store.delivery_status import apply_callback
from bridge.store.ingest import RejectedRequest, record_rejected_requests
from tests.integration.dashboard_site import Site

ROSA, ROSA_EMAIL = "+14155550123", "rosa@example.com"
KENJI = "+819012345699"


@dataclass(frozen=True)
class Stories:
    """IDs of events."""

    rosa: str
    """The newest event about Rosa, who has opted out of text messages."""
    inbound: str
    """An inbound call of Kenji, which led to no text message because of its direction."""
    delivered: str
    """An event that led to a text message, which was delivered."""


def tell(site: Site) -> Stories:
    """Store the events, deliveries and rejected requests of several people."""
    register_accounts(site.database, {"hubspot": "c"})
    rosa = {"contactName": "Rosa Delgado", "contactPhone": ROSA, "contactEmail": ROSA_EMAIL}
    first = site.engine.event(metadata=rosa, conversationId="conv_4a33c0ffee", direction="outbound")
    texted = site.engine.deliver(
        "send",
        first,
        rule="text-when-not-reached",
        params={"to": ROSA, "body": "Hi Rosa, we tried to reach you."},
    )
    site.engine.deliver("record", first, rule="log-calls")
    site.engine.run_due()
    apply_callback(site.database, "desk", [StatusUpdate("delivered", None, texted, None)])
    site.database.clock.advance(hours=1)
    reply = InboundMessage(
        "SM77", "sms", ROSA, "+14155550100", "Please stop texting me. STOP", (), keyword="stop"
    )
    apply_callback(site.database, "desk", [reply])
    site.database.clock.advance(hours=1)
    newest = site.routed_event("call.no-answer", metadata=rosa, direction="outbound", duration=0)
    site.engine.deliver("send", site_event(site, newest), rule="text-when-not-reached")
    site.engine.run_due()
    shared = rosa | {"contactName": "Mario Delgado", "contactPhone": "+16505550188"}
    site.routed_event("call.completed", metadata=shared)
    kenji = {"contactName": "Kenji Watanabe", "contactPhone": KENJI, "contactEmail": None}
    inbound = site.routed_event("call.no-answer", metadata=kenji, direction="inbound", duration=0)
    StoredContactCache(site.database, "hubspot").remember({f"phone:{ROSA}": "40213"})
    now = site.database.clock.now()
    wrong = RejectedRequest(
        "signature_wrong", "the signature does not match any configured secret", 401, False, now
    )
    late = RejectedRequest(
        "timestamp_off",
        "the timestamp differs from this clock by -4020 s",
        401,
        True,
        now,
        b'{"event": "call.busy"}',
    )
    broken = RejectedRequest("not_json", "the body is not a JSON object: a list", 400, True, now, b"[]")
    conflict = RejectedRequest(
        "conflict",
        f"{first.id} has the same webhookId and another body",
        200,
        True,
        now,
        b'{"event": "call.busy"}',
    )
    record_rejected_requests(site.database, [wrong] * 8 + [late, broken, conflict])
    return Stories(newest, inbound, first.id)


def site_event(site: Site, event_id: str):
    from bridge.store.queries import stored_event

    return stored_event(site.database, event_id)
