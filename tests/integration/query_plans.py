"""Plans of queries on SQLite, for tests that a page reads no whole table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event

from bridge.store.database import Database


def query_plans(database: Database) -> list[str]:
    """Return a list to which each further query on this database on SQLite adds the steps of its plan."""
    steps: list[str] = []

    def explain(conn: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith(("SELECT", "WITH")):
            cursor = conn.connection.cursor()
            steps.extend(row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    event.listen(database.engine, "before_cursor_execute", explain)
    return steps
