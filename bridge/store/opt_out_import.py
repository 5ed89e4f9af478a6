"""Import of an opt-out list: stores the lines of a CSV file in batches, and reports what they did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BufferedReader
from itertools import islice
from typing import Any, Final

from bridge.store.batches import in_batches
from bridge.store.database import Database
from bridge.store.opt_out_csv import ImportedLine, read_opt_outs
from bridge.store.opt_outs import OptOutChange, import_opt_outs, record_import

_BATCH: Final = 1000
"""Lines that are read at a time, and opt-outs per transaction, at most."""
_MAX_PROBLEMS: Final = 1000
"""Unreadable lines that are listed; all are counted."""


def import_csv(
    database: Database,
    stream: BufferedReader,
    actor: str,
    *,
    name: str,
    reason: str | None = None,
    publish_events: bool = False,
    dry_run: bool = False,
) -> ImportReport:
    """Opt out the addresses of a CSV file, and record the import as `name` in the audit log.

    Unreadable lines are reported, and all others are stored. A dry run stores nothing. `reason` is that of lines
    without one. Raise ConfigError if the first line does not say where the addresses are.
    """
    report = ImportReport(dry_run)
    lines = read_opt_outs(stream, database.default_country)
    while batch := list(islice(lines, _BATCH)):
        report.add(database, batch, actor, reason, publish_events=publish_events)
    if not dry_run:
        record_import(database, actor, name, report.counts())
    return report


class ImportReport:
    """What an import stored, and the lines that it could not read."""

    def __init__(self, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.added = self.already = self.skipped = self.unreadable = 0
        self.problems: list[ImportedLine] = []
        self._seen: set[tuple[str, str]] = set()
        """The new opt-outs of the batches before; a dry run stores none of them."""

    def add(
        self,
        database: Database,
        lines: Iterable[ImportedLine],
        actor: str,
        reason: str | None,
        *,
        publish_events: bool,
    ) -> None:
        """Store a batch of lines and count them."""
        by_line: list[list[OptOutChange]] = []
        for line in lines:
            if line.skipped:
                self.skipped += 1
            elif line.problem is not None:
                self.unreadable += 1
                self.problems += [line] if len(self.problems) < _MAX_PROBLEMS else []
            else:
                by_line.append(
                    [
                        OptOutChange(name, line.address, True, "import", actor, line.reason or reason)
                        for name in line.channels
                    ]
                )
        changes = [change for line_changes in by_line for change in line_changes]
        new: set[tuple[str, str]] = set()

        def store(part: Sequence[OptOutChange]) -> None:
            new.update(import_opt_outs(database, part, publish_events=publish_events, dry_run=self.dry_run))

        in_batches(changes, store, largest=_BATCH)
        new -= self._seen
        self._seen |= new
        for line_changes in by_line:
            keys = {change.key for change in line_changes}
            self.added += not new.isdisjoint(keys)
            self.already += new.isdisjoint(keys)
            new -= keys  # the same address may occur again

    def counts(self) -> dict[str, int]:
        """Return the numbers of lines."""
        return {
            "added": self.added,
            "already_opted_out": self.already,
            "skipped": self.skipped,
            "unreadable": self.unreadable,
        }

    def to_json(self) -> Mapping[str, Any]:
        """Return the record for programs."""
        problems = [{"line": line.number, "problem": line.problem} for line in self.problems]
        return {"dry_run": self.dry_run, **self.counts(), "problems": problems}
