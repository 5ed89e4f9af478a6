"""Sessions of the dashboard, each from a login until its expiry, the logout, or `bridge sessions end`.

The database contains only hashes, so a copy of it opens no session.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select

from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database

_TABLE = schema.sessions
TARGET = "dashboard"
"""Target of the audit entries about logins and sessions."""


@dataclass(frozen=True)
class Session:
    """One session, as the table has it."""

    id: str
    """Hash of the secret in the cookie, under the token that opened the session."""
    actor: str
    access: str
    client: str
    """The address that logged in."""


def create_session(database: Database, session: Session, lifetime: timedelta) -> None:
    """Store a session, record the login, and delete the sessions that have expired."""
    with database.write() as conn:
        now = database.now(conn)
        conn.execute(delete(_TABLE).where(_TABLE.c.expires_at <= now))
        row = vars(session) | {"created_at": now, "expires_at": now + lifetime}
        conn.execute(_TABLE.insert(), [row])
        detail = {"access": session.access, "from": session.client}
        record_audit(conn, now, session.actor, "login", [TARGET], detail)


def find_session(database: Database, ids: Collection[str]) -> str | None:
    """Return which of these IDs is that of a session that has not expired, if any."""
    with database.read() as conn:
        query = select(_TABLE.c.id).where(_TABLE.c.id.in_(ids), _TABLE.c.expires_at > database.now(conn))
        found: str | None = conn.execute(query).scalar()
        return found


def log_out(database: Database, ids: Collection[str]) -> None:
    """End the session with one of these IDs, if there is one, and record it."""
    with database.write() as conn:
        actor = conn.execute(delete(_TABLE).where(_TABLE.c.id.in_(ids)).returning(_TABLE.c.actor)).scalar()
        if actor is not None:
            record_audit(conn, database.now(conn), actor, "logout", [TARGET])


def record_refused_login(database: Database, client: str, count: int, since: datetime) -> None:
    """Record `count` refused logins and tokens since a time, the last one from the address `client`."""
    with database.write() as conn:
        detail = {"count": count, "from": client, "since": since.isoformat(timespec="seconds")}
        record_audit(conn, database.now(conn), "unknown", "login_refused", [TARGET], detail)


def list_sessions(database: Database) -> list[dict[str, Any]]:
    """Return the sessions that have not expired, newest first, without their IDs."""
    columns = [column for column in _TABLE.c if column is not _TABLE.c.id]
    with database.read() as conn:
        query = select(*columns).where(_TABLE.c.expires_at > database.now(conn))
        return [dict(row._mapping) for row in conn.execute(query.order_by(_TABLE.c.created_at.desc()))]


def end_sessions(database: Database, operator: str, actor: str | None = None) -> int:
    """End the sessions of one actor, or all sessions, and return their number."""
    with database.write() as conn:
        now = database.now(conn)
        ending = delete(_TABLE).where(_TABLE.c.expires_at > now)
        count = conn.execute(ending if actor is None else ending.where(_TABLE.c.actor == actor)).rowcount
        record_audit(conn, now, operator, "end_sessions", [TARGET], {"sessions": count, "of": actor or "all"})
        return count
