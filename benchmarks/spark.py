"""The same stages by the local engine and by a Spark cluster on this machine: wall and CPU seconds, memory.

    python -m benchmarks.spark [--pairs 1 5 20] [--trials 1] [--workers 2] [--memory 3g] [--folder FOLDER]

A master and workers of a core each are started from the packages (`make spark` installs them). Each engine
goes from the events to strengths, matrix and split, trains and ranks trials (32 factors, 5 iterations),
refits one, and lists ten items for every user. CPU seconds are those of all processes: while the local
engine computes, the cluster is idle. Memory is the peak of the largest process of Python, with what it has
mapped of files: of a worker of the cluster, or of the run and those that it starts. The feeds are those of
`benchmarks.scale`.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from upath import UPath

from benchmarks.scale import feed
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.offer import Offer
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.splitting import HoldOutMethod
from recsys_pipeline.core.strengths import Aggregate, EventRules
from recsys_pipeline.engines.engine import Engine, ExportPlan, HoldOutPlan, SearchMethod, SearchPlan
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.machine.memory import memory_limit
from recsys_pipeline.storage.models import read_model, write_model
from recsys_pipeline.storage.tables import open_table, write_table
from recsys_pipeline_tests.spark.cluster import Cluster, tree_of

STRENGTHS = {"view": 1.0, "query_search": 2.0, "click": 3.0, "compare": 4.0}
RULES = EventRules(STRENGTHS, Aggregate.sum, list(STRENGTHS), list(STRENGTHS))
TRIAL = Hyperparameters(factors=32, regularization=0.05, alpha=10.0, iterations=5, bm25_K1=100.0, bm25_B=0.8)
DESCRIPTION = {
    "hyperparameters": TRIAL.as_dict(),
    "seed": 7,
    "solver": "batched",
    "strengths": STRENGTHS,
    "target_events": [*STRENGTHS],
    "seen_events": [*STRENGTHS],
    **{field: {} for field in ("metrics", "counts", "inputs")},
}
HELD_OUT_USERS = 10_000
# A reading takes some CPU itself; who ends between two has been idle for a minute.
_SECONDS_BETWEEN_READINGS = 5.0
_CLEAR_PEAK = "5"  # proc_pid_clear_refs(5)


class Meter:
    """CPU seconds and memory of this process, the cluster and all that they start, those that end too."""

    def __init__(self, cluster: Callable[[], Sequence[int]]) -> None:
        """The processes of the cluster to begin at, asked for again and again."""
        self._cluster = cluster
        self._seconds: dict[tuple[int, str], float] = {}
        self._peaks = {False: 0, True: 0}
        self._reading = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.read()
            time.sleep(_SECONDS_BETWEEN_READINGS)

    def _processes(self) -> dict[int, bool]:
        """Whether each is one of the cluster's."""
        ours = dict.fromkeys(tree_of(os.getpid()), False)
        return ours | {pid: True for root in self._cluster() for pid in tree_of(root)}

    def read(self) -> float:
        """CPU seconds until now; of a process that has ended, what it had when it was last seen."""
        with self._reading:
            for pid, is_of_cluster in self._processes().items():
                with suppress(OSError):
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    ticks, started = sum(map(int, fields[11:13])), fields[19]
                    self._seconds[pid, started] = ticks / os.sysconf("SC_CLK_TCK")
                    self._peaks[is_of_cluster] = max(self._peaks[is_of_cluster], _peak_of(pid))
            return sum(self._seconds.values())

    def forget_peaks(self) -> None:
        """From now on they are looked for anew."""
        with self._reading:
            for pid in self._processes():
                with suppress(OSError):
                    Path(f"/proc/{pid}/clear_refs").write_text(_CLEAR_PEAK)
            self._peaks = {False: 0, True: 0}

    def peak(self, of_cluster: bool) -> int:
        """Bytes that the largest process of Python, there or here, has had resident at once since then."""
        self.read()
        return self._peaks[of_cluster]


def _peak_of(pid: int) -> int:
    """Bytes; 0 of what is not Python."""
    said = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return 1024 * int(said["VmHWM"].split()[0]) if "python" in said["Name"] and "VmHWM" in said else 0


@contextmanager
def told(name: str, stage: str, millions: float, meter: Meter) -> Iterator[None]:
    """Print a row when the block has ended."""
    meter.forget_peaks()
    wall, cpu = time.perf_counter(), meter.read()
    yield
    wall, cpu = time.perf_counter() - wall, meter.read() - cpu
    peak = meter.peak(of_cluster=name == "spark") / 1e9
    print(f"| {millions:g} | {stage} | {name} | {wall:.1f} | {cpu:.1f} | {peak:.1f} |", flush=True)


def go(
    engine: Engine, name: str, millions: float, n_trials: int, events: Path, folder: Path, meter: Meter
) -> None:
    """All stages, a row each."""
    folder.mkdir(exist_ok=True)
    with told(name, "strengths", millions, meter):
        rows = engine.strengths(open_table(UPath(events)), RULES, memory_limit(0.0))
        write_table(with_metadata(rows, RULES.to_metadata()), folder / "strengths.parquet")
    with told(name, "matrix", millions, meter):
        made = engine.matrix(open_table(UPath(folder / "strengths.parquet")), 100.0, 0.8)
        for table, rows in made.tables.items():
            write_table(rows, folder / f"{table}.parquet")
    matrix = {table: open_table(UPath(folder / f"{table}.parquet")) for table in made.tables}
    with told(name, "split", millions, meter):
        said = {"keep_other_events": False, "strategy": "random"}
        plan = HoldOutPlan(HoldOutMethod.random, 42, 3, HELD_OUT_USERS, 1, None, said)
        split = engine.hold_out(matrix, plan).table
    with told(name, "train and rank", millions, meter):
        trials = [replace(TRIAL, alpha=TRIAL.alpha + place) for place in range(n_trials)]
        search = SearchPlan(trials, {"default": None}, "batched", 7, SearchMethod.grid, None, 0, 1, 0, 7200.0)
        results = list(engine.search(matrix, split, search).run(lambda _: (), lambda _: None))
        if failures := [result.failure for result in results if result.scores is None]:
            raise RuntimeError(failures[0])
        (map_at_10,) = (each.scores.map for each in results if each.scores and each.hyperparameters == TRIAL)
    with told(name, "refit", millions, meter):
        refitted = engine.refit(matrix, Winner(TRIAL, 7, "batched", None, {}, None))
        (folder / "model").mkdir(exist_ok=True)
        write_model(folder / "model", refitted.factors, refitted.interactions, DESCRIPTION)
    with told(name, "lists", millions, meter):
        model = read_model(UPath(folder / "model"))
        offer = Offer.everything(len(model.items))
        write_table(engine.recommendations(model, offer, ExportPlan(10)), folder / "lists.parquet")
    n_rows = open_table(UPath(folder / "lists.parquet")).count_rows()
    print(f"<!-- {name}: MAP@10 {map_at_10:.4f}, {n_rows:,} rows in lists -->", flush=True)


def main() -> None:
    """Measure, and print a row per stage, engine and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=float, nargs="+", default=[1, 5, 20], help="million interactions")
    parser.add_argument("--trials", type=int, default=1, help="of 32 factors; 32 are trained side by side")
    parser.add_argument("--workers", type=int, default=2, help="of the cluster, a core each")
    parser.add_argument("--memory", default="3g", help="of a worker")
    parser.add_argument("--folder", default=None, help="where the feeds stay")
    arguments = parser.parse_args()
    from recsys_pipeline.engines.spark.engine import SparkEngine, SparkSettings

    print("| million interactions | stage | engine | wall s | CPU s | GB |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    with ExitStack() as stack:
        root = Path(arguments.folder or stack.enter_context(tempfile.TemporaryDirectory()))
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(Cluster(logs, n_workers=arguments.workers, memory=arguments.memory))
        os.environ.update(cluster.environment)
        conf = f"spark.executor.memory={arguments.memory};spark.driver.host=127.0.0.1"
        conf += ";spark.sql.shuffle.partitions=64"
        spark = SparkEngine(SparkSettings(cluster.master, conf, logs / "scratch", 0))
        meter = Meter(lambda: cluster.pids)
        for millions in arguments.pairs:
            folder = root / f"{millions:g}m"
            events = feed(millions, folder)
            go(LocalEngine(), "local", millions, arguments.trials, events, folder / "local", meter)
            go(spark, "spark", millions, arguments.trials, events, folder / "spark", meter)


if __name__ == "__main__":
    main()
