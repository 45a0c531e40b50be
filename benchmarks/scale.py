"""Wall seconds, CPU seconds and peak memory of each asset as the feedback grows.

    python -m benchmarks.scale [--pairs 1 5 20] [--solver implicit] [--folder FOLDER]

`--pairs` is the size of the synthetic feedback in million interactions: power-law users and items, with
tastes to learn, a user for every 20 interactions and an item for every 100. The assets are materialized one
after the other, each in a process of its own. The search is one trial of 64 factors and 10 iterations; the
evaluation has one seed and 5,000 users. Peak memory is that of the largest single process.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL, Popen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ASSETS = (
    "raw_feedback",
    "feedback_strengths",
    "bm25_matrix",
    "leave_one_out_split",
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
_EVENTS_AT_ONCE = 1_000_000


def make_feedback(n_interactions: int, path: Path, seed: int = 0) -> None:
    """Write the events of about `n_interactions` interactions to a Parquet file, in blocks.

    Each item and each user belongs to one of `n_items / 100` tastes, and 7 of 10 events follow the taste.
    Both the activity of users and the popularity of items follow a power law.
    """
    n_users, n_items = n_interactions // 20, n_interactions // 100
    n_tastes = n_items // 100
    rng = np.random.default_rng(seed)
    codes = rng.permutation(10**12 + np.arange(n_items) * 7)
    schema = pa.schema([("UserID", pa.int64()), ("ProductCode", pa.string()), ("Event", pa.string())])
    events = np.array(["view", "click", "query_search", "compare"])
    # About a fifth of the events repeat an interaction.
    remaining = int(n_interactions * 1.25)
    with pq.ParquetWriter(path, schema) as writer:
        while remaining:
            n = min(remaining, _EVENTS_AT_ONCE)
            remaining -= n
            user = (n_users * rng.random(n) ** 1.5).astype(np.int64)
            loyal = rng.random(n) < 0.7
            taste_item = user % n_tastes + n_tastes * (100 * rng.random(n) ** 2.5).astype(np.int64)
            any_item = (n_items * rng.random(n) ** 2.5).astype(np.int64)
            item = np.where(loyal, taste_item, any_item)
            columns = [
                pa.array(user),
                pa.array(codes[item]).cast(pa.string()),
                pa.array(events[rng.choice(4, n, p=[0.6, 0.25, 0.1, 0.05])]),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def materialize(asset: str, environment: dict[str, str], solver: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in GB of one asset."""
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
    config = {
        "grid_search_results": {**TRIAL, "solver": solver, "workers": 1},
        "evaluation": {"seeds": 1, "max_users": 5000},
    }
    if asset in config:
        command += ["--config-json", json.dumps({"ops": {asset: {"config": config[asset]}}})]
    begin = time.perf_counter()
    process = Popen([sys.executable, *command], env=environment, stdout=DEVNULL, stderr=DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{asset} failed")
    wall = time.perf_counter() - begin
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    """Measure, and print a row per asset and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=float, nargs="+", default=[1, 5, 20], help="million interactions")
    parser.add_argument("--solver", default="implicit")
    parser.add_argument("--folder", default=None, help="for feedback and warehouse; default a temporary one")
    arguments = parser.parse_args()

    print("| million interactions | asset | wall s | CPU s | peak GB |\n|---|---|---|---|---|")
    for millions in arguments.pairs:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            feedback = Path(folder) / "feedback.parquet"
            make_feedback(int(millions * 1e6), feedback)
            environment = {
                **os.environ,
                "RECSYS_FEEDBACK": str(feedback),
                "RECSYS_WAREHOUSE": str(Path(folder) / "warehouse"),
                "DAGSTER_HOME": folder,
            }
            for asset in ASSETS:
                wall, cpu, peak = materialize(asset, environment, arguments.solver)
                print(f"| {millions:g} | `{asset}` | {wall:.1f} | {cpu:.1f} | {peak:.2f} |", flush=True)
            pairs = pq.read_metadata(Path(folder) / "warehouse" / "bm25_matrix" / "pairs.parquet").num_rows
            print(f"| {millions:g} | distinct interactions: {pairs:,} | | | |", flush=True)


if __name__ == "__main__":
    main()
