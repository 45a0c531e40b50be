"""The notebook's way of searching its grid compared with the project's, in one run.

    python -m benchmarks.search [--feedback FILE] [--repeats N]

The notebook's way is 64 separate fits with all threads, and one Python loop over users per evaluation. It is
given the project's held-out interactions, because its own differ from trial to trial; both weigh all
interactions, in its order (`weights: all`). Prints the wall and CPU seconds of each way (medians over the
repeats), their ratios, and the largest difference in MAP@10.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.data import held_out_interactions
from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.fitting import FitPool
from recsys_pipeline.engines.local.methods import Task
from recsys_pipeline.engines.local.training import fits_for
from recsys_pipeline.machine.cores import usable_cores
from recsys_pipeline_tests import notebook

SEED = 42

MapOf = dict[Hyperparameters, float]


class Measurement(NamedTuple):
    """How long a search took, and what it found."""

    wall: float
    cpu: float
    maps: MapOf


def measured(search: Callable[[], MapOf]) -> Measurement:
    """Run a search; CPU seconds include those of its worker processes."""

    def cpu() -> float:
        return sum(u.ru_utime + u.ru_stime for u in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))

    wall, before = time.perf_counter(), cpu()
    maps = search()
    return Measurement(time.perf_counter() - wall, cpu() - before, maps)


def notebooks_way(interactions: Interactions, held_out: np.ndarray, trials: list[Hyperparameters]) -> MapOf:
    """MAP@10 by trial."""
    pattern = interactions.pattern
    strengths = csr_matrix((interactions.strengths, pattern.indices, pattern.indptr), shape=pattern.shape)
    users, items = pattern.user_of_interaction[held_out].tolist(), pattern.indices[held_out].tolist()
    out = dict(zip(users, items, strict=True))
    with threadpool_limits(1, "blas"):
        return {trial: notebook.map_at_10(strengths, out, trial, SEED, num_threads=0)[0] for trial in trials}


def our_way(
    interactions: Interactions, held_out: np.ndarray, trials: list[Hyperparameters], solver: Solver
) -> MapOf:
    """MAP@10 by trial, as the asset computes it, including the start of the worker processes."""
    split = Split.leaving_out(interactions.pattern, interactions.strengths, held_out)
    with FitPool([split], solver, SEED, usable_cores()) as pool:
        results = list(pool.run([Task(fit) for fit in fits_for(trials)]))
    return {result.hyperparameters: result.scores.map for result in results if result.scores}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--feedback", default="data/feedback_implicit.csv")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as warehouse:
        interactions, held_out = held_out_interactions(arguments.feedback, warehouse)
    trials = GridConfig().trials()
    pattern = interactions.pattern
    print(f"{pattern.shape} users x items, {pattern.n_interactions:,} interactions, {len(trials)} trials")

    ways: dict[str, Callable[[], MapOf]] = {
        "notebook": lambda: notebooks_way(interactions, held_out, trials),
        **{
            solver.value: lambda solver=solver: our_way(interactions, held_out, trials, solver)  # type: ignore[misc]
            for solver in (Solver.implicit, Solver.batched)
        },
    }
    runs: dict[str, list[Measurement]] = {name: [] for name in ways}
    for repeat in range(arguments.repeats):
        for name, way in ways.items():
            run = measured(way)
            runs[name].append(run)
            print(f"repeat {repeat + 1}: {name:9s} {run.wall:7.1f} s wall {run.cpu:7.1f} s CPU", flush=True)

    def medians(name: str) -> tuple[float, float]:
        return statistics.median(r.wall for r in runs[name]), statistics.median(r.cpu for r in runs[name])

    reference = runs["notebook"][0].maps
    print("\nway        wall s   CPU s   wall ratio   CPU ratio   largest difference in MAP@10 (relative)")
    for name in ways:
        wall, cpu = medians(name)
        base_wall, base_cpu = medians("notebook")
        ours = runs[name][0].maps
        difference = max(abs(ours[trial] - reference[trial]) for trial in trials)
        relative = max(abs(ours[trial] / reference[trial] - 1) for trial in trials)
        print(
            f"{name:9s} {wall:7.1f} {cpu:7.1f} {base_wall / wall:12.2f} {base_cpu / cpu:11.2f}"
            f"   {difference:.1e} ({relative:.2%})"
        )


if __name__ == "__main__":
    main()
