"""Rules: the active ones, their versions, and the deliveries that wait because of one."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from bridge.store.rerender import RerenderReport
from bridge.store.rule_deliveries import CancelledDeliveries, ChangeKind
from bridge.store.rule_versions import list_versions, show_version
from bridge.web.api.endpoint import Call, Resource
from bridge.web.api.records import PageOf, record
from bridge.web.query_params import AnyPageQuery
from bridge.web.rules_report import rule_report, rules_report
from bridge.web.validation import Parameters

RULES = Resource("Rules", "The active rules, their problems, and the deliveries that wait because of them.")


class CancelRule(Parameters):
    """What to do with the waiting deliveries of a rule."""

    rerender: bool = Field(False, description="Apply the active version of the rule instead of cancelling.")


@record()
class RuleDiagnostic(TypedDict):
    """An error or warning in a rules file."""

    line: int
    column: int
    text: str
    hint: str
    rule: str | None
    level: Literal["error", "warning"]
    connection: str | None
    """Set if the file is right but the settings of this connection are missing or invalid."""
    path: str
    code: str
    """The line of the file."""
    caret: int
    """Column in `code` that the problem is at, from 1."""


@record()
class RuleCounts(TypedDict):
    """What a rule did. `fired` counts events, the others count deliveries that finished."""

    fired: int
    succeeded: int
    suppressed: int
    """Without those of shadow mode."""
    cancelled: int
    failed: int
    shadow: int
    """Deliveries that would have been made, had the rule not been in shadow mode."""
    reasons: dict[str, int]
    """Reason -> suppressed deliveries."""


@record()
class ActiveRule(TypedDict):
    """A rule of the active rules file."""

    name: str
    file: str
    line: int
    description: str
    when: str
    do: list[str]
    """Its actions, with their connections."""
    enabled: bool
    shadow: bool
    waiting: int
    """Deliveries that wait for their next attempt."""
    counts: RuleCounts
    """What it did since `counted_from`."""
    last_fired_at: datetime | None


@record()
class EarlierDeliveriesRecord(TypedDict):
    """Deliveries of one rule that wait and will be sent as an earlier version of the rules created them."""

    rule: str
    change: ChangeKind
    """What has become of the rule since."""
    waiting: int
    next_at: datetime
    """When the first of them is due."""
    message: str
    advice: str
    """The commands that stop or change them."""


@record()
class RulesReport(TypedDict):
    """The active rules, and what is wrong with the file if its last reload failed."""

    path: str
    hash: str
    loaded_at: datetime
    load_error: str | None
    """The errors of the file, if it could not be loaded: the rules before it stay active."""
    diagnostics: list[RuleDiagnostic]
    policy: list[str]
    """What applies to every message, in words."""
    counted_from: datetime
    """Start of the period of `counts`."""
    uncounted_hours: int
    """Hours of the period that a worker has not counted yet, for example after an upgrade."""
    rules: list[ActiveRule]
    earlier_deliveries: list[EarlierDeliveriesRecord]


@record()
class RuleLines(TypedDict):
    """The lines of the file that a rule consists of."""

    file: str
    first_line: int
    lines: list[str]


@record()
class RuleMiss(TypedDict):
    """A condition that kept a rule from firing."""

    text: str
    events: int


@record()
class RuleMisses(TypedDict):
    """How often a rule fired for the events of its types among the newest 1,000 events."""

    events: int
    fired: int
    misses: list[RuleMiss]
    """The first condition that was not true, the most frequent first."""


@record()
class RuleTestName(TypedDict):
    """A test of the rules file that names the rule."""

    name: str
    file: str
    line: int


@record()
class RuleDetails(ActiveRule):
    """One active rule."""

    counted_from: datetime
    uncounted_hours: int
    source: RuleLines
    misses: RuleMisses
    tests: list[RuleTestName]


@record()
class VersionSummary(TypedDict):
    """A version of the rules that routed an event."""

    hash: str
    first_used_at: datetime
    characters: int


@record()
class Version(TypedDict):
    """A version of the rules with its text."""

    hash: str
    first_used_at: datetime
    text: str


@RULES.get("/rules", response=RulesReport)
def get_rules(call: Call) -> Any:
    """Get the active rules with what each did, and the diagnostics of the file."""
    return rules_report(call.service)


@RULES.get("/rules/versions", response=PageOf[VersionSummary])
def list_rules_versions(call: Call, query: AnyPageQuery) -> Any:
    """List the versions of the rules that routed events, newest first."""
    items, next_cursor = list_versions(call.database, limit=query.limit, cursor=query.cursor)
    return {"items": items, "next_cursor": next_cursor}


@RULES.get("/rules/versions/{hash}", response=Version)
def get_rules_version(call: Call) -> Any:
    """Get a version of the rules by its hash, or by the first characters of it."""
    return show_version(call.database, call.path["hash"])


@RULES.post("/rules/{name:path}/cancel", response=CancelledDeliveries | RerenderReport)
def cancel_rule(call: Call, body: CancelRule) -> Any:
    """Cancel the waiting deliveries of a rule, or apply its active version to them."""
    if body.rerender:
        return call.service.rerender_rule(call.name, call.actor)
    return call.service.cancel_rule(call.name, call.actor)


@RULES.get("/rules/{name:path}", response=RuleDetails)
def get_rule(call: Call) -> Any:
    """Get one active rule: its lines of the file, what it did, and why it did not fire."""
    return rule_report(call.service, call.name)
