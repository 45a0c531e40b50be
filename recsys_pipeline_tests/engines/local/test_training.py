"""The search gives the numbers of the notebook's procedure, trial by trial."""

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.dataset as ds
import pytest
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters, grid
from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.metrics import hits_of_ranks, score
from recsys_pipeline.core.ranking import Factors, held_out_ranks
from recsys_pipeline.core.search import TrialResult, best_first
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.engines.local.aggregation import interaction_strengths
from recsys_pipeline.engines.local.implicit_als import ImplicitTrainer
from recsys_pipeline.engines.local.training import Fit, fits_for, score_fit
from recsys_pipeline_tests import notebook
from recsys_pipeline_tests.worlds import pattern_of

NOTEBOOK_STRENGTHS = {"view": 1.0, "query_search": 2.0, "click": 3.0, "compare": 4.0}
NOTEBOOK_GRID = grid(
    {
        "factors": [32, 64],
        "regularization": [0.01, 0.05],
        "alpha": [10.0, 20.0],
        "iterations": [10, 20],
        "bm25_K1": [50.0, 100.0],
        "bm25_B": [0.6, 0.8],
    }
)


def scores_of(pattern, strengths, held_out, trials, seed):
    splits = [Split.leaving_out(pattern, strengths, held_out)]
    return [
        result for fit in fits_for(trials) for result, _ in score_fit(splits, fit, ImplicitTrainer(), seed)
    ]


@pytest.fixture(scope="module")
def sample(sample_csv):
    """All interactions of the bundled sample, and the held-out ones."""
    text = pa_csv.ConvertOptions(column_types={"ProductCode": "string"})
    events = ds.InMemoryDataset(pa_csv.read_csv(sample_csv, convert_options=text))
    interactions = Interactions.from_strengths(interaction_strengths(events, NOTEBOOK_STRENGTHS).read_all())
    return interactions, leave_one_out(interactions.pattern, seed=42, min_interactions=3)


# The ends of the grid: every value of every list occurs.
@pytest.mark.parametrize("trial", [NOTEBOOK_GRID[0], NOTEBOOK_GRID[-1]], ids=str)
@pytest.mark.runs
def test_equals_the_notebooks_procedure_on_the_sample(sample, trial):
    interactions, held_out = sample
    pattern = interactions.pattern
    strengths = csr_matrix((interactions.strengths, pattern.indices, pattern.indptr), shape=pattern.shape)
    out = dict(
        zip(pattern.user_of_interaction[held_out].tolist(), pattern.indices[held_out].tolist(), strict=True)
    )
    with threadpool_limits(1, "blas"):
        textbook, at_every_rank = notebook.map_at_10(strengths, out, trial, seed=42)
    (result,) = scores_of(pattern, interactions.strengths, held_out, [trial], seed=42)

    assert result.scores.map == pytest.approx(textbook, abs=1e-6)
    assert result.scores.notebook_map == pytest.approx(at_every_rank, abs=1e-6)


@pytest.mark.runs
def test_the_sample_has_something_to_find(sample):
    interactions, held_out = sample
    pattern = interactions.pattern
    best = Hyperparameters(
        factors=64, regularization=0.01, alpha=10.0, iterations=10, bm25_K1=50.0, bm25_B=0.6
    )
    (result,) = scores_of(pattern, interactions.strengths, held_out, [best], seed=42)

    kept = np.ones(pattern.n_interactions, bool)
    kept[held_out] = False
    training = pattern.select(kept)
    # A model with one factor, the popularity.
    popularity = np.bincount(training.indices, minlength=pattern.n_items).astype(np.float32)[:, None]
    everyone = np.ones((pattern.n_users, 1), np.float32)
    users, items = pattern.user_of_interaction[held_out], pattern.indices[held_out]
    ranks = held_out_ranks(Factors(everyone, popularity), training, users, items, k=10)
    popular = score(hits_of_ranks(ranks), np.ones(len(ranks), int))

    assert result.scores.map == pytest.approx(0.0881, abs=0.001)
    assert result.scores.notebook_map == pytest.approx(0.2864, abs=0.003)
    assert popular.map == pytest.approx(0.0072, abs=0.0005)


def small_world():
    rng = np.random.default_rng(3)
    pattern = pattern_of([rng.choice(np.arange(u % 2, 40, 2), 8, replace=False) for u in range(30)], 40)
    strengths = rng.integers(1, 6, pattern.n_interactions).astype(float)
    return pattern, strengths, leave_one_out(pattern, seed=1, min_interactions=3)


def test_a_shared_fit_gives_what_separate_fits_give():
    pattern, strengths, held_out = small_world()
    trials = grid(
        {
            "factors": [4, 8],
            "regularization": [0.1],
            "alpha": [5.0, 10.0],
            "iterations": [2, 5, 9],
            "bm25_K1": [100.0],
            "bm25_B": [0.8],
        }
    )

    def scores(trials):
        results = scores_of(pattern, strengths, held_out, trials, seed=5)
        return {result.hyperparameters: result.scores for result in results}

    together = scores(trials)
    assert together == {trial: scores([trial])[trial] for trial in trials}


def test_finds_the_obvious():
    pattern, strengths, held_out = small_world()
    trial = Hyperparameters(
        factors=2, regularization=0.01, alpha=10.0, iterations=10, bm25_K1=100.0, bm25_B=0.0
    )
    (result,) = scores_of(pattern, strengths, held_out, [trial], seed=1)

    # Of the 20 items of a user's parity 13 are left to choose from: 10 guesses hit in 3 of 4 cases.
    assert result.scores.hit_rate > 0.6


def test_best_first_prefers_the_cheaper_among_equals_and_puts_failures_last():
    pattern, strengths, held_out = small_world()
    trial = Hyperparameters(factors=4, regularization=0.1, alpha=5.0, iterations=2, bm25_K1=100.0, bm25_B=0.8)
    (cheap,) = scores_of(pattern, strengths, held_out, [trial], seed=5)
    longer = cheap._replace(hyperparameters=trial.replace(iterations=3))
    larger = cheap._replace(hyperparameters=trial.replace(factors=8))
    stopped = longer._replace(scores=cheap.scores._replace(map=0.99), iterations_done=1)
    failed = TrialResult(trial.replace(alpha=1e30), None, float("nan"), "diverged")

    assert best_first([failed, stopped, larger, longer, cheap]) == [cheap, longer, larger, stopped, failed]


def test_the_notebooks_grid_is_64_trials_by_32_fits():
    fits = fits_for(NOTEBOOK_GRID)

    assert len(NOTEBOOK_GRID) == 64
    assert len(fits) == 32
    assert {fit.checkpoints for fit in fits} == {(10, 20)}
    assert {fit.trial(n) for fit in fits for n in fit.checkpoints} == set(NOTEBOOK_GRID)


def test_checkpoints_ascend_whatever_the_order_of_the_list():
    trials = [Hyperparameters(8, 0.1, 1.0, n, 100.0, 0.8) for n in (20, 5, 10)]

    assert fits_for(trials) == [Fit(trials[0], (5, 10, 20))]
