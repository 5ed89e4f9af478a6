"""Previews of `bridge retry` and `bridge resume`: the messages they would send, shown before they ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import typer

from bridge.cli.output import Record, pluralize, print_status
from bridge.dryrun.effects import Effects
from bridge.store.database import Database
from bridge.store.operator_actions import preview_action
from bridge.store.waiting import waiting_of_connections

_POLICY_NOTE = "quiet hours, opt-outs and caps are checked again before each message"


def preview_of_retry(database: Database, ids: Sequence[str]) -> Record:
    """Return what `bridge retry` would do with these deliveries."""
    effects, obstacles = _retried(database, ids)
    lines = [f"{pluralize(sum(effects.sent.values()), 'retry')} would start: {effects.text}", *obstacles]
    data = {"dry_run": True, **effects.to_json(), "not_retried": len(obstacles)}
    return Record(data, "\n".join(lines))


def confirm_retry(database: Database, ids: Sequence[str]) -> None:
    """Say what retrying these deliveries would do, and ask. Abort if the answer is no."""
    effects, obstacles = _retried(database, ids)
    for line in obstacles:
        print_status(line)
    total = sum(effects.sent.values())
    if total:
        print_status(f"This would lead to: {effects.text}; {_POLICY_NOTE}")
        typer.confirm(f"Retry {pluralize(total, 'delivery')}?", abort=True, err=True)


def _retried(database: Database, ids: Sequence[str]) -> tuple[Effects, list[str]]:
    """Return what would be attempted, and a line for each delivery that would not."""
    sent: Counter[str] = Counter()
    obstacles = []
    for delivery_id, (delivery, obstacle) in zip(ids, preview_action(database, "retry", ids), strict=True):
        if delivery is None or obstacle is not None:
            obstacles.append(f"{delivery_id} is not retried: {obstacle}")
        else:
            sent[delivery.channel or delivery.action] += 1
    return Effects(sent), obstacles


def effects_of_resume(database: Database, connections: Collection[str]) -> Effects:
    """Return what waits for these connections, and can leave when they are resumed."""
    sent: Counter[str] = Counter()
    expired = later = 0
    for item in waiting_of_connections(database, connections):
        if item.is_expired:
            expired += item.total
        else:
            sent[item.kind] += item.total
            later += item.total if item.is_later else 0
    return Effects(sent, {"expired": expired} if expired else {}, later=later)


def confirm_resume(database: Database, connections: Collection[str]) -> None:
    """If messages wait for these connections, say how many, and ask. Abort if the answer is no."""
    effects = effects_of_resume(database, connections)
    if effects.messages:
        print_status(f"Waiting: {effects.text}; {_POLICY_NOTE}")
        typer.confirm(f"Resume {', '.join(connections)}?", abort=True, err=True)
