"""Run the benchmarks and hold their ratios against the bars; exit 1 when one is missed.

Every speed is a ratio to a baseline measured in the same run on the same machine: the same server that only checks
the HMAC, one-row transactions of the same database, bare threads over the same SDK. Absolute numbers are for scale
only; those without a baseline are advice and fail nothing, but for the kills.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.databases import Postgres, Sqlite
from bench.footprint import footprint
from bench.load import CONNECTIONS, tool
from bench.providers import first_request, through_sdk
from bench.rows import Row, Size, kills, throughput
from bench.servers import baseline_server, postgres


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one load")
    parser.add_argument("--tries", type=int, default=3, help="loads per figure; the median counts")
    parser.add_argument("--kills", type=int, default=50, help="kills on each database; 0 for none")
    parser.add_argument("--only", choices=["sqlite", "postgres"])
    asked = parser.parse_args()
    size = Size(asked.seconds, asked.tries, asked.kills)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="bridge-bench-") as temporary,
        postgres() as server,
        baseline_server() as baseline,
    ):
        folder = Path(temporary)
        for name, engine in (("sqlite", Sqlite(folder)), ("postgres", Postgres(server))):
            if asked.only in (None, name):
                rows += throughput(engine, baseline, folder, size)
                rows.append(through_sdk(engine, folder))
                rows.append(first_request(engine, folder))
                if name == "postgres":
                    rows.append(first_request(engine, folder, apart=True))
                rows += footprint(engine, folder)
                if size.kills:
                    rows.append(kills(engine, folder, size))
    _print(rows)
    return 0 if all(row.fine or row.advisory for row in rows) else 1


def _print(rows: list[Row]) -> None:
    table = Table(title=f"{CONNECTIONS} connections, load from {tool()}, fsync on; baseline of the same run")
    for column in ("what", "bridge", "baseline", "ratio", "bar", ""):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        verdict = "[green]ok[/]" if row.fine else "[yellow]above[/]" if row.advisory else "[red]missed[/]"
        table.add_row(row.what, row.value, row.baseline, row.ratio, row.bar, verdict)
    Console(width=None if sys.stdout.isatty() else 130).print(table)


if __name__ == "__main__":
    sys.exit(main())
