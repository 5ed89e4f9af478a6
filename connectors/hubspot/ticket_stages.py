"""The stages that close a ticket, which each account configures."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

_TTL_SECONDS = 600.0


class TicketStages:
    """The closed stages of one account, read once in ten minutes."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._closed: Mapping[str, str] = {}
        self._until = 0.0

    def closed(self) -> Mapping[str, str]:
        """Return the closed stages of all ticket pipelines, in their order: stage -> pipeline."""
        if self._until <= monotonic():
            self._closed = {
                stage.id: pipeline.id
                for pipeline in self._api.get_all("tickets").results
                for stage in sorted(pipeline.stages, key=lambda stage: stage.display_order)
                if (stage.metadata or {}).get("ticketState") == "CLOSED"
            }
            self._until = monotonic() + _TTL_SECONDS
        return self._closed
