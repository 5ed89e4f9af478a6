"""Reports about the rules for the API and the dashboard: what runs, what each rule did, and why it did not fire."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from bridge.connector.action_name import ActionName
from bridge.lifecycle import SuppressReason
from bridge.rules.misses import count_misses
from bridge.rules.model import Rule
from bridge.rules.report import source_line
from bridge.rules.summary import policy_in_words, rule_source
from bridge.store.activity import SPANS, Activity, RuleActivity, read_activity
from bridge.store.queries import NotFound
from bridge.store.rule_deliveries import earlier_deliveries, waiting_deliveries, waiting_groups
from bridge.store.rule_stats import last_fired, newest_traces
from bridge.web.admin_service import AdminService, RunningRules

SPAN: Final = SPANS["7d"]
"""The period of the numbers."""
MAX_LOOKED_UP: Final = 100
"""Rules without a delivery in the period whose last one is looked up."""


def rules_report(service: AdminService) -> dict[str, Any]:
    """Return the active rules with what each did in the last days, and the errors of the file if it did not load."""
    rules, database = service.rules.current, service.database
    activity = read_activity(database, service.counts, SPAN)
    groups = waiting_groups(database)
    waiting: Counter[str] = Counter()
    for group in groups:
        waiting[group.rule] += group.total
    fired_at = last_fired(database, [rule.name for rule in rules.rules[:MAX_LOOKED_UP]])
    return {
        "path": str(service.rules.path),
        "hash": rules.hash,
        "loaded_at": service.rules.loaded_at,
        "load_error": service.rules.load_error,
        "diagnostics": diagnostics(service.rules),
        "policy": policy_in_words(rules),
        "counted_from": activity.slots[0],
        "uncounted_hours": activity.uncounted_hours,
        "rules": [_rule(rule, activity, waiting[rule.name], fired_at.get(rule.name)) for rule in rules.rules],
        "earlier_deliveries": [item.to_json() for item in earlier_deliveries(database, rules, groups)],
    }


def diagnostics(running: RunningRules) -> list[dict[str, Any]]:
    """Return the errors and warnings of the file on disk, each with its line of the file and the caret's column."""
    found = []
    for item in running.diagnostics:
        code, caret = source_line(item, running.texts)
        found.append(asdict(item) | {"code": code, "caret": caret})
    return found


def _rule(rule: Rule, activity: Activity, waiting: int, fired_at: datetime | None) -> dict[str, Any]:
    return {
        "name": rule.name,
        "file": rule.path,
        "line": rule.line,
        "description": rule.description,
        "when": rule.when_text,
        "do": [
            ActionName.parse(step.use).with_connection(name) for step in rule.do for name in step.connections
        ],
        "enabled": rule.enabled,
        "shadow": rule.shadow,
        "waiting": waiting,
        "counts": counts(activity.rules.get(rule.name, RuleActivity())),
        "last_fired_at": fired_at,
    }


def counts(rule: RuleActivity) -> dict[str, Any]:
    """Return the numbers of a rule. What shadow mode suppressed is counted apart: nothing was meant to be sent."""
    suppressed = +rule.suppressed
    shadow = suppressed.pop(SuppressReason.SHADOW, 0)
    return {
        "fired": rule.fired,
        "succeeded": rule.succeeded,
        "suppressed": suppressed.total(),
        "cancelled": rule.cancelled,
        "failed": rule.failed,
        "shadow": shadow,
        "reasons": dict(suppressed.most_common()),
    }


def rule_report(service: AdminService, name: str) -> dict[str, Any]:
    """Return one active rule: its lines of the file, what it did, why it did not fire, its tests. Raise NotFound."""
    rules, database = service.rules.current, service.database
    rule = rules.named(name)
    if rule is None:
        raise NotFound(f"no active rule is called `{name[:80]}`")
    activity = read_activity(database, service.counts, SPAN)
    source = rule_source(rules, rule)
    return _rule(
        rule,
        activity,
        waiting_deliveries(database, name).total,
        last_fired(database, [name]).get(name),
    ) | {
        "counted_from": activity.slots[0],
        "uncounted_hours": activity.uncounted_hours,
        "source": {"file": source.file, "first_line": source.first_line, "lines": list(source.lines)},
        "misses": misses(service, rule),
        "tests": [
            {"name": test.name, "file": test.path, "line": test.line}
            for test in rules.tests
            if name in test.expect
        ],
    }


def misses(service: AdminService, rule: Rule) -> dict[str, Any]:
    """Return how often a rule fired for the newest events, and the first condition that was not true otherwise."""
    return asdict(count_misses(newest_traces(service.database, rule.name, rule.when)))
