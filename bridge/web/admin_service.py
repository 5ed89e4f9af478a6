"""What the API and the log page both look at, and do: stored work, the rules that run, the connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from bridge.rules.model import Problem, Rules
from bridge.rules.route import route
from bridge.store.audit_log import entries
from bridge.store.connections import FOR_GOOD, all_connections, pause, resume
from bridge.store.database import Database
from bridge.store.operator_actions import (
    Act,
    Replayed,
    Resolution,
    accept_rejected_request,
    cancel,
    replay,
    resolve,
    retry,
)
from bridge.store.queries import NotFound, show_delivery, show_event, show_rejected_request
from bridge.web.health import Counted
from bridge.web.query_params import BadParameter

Kind = Literal["event", "delivery", "rejected_request"]

_READERS = {"event": show_event, "delivery": show_delivery, "rejected_request": show_rejected_request}


class RunningRules(Protocol):
    """The rules of this process, and what is wrong with the file on disk."""

    path: Path
    current: Rules
    loaded_at: datetime
    trouble: str | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Desk:
    """Where people look and act; everything here blocks, so it runs in a thread."""

    database: Database
    rules: RunningRules
    counted: Counted

    def show(self, kind: Kind, ident: str) -> dict[str, Any]:
        """One event, delivery or rejection with what people did to it; raises NotFound."""
        return _READERS[kind](self.database, ident) | {"audit": entries(self.database, target=ident)}

    def act(
        self,
        name: str,
        ident: str,
        actor: str,
        *,
        resolution: Resolution | None = None,
        external_id: str | None = None,
    ) -> Act:
        """Retry, cancel or resolve one delivery; raises NotFound."""
        show_delivery(self.database, ident)
        match name:
            case "retry":
                return retry(self.database, actor, [ident])[0]
            case "cancel":
                return cancel(self.database, actor, [ident])[0]
            case "resolve" if resolution is not None:
                return resolve(self.database, actor, ident, resolution, external_id)
        raise ValueError(f"no act is called {name}")

    def accept(self, ident: str, actor: str) -> Act:
        """Take a refused request after all; raises NotFound."""
        return accept_rejected_request(self.database, actor, ident)

    def replay(self, ident: str, actor: str, *, rule: str | None = None, force: bool = False) -> Replayed:
        """Route one event again with the rules that run now; raises NotFound, BadParameter."""
        show_event(self.database, ident)
        rules = self.rules.current
        if rule is not None and rules.named(rule) is None:
            raise BadParameter(f"no rule is called `{rule[:80]}` in the rules that run now")
        return replay(
            self.database, actor, [ident], rules, lambda event, now: route(event, rules, now),
            rule=rule, force=force,
        )[0]  # fmt: skip

    def pause(self, name: str, actor: str, reason: str) -> dict[str, Any]:
        """Let nothing leave over a connection until somebody resumes it; raises NotFound."""
        self.connection(name)
        pause(self.database, name, reason, actor)
        return self.connection(name)

    def resume(self, name: str, actor: str) -> dict[str, Any]:
        """End a connection's pause, whoever or whatever made it; raises NotFound."""
        self.connection(name)
        resume(self.database, name, actor)
        return self.connection(name)

    def connection(self, name: str) -> dict[str, Any]:
        """One connection; raises NotFound."""
        found = [row for row in self.connections() if row["name"] == name]
        if not found:
            raise NotFound(f"there is no connection `{name}`")
        return found[0]

    def connections(self) -> list[dict[str, Any]]:
        """Every connection that was ever in use, and whether it is paused, until when (None: for good) and why."""
        now = self.database.clock.now()
        return [connection_record(row, now) for row in all_connections(self.database)]

    def counts(self) -> dict[str, Any]:
        """Deliveries by state and what waits; at most a few seconds old."""
        found, _ = self.counted.take()
        return {
            "deliveries": found.deliveries,
            "unrouted": found.unrouted,
            "oldest_due": found.oldest_due,
        }

    def rules_status(self) -> dict[str, Any]:
        """Which rules run since when, and the problems of the file on disk if it is not the one that runs."""
        rules = self.rules.current
        return {
            "path": str(self.rules.path),
            "hash": rules.hash,
            "loaded_at": self.rules.loaded_at,
            "trouble": self.rules.trouble,
            "problems": [vars(problem) for problem in self.rules.problems],
            "rules": [
                {
                    "name": rule.name,
                    "line": rule.line,
                    "description": rule.description,
                    "when": rule.when_text,
                    "do": [_step(step.use, step.connection) for step in rule.do],
                    "enabled": rule.enabled,
                    "shadow": rule.shadow,
                }
                for rule in rules.rules
            ],
        }

    def audit(self, limit: int, cursor: str | None) -> tuple[Sequence[dict[str, Any]], str | None]:
        """What people did, the newest first, and where the next page begins."""
        found = entries(self.database, limit=limit + 1, cursor=cursor)
        return found[:limit], found[limit - 1]["id"] if len(found) > limit else None


def connection_record(row: dict[str, Any], now: datetime) -> dict[str, Any]:
    """A connection's row as people and programs are told of it."""
    until = row["paused_until"]
    # An open circuit whose time is up is half open: it lets one attempt through, to see.
    paused = row["pause_cause"] is not None and (row["pause_cause"] == "circuit" or (until or now) > now)
    return {
        "name": row["name"],
        "paused": paused,
        "pause_cause": row["pause_cause"] if paused else None,
        "paused_until": until if paused and until != FOR_GOOD else None,
        "pause_reason": row["pause_reason"] if paused else None,
        "recent_failures": row["failures"],
        "recent_successes": row["successes"],
    }


def _step(use: str, connection: str) -> str:
    """`twilio.send_sms`, with its connection where that has another name."""
    return use if use.partition(".")[0] == connection else f"{use} ({connection})"
