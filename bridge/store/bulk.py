"""Bulk writes: insert or update many rows with one statement.

SQLAlchemy and the drivers spend more time on the parameters of a row than the database spends on the row, and with one
statement per row a busy interpreter switches threads at each one. So a batch is a single statement on either
database: rows of VALUES on SQLite, one array per column on PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final

from sqlalchemy import Column, Connection, Dialect, Table, TextClause, TextualSelect, text

from bridge.store.schema import Instant, microseconds
from bridge.store.sealing import SealedBody, SealedBytes, SealedText, sealer_of

_MAX_VARIABLES = 32_000
"""SQLite's default limit for one statement is 32,766."""
JSON_VALUES: Final = {
    "sqlite": "json_each(:values)",
    "postgresql": "json_array_elements_text(CAST(:values AS json)) AS given(value)",
}
"""By dialect, a FROM clause with the column `value`: the strings of the JSON list in the parameter `values`. Unlike
`IN (...)`, it is one parameter of one statement, however many strings there are."""


_IN_VALUES: Final = {
    "sqlite": "IN (SELECT value FROM json_each(:values))",
    # Not a join, which may read the whole table: the planner does not know how many values there are.
    "postgresql": "= ANY (ARRAY(SELECT json_array_elements_text(CAST(:values AS json))))",
}


def for_values(statement: str) -> dict[str, TextClause]:
    """Return a statement by dialect: `{in_values}` in its text becomes "is one of the strings `values`"."""
    return {dialect: text(statement.format(in_values=in_values)) for dialect, in_values in _IN_VALUES.items()}


def select_in(
    column: Column[Any], columns: Iterable[Column[Any]], condition: str = "true", *, lock: bool = False
) -> dict[str, TextualSelect]:
    """Return by dialect the query for these columns of the rows whose `column` is one of the strings `values`.

    `condition` is an additional SQL condition. With `lock`, PostgreSQL locks the rows, in the order of the column.
    """
    columns = tuple(columns)
    query = (
        f"SELECT {', '.join(item.name for item in columns)} FROM {column.table.name} "  # noqa: S608
        f"WHERE {column.name} {{in_values}} AND {condition}"
    )
    lock_clauses = {"postgresql": f" ORDER BY {column.name} FOR UPDATE"} if lock else {}
    return {
        dialect: text(query.format(in_values=in_values) + lock_clauses.get(dialect, "")).columns(*columns)
        for dialect, in_values in _IN_VALUES.items()
    }


def json_values(values: Iterable[str]) -> dict[str, str]:
    """Return the parameter `values` of a statement of `for_values` or `select_in`."""
    return {"values": json.dumps(list(values))}


def bulk_insert(
    conn: Connection, table: Table, rows: Sequence[Mapping[str, Any]], on_conflict: str = ""
) -> int:
    """Insert rows that all have the same columns; return the number of inserted or updated rows.

    `on_conflict` is the ON CONFLICT clause for rows that exist.
    """
    if _is_sqlite(conn) and len(rows) > (max_rows := _MAX_VARIABLES // len(rows[0])):
        return sum(bulk_insert(conn, table, part, on_conflict) for part in _parts(rows, max_rows))
    columns = tuple(rows[0])
    into = f"INSERT INTO {table.name} ({', '.join(columns)})"
    if _is_sqlite(conn):
        values = _row_values(table, columns, rows, conn.dialect)
        return _execute(conn, f"{into} {_values_clause(columns, rows)} {on_conflict}", values)
    query = f"SELECT * FROM {_unnest_clause(table, columns)}"  # noqa: S608
    return _execute(conn, f"{into} {query} {on_conflict}", _column_arrays(table, columns, rows, conn.dialect))


def bulk_update(
    conn: Connection,
    table: Table,
    keys: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    condition: str = "true",
) -> None:
    """Update many rows: in each mapping, the `keys` identify the row, and the rest are its new values.

    `condition` is an additional SQL condition, in which the mapping is called `incoming`.
    """
    if _is_sqlite(conn) and len(rows) > (max_rows := _MAX_VARIABLES // len(rows[0])):
        for part in _parts(rows, max_rows):
            bulk_update(conn, table, keys, part, condition)
        return
    columns = tuple(rows[0])
    # A value that is the same in all rows is one parameter. A condition may refer to any of them.
    shared = _shared_columns(columns, keys, rows) if condition == "true" else ()
    varying = tuple(column for column in columns if column not in shared)
    values: Sequence[Any] = _row_values(table, shared, rows[:1], conn.dialect) if shared else ()
    if _is_sqlite(conn):
        incoming = f"incoming ({', '.join(varying)}) AS ({_values_clause(varying, rows)})"
        parameters = _row_values(table, varying, rows, conn.dialect)
    else:
        incoming = f"incoming AS (SELECT * FROM {_unnest_clause(table, varying)})"  # noqa: S608
        parameters = _column_arrays(table, varying, rows, conn.dialect)
    assignments = [f"{column} = incoming.{column}" for column in varying if column not in keys]
    assignments += [f"{column} = {_placeholder(table, column, conn)}" for column in shared]
    matches = " AND ".join(f"{table.name}.{key} = incoming.{key}" for key in keys)
    update = f"UPDATE {table.name} SET {', '.join(assignments)} FROM incoming WHERE {matches} AND {condition}"  # noqa: S608
    _execute(conn, f"WITH {incoming} {update}", (*parameters, *values))


def _shared_columns(
    columns: Sequence[str], keys: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return the columns other than the keys that have the same value in all rows."""
    first = rows[0]
    return tuple(
        column
        for column in columns
        if column not in keys and all(row[column] == first[column] for row in rows)
    )


def _placeholder(table: Table, column: str, conn: Connection) -> str:
    return "?" if _is_sqlite(conn) else f"%b::{_type_name(table, column)}"


def _parts(rows: Sequence[Mapping[str, Any]], size: int) -> Iterator[Sequence[Mapping[str, Any]]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _is_sqlite(conn: Connection) -> bool:
    return conn.dialect.name == "sqlite"


def _execute(conn: Connection, statement: str, parameters: tuple[Any, ...]) -> int:
    return conn.exec_driver_sql(statement, parameters).rowcount


def _values_clause(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"VALUES {', '.join([row] * len(rows))}"


def _row_values(
    table: Table, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], dialect: Dialect
) -> tuple[Any, ...]:
    """Return the values row by row, in one flat tuple."""
    values = [row[column] for row in rows for column in columns]
    for index, column in enumerate(columns):
        convert = _converter(table.c[column].type, dialect)
        if convert is not None:
            every = slice(index, None, len(columns))
            values[every] = map(convert, values[every])
    return tuple(values)


def _column_arrays(
    table: Table, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], dialect: Dialect
) -> tuple[list[Any], ...]:
    """Return the values column by column."""
    arrays = tuple([row[column] for row in rows] for column in columns)
    for column, array in zip(columns, arrays, strict=True):
        convert = _converter(table.c[column].type, dialect)
        if convert is not None:
            array[:] = map(convert, array)
    return arrays


def _converter(column_type: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return the conversion of a value to what the driver stores, if the column has one."""
    if isinstance(column_type, Instant):
        return lambda instant: instant and microseconds(instant)
    is_sealed = isinstance(column_type, SealedBytes | SealedText) and sealer_of(dialect) is not None
    if is_sealed or isinstance(column_type, SealedBody):
        return lambda value: column_type.process_bind_param(value, dialect)
    return None


@lru_cache(maxsize=64)
def _unnest_clause(table: Table, columns: tuple[str, ...]) -> str:
    """Return the arrays as rows; `%b` sends them in the binary format, which passes bytes unchanged."""
    arrays = ", ".join(f"%b::{_type_name(table, column)}[]" for column in columns)
    return f"unnest({arrays}) AS fields ({', '.join(columns)})"


@cache
def _type_name(table: Table, column: str) -> str:
    """Return the name of a column's type on PostgreSQL."""
    from sqlalchemy.dialects import postgresql

    return table.c[column].type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]
