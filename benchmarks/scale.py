"""Wall seconds, CPU seconds and peak memory of each asset as the feedback grows.

    python -m benchmarks.scale [--pairs 1 5 20 100] [--assets ASSET ...] [--solver batched] [--folder F]

`--pairs` is the size of the synthetic feedback in million distinct interactions; see `make_feedback`. The
assets are materialized one after the other, each in a process of its own. The search is one trial of 64
factors and 10 iterations in one worker; the evaluation has one seed and its default bounds. With `--folder`
feed and warehouse stay there, and a feed that is there is not made again: `--assets` then measures some
assets alone.

Peak memory is that of the process and its workers at the same time, pages that they share counted once (the
sum of Pss, looked at several times a second), or the largest single process by the kernel's count if that is
more.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from subprocess import DEVNULL, Popen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ASSETS = (
    "raw_feedback",
    "feedback_strengths",
    "bm25_matrix",
    "leave_one_out_split",
    "baselines",
    "grid_search_results",
    "best_model",
    "evaluation",
)
TRIAL = {
    "factors": [64],
    "regularization": [0.01],
    "alpha": [10.0],
    "iterations": [10],
    "bm25_K1": [100.0],
    "bm25_B": [0.8],
}
USERS_AT_ONCE = 50_000
_ITEMS_PER_TASTE = 100
_MOST_ITEMS_OF_A_USER = 5_000
_SECONDS_BETWEEN_LOOKS = 0.3


def make_feedback(n_interactions: int, path: Path, seed: int = 0) -> None:
    """Write the events of `n_interactions` distinct interactions to a Parquet file, in bounded memory.

    There is a user for every 20 interactions and an item for every 100. The activity of users follows a power
    law (half of them have fewer than 8 items, the most active thousands), and so does the popularity of
    items. An item belongs to one of `n_items / 100` tastes and a user has one for every 30 items; 7 of 10
    interactions follow them. A quarter as many events repeat one. As in a log, users come in no order.

    Blocks of users are made one after the other, kept on the disk, and dealt out a slice of each at a time.
    """
    n_users, n_items = n_interactions // 20, n_interactions // 100
    rng = np.random.default_rng(seed)
    codes = rng.permutation(10**12 + np.arange(n_items) * 7)
    # Raw ids of users in no relation to their activity or block.
    names = rng.permutation(10**9 + np.arange(n_users) * 3)
    schema = pa.schema([("UserID", pa.int64()), ("ProductCode", pa.string()), ("Event", pa.string())])
    kinds = pa.array(["view", "click", "query_search", "compare"])
    half_written = path.with_name(path.name + ".new")
    with (
        tempfile.TemporaryDirectory(dir=path.parent) as folder,
        pq.ParquetWriter(half_written, schema) as writer,
    ):
        blocks = []
        for first in range(0, n_users, USERS_AT_ONCE):
            n = min(USERS_AT_ONCE, n_users - first)
            n_block = n_interactions * (first + n) // n_users - n_interactions * first // n_users
            user, item = _interactions(_activity(n, n_block, n_items, rng), n_items, rng)
            repeats = 1 + rng.poisson(0.25, len(user))
            order = rng.permutation(repeats.sum())
            kind = rng.choice(4, len(order), p=[0.6, 0.25, 0.1, 0.05])
            columns = [np.repeat(first + user, repeats)[order], np.repeat(item, repeats)[order], kind]
            file = Path(folder) / f"{first}.npy"
            np.save(file, np.stack(columns).astype(np.int32))
            blocks.append(np.load(file, mmap_mode="r"))
        for part in range(len(blocks)):
            slices = [slice(*(np.array([part, part + 1]) * b.shape[1] // len(blocks))) for b in blocks]
            rows = np.concatenate([b[:, s] for b, s in zip(blocks, slices, strict=True)], axis=1)
            user, item, kind = rows[:, rng.permutation(rows.shape[1])]
            events = [
                pa.array(names[user]),
                pa.array(codes[item]).cast(pa.string()),
                kinds.take(pa.array(kind)),
            ]
            writer.write_table(pa.table(events, schema=schema))
    half_written.rename(path)


def _activity(n_users: int, n_interactions: int, n_items: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many items each user touches, one at least; together `n_interactions`."""
    most = min(_MOST_ITEMS_OF_A_USER, n_items // 4)
    drawn = np.minimum(rng.pareto(1.6, n_users), most / 12)
    touched = 1 + (drawn * ((n_interactions - n_users) / drawn.sum())).astype(np.int64)
    touched[: n_interactions - touched.sum()] += 1
    return touched


def _interactions(
    touched: NDArray[np.int64], n_items: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The place of the user and the item of each distinct interaction, of users who touch so many items."""
    n_tastes = n_items // _ITEMS_PER_TASTE
    first_taste = rng.integers(n_tastes, size=len(touched))
    whole, keys = [], np.empty(0, dtype=np.int64)
    missing, attempt = touched, 0
    while n := int(missing.sum()):
        user = np.repeat(np.arange(len(touched)), missing)
        taste = (
            first_taste[user] + 7 * (rng.random(n) * (1 + touched[user] // 30)).astype(np.int64)
        ) % n_tastes
        of_taste = taste + n_tastes * (_ITEMS_PER_TASTE * rng.random(n) ** 2.5).astype(np.int64)
        # Those who have most of what is popular, or of their tastes, take something else.
        skew, loyalty = (3.0, 0.7) if attempt < 5 else (1.0, 0.0)
        anything = (n_items * rng.random(n) ** skew).astype(np.int64)
        drawn = user * n_items + np.where(rng.random(n) < loyalty, of_taste, anything)
        keys = np.sort(np.concatenate([keys, drawn]))
        keys = keys[np.append(keys[1:] != keys[:-1], True)]
        user = keys // n_items
        missing = np.where(missing > 0, touched - np.bincount(user, minlength=len(touched)), 0)
        whole.append(keys[missing[user] == 0])
        keys = keys[missing[user] > 0]
        attempt += 1
    keys = np.concatenate(whole)
    return keys // n_items, keys % n_items


def materialize(asset: str, environment: dict[str, str], solver: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in GB of one asset."""
    config = {
        "grid_search_results": {**TRIAL, "solver": solver, "workers": 1},
        "evaluation": {"seeds": 1},
    }
    command = [
        "-m",
        "dagster",
        "asset",
        "materialize",
        "--select",
        asset,
        "-m",
        "recsys_pipeline.definitions",
    ]
    if asset in config:
        command += ["--config-json", json.dumps({"ops": {asset: {"config": config[asset]}}})]
    return measured([sys.executable, *command], environment, name=asset)


def measured(command: list[str], environment: dict[str, str], name: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in GB of a command and the processes that it starts.

    Raises:
        RuntimeError: it failed; what it said is in the message.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = Popen(command, env=environment, stdout=DEVNULL, stderr=said)
        peak = 0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, sum(_pss(pid) for pid in _tree(process.pid)))
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{name} failed: {said.read().decode(errors='replace')[-3000:]}")
    wall = time.perf_counter() - begin
    return wall, usage.ru_utime + usage.ru_stime, max(peak, usage.ru_maxrss) / 2**20


def _tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for parent in found:
        try:
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue  # ended meanwhile
    return found


def _pss(pid: int) -> int:
    """Resident kB of a process, shared pages divided by those who share them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def feed(millions: float, folder: Path) -> Path:
    """The feed of that size in the folder, made where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "feedback.parquet"
    if not path.exists():
        make_feedback(int(millions * 1e6), path)
    return path


def main() -> None:
    """Measure, and print a row per asset and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--pairs", type=float, nargs="+", default=[1, 5, 20, 100], help="million interactions"
    )
    parser.add_argument("--assets", nargs="+", choices=ASSETS, default=ASSETS)
    parser.add_argument("--solver", default="batched")
    parser.add_argument(
        "--folder", default=None, help="to keep feed and warehouse in; default a temporary one"
    )
    arguments = parser.parse_args()

    print("| million interactions | asset | wall s | CPU s | peak GB |\n|---|---|---|---|---|", flush=True)
    for millions in arguments.pairs:
        with ExitStack() as stack:
            root = arguments.folder or stack.enter_context(tempfile.TemporaryDirectory())
            folder = Path(root) / f"{millions:g}m"
            environment = {
                **os.environ,
                "RECSYS_FEEDBACK": str(feed(millions, folder)),
                "RECSYS_WAREHOUSE": str(folder / "warehouse"),
                "DAGSTER_HOME": str(folder),
            }
            for asset in arguments.assets:
                wall, cpu, peak = materialize(asset, environment, arguments.solver)
                print(f"| {millions:g} | `{asset}` | {wall:.1f} | {cpu:.1f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
