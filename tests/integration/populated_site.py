"""A dashboard with something on every page, and the list of all its pages. Checks of all pages run over this list.

A new page is added to `fill`, with the stored data that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.connector import StatusUpdate
from bridge.errors import OutcomeUnknown, PermanentError, TransientError
from bridge.store.connections import pause
from bridge.store.delivery_status import apply_callback
from bridge.store.ingest import RejectedRequest, record_rejected_requests
from bridge.store.possible_duplicates import save_possible_duplicate
from bridge.store.queries import list_rejected_requests
from tests.integration.dashboard_site import Site

LONG_NAME = "Bartholomäus Featherstonehaugh-Wolfeschlegelsteinhausenbergerdorff"
LONG_EMAIL = f"{'very.long.local.part.' * 3}x@a-rather-long-subdomain.of.an-even-longer-domain.example"


@dataclass(frozen=True)
class PopulatedSite:
    """A site and the paths of its pages."""

    site: Site
    pages: list[str]


def fill(site: Site) -> PopulatedSite:
    """Store events and deliveries in every state, and return every page of the dashboard."""
    event = site.routed_event(
        metadata={"contactPhone": "+12125550167", "contactEmail": LONG_EMAIL, "contactName": LONG_NAME},
        summary="They asked for a call back in the morning. " * 8,
    )
    unread = site.routed_event(metadata={"contactPhone": "040 123 4567"}, duration="2:05")
    site.routed_event("chat.resolved")
    unrouted = site.engine.event().id
    succeeded = site.engine.deliver("send", site.engine.event(metadata={"contactPhone": "+13105550111"}))
    site.engine.run_due()
    apply_callback(site.database, "desk", [StatusUpdate("delivered", None, succeeded, None)])
    failed = _fails(site, PermanentError("21211: the number +13105550199 is not a valid phone number"))
    undelivered = site.engine.deliver("send", site.engine.event(metadata={"contactPhone": "+13105550112"}))
    site.engine.run_due()
    apply_callback(site.database, "desk", [StatusUpdate("undelivered", None, undelivered, "a landline")])
    retrying = _fails(site, TransientError("502 Bad Gateway"))
    site.engine.provider.lookup_works = False
    review = _fails(site, OutcomeUnknown("no answer within 20 s"), after=True)
    site.engine.run_for(seconds=30)
    site.engine.provider.lookup_works = True
    shadow = site.engine.deliver("post", shadow=True)
    site.engine.run_due()
    pending = site.engine.deliver("send", recipient=LONG_EMAIL, params={"to": LONG_EMAIL})
    save_possible_duplicate(site.database, "hubspot", succeeded, "51001", "51002")
    now = site.database.clock.now()
    bodies = [b'{"event": "call.busy"}', b"x" * 500]
    record_rejected_requests(
        site.database,
        [
            *(
                RejectedRequest("timestamp", "the clocks differ by 400 s", 401, True, now, body)
                for body in bodies
            ),
            RejectedRequest("signature_wrong", "the signature is wrong", 401, False, now),
        ],
    )
    rejected = [item["id"] for item in list_rejected_requests(site.database).items]
    pause(site.database, "twilio", "the text of the morning message is wrong, see ticket CRM-418", "ada")
    deliveries = (succeeded, failed, undelivered, retrying, review, shadow, pending)
    rule = "text-when-not-reached"
    pages = [
        "/", "/review", "/deliveries", "/deliveries?state=failed", "/deliveries?reason=opted_out",
        "/deliveries/confirm?action=retry-all&state=failed", f"/deliveries/{failed}?state=failed",
        *(f"/deliveries/{delivery}" for delivery in deliveries),
        "/events", "/events?unreadable=yes", *(f"/events/{one}" for one in (event, unread, unrouted)),
        f"/events/{event}?today=yes", f"/events/{event}/replay",
        "/contacts", "/contacts/import", "/contacts/duplicates", f"/contacts/{event}", f"/contacts/{event}/erase",
        f"/contacts/{event}?shown=stopped", "/search", "/search?q=%2B12125550199", "/search?q=nobody",
        "/search?q=bartholom",
        "/rules", f"/rules/{rule}", f"/rules/{rule}/cancel", "/rules/try", "/rules/versions",
        f"/rules/versions/{site.rules.current.hash}",
        "/connections", "/connections/desk", "/rejected", "/rejected/all",
        *(f"/rejected/{one}" for one in rejected[:2]),
        "/audit", "/status", "/settings", "/stop", "/start",
        "/nothing-here", "/events?limit=x",
    ]  # fmt: skip
    return PopulatedSite(site, pages)


def _fails(site: Site, error: Exception, *, after: bool = False) -> str:
    """Return a delivery whose first attempt failed with `error`, before or after the provider acted."""
    provider, hook = site.engine.provider, "after" if after else "before"

    def fail() -> None:
        setattr(provider, hook, None)
        raise error

    setattr(provider, hook, fail)
    event = site.engine.event(metadata={"contactPhone": "+13105550111", "contactName": "Wen Haddad"})
    delivery_id = site.engine.deliver("send", event)
    site.engine.run_due()
    return delivery_id
