"""What people do to stored work: retry, replay, cancel, resolve, accept.

Each act is one transaction with its entry in the audit, under the same locks as the worker's own. What would put
promise 2 at risk (nobody is written to twice for one cause) is refused, with a text that says what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, or_, select, update

from bridge.errors import BridgeError
from bridge.rules.model import Rules
from bridge.signing import SignedRequestRejected, read_event
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database
from bridge.store.idempotency import mark_completed_for, release_keys
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.queries import NotFound
from bridge.store.retention import ERASED
from bridge.store.routing import Route, delivery_row, event_from_row, store_rules_version

Resolution = Literal["delivered", "retry", "discard"]
"""What a person found out about a delivery in review: it took effect; it did not, do it again; leave it."""

REPLAY_GROUP = 200
"""Events that one transaction of a replay takes on."""

NO_SUCH_DELIVERY = "there is no such delivery"
"""What an act says of an id that names nothing."""

_TABLE = schema.deliveries


@dataclass(frozen=True)
class ActionResult:
    """What became of an act on one id."""

    id: str
    done: bool
    text: str
    """What was done, or why not and what to do instead."""


def retry(database: Database, actor: str, idents: Sequence[str]) -> list[ActionResult]:
    """Attempt dead deliveries again, and those that wait for their next attempt at once."""
    with database.write() as conn:
        now = database.now(conn)
        rows = _locked(conn, idents)
        acts = [_retry(conn, rows.get(ident), ident, now) for ident in idents]
        _finish(database, conn, actor, "retry", acts, rows, now)
        return acts


def _retry(conn: Connection, row: Row[Any] | None, ident: str, now: datetime) -> ActionResult:
    refusal = _why_not_retry(row, now)
    if row is None or refusal is not None:
        return ActionResult(ident, False, refusal or _unknown(ident))
    fresh: dict[str, Any] = {"run_at": now}
    if row.state == "failed":
        # The schedule begins anew: the last one has run out, or the partner refused.
        fresh |= {
            "state": "pending",
            "attempts": 0,
            "first_attempt_at": None,
            "finished_at": None,
            "needs_follow_up": False,
        }
    _change(conn, ident, **fresh)
    return ActionResult(ident, True, f"attempted again {_when(conn, row.connection, now)}")


def _when(conn: Connection, name: str, now: datetime) -> str:
    """When a delivery that is due now is attempted: at once, unless its connection is paused."""
    row = conn.execute(select(schema.connections).where(schema.connections.c.name == name)).one_or_none()
    if row is None or row.paused_until is None or row.paused_until <= now:
        return "now"
    paused = f"when {name} is resumed (paused: {row.pause_reason or row.pause_cause}); `bridge resume {name}`"
    if row.pause_cause in ("person", "auth"):
        return paused
    return f"{paused}, or by itself at {row.paused_until:%Y-%m-%d %H:%M:%S} UTC"


def _why_not_retry(row: Row[Any] | None, now: datetime) -> str | None:
    if row is None:
        return None
    if row.state == "needs_review":
        return f"nobody knows whether it went out: look at the partner, then `bridge resolve {row.id} sent|resend|drop`"
    if row.state not in ("failed", "retrying"):
        return f"it is {row.state}; only dead and retrying deliveries are retried{_once_more(row)}"
    if row.outcome_unknown_since is not None:
        # Asked before it has settled, the partner would deny what it did, and it would be done twice.
        return f"whether it went out is asked at {row.run_at:%H:%M:%S} UTC; if not, it is attempted again by itself"
    if row.params == ERASED:
        return "what it would send is no longer kept (BRIDGE_RETENTION)"
    if row.reason == "render_error":
        return f"its params could not be rendered: mend the rule, then `bridge replay {row.event_id} --rule {row.rule}`"
    return _expired(row, now)


def _once_more(row: Row[Any]) -> str:
    """How what was sent is sent once more."""
    if row.state != "succeeded" or row.trigger != "rule" or row.event_id is None:
        return ""
    return f"; `bridge replay {row.event_id} --rule {row.rule} --force` sends it once more on purpose"


def _expired(row: Row[Any], now: datetime) -> str | None:
    if row.expires_at is not None and row.expires_at <= now:
        return f"it was only worth sending until {row.expires_at:%Y-%m-%d %H:%M} UTC (the rule's `expires`)"
    return None


def cancel(database: Database, actor: str, idents: Sequence[str]) -> list[ActionResult]:
    """Do not send what waits. Where it may have gone out already, its effect stays held, so nothing sends it again."""
    with database.write() as conn:
        now = database.now(conn)
        rows = _locked(conn, idents)
        acts = []
        for ident in idents:
            row = rows.get(ident)
            if row is None:
                acts.append(ActionResult(ident, False, _unknown(ident)))
            elif row.state not in ("pending", "retrying", "needs_review"):
                acts.append(
                    ActionResult(ident, False, f"it is {row.state}; only what waits can be cancelled")
                )
            else:
                acts.append(_drop(database, conn, row, f"cancelled by {actor}", now))
        _finish(database, conn, actor, "cancel", acts, rows, now)
        return acts


def _drop(database: Database, conn: Connection, row: Row[Any], detail: str, now: datetime) -> ActionResult:
    """Cancel one delivery, and settle its effect."""
    unknown = row.state == "needs_review" or row.outcome_unknown_since is not None
    if unknown:
        mark_completed_for(database, conn, row, None, now)
    else:
        release_keys(conn, {row.id: row.idempotency_key})
    _change(conn, row.id, state="cancelled", detail=detail, outcome_unknown_since=None, finished_at=now)
    return ActionResult(row.id, True, "cancelled; it may have gone out before" if unknown else "cancelled")


def resolve(
    database: Database, actor: str, ident: str, resolution: Resolution, external_id: str | None = None
) -> ActionResult:
    """End a review by what a person found at the partner."""
    with database.write() as conn:
        now = database.now(conn)
        rows = _locked(conn, [ident])
        act = _resolve(database, conn, rows.get(ident), ident, resolution, external_id, actor, now)
        _finish(database, conn, actor, "resolve", [act], rows, now, {"resolution": resolution})
        return act


def _resolve(
    database: Database,
    conn: Connection,
    row: Row[Any] | None,
    ident: str,
    resolution: Resolution,
    external_id: str | None,
    actor: str,
    now: datetime,
) -> ActionResult:
    if row is None:
        return ActionResult(ident, False, _unknown(ident))
    if row.state != "needs_review":
        return ActionResult(ident, False, f"it is {row.state}; only a delivery in review is resolved")
    if resolution == "discard":
        return _drop(database, conn, row, f"dropped by {actor}", now)
    if resolution == "delivered":
        mark_completed_for(database, conn, row, external_id, now)
        _change(
            conn, ident, state="succeeded", reason=None, detail=f"found by {actor}", external_id=external_id,
            outcome_unknown_since=None, finished_at=now,
        )  # fmt: skip
        return ActionResult(ident, True, "marked as sent")
    late = _expired(row, now)
    if late is not None:
        return ActionResult(ident, False, f"{late}; resolve it as sent or drop")
    release_keys(conn, {ident: row.idempotency_key})
    _change(
        conn, ident, state="pending", detail=f"to be sent again, says {actor}", run_at=now, attempts=0,
        outcome_unknown_since=None, first_attempt_at=None, possibly_sent_at=None,
    )  # fmt: skip
    return ActionResult(ident, True, f"sent again {_when(conn, row.connection, now)}")


def _locked(conn: Connection, idents: Collection[str]) -> dict[str, Row[Any]]:
    rows = conn.execute(select(_TABLE).where(_TABLE.c.id.in_(idents)).order_by(_TABLE.c.id).with_for_update())
    return {row.id: row for row in rows}


def _change(conn: Connection, ident: str, **values: Any) -> None:
    conn.execute(update(_TABLE).where(_TABLE.c.id == ident).values(values))


def _finish(
    database: Database,
    conn: Connection,
    actor: str,
    act: str,
    acts: Sequence[ActionResult],
    rows: Mapping[str, Row[Any]],
    now: datetime,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Note what was done, and wake the connections that it concerns."""
    done = [item.id for item in acts if item.done]
    record_audit(conn, now, actor, act, done, detail)
    if done:
        database.publish(conn, {rows[ident].connection for ident in done})


def _unknown(ident: str) -> str:
    if ident.startswith("evt_"):
        return "that is an event; this is for deliveries (dlv_...). `bridge replay` takes events"
    return NO_SUCH_DELIVERY


# Replay


@dataclass(frozen=True)
class ReplayResult:
    """What a replay made of one event."""

    id: str
    deliveries: Sequence[str]
    """The ids of the new deliveries."""
    skipped: str = ""
    """Why nothing was made of it."""


def events_between(database: Database, since: datetime | None, until: datetime | None) -> list[str]:
    """The ids of routed events that were received in a span of time and whose bodies are kept, the oldest first."""
    table = schema.events
    query = select(table.c.id).where(table.c.body.is_not(None), table.c.routed_at.is_not(None))
    if since is not None:
        query = query.where(table.c.received_at >= since)
    if until is not None:
        query = query.where(table.c.received_at < until)
    with database.read() as conn:
        return list(conn.execute(query.order_by(table.c.received_at, table.c.id)).scalars())


def replay(
    database: Database,
    actor: str,
    idents: Sequence[str],
    rules: Rules,
    route: Route,
    *,
    rule: str | None = None,
    force: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[ReplayResult]:
    """Route stored events once more with `rules`, or with one `rule` of them.

    What an earlier delivery already brought about ends `already_done` (a CRM record is updated); `force` does it
    once more all the same.
    """
    replayed: list[ReplayResult] = []
    for start in range(0, len(idents), REPLAY_GROUP):
        group = idents[start : start + REPLAY_GROUP]
        replayed += _replay_group(database, actor, group, rules, route, rule, force)
        on_progress(len(group))
    return replayed


def _replay_group(
    database: Database,
    actor: str,
    idents: Sequence[str],
    rules: Rules,
    route: Route,
    rule: str | None,
    force: bool,
) -> list[ReplayResult]:
    table = schema.events
    with database.write() as conn:
        now = database.now(conn)
        store_rules_version(database, conn, rules, now)
        # Locked, so that none loses its body meanwhile.
        locked = select(table).where(table.c.id.in_(idents)).order_by(table.c.id).with_for_update()
        rows = {row.id: row for row in conn.execute(locked)}
        replayed, made = [], []
        for ident in idents:
            skipped = _why_not_replay(rows.get(ident))
            new = [] if skipped else list(_routed_again(rows[ident], rules, route, now, rule, force))
            made += new
            replayed.append(ReplayResult(ident, [row["id"] for row in new], skipped))
        if made:
            conn.execute(_TABLE.insert(), made)
        for item in replayed:
            if not item.skipped:
                detail = {
                    "deliveries": len(item.deliveries),
                    "rules": rules.hash[:12],
                    "rule": rule,
                    "force": force,
                }
                record_audit(conn, now, actor, "replay", [item.id], {k: v for k, v in detail.items() if v})
        database.publish(conn, {row["connection"] for row in made})
        return replayed


def _routed_again(
    row: Row[Any], rules: Rules, route: Route, now: datetime, rule: str | None, force: bool
) -> Iterator[dict[str, Any]]:
    event = event_from_row(row)
    for planned in route(event, now).planned:
        if rule is None or planned.rule == rule:
            yield delivery_row(planned, event, rules.hash, now, force=force)


def _why_not_replay(row: Row[Any] | None) -> str:
    if row is None:
        return "there is no such event"
    if row.body is None:
        return "its body is no longer kept (BRIDGE_RETENTION)"
    return "" if row.routed_at is not None else "it is not routed yet; it will be by itself"


# Rejections


def accept_rejected_request(database: Database, actor: str, ident: str) -> ActionResult:
    """Take a request that was refused although it was signed, or that clashed with a stored event, as an event.

    A kill in between is harmless: accepted again, the event is known already.
    """
    table = schema.rejected_requests
    with database.read() as conn:
        row = conn.execute(select(table).where(table.c.id == ident)).one_or_none()
    if row is None:
        raise NotFound(f"there is no rejected request `{ident}`")
    if row.accepted_event_id is not None:
        return ActionResult(ident, False, f"it was accepted before, as {row.accepted_event_id}")
    if row.body is None:
        return ActionResult(
            ident, False, "it was not signed, so its body was not kept; Heppu has to send it again"
        )
    if row.reason == "conflict":
        return ActionResult(
            ident, False,
            "an event with the same id and another body is stored; look at both (`bridge show`), and send what is "
            "right with `bridge send FILE --now`",
        )  # fmt: skip
    try:
        event = read_event(row.body, row.received_at)
    except SignedRequestRejected as error:
        return ActionResult(ident, False, f"it is no event: {error.detail}")
    answer = store_events(database, [IncomingEvent(event, row.body)])[0]
    if answer == "unavailable":
        raise BridgeError("the event could not be stored now; try again")
    events = schema.events
    with database.write() as conn:
        stored = conn.execute(
            select(events.c.id).where(
                or_(
                    events.c.dedupe_key == event.dedupe_key,
                    events.c.fallback_dedupe_key == event.fallback_dedupe_key,
                )
            )
        ).scalar()
        conn.execute(update(table).where(table.c.id == ident).values(accepted_event_id=stored))
        record_audit(conn, database.now(conn), actor, "accept", [ident], {"event": stored})
    return ActionResult(
        ident, True, f"accepted as {stored}" if answer == "stored" else f"it was stored before, as {stored}"
    )
