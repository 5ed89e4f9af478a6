"""Campaigns of an org, found by name or ID, and the member statuses that each campaign has of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from bridge.connector import did_you_mean, find_option

from . import sdk
from .session import Record
from .settings import ID_PATTERN
from .soql import select

_CACHE_SECONDS = 600.0
_PROBLEM_CACHE_SECONDS = 60.0
"""How long a campaign or status that the org lacks is remembered: it may be about to be created."""
_MAX_CACHED = 1_000
_PREFIX = "701"
_MAX_SUGGESTED = 2_000


@dataclass(frozen=True)
class CampaignLookup:
    """A campaign and its member statuses, or why there is none."""

    id: str = ""
    statuses: Mapping[str, bool] = field(default_factory=dict)
    """Label of each status, the default one first, and whether such a member has responded."""
    problem: str = ""

    def status(self, name: str) -> str | None:
        """Return the campaign's own spelling of a status, None if it has no such status."""
        return find_option(name, {label: label for label in self.statuses})

    def status_problem(self, name: str) -> str:
        """Return that the campaign has no such status, and a hint after `; `."""
        hint = did_you_mean(name, list(self.statuses))
        return f"the campaign has no member status `{name[:80]}`" + (f"; {hint}" if hint else "")


class Campaigns:
    """The campaigns of one org, each read once in ten minutes; after a problem, in one minute."""

    def __init__(self, query: Callable[[str], list[Record]]) -> None:
        self._query = query
        self._cache: dict[str, tuple[float, CampaignLookup]] = {}

    def find(self, name: str, status: str | None = None) -> CampaignLookup:
        """Return the campaign with this ID or name. Of several with one name, only the active one counts.

        It is read again sooner if it has no such `status`.
        """
        read_at, found = self._cache.get(name, (0.0, None))
        is_complete = found is not None and found.id and (status is None or found.status(status))
        max_age = _CACHE_SECONDS if is_complete else _PROBLEM_CACHE_SECONDS
        if found is None or monotonic() - read_at > max_age:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            found = self._read(name)
            self._cache[name] = (monotonic(), found)
        return found

    def suggestion(self, name: str) -> str:
        """Return a hint with the campaign of a similar name, empty if there is none."""
        rows = self._query(select(("Name",), "Campaign", f"IsActive = true LIMIT {_MAX_SUGGESTED}"))
        return did_you_mean(name, [str(row["Name"]) for row in rows])

    def _read(self, name: str) -> CampaignLookup:
        is_id = name.startswith(_PREFIX) and re.fullmatch(ID_PATTERN, name) is not None
        condition = sdk.format_soql(
            "Id = {}" if is_id else "Name = {} ORDER BY CreatedDate DESC LIMIT 50", name
        )
        try:
            rows = self._query(select(("Id", "IsActive"), "Campaign", condition))
        except sdk.SalesforceError as error:
            if error.status not in (400, 403, 404):
                raise
            return CampaignLookup(problem="the integration user may not read campaigns")
        active = [row for row in rows if row.get("IsActive")]
        chosen = rows if len(rows) == 1 else active
        if len(chosen) != 1:
            return CampaignLookup(problem=_problem(name, len(rows), len(active)))
        campaign_id = str(chosen[0]["Id"])
        of_campaign = sdk.format_soql("CampaignId = {} ORDER BY SortOrder", campaign_id)
        statuses = self._query(
            select(("Label", "HasResponded", "IsDefault"), "CampaignMemberStatus", of_campaign)
        )
        statuses.sort(key=lambda row: not row["IsDefault"])
        return CampaignLookup(campaign_id, {str(row["Label"]): bool(row["HasResponded"]) for row in statuses})


def _problem(name: str, found: int, active: int) -> str:
    if not found:
        return f"Salesforce has no campaign `{name[:80]}` that the integration user can see"
    how_many = (
        f"{active} active campaigns have" if active else f"{found} campaigns, none of them active, have"
    )
    return f"{how_many} the name `{name[:80]}`; write the ID of one"
