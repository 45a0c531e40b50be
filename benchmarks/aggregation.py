"""Aggregation and sorting of events, by DuckDB and by Arrow's Acero: CPU seconds and peak memory.

    python -m benchmarks.aggregation [--pairs 1 20 100] [--memory 18] [--folder FOLDER]

The feeds are those of `benchmarks.scale`, and each way is a process of its own that ends with the result in a
Parquet file. `--memory` is the memory limit in GB; Acero knows none. Where both come to an end, their results
are compared.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import acero

from benchmarks.scale import feed, measured
from recsys_pipeline.core.columns import EVENT, ITEM, USER, count_column
from recsys_pipeline.engines.local.aggregation import interaction_strengths
from recsys_pipeline.machine.memory import memory_limit
from recsys_pipeline.storage.tables import write_table

STRENGTHS = {"view": 1.0, "query_search": 2.0, "click": 3.0, "compare": 4.0}
COUNTS = [count_column(event) for event in STRENGTHS]


def by_duckdb(events: ds.Dataset, memory: float, result: Path) -> None:
    """As the pipeline does it."""
    write_table(interaction_strengths(events, STRENGTHS, most_bytes=memory_limit(memory)), result)


def by_acero(events: ds.Dataset, memory: float, result: Path) -> None:  # noqa: ARG001
    """The same counts in the same order, all in memory."""
    columns = {USER: pc.field(USER), ITEM: pc.field(ITEM)}
    columns.update({count_column(event): (pc.field(EVENT) == event).cast(pa.int32()) for event in STRENGTHS})
    table = acero.Declaration.from_sequence(
        [
            acero.Declaration("scan", acero.ScanNodeOptions(events, columns=columns)),
            acero.Declaration("project", acero.ProjectNodeOptions(list(columns.values()), list(columns))),
            acero.Declaration(
                "aggregate",
                acero.AggregateNodeOptions([(name, "hash_sum", None, name) for name in COUNTS], [USER, ITEM]),
            ),
        ]
    ).to_table(use_threads=False)
    order = pc.sort_indices(table, sort_keys=[(USER, "ascending"), (ITEM, "ascending")])
    # One column after the other, so that no second copy of the whole table is made.
    for place, name in enumerate(columns):
        column = table[name].cast(pa.int32()) if name in COUNTS else table[name]
        table = table.set_column(place, name, column.take(order))
    pq.write_table(table, result, compression="zstd")


WAYS = {"duckdb": by_duckdb, "acero": by_acero}


def equal(one: Path, other: Path) -> bool:
    """Whether two results have the same rows in the same order."""
    for name in [USER, ITEM, *COUNTS]:
        if not pq.read_table(one, columns=[name]).equals(pq.read_table(other, columns=[name])):
            return False
    return True


def main() -> None:
    """Measure, and print a row per way and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=float, nargs="+", default=[1, 20, 100], help="in millions")
    parser.add_argument("--memory", type=float, default=0.0, help="GB; 0: three quarters of the machine")
    parser.add_argument("--folder", default=None, help="where the feeds stay")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--feed", help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        events = ds.dataset(arguments.feed, format="parquet")
        WAYS[arguments.way](events, arguments.memory, Path(arguments.result))
        return

    print("| million interactions | way | wall s | CPU s | peak GB |\n|---|---|---|---|---|", flush=True)
    with ExitStack() as stack:
        root = Path(arguments.folder or stack.enter_context(tempfile.TemporaryDirectory()))
        for millions in arguments.pairs:
            events = feed(millions, root / f"{millions:g}m")
            results = {}
            for way in WAYS:
                result = events.with_name(f"{way}.parquet")
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.aggregation",
                    "--way",
                    way,
                    "--feed",
                    str(events),
                ]
                command += ["--result", str(result), "--memory", str(arguments.memory)]
                try:
                    wall, cpu, peak = measured(command, dict(os.environ), name=way)
                except RuntimeError as error:
                    print(f"| {millions:g} | {way} | failed: {str(error)[-80:]} | | |", flush=True)
                    continue
                results[way] = result
                print(f"| {millions:g} | {way} | {wall:.1f} | {cpu:.1f} | {peak:.2f} |", flush=True)
            if len(results) == len(WAYS):
                print(f"| {millions:g} | equal: {equal(*results.values())} | | | |", flush=True)
            for result in results.values():
                result.unlink()


if __name__ == "__main__":
    main()
