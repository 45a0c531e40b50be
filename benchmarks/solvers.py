"""The batched solver compared with `implicit`, each on one thread: CPU seconds, ranks and MAP@10.

    python -m benchmarks.solvers FEEDBACK [--factors 32 64 128 256] [--iterations 10 20]

Both have the same random start and are scored on the same held-out interactions. Ranks are those that the
metrics see: 1 to 10, or beyond. The last two columns show the effect of rounding: the share of each solver's
ranks that differ from those of `implicit` when it computes with 64 bits instead of 32.
"""

import argparse
import tempfile
from collections.abc import Iterator

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.utils import check_random_state
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.data import held_out_interactions
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metrics import K, hits_of_ranks, score
from recsys_pipeline.core.ranking import held_out_ranks
from recsys_pipeline.engines.local.batched import BatchedTrainer
from recsys_pipeline.engines.local.implicit_als import ImplicitTrainer
from recsys_pipeline.engines.local.training import Checkpoint, Fit


class WideTrainer:
    """`implicit` with 64 bits, from the same random start as with 32; not timed."""

    def train(self, user_items: csr_matrix, fit: Fit, seed: int) -> Iterator[Checkpoint]:
        """See `recsys_pipeline.engines.local.training.Trainer`."""
        trial, rng = fit.longest, check_random_state(seed)
        user_items = user_items.astype(np.float64)
        model = AlternatingLeastSquares(
            trial.factors, trial.regularization, trial.alpha, np.float64, num_threads=1
        )
        model.user_factors, model.item_factors = (
            (rng.random((n_rows, trial.factors), dtype=np.float32) * np.float32(0.01)).astype(np.float64)
            for n_rows in user_items.shape
        )
        done = 0
        for checkpoint in fit.checkpoints:
            model.iterations = checkpoint - done
            model.fit(user_items, show_progress=False)
            done = checkpoint
            factors = model.user_factors.astype(np.float32), model.item_factors.astype(np.float32)
            yield Checkpoint(done, *factors, seconds=0.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("feedback")
    parser.add_argument("--factors", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--iterations", type=int, nargs="+", default=[10, 20])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as warehouse:
        interactions, held_out = held_out_interactions(arguments.feedback, warehouse)
    trial = Hyperparameters(1, 0.01, 10.0, max(arguments.iterations), 100.0, 0.6)
    split = Split.leaving_out(interactions.pattern, interactions.strengths, held_out)
    user_items = split.user_items(trial)
    ones = np.ones(len(held_out), dtype=np.int64)

    # The loops are compiled, or read from numba's cache, before anything is timed.
    list(BatchedTrainer().train(user_items[:100], Fit(trial.replace(factors=4, iterations=1), (1,)), 0))
    print(
        "| factors | iterations | implicit s | batched s | ratio | MAP@10 | batched's | differs "
        "| ranks that differ | implicit's from 64 bits | batched's from 64 bits |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for factors in arguments.factors:
        fit = Fit(trial.replace(factors=factors), tuple(sorted(arguments.iterations)))
        found = []
        for trainer in (ImplicitTrainer(num_threads=1), BatchedTrainer(), WideTrainer()):
            states = []
            # On one thread wall seconds of the fit are its CPU seconds, but for what else the machine does.
            with threadpool_limits(1, "blas"):
                for state in trainer.train(user_items, fit, seed=42):
                    ranks = held_out_ranks(state.factors, split.exclusions, split.users, split.items, k=K)
                    states.append((state.iterations, state.seconds, ranks))
            found.append(states)
        for (iterations, theirs, ranks), (_, ours, our_ranks), (_, _, wide_ranks) in zip(*found, strict=True):
            maps = [score(hits_of_ranks(each), ones).map for each in (ranks, our_ranks)]
            print(
                f"| {factors} | {iterations} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.2f} "
                f"| {maps[0]:.5f} | {maps[1]:.5f} | {maps[1] / maps[0] - 1:+.2%} "
                f"| {np.mean(ranks != our_ranks):.3%} | {np.mean(ranks != wide_ranks):.3%} "
                f"| {np.mean(our_ranks != wide_ranks):.3%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
