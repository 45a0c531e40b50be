"""A search that goes on until it is killed.

    python -m recsys_pipeline_tests.engines.local.endless [interrupted]

It imports no more than it needs, so that it starts fast.
"""

import signal
import sys
import threading

import numpy as np

from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.engines.local.fitting import FitPool
from recsys_pipeline.engines.local.methods import Task
from recsys_pipeline.engines.local.training import Fit

# Answers once, and then works for as long as anybody waits.
ENDLESS = Fit(
    Hyperparameters(factors=64, regularization=0.1, alpha=5.0, iterations=10**6, bm25_K1=100.0, bm25_B=0.8),
    (1, 10**6),
)


def splits(n_users=30, n_items=40):
    """Everybody has 8 items."""
    rng = np.random.default_rng(3)
    items = [np.sort(rng.choice(n_items, 8, replace=False)) for _ in range(n_users)]
    users = np.repeat(np.arange(n_users, dtype=np.int32), 8)
    pattern = Pattern.from_coordinates(users, np.concatenate(items).astype(np.int32), (n_users, n_items))
    strengths = rng.integers(1, 6, pattern.n_interactions).astype(float)
    return [Split.leaving_out(pattern, strengths, leave_one_out(pattern, seed=1, min_interactions=3))]


def _interrupt():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


def main(*, interrupted):
    """Tell the folder of the search and its workers once they are at work, and wait for them.

    An interrupted one interrupts itself from another thread while it waits, as Dagster does when a run is
    terminated.
    """
    fits = [ENDLESS, Fit(ENDLESS.longest.replace(alpha=6.0), ENDLESS.checkpoints)]
    with FitPool(splits(400, 600), Solver.implicit, seed=5, n_workers=2) as pool:
        running = pool.run([Task(fit) for fit in fits])
        next(running), next(running)
        print(pool.folder, *(worker.process.pid for worker in pool._workers), flush=True)  # noqa: T201
        if interrupted:
            threading.Timer(0.1, _interrupt).start()
        list(running)


if __name__ == "__main__":
    main(interrupted=sys.argv[1:] == ["interrupted"])
