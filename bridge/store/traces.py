"""Stored traces: compressed if they are long, and only of the rules for the type of an event.

A thousand rules for other events would make each trace 200 KB. The outlines of all rules are stored once with each
version of the rules, and complete a trace when it is read. Traces of events that were routed before that are complete.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, select

from bridge.rules.trace import Check, RuleOutline, Trace, complete
from bridge.store import schema

_LEVEL: Final = 1
"""Level 6 takes three times as long and saves a tenth: traces repeat the same words."""
_MIN_COMPRESSED: Final = 400
"""Bytes. A shorter trace is stored as it is: compressing it takes as long as writing it as JSON, and saves little."""
_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def pack(traces: Sequence[Trace]) -> bytes:
    """Return traces as they are stored: as arrays, which take a fifth of the time of objects."""
    packed = _ENCODE(traces).encode()
    return packed if len(packed) < _MIN_COMPRESSED else zlib.compress(packed, _LEVEL)


def unpack(row: Any) -> list[Trace] | None:
    """Return the traces that were stored with an event, without those that follow from the outlines; None if none were.

    `row` has the columns `trace` and `packed_trace` of `events`.
    """
    if row.packed_trace is not None:
        packed = row.packed_trace
        records = json.loads(packed if packed.startswith(b"[") else zlib.decompress(packed))
        return [
            Trace(rule, fired, tuple(Check(*check) for check in checks), error)
            for rule, fired, checks, error in records
        ]
    return None if row.trace is None else [Trace.from_json(record) for record in json.loads(row.trace)]


def pack_outlines(outlines: Sequence[RuleOutline]) -> bytes:
    """Return the outlines of all rules of a file as they are stored."""
    return zlib.compress(json.dumps([asdict(outline) for outline in outlines]).encode(), _LEVEL)


class TraceReader:
    """Reads the complete traces of events in one transaction."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._outlines: dict[str, Sequence[RuleOutline]] = {}

    def traces(self, row: Any) -> tuple[Trace, ...] | None:
        """Return the trace of every rule for an event, in file order; None if there is none, or it is no longer kept.

        `row` has the columns `type`, `rules_hash`, `trace` and `packed_trace` of `events`.
        """
        evaluated = unpack(row)
        if evaluated is None:
            return None
        if row.rules_hash not in self._outlines:
            self._outlines[row.rules_hash] = _read_outlines(self._conn, row.rules_hash)
        started = [outline.start(row.type) for outline in self._outlines[row.rules_hash]]
        return complete(started, evaluated)

    def records(self, row: Any) -> list[dict[str, Any]] | None:
        """Return the same as plain data."""
        traces = self.traces(row)
        return None if traces is None else [trace.to_json() for trace in traces]


def _read_outlines(conn: Connection, rules_hash: str | None) -> list[RuleOutline]:
    table = schema.rules
    stored = conn.execute(select(table.c.outlines).where(table.c.hash == rules_hash)).scalar_one_or_none()
    records: list[Mapping[str, Any]] = json.loads(zlib.decompress(stored)) if stored else []
    return [RuleOutline(**record) for record in records]
