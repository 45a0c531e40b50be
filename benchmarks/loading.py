"""Size of a published model, and time and memory to publish, load and check it, by users x factors.

    python -m benchmarks.loading [--sizes 5000x64 92000x512] [--items 20000] [--no-pickle] [--folder FOLDER]

The factors are random numbers, 20,000 items in every model and 20 interactions of each user. Publishing,
loading and the asset check each run in a process of their own, with the files in the page cache; the seconds
do not count the start of Python and its imports, the peak memory does. `private` is the part of the peak that
no other process can share: what is mapped from a file can also be dropped by the kernel at any time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

_INTERACTIONS_PER_USER = 20
_SIZES = ("5000x64", "92000x512", "92000x1536", "1000000x64")


def publish(folder: Path, n_users: int, n_items: int, n_factors: int, *, with_pickle: bool) -> float:
    """Publish a model of random numbers; wall seconds."""
    import numpy as np
    import pyarrow as pa
    from upath import UPath

    from benchmarks.data import publish_made
    from recsys_pipeline.core.factors import FactorTables, factor_table
    from recsys_pipeline.core.hyperparameters import Hyperparameters
    from recsys_pipeline.core.implicit_model import trained_model
    from recsys_pipeline.core.model import Contents
    from recsys_pipeline.core.pattern import Pattern
    from recsys_pipeline.core.ranking import Factors
    from recsys_pipeline.storage.models import write_model
    from recsys_pipeline.storage.publishing import write_pickle
    from recsys_pipeline.storage.states import States

    rng = np.random.default_rng(0)
    factors = Factors(*(rng.random((n, n_factors), dtype=np.float32) - 0.5 for n in (n_users, n_items)))
    stride = n_items // _INTERACTIONS_PER_USER
    first = rng.integers(0, stride, n_users, dtype=np.int32)
    indices = (first[:, None] + np.arange(_INTERACTIONS_PER_USER, dtype=np.int32) * stride).ravel()
    ones = np.ones(len(indices), dtype=np.int32)
    indptr = np.arange(n_users + 1, dtype=np.int32) * _INTERACTIONS_PER_USER
    contents = Contents(
        Pattern(indptr, indices, n_items), ones.astype(np.float32), ones.astype(bool), {"view": ones}
    )
    values = dict.fromkeys(("regularization", "alpha", "bm25_K1", "bm25_B"), 0.5)
    hyperparameters = Hyperparameters.from_mapping({"factors": n_factors, "iterations": 1, **values})
    manifest = {
        "hyperparameters": hyperparameters.as_dict(),
        "seed": 1,
        "solver": "implicit",
        "strengths": {"view": 1.0},
        "target_events": ["view"],
        "seen_events": ["view"],
        "metrics": {},
        "counts": {},
        "inputs": {},
    }
    tables = FactorTables(
        factor_table("UserID", pa.array(np.arange(n_users)), factors.users),
        factor_table("ProductCode", pa.array(np.arange(n_items)).cast(pa.string()), factors.items),
        fit_seconds=0.0,
    )
    model = trained_model(hyperparameters, 1, factors) if with_pickle else None
    begin = time.perf_counter()
    with States(UPath(folder), "best_model").replacing() as made:
        write_model(made, tables, contents.to_table(), manifest)
    release = publish_made(UPath(folder))
    write_pickle(UPath(folder), release.name, model)
    return time.perf_counter() - begin


def load(folder: Path) -> float:
    """Load the model; wall seconds."""
    from recsys_pipeline import load_model

    begin = time.perf_counter()
    load_model(folder)
    return time.perf_counter() - begin


def recommend(folder: Path) -> float:
    """Recommend to a first user, once the model is loaded; wall seconds."""
    from recsys_pipeline import load_model

    model = load_model(folder)
    begin = time.perf_counter()
    model.recommend(0)
    return time.perf_counter() - begin


def check(folder: Path) -> float:
    """The asset check of the model, opening it included; wall seconds."""
    from recsys_pipeline.checks import the_model_recommends
    from recsys_pipeline.storage.warehouse import Warehouse

    warehouse = Warehouse(path=str(folder))
    begin = time.perf_counter()
    result: Any = the_model_recommends(warehouse.open_model("best_model"))
    if not result.passed:
        raise RuntimeError(f"the check failed: {result.description}")
    return time.perf_counter() - begin


def digest(folder: Path) -> float:
    """SHA-256 of every file of the version; wall seconds."""
    import hashlib

    begin = time.perf_counter()
    for path in _files(folder):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    return time.perf_counter() - begin


def idle(folder: Path) -> float:
    """Only what has to be imported to load a model; its memory is that of an empty process."""
    import recsys_pipeline.recommender

    return 0.0 if recsys_pipeline.recommender and folder else 1.0


_STEPS: dict[str, Callable[[Path], float]] = {
    step.__name__: step for step in (idle, digest, load, recommend, check)
}


def _files(folder: Path) -> list[Path]:
    return [path for path in (folder / "releases").rglob("*") if path.is_file()]


class _Memory:
    """Watches the memory of this process, in MB: the peak, and the peak of what is not mapped from files."""

    def __init__(self) -> None:
        self.private = 0.0
        self._done = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = self._status("VmHWM")

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.private = max(self.private, self._status("RssAnon"))

    def _status(self, name: str) -> float:
        with open("/proc/self/status") as status:
            (line,) = (line for line in status if line.startswith(name))
        return int(line.split()[1]) / 1000


def _measured(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.loading", *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def _row(size: str, n_items: int, folder: Path, *, with_pickle: bool) -> str:
    published = _measured(
        "--step", "publish", "--sizes", size, "--items", str(n_items), "--folder", str(folder),
        *([] if with_pickle else ["--no-pickle"]),
    )  # fmt: skip
    results = {step: _measured("--step", step, "--folder", str(folder)) for step in _STEPS}
    n_users, n_factors = map(int, size.split("x"))
    factors = (n_users + n_items) * n_factors * 4 / 1e6
    on_disk = sum(path.stat().st_size for path in _files(folder)) / 1e6
    empty = results["idle"]

    def memory(step: str) -> str:
        result = results[step]
        return f"{result['peak'] - empty['peak']:,.0f} ({result['private'] - empty['private']:,.0f})"

    cells = [
        f"{n_users:,} x {n_factors:,}",
        f"{factors:,.0f}",
        f"{on_disk:,.0f}",
        f"{published['seconds']:.1f}",
        f"{results['digest']['seconds']:.2f}",
        f"{results['load']['seconds']:.2f}",
        memory("load"),
        f"{results['recommend']['seconds']:.2f}",
        memory("recommend"),
        f"{results['check']['seconds']:.1f}",
        memory("check"),
    ]
    return f"| {' | '.join(cells)} |"


_HEADER = (
    "| users x factors | factors MB | on disk MB | publish s | SHA-256 s | load s | memory MB (private) "
    "| first list s | memory MB (private) | check s | memory MB (private) |\n|" + "---|" * 11
)


def main() -> None:
    """Measure, and print a row per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(_SIZES), help="users x factors")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--no-pickle", action="store_true", help="without implicit_recommender_model.pkl")
    parser.add_argument("--folder", default=None, help="for the models; default a temporary one")
    # What each process of its own is to do.
    parser.add_argument("--step", choices=["publish", *_STEPS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        with _Memory() as memory:
            folder = Path(arguments.folder)
            if arguments.step == "publish":
                n_users, n_factors = map(int, arguments.sizes[0].split("x"))
                with_pickle = not arguments.no_pickle
                seconds = publish(folder, n_users, arguments.items, n_factors, with_pickle=with_pickle)
            else:
                seconds = _STEPS[arguments.step](folder)
        print(json.dumps({"seconds": seconds, "peak": memory.peak, "private": memory.private}))
        return
    print(_HEADER, flush=True)
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
            print(
                _row(size, arguments.items, Path(temporary), with_pickle=not arguments.no_pickle), flush=True
            )


if __name__ == "__main__":
    main()
