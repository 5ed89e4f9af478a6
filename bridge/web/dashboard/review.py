"""Review: the deliveries whose outcome is unknown, the first to expire first, for an operator to decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any, Final, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.connector import WhereToLook
from bridge.connector.action_name import ActionName
from bridge.connector.provider_records import provider_label
from bridge.store.delivery_context import MAX_REVIEWS, EventPerson, list_reviews, people_of
from bridge.store.operator_actions import Resolution, resolve_all, seen_version
from bridge.web.access import actor_of
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, done, form, id_of, page, refused, render_page
from bridge.web.dashboard.seen import refused_action, seen_in, seen_of_all
from bridge.web.delivery_content import Content, content_of
from bridge.web.delivery_outcome import noun_of, sentence
from bridge.web.query_params import one_of, string_or_none

_RESOLVED: Final[Mapping[Resolution, str]] = {
    "delivered": "delivered", "retry": "resent", "discard": "discarded",
}  # fmt: skip
"""The message after each resolution; with `_many` for several."""


@dataclass(frozen=True)
class ReviewItem:
    """A delivery to decide about."""

    delivery: Mapping[str, Any]
    noun: str
    """What it is: `email`, `HubSpot: log call`."""
    person: str
    """Name of the person, or else the address, in full."""
    content: Content
    where_to_look: WhereToLook
    provider: str
    seen: str
    is_expired: bool
    """It can no longer be sent."""

    @property
    def id(self) -> str:
        """The ID of the delivery."""
        return str(self.delivery["id"])

    @property
    def attempted_at(self) -> datetime:
        """When the attempt started whose outcome is unknown."""
        at: datetime = self.delivery["attempted_at"] or self.delivery["created_at"]
        return at

    @property
    def detail(self) -> str:
        """Why the outcome is unknown, as a sentence."""
        return sentence(self.delivery["detail"] or (self.delivery["reason"] or "").replace("_", " "))

    @property
    def cause(self) -> tuple[Any, ...]:
        """Reviews with the same cause can be answered together: connection, explanation and minute."""
        minute = self.attempted_at.replace(second=0, microsecond=0)
        return self.delivery["connection"], self.delivery["reason"], self.delivery["detail"], minute


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/review", partial(_show, service)),
        form("/review/resolve", partial(_resolve_group, service), max_fields=MAX_REVIEWS + 40),
        form("/deliveries/{id}/resolve", partial(_resolve, service)),
    ]


def _show(service: AdminService, request: Request) -> Response:
    """Show the deliveries that need review, in groups with the same cause."""
    reviews = read_reviews(service)
    number = len(reviews)
    return render_page(
        request,
        service,
        "review.html",
        title=f"{number} {'needs' if number == 1 else 'need'} review" if number else "Nothing needs review",
        groups=_grouped(reviews),
        number=number,
        most=MAX_REVIEWS,
    )


def read_reviews(service: AdminService) -> list[ReviewItem]:
    """Return the deliveries that need review, the first to expire first."""
    items = list_reviews(service.database)
    people = people_of(service.database, items)
    now = service.database.clock.now()
    return [_review(service, item, people.get(item["event_id"] or ""), now) for item in items]


def _review(
    service: AdminService, item: Mapping[str, Any], person: EventPerson | None, now: datetime
) -> ReviewItem:
    name = (person.name if person else None) or item["recipient"] or (person.address if person else None)
    return ReviewItem(
        item,
        noun_of(item),
        name or "the recipient",
        content_of(item),
        service.links.where_to_look(item),
        provider_label(ActionName.parse(item["action"]).connector),
        seen_version(item),
        item["expires_at"] is not None and item["expires_at"] <= now,
    )


def _grouped(reviews: Sequence[ReviewItem]) -> list[list[ReviewItem]]:
    """Return the reviews in groups with the same cause, in the order of the first of each."""
    position = {review.cause: index for index, review in reversed(list(enumerate(reviews)))}
    ordered = sorted(reviews, key=lambda review: position[review.cause])  # stable: the order in a group stays
    return [list(group) for _, group in groupby(ordered, key=lambda review: position[review.cause])]


def _resolve(service: AdminService, request: Request, fields: Form) -> Response:
    """Record what an operator found out about one delivery."""
    delivery_id = id_of(request)
    resolution: Resolution = one_of("resolution", fields.get("resolution"), get_args(Resolution))
    external_id = string_or_none("external_id", fields.get("external_id"))
    result = service.resolve(
        delivery_id, actor_of(request), resolution, external_id, seen_in(fields, delivery_id)
    )
    path = "review" if fields.get("return_to") == "review" else f"deliveries/{delivery_id}"
    if not result.done:
        return refused_action(service, request, path, result)
    return done(request, path, _RESOLVED[resolution])


def _resolve_group(service: AdminService, request: Request, fields: Form) -> Response:
    """Record the same answer for several deliveries. To resend, their number has to be typed."""
    resolution: Resolution = one_of("resolution", fields.get("resolution"), get_args(Resolution))
    seen = seen_of_all(fields)
    if resolution == "retry" and fields.get("number", "").strip() != str(len(seen)):
        return refused(request, "review", "wrong_number")
    results = resolve_all(service.database, actor_of(request), list(seen), resolution, seen=seen)
    number = sum(result.done for result in results)
    if not number:
        return refused(request, "review", "delivery_changed")
    return done(request, "review", f"{_RESOLVED[resolution]}_many", number)
