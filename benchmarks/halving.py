"""How often successive halving finds the best of the grid, and what it saves.

    python -m benchmarks.halving FEEDBACK [--seeds 3]

Every fit of the notebook's grid is trained to its end once and scored at every rung, so that halving can be
replayed on the same scores. "Not distinguishable" means that the paired difference in average precision
between the two trials, over the held-out pairs, is below two of its standard errors.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.data import held_out_and_pairs
from recsys_pipeline.assets.search import GridConfig
from recsys_pipeline.core.holdout import hold_out_pairs
from recsys_pipeline.core.metrics import K, average_precision, hits_of_ranks, score
from recsys_pipeline.core.ranking import held_out_ranks
from recsys_pipeline.core.search import SearchData, TrialResult, best_first
from recsys_pipeline.core.splitting import held_out_pairs
from recsys_pipeline.core.strategies import Task, halving, rungs
from recsys_pipeline.core.trials import Trial, fits_for
from recsys_pipeline.engines.batched import BatchedTrainer

FIRST_RUNGS = (2, 5, 10)


class Replay:
    """Gives results that are there already, and counts the iterations that training them would have taken."""

    def __init__(self, results: dict[Trial, TrialResult]) -> None:
        self._results = results
        self._reached: dict[Trial, int] = {}
        self.iterations = 0

    def run(self, tasks: Sequence[Task]) -> Iterator[TrialResult]:
        """See `recsys_pipeline.core.strategies.Run`."""
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
        pairs, _ = held_out_and_pairs(arguments.feedback, warehouse)
    trials = GridConfig().trials()
    longest = max(trial.iterations for trial in trials)
    stops = sorted(
        {n for first in FIRST_RUNGS for n in rungs(longest, first)} | {t.iterations for t in trials}
    )

    print("| seed | first rung | iterations trained | MAP@10 of the grid's best | halving's | |")
    print("|---|---|---|---|---|---|")
    for seed in range(arguments.seeds):
        held_out = held_out_pairs(pairs.pattern, seed=seed, min_interactions=3)
        data = SearchData.prepare(
            pairs.pattern, [hold_out_pairs(pairs.pattern, pairs.strengths, held_out)], trials
        ).splits[0]
        ones = np.ones(len(held_out), dtype=np.int64)
        ranks: dict[Trial, np.ndarray] = {}
        results: dict[Trial, TrialResult] = {}
        with threadpool_limits(1, "blas"):
            for fit in fits_for(trials):
                everywhere = fit._replace(checkpoints=tuple(stops))
                for state in BatchedTrainer().train(data.user_items(fit.longest), everywhere, seed):
                    trial = fit.trial(state.iterations)
                    ranks[trial] = held_out_ranks(
                        state.user_factors, state.item_factors, data.seen, data.users, data.items, k=K
                    )
                    results[trial] = TrialResult(
                        trial, score(hits_of_ranks(ranks[trial]), ones), state.seconds
                    )
        best = best_first([results[trial] for trial in trials])[0]
        for first in FIRST_RUNGS:
            replay = Replay(results)
            found = best_first(list(halving(trials, {}, replay.run, first)))[0]
            precisions = [average_precision(hits_of_ranks(ranks[r.trial]), ones) for r in (best, found)]
            difference = precisions[0] - precisions[1]
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            verdict = "the same"
            if found.trial != best.trial:
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
