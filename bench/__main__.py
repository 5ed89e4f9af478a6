"""Run the benchmarks and compare their ratios with the targets; exit with status 1 if one is missed.

Every speed is a ratio to a baseline measured in the same run on the same machine: a server that only checks the HMAC,
one-row transactions of the same database, plain threads over the same SDK. Absolute numbers are for scale only. Figures
without a baseline are advisory and never fail the run, except for the kills.
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
from bench.load import CONNECTIONS, load_generator
from bench.providers import first_request, through_sdk
from bench.rows import Row, Size, kills, throughput
from bench.servers import baseline_server, postgres


def main() -> int:
    """Run the benchmarks and print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of each load run")
    parser.add_argument("--runs", type=int, default=3, help="load runs per figure; the median counts")
    parser.add_argument("--kills", type=int, default=50, help="kills per database; 0 for none")
    parser.add_argument("--only", choices=["sqlite", "postgres"])
    args = parser.parse_args()
    size = Size(args.seconds, args.runs, args.kills)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="bridge-bench-") as temporary,
        postgres() as server,
        baseline_server() as baseline,
    ):
        folder = Path(temporary)
        for name, engine in (("sqlite", Sqlite(folder)), ("postgres", Postgres(server))):
            if args.only in (None, name):
                rows += throughput(engine, baseline, folder, size)
                rows.append(through_sdk(engine, folder))
                rows.append(first_request(engine, folder))
                if name == "postgres":
                    rows.append(first_request(engine, folder, separate_worker=True))
                rows += footprint(engine, folder)
                if size.kills:
                    rows.append(kills(engine, folder, size))
    _print(rows)
    return 0 if all(row.passed or row.advisory for row in rows) else 1


def _print(rows: list[Row]) -> None:
    table = Table(
        title=f"{CONNECTIONS} connections, load from {load_generator()}, fsync on; baseline of the same run"
    )
    for column in ("figure", "bridge", "baseline", "ratio", "target", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for row in rows:
        status = "[green]ok[/]" if row.passed else "[yellow]above[/]" if row.advisory else "[red]missed[/]"
        table.add_row(row.label, row.value, row.baseline, row.ratio, row.target, status)
    Console(width=None if sys.stdout.isatty() else 130).print(table)


if __name__ == "__main__":
    sys.exit(main())
