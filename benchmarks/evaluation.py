"""Where the time of one seed of an evaluation goes: CPU seconds of each model, trained and measured.

    python -m benchmarks.evaluation [FEEDBACK] [--factors 64] [--iterations 10] [--solver batched]

One model after the other in this process, on one thread, as a worker process does it; an interaction of
20,000 users at most is held out.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace

# Before NumPy is imported: as in a worker process.
os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1"))

from benchmarks.data import held_out_interactions
from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.evaluation import (
    ABLATIONS,
    BLEND,
    EASE,
    GRAPH_FILTER,
    IN_ORDER,
    ITEM_KNN,
    POPULARITY,
    REPEAT_CONSUMPTION,
)
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, Hyperparameters
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.baselines import LOOPS
from recsys_pipeline.engines.local.compiling import ready
from recsys_pipeline.engines.local.contenders import Contest
from recsys_pipeline.engines.local.measuring import measure
from recsys_pipeline.engines.local.solvers import trainer_for

K = 10
_USERS = 20_000
_EVENT = "any"
_BASELINES = {
    ITEM_KNN: Baseline(Family.item_knn, weighting="presence", neighbours=100, shrinkage=100.0),
    GRAPH_FILTER: Baseline(Family.graph_filter, weighting="presence", user_exponent=0.25, item_exponent=0.25),
    POPULARITY: Baseline(Family.popularity),
}
# Not with the default configuration, or not on so many items.
_LEFT_OUT = (BLEND, *ABLATIONS, REPEAT_CONSUMPTION, EASE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("feedback", nargs="?", default="data/feedback_implicit.csv")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--solver", default=Solver.batched.value, choices=[solver.value for solver in Solver])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as warehouse:
        interactions, held_out = held_out_interactions(arguments.feedback, warehouse)
    held_out = held_out[:_USERS]
    split = Split.leaving_out(interactions.pattern, interactions.strengths, held_out)
    left = split.training_strengths[DEFAULT_STRENGTHS] > 0
    split = replace(split, events={_EVENT: left}, weigh_all=False)
    solver = Solver(arguments.solver)
    tuned = Hyperparameters(arguments.factors, 0.01, 10.0, arguments.iterations, 50.0, 0.6)
    contest = Contest(tuned, solver, None, {}, [_EVENT], _BASELINES, k=K)
    # Compiled, or read from numba's cache, before anything is timed.
    for loops in ("recsys_pipeline.core.selection", *LOOPS.values()):
        ready(loops)
    trainers = {solver: trainer_for(solver, num_threads=1)}

    size = f"{split.pattern.shape} users x items, {split.pattern.n_interactions:,} interactions"
    print(f"{size}, {len(held_out):,} held out")
    print("\n| model | training | ranks and lists |\n|---|---|---|")
    for name in IN_ORDER:
        if name in _LEFT_OUT:
            continue
        begin = time.process_time()
        (contender,) = contest.trained(name, split, 0, trainers.__getitem__)
        trained = time.process_time()
        measure(contender, split, K)
        print(f"| {name} | {trained - begin:.2f} | {time.process_time() - trained:.2f} |", flush=True)


if __name__ == "__main__":
    main()
