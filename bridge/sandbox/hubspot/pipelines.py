"""Ticket pipelines: which stages there are, and which of them close a ticket. Their ids differ per account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_LONG_AGO = "2024-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline."""

    id: str
    label: str
    closed: bool = False


@dataclass(frozen=True)
class Pipeline:
    """One way that tickets go."""

    id: str
    label: str
    stages: tuple[Stage, ...]

    def stage(self, stage_id: str | None) -> Stage | None:
        """One of its stages."""
        return next((stage for stage in self.stages if stage.id == stage_id), None)

    def as_json(self) -> dict[str, Any]:
        """As the pipelines API shows it."""
        dates = {"archived": False, "createdAt": _LONG_AGO, "updatedAt": _LONG_AGO}
        stages = [
            {
                "id": stage.id,
                "label": stage.label,
                "displayOrder": number,
                "metadata": {
                    "ticketState": "CLOSED" if stage.closed else "OPEN",
                    "isClosed": str(stage.closed).lower(),
                },
                "writePermissions": "CRM_PERMISSIONS_ENFORCEMENT",
            }
            | dates
            for number, stage in enumerate(self.stages)
        ]
        return {"id": self.id, "label": self.label, "displayOrder": 0, "stages": stages} | dates


def ticket_pipelines() -> dict[str, Pipeline]:
    """The pipelines of the account; neither of them closes tickets with the stage `4` of a new portal."""
    support = Pipeline(
        "0",
        "Support Pipeline",
        (
            Stage("911201", "New"),
            Stage("911202", "Waiting on contact"),
            Stage("911203", "Waiting on us"),
            Stage("911204", "Closed", closed=True),
        ),
    )
    returns = Pipeline(
        "74411", "Returns", (Stage("74412", "Requested"), Stage("74413", "Refunded", closed=True))
    )
    return {pipeline.id: pipeline for pipeline in (support, returns)}
