"""How often successive halving finds the best trial of the grid, and how many iterations it saves.

    python -m benchmarks.halving FEEDBACK [--seeds 3]

Every fit of the notebook's grid is trained to its end once and scored at every rung. Halving is then
replayed on these scores. "Not distinguishable" means that the two trials differ in mean average precision,
paired over the held-out interactions, by less than two standard errors of the difference.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.data import held_out_interactions
from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metrics import K, average_precision, hits_of_ranks, score
from recsys_pipeline.core.ranking import held_out_ranks
from recsys_pipeline.core.search import TrialResult, best_first
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.engines.local.batched import BatchedTrainer
from recsys_pipeline.engines.local.methods import Task, halving, rungs
from recsys_pipeline.engines.local.training import fits_for

FIRST_RUNGS = (2, 5, 10)


class Replay:
    """Replays known results, and counts the iterations that training them would have taken."""

    def __init__(self, results: dict[Hyperparameters, TrialResult]) -> None:
        self._results = results
        self._reached: dict[Hyperparameters, int] = {}
        self.iterations = 0

    def run(self, tasks: Sequence[Task]) -> Iterator[TrialResult]:
        """See `recsys_pipeline.engines.local.methods.Run`."""
        for task in tasks:
            trial, last = task.fit.trial(0), task.fit.checkpoints[-1]
            self.iterations += last - self._reached.get(trial, 0)
            self._reached[trial] = last
            yield from (self._results[task.fit.trial(n)] for n in task.fit.checkpoints)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("feedback")
    parser.add_argument("--seeds", type=int, default=3, help="splits, each with its own random start")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as warehouse:
        interactions, _ = held_out_interactions(arguments.feedback, warehouse)
    trials = GridConfig().trials()
    longest = max(trial.iterations for trial in trials)
    stops = sorted(
        {n for first in FIRST_RUNGS for n in rungs(longest, first)} | {t.iterations for t in trials}
    )

    print("| seed | first rung | iterations trained | MAP@10 of the grid's best | halving's | |")
    print("|---|---|---|---|---|---|")
    for seed in range(arguments.seeds):
        held_out = leave_one_out(interactions.pattern, seed=seed, min_interactions=3)
        split = Split.leaving_out(interactions.pattern, interactions.strengths, held_out)
        ones = np.ones(len(held_out), dtype=np.int64)
        ranks: dict[Hyperparameters, np.ndarray] = {}
        results: dict[Hyperparameters, TrialResult] = {}
        with threadpool_limits(1, "blas"):
            for fit in fits_for(trials):
                everywhere = fit._replace(checkpoints=tuple(stops))
                for state in BatchedTrainer().train(split.user_items(fit.longest), everywhere, seed):
                    trial = fit.trial(state.iterations)
                    ranks[trial] = held_out_ranks(
                        state.factors, split.exclusions, split.users, split.items, k=K
                    )
                    results[trial] = TrialResult(
                        trial, score(hits_of_ranks(ranks[trial]), ones), state.seconds
                    )
        best = best_first([results[trial] for trial in trials])[0]
        for first in FIRST_RUNGS:
            replay = Replay(results)
            found = best_first(list(halving(trials, lambda _: (), replay.run, first, lambda _: None)))[0]
            precisions = [
                average_precision(hits_of_ranks(ranks[r.hyperparameters]), ones) for r in (best, found)
            ]
            difference = precisions[0] - precisions[1]
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            verdict = "the same"
            if found.hyperparameters != best.hyperparameters:
                verdict = "not distinguishable" if difference.mean() < 2 * error else "worse"
            everything = sum(fit.longest.iterations for fit in fits_for(trials))
            saved = 1 - replay.iterations / everything
            assert best.scores is not None
            assert found.scores is not None
            print(
                f"| {seed} | {rungs(longest, first)[0]} | {replay.iterations} of {everything} "
                f"({saved:.0%} saved) | {best.scores.map:.4f} | {found.scores.map:.4f} | {verdict} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
