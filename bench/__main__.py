"""Run the benchmarks and compare their ratios with the targets.

Every speed is a ratio to a baseline measured in the same run on the same machine: a server that only checks the HMAC,
one-row transactions of the same database, plain threads over the same SDK, one worker, a database with few events.
Absolute numbers are for scale only. A missed target is shown. The exit status is 1 if a figure is below its floor,
half of what was measured last, or if a kill lost, doubled or left something for review.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.claims import claims
from bench.databases import Engine, Postgres, Sqlite
from bench.footprint import footprint
from bench.growth import growth
from bench.load import CONNECTIONS, load_generator
from bench.providers import first_request, through_sdk
from bench.rows import Row, Size, kills, throughput
from bench.scale_out import receivers, scale_out
from bench.servers import baseline_server, postgres

GROWTH: Final = (100_000, 1_000_000)
"""Stored events, unless the command line says otherwise."""
WAITING: Final = 100_000
"""Deliveries that wait for tomorrow, or fewer if no more events are stored."""


def main() -> int:
    """Run the benchmarks and print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of each load run")
    parser.add_argument("--runs", type=int, default=3, help="load runs per figure; the median counts")
    parser.add_argument("--kills", type=int, default=50, help="kills per database; 0 for none")
    parser.add_argument("--only", choices=["sqlite", "postgres"], help="only this database")
    parser.add_argument(
        "--growth", type=int, nargs="*", metavar="N",
        help="instead, measure with N stored events against 5,000, and claims among many that wait; "
        "100,000 and 1,000,000 if no N is given",
    )  # fmt: skip
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
            if args.only not in (None, name):
                continue
            if args.growth is None:
                rows += _figures(engine, baseline, folder, size)
            else:
                sizes = args.growth or GROWTH
                rows += growth(engine, baseline, folder, sizes, size)
                rows += claims(engine, min(WAITING, max(sizes)))
    _print(rows)
    return 0 if all(row.passed or row.advisory for row in rows) else 1


def _figures(engine: Engine, baseline: str, folder: Path, size: Size) -> list[Row]:
    rows = throughput(engine, baseline, folder, size)
    rows.append(through_sdk(engine, folder))
    rows.append(first_request(engine, folder))
    if engine.name == "PostgreSQL":
        rows.append(first_request(engine, folder, separate_worker=True))
        rows += scale_out(engine, folder)
        rows.append(receivers(engine, folder, size))
    rows += footprint(engine, folder)
    if size.kills:
        rows.append(kills(engine, folder, size))
    return rows


def _print(rows: list[Row]) -> None:
    table = Table(
        title=f"{CONNECTIONS} connections, load from {load_generator()}, fsync on; baseline of the same run"
    )
    for column in ("figure", "bridge", "baseline", "ratio", "target", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for row in rows:
        status = "[green]met[/]" if row.passed else "[yellow]missed[/]" if row.advisory else "[red]failed[/]"
        table.add_row(row.label, row.value, row.baseline, row.ratio, row.target, status)
    Console(width=None if sys.stdout.isatty() else 130).print(table)


if __name__ == "__main__":
    sys.exit(main())
