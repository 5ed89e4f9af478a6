"""Pipelines of tickets and deals: their stages, and the stages that close a record. The IDs differ per account."""

from __future__ import annotations

from collections.abc import Mapping
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
    """A pipeline of tickets or deals."""

    id: str
    label: str
    stages: tuple[Stage, ...]
    of_deals: bool = False

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
                "metadata": {"isClosed": str(stage.closed).lower()}
                | (
                    {"probability": "0.5"}
                    if self.of_deals
                    else {"ticketState": "CLOSED" if stage.closed else "OPEN"}
                ),
                "writePermissions": "CRM_PERMISSIONS_ENFORCEMENT",
            }
            | dates
            for number, stage in enumerate(self.stages)
        ]
        return {"id": self.id, "label": self.label, "displayOrder": 0, "stages": stages} | dates


PROPERTIES: Mapping[str, tuple[str, str]] = {
    "tickets": ("hs_pipeline", "hs_pipeline_stage"),
    "deals": ("pipeline", "dealstage"),
}
"""Object type -> its properties for the pipeline and the stage."""


def default_pipelines() -> dict[str, dict[str, Pipeline]]:
    """Return the pipelines of a new account by object type and ID."""
    return {"tickets": _ticket_pipelines(), "deals": _deal_pipelines()}


def pipeline_of_stage(pipelines: Mapping[str, Pipeline], stage_id: str) -> Pipeline | None:
    """Return the pipeline that a stage belongs to."""
    return next((pipeline for pipeline in pipelines.values() if pipeline.stage(stage_id)), None)


def _deal_pipelines() -> dict[str, Pipeline]:
    sales = Pipeline(
        "default",
        "Sales Pipeline",
        (
            Stage("appointmentscheduled", "Appointment scheduled"),
            Stage("qualifiedtobuy", "Qualified to buy"),
            Stage("presentationscheduled", "Presentation scheduled"),
            Stage("decisionmakerboughtin", "Decision maker bought-in"),
            Stage("contractsent", "Contract sent"),
            Stage("closedwon", "Closed won", closed=True),
            Stage("closedlost", "Closed lost", closed=True),
        ),
        of_deals=True,
    )
    leasing = Pipeline(
        "88301",
        "Leasing",
        (Stage("88302", "Requested"), Stage("88303", "Signed", closed=True)),
        of_deals=True,
    )
    return {pipeline.id: pipeline for pipeline in (sales, leasing)}


def _ticket_pipelines() -> dict[str, Pipeline]:
    """Return the pipelines of tickets. Neither closes tickets with stage `4`, the closed stage of a new portal."""
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
