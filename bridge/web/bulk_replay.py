"""Replay of all events that match a filter: its parameters, its preview and itself, for the dashboard and the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from bridge.dryrun.replay_preview import PREVIEW_LIMIT, ReplayPreview
from bridge.store.batches import check_number
from bridge.store.queries import EventCriteria
from bridge.store.replay import (
    ReplayOrder,
    ReplayResult,
    SelectedEvents,
    TooManyEvents,
    audit_criteria,
    replay,
    select_events,
)
from bridge.web.admin_service import AdminService
from bridge.web.query_params import EventSelection, Text, Time, instant, number_in_query
from bridge.web.validation import InvalidParameter

MAX_EVENTS: Final = 10_000
"""Events of one replay, at most."""


class ReplaySelection(EventSelection):
    """A replay of all events that match a filter."""

    rule: Text | None = Field(
        None, description="Name of the only rule to evaluate.", examples=["text-when-not-reached"]
    )
    reason: Text | None = Field(None, description="Why, for the audit log. Required with `force`.")
    expected: Annotated[int | None, Field(ge=0), BeforeValidator(number_in_query)] = Field(
        None, description="`events` of the preview: if another number matches now, nothing is done."
    )
    previewed_at: Time | None = Field(
        None, description="`previewed_at` of the preview: events that were replayed since are skipped."
    )


class ReplayQuery(ReplaySelection):
    """A replay as a page asks for it."""

    force: Literal["yes", "no"] = "no"


class BulkReplay:
    """One replay of all that match: what it is about, its preview, and the replay itself."""

    def __init__(self, service: AdminService, selection: ReplaySelection, *, force: bool) -> None:
        """Raise InvalidParameter if the filter is empty, because that would be everything, or the rule is unknown."""
        now = service.database.clock.now()
        self.service, self.selection = service, selection
        self.criteria: EventCriteria = selection.criteria(now)
        if not audit_criteria(self.criteria):
            raise InvalidParameter(
                "filter the events first, for example by `since`; a replay of all is not possible"
            )
        self.order: ReplayOrder = service.replay_order(
            selection.rule,
            force=force,
            reason=selection.reason,
            previewed_at=instant(selection.previewed_at, now),
        )

    def preview(self) -> ReplayPreview:
        """Return what the replay would do. Raise NotFound or TooManyEvents."""
        return self.service.preview_replay(self._select(), self.order)

    def run(self, actor: str) -> Sequence[ReplayResult]:
        """Replay the events. Raise NotFound, InvalidParameter, TooManyEvents or SelectionChanged."""
        if self.order.force and not self.order.reason:
            raise InvalidParameter("enter a `reason`: people are contacted again")
        selected = self._select()
        check_number(len(selected.ids), self.selection.expected, "events")
        order = self.order
        if order.force and order.previewed_at is None:
            # Two requests at the same time contact nobody twice.
            order = replace(order, previewed_at=self._now())
        return replay(
            self.service.database, actor, selected.ids, order, criteria=audit_criteria(self.criteria)
        )

    def frozen(self, preview: ReplayPreview) -> dict[str, str]:
        """Return the filter with fixed times: what arrives after the preview is not part of the replay."""
        fields: dict[str, Any] = self.selection.model_dump(
            include=set(EventSelection.model_fields), exclude_none=True, exclude_defaults=True
        )
        until = min(filter(None, (self.criteria["until"], preview.previewed_at)))
        times = {"since": self.criteria["since"], "until": until}
        return {**fields, **{name: value.isoformat() for name, value in times.items() if value}}

    def _now(self) -> datetime:
        with self.service.database.read() as conn:
            return self.service.database.now(conn)

    def _select(self) -> SelectedEvents:
        selected = select_events(self.service.database, MAX_EVENTS, **self.criteria)
        if self.order.force and len(selected.ids) > PREVIEW_LIMIT:
            raise TooManyEvents(
                f"more than {PREVIEW_LIMIT:,} events match, too many to say who would be contacted again; "
                "narrow the filter, for example by time"
            )
        return selected
