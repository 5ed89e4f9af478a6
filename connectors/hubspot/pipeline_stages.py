"""The pipelines of an account for tickets or deals, and their stages, which each account configures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal

from bridge.connector import did_you_mean
from bridge.errors import AccountError

_TTL_SECONDS = 600.0
_DEFAULT_PIPELINES = {"tickets": "0", "deals": "default"}
"""Object type -> ID of the pipeline that every account begins with."""


@dataclass(frozen=True)
class StageLookup:
    """The stage of a new record, and what had to be replaced."""

    pipeline: str
    stage: str
    problem: str = ""
    """Why it is not the stage that the rule names, and a hint after `; `. Empty: it is."""


class PipelineStages:
    """The pipelines of one object type, read once in ten minutes."""

    def __init__(self, api: Any, kind: Literal["tickets", "deals"]) -> None:
        self._api = api
        self._kind = kind
        self._singular = kind.removesuffix("s")
        self._pipelines: Sequence[Any] = ()
        self._until = 0.0

    def closed(self) -> Mapping[str, str]:
        """Return the closed stages of all pipelines, in their order: stage -> pipeline."""
        return {
            stage.id: pipeline.id
            for pipeline in self._read()
            for stage in _stages(pipeline)
            if not _is_open(stage)
        }

    def resolve(self, pipeline: str | None, stage: str | None) -> StageLookup:
        """Return the stage for a new record, by the IDs or labels that a rule gives.

        Without a stage, it is the first open stage of the pipeline; without a pipeline, that of the account's default
        pipeline. A name that the account does not have is replaced in the same way. Raise AccountError if the account
        has no open stage at all.
        """
        pipelines = self._read()
        chosen, problem = self._pipeline(pipelines, pipeline)
        preferred = [*([chosen] if chosen else []), *pipelines]
        if stage is not None and not problem:
            candidates = preferred if pipeline is None else preferred[:1]
            found = next(_named_stages(candidates, stage), None)
            if found is not None:
                return StageLookup(found[0].id, found[1].id)
            labels = [item.label for candidate in candidates for item in _stages(candidate)]
            problem = _unknown(f"{self._singular} stage", stage, list(dict.fromkeys(labels)))
        for candidate in preferred:
            first_open = next((item for item in _stages(candidate) if _is_open(item)), None)
            if first_open is not None:
                return StageLookup(candidate.id, first_open.id, problem)
        raise AccountError(
            f"HubSpot has no {self._singular} pipeline with an open stage", fix="add one in HubSpot"
        )

    def _pipeline(self, pipelines: Sequence[Any], name: str | None) -> tuple[Any, str]:
        """Return the pipeline with an ID or label, or the default one with the reason."""
        default = next(
            (item for item in pipelines if item.id == _DEFAULT_PIPELINES[self._kind]),
            next(iter(pipelines), None),
        )
        if name is None:
            return default, ""
        found = next((item for item in pipelines if _is_named(item, name)), None)
        problem = _unknown(f"{self._singular} pipeline", name, [item.label for item in pipelines])
        return (found, "") if found else (default, problem)

    def _read(self) -> Sequence[Any]:
        if self._until <= monotonic():
            results = self._api.get_all(self._kind).results
            self._pipelines = sorted(results, key=lambda item: item.display_order)
            self._until = monotonic() + _TTL_SECONDS
        return self._pipelines


def _stages(pipeline: Any) -> list[Any]:
    return sorted(pipeline.stages, key=lambda stage: stage.display_order)


def _is_open(stage: Any) -> bool:
    metadata = stage.metadata or {}
    return metadata.get("ticketState") != "CLOSED" and str(metadata.get("isClosed")).lower() != "true"


def _is_named(item: Any, name: str) -> bool:
    label = str(item.label).strip().lower()
    return name == str(item.id) or name.strip().lower() == label


def _named_stages(pipelines: Sequence[Any], name: str) -> Iterator[tuple[Any, Any]]:
    for pipeline in pipelines:
        yield from ((pipeline, stage) for stage in _stages(pipeline) if _is_named(stage, name))


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    hint = did_you_mean(name, known)
    problem = f"HubSpot has no {what} `{name[:80]}`"
    return f"{problem}; {hint}" if hint else problem
