"""Ticket pipelines: their stages, and the stages that close a ticket. The IDs differ per account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_LONG_AGO = "2024-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Stage:
    """A stage of a pipeline."""

    id: str
    label: str
    closed: bool = False


@dataclass(frozen=True)
class Pipeline:
    """A ticket pipeline."""

    id: str
    label: str
    stages: tuple[Stage, ...]

    def stage(self, stage_id: str | None) -> Stage | None:
        """Return the stage with this ID, if the pipeline has it."""
        return next((stage for stage in self.stages if stage.id == stage_id), None)

    def as_json(self) -> dict[str, Any]:
        """Return the pipeline as the pipelines API shows it."""
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
    """Return the account's pipelines. Neither closes tickets with stage `4`, the closed stage of a new portal."""
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
