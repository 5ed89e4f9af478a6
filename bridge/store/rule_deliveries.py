"""Waiting deliveries of a rule: count those that a changed rules file leaves behind, and cancel them.

Params are rendered when an event is routed. So what waits is sent as it was, also after its rule was disabled, put
into shadow mode, removed, renamed or changed, unless an operator cancels it.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import ColumnElement, and_, case, func, select, text

from bridge.lifecycle import Transition, is_unresolved
from bridge.rules.changes import rule_definitions
from bridge.rules.model import Rule, Rules
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.store.deliveries import lock_deliveries
from bridge.store.transitions import Change, apply_transitions
from bridge.store.unindexed import unindexed
from bridge.store.waiting import IS_WAITING

CANCEL_BATCH: Final = 500
"""Deliveries per transaction."""
MAX_VERSIONS: Final = 20
"""Earlier versions of the rules that are compared with the active ones; in older ones, every rule counts as changed."""

ChangeKind = Literal["disabled", "shadow", "removed", "changed"]
_DESCRIPTIONS: Final[Mapping[str, str]] = {
    "disabled": "is disabled",
    "shadow": "is in shadow mode",
    "removed": "was removed or renamed",
    "changed": "was changed",
}

_TABLE = schema.deliveries
_IS_SHADOW = _TABLE.c.options.like('%"shadow": true%')


def _of_rule(rule: str) -> ColumnElement[bool]:
    # What waits is few; the index of rules leads to all that the rule has ever created.
    return and_(unindexed(_TABLE.c.rule) == rule, _TABLE.c.trigger != "alert")


@dataclass(frozen=True)
class EarlierDeliveries:
    """Deliveries of one rule that wait and will be sent as an earlier version of the rules created them."""

    rule: str
    change: ChangeKind
    """What has become of the rule since."""
    waiting: int
    next_at: datetime
    """When the first of them is due."""

    @property
    def advice(self) -> str:
        """The commands that stop or change them."""
        command = f"bridge cancel --rule {shlex.quote(self.rule)}"
        advice = f"`{command}` stops {'it' if self.waiting == 1 else 'them'}"
        if self.change == "changed":
            advice += f"; `{command} --rerender` applies the new version"
        return advice

    @property
    def message(self) -> str:
        """A sentence for operators, without the advice."""
        deliveries = (
            "1 of its deliveries waits" if self.waiting == 1 else f"{self.waiting:,} of its deliveries wait"
        )
        return f"{self.rule} {_DESCRIPTIONS[self.change]}, but {deliveries} and will be sent as before"

    def to_json(self) -> dict[str, Any]:
        """Return the record of the API and of `--json`."""
        return asdict(self) | {"message": self.message, "advice": self.advice}


class WaitingGroup(NamedTuple):
    """The deliveries of a rule that wait and that one version of the rules created."""

    rule: str
    rules_hash: str
    is_shadow: bool
    """They were created in shadow mode, so they are not sent."""
    total: int
    next_at: datetime
    """When the first of them is due."""


def waiting_groups(database: Database) -> list[WaitingGroup]:
    """Return what waits of all rules. Alerts are not included. Each waiting delivery is read."""
    keys = (_TABLE.c.rule, _TABLE.c.rules_hash, _IS_SHADOW)
    query = (
        select(*keys, func.count(), func.min(_TABLE.c.run_at))
        .where(IS_WAITING, _TABLE.c.trigger != "alert")
        .group_by(*keys)
        .order_by(*keys)
    )
    with database.read() as conn:
        return [WaitingGroup(*row) for row in conn.execute(query)]


def earlier_deliveries(
    database: Database, rules: Rules, groups: Sequence[WaitingGroup] | None = None
) -> list[EarlierDeliveries]:
    """Return the deliveries of rules that are no longer as they were, soonest first.

    Deliveries that were created in shadow mode are left out: they are not sent. `groups` is what waits, if the caller
    has read it.
    """
    versions = schema.rules
    groups = waiting_groups(database) if groups is None else groups
    rows = [group for group in groups if not group.is_shadow]
    hashes = {row.rules_hash for row in rows if row.rules_hash != rules.hash}
    with database.read() as conn:
        texts = select(versions.c.hash, versions.c.text).where(versions.c.hash.in_(hashes))
        newest = texts.order_by(versions.c.first_used_at.desc()).limit(MAX_VERSIONS)
        earlier = {row.hash: rule_definitions(row.text) for row in conn.execute(newest)} if hashes else {}
    current = rule_definitions(rules.text)
    found: dict[tuple[str, ChangeKind], EarlierDeliveries] = {}
    for row in rows:
        is_same = row.rules_hash == rules.hash or current.get(row.rule) == earlier.get(
            row.rules_hash, {}
        ).get(row.rule)
        change = _change(rules.named(row.rule), is_same)
        if change is not None:
            known = found.get((row.rule, change))
            found[row.rule, change] = EarlierDeliveries(
                row.rule,
                change,
                row.total + (known.waiting if known else 0),
                min(row.next_at, known.next_at) if known else row.next_at,
            )
    return sorted(found.values(), key=lambda item: (item.next_at, item.rule))


def _change(rule: Rule | None, is_same: bool) -> ChangeKind | None:
    if rule is None:
        return "removed"
    if not rule.enabled:
        return "disabled"
    if rule.shadow:
        return "shadow"
    return None if is_same else "changed"


@dataclass(frozen=True)
class WaitingDeliveries:
    """The deliveries of one rule that wait for their next attempt."""

    rule: str
    by_action: Mapping[str, int]
    unresolved: int
    """Those that may have been sent: their next attempt is a lookup."""

    @property
    def total(self) -> int:
        """Their number."""
        return sum(self.by_action.values())

    @property
    def description(self) -> str:
        """Their kinds in words: `200 twilio.send_sms, 12 hubspot.log_call`."""
        kinds = ", ".join(f"{count:,} {action}" for action, count in self.by_action.items())
        return kinds + (f"; {self.unresolved:,} of them may have been sent before" if self.unresolved else "")


def waiting_deliveries(database: Database, rule: str) -> WaitingDeliveries:
    """Return how many deliveries of a rule wait, by action, the most frequent first. Alerts are not included."""
    unresolved = func.sum(case((_TABLE.c.outcome_unknown_since.is_not(None), 1), else_=0))
    query = (
        select(_TABLE.c.action, func.count(), unresolved)
        .where(IS_WAITING, _of_rule(rule))
        .group_by(_TABLE.c.action)
        .order_by(func.count().desc(), _TABLE.c.action)
    )
    with database.read() as conn:
        rows = conn.execute(query).all()
    return WaitingDeliveries(rule, {row[0]: row[1] for row in rows}, sum(row[2] for row in rows))


def waiting_ids(database: Database, rule: str, batch: int) -> Iterator[Sequence[str]]:
    """Return the IDs of the waiting deliveries of a rule, soonest first, in batches."""
    query = select(_TABLE.c.id).where(IS_WAITING, _of_rule(rule)).order_by(_TABLE.c.run_at, _TABLE.c.id)
    with database.read() as conn:
        ids = conn.execute(query).scalars().all()
    return (ids[start : start + batch] for start in range(0, len(ids), batch))


@dataclass(frozen=True)
class CancelledDeliveries:
    """The result of `cancel_rule`."""

    rule: str
    cancelled: int
    unresolved: int
    """Those of the cancelled deliveries that may have been sent before."""
    running: int
    """Deliveries whose attempt is running: they cannot be cancelled."""

    @property
    def text(self) -> str:
        """The result in words."""
        if not self.cancelled and not self.running:
            return f"no delivery of {self.rule} waits"
        parts = [f"{self.cancelled:,} cancelled"]
        if self.unresolved:
            parts.append(f"{self.unresolved:,} of them may have been sent before")
        if self.running:
            parts.append(f"{self.running:,} running and not cancelled")
        return f"{self.rule}: {'; '.join(parts)}"


def cancel_rule(
    database: Database, actor: str, rule: str, on_progress: Callable[[int], None] = lambda _: None
) -> CancelledDeliveries:
    """Cancel the waiting deliveries of a rule, soonest first, in transactions of bounded size."""
    counts: Counter[str] = Counter()
    for ids in waiting_ids(database, rule, CANCEL_BATCH):
        with database.write() as conn:
            now = database.now(conn)
            locked = lock_deliveries(conn, _TABLE.c.id.in_(ids) & IS_WAITING.self_group())
            changes = [
                Change(item, Transition.cancelled(item, f"cancelled with its rule by {actor}"))
                for item in locked.values()
            ]
            apply_transitions(database, conn, changes, now)
            record_audit(conn, now, actor, "cancel", locked, {"rule": rule})
            database.publish(conn, {item.connection for item in locked.values()})
        counts["cancelled"] += len(locked)
        counts["unresolved"] += sum(is_unresolved(item) for item in locked.values())
        on_progress(len(ids))
    running = select(func.count()).where(text("deliveries.state = 'running'"), _of_rule(rule))
    with database.read() as conn:
        counts["running"] = conn.execute(running.select_from(_TABLE)).scalar_one()
    return CancelledDeliveries(rule, counts["cancelled"], counts["unresolved"], counts["running"])
