"""Outcomes of calls: each HubSpot account has its own list of labels, besides six that all accounts have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID

from bridge.connector import did_you_mean

from .errors import status_of

DEFAULT_OUTCOMES = {
    "connected": "f240bbac-87c9-4f6e-bf70-924b57d47db7",
    "busy": "9d9162e7-6cf3-4944-bf63-4dff82258764",
    "no_answer": "73a0d17f-1163-4015-bdd5-ec830791da20",
    "left_live_message": "a4c4c377-d246-4b32-a13b-75a56a4cd0ff",
    "left_voicemail": "b2cf5968-551e-4856-9783-52b3da59a7d0",
    "wrong_number": "17b47fee-58de-441e-a44c-c6300d46f273",
}
"""HubSpot's own call outcomes, which have these IDs in every account."""
_PATH = "/calling/v1/dispositions"
_TTL_SECONDS = 600.0


@dataclass(frozen=True)
class OutcomeLookup:
    """The ID of a call outcome, or why there is none."""

    id: str | None
    problem: str = ""


class CallOutcomes:
    """The call outcomes of one account, read once in ten minutes, and only if a rule uses another label."""

    def __init__(self, call_api: Any) -> None:
        self._call_api = call_api
        self._ids: Mapping[str, str] = {}
        self._labels: Sequence[str] = ()
        self._problem = ""
        self._until = 0.0

    def resolve(self, outcome: str) -> OutcomeLookup:
        """Return the outcome with a label, in any case and with blanks or `_`, or with an ID."""
        key = _key(outcome)
        if key in DEFAULT_OUTCOMES:
            return OutcomeLookup(DEFAULT_OUTCOMES[key])
        if _is_id(outcome):
            return OutcomeLookup(outcome.lower())
        self._read()
        if key in self._ids:
            return OutcomeLookup(self._ids[key])
        if self._problem:
            return OutcomeLookup(None, self._problem)
        hint = did_you_mean(outcome, self._labels)
        problem = f"HubSpot has no call outcome `{outcome[:80]}`"
        return OutcomeLookup(None, f"{problem}; {hint}" if hint else problem)

    def _read(self) -> None:
        if self._until > monotonic():
            return
        self._until = monotonic() + _TTL_SECONDS
        try:
            items = self._call_api(_PATH, "GET")
        except Exception as error:
            if status_of(error) not in (403, 404, 410):
                self._until = 0.0
                raise
            self._problem = "HubSpot does not list the account's call outcomes: use the ID of the outcome"
            return
        active = [item for item in items if not item.get("deleted")]
        self._ids = {_key(str(item["label"])): str(item["id"]) for item in active}
        self._labels = [str(item["label"]) for item in active]
        self._problem = ""


def _key(label: str) -> str:
    return "_".join(label.lower().replace("_", " ").split())


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
