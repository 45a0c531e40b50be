"""Differences between trials, and the choice that rests on them."""

import numpy as np
import pytest

from recsys_pipeline.core import comparison
from recsys_pipeline.core.comparison import (
    Prefer,
    Switch,
    bootstrap_means,
    choose,
    choose_or_keep,
    compare_with_best,
    intervals,
)
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.core.selecting import SelectBy, Selection

TRIAL = Hyperparameters(factors=8, regularization=0.1, alpha=5.0, iterations=2, bm25_K1=100.0, bm25_B=0.8)
N = 400


def trial(ranks, **changes):
    ranks = np.array(ranks)
    scores = Scores(float(np.mean((ranks <= 10) / ranks)), 0.0, 0.0, 0.0, 0.0, 0.0)
    return TrialResult(TRIAL.replace(**changes), scores, 1.0, ranks=np.array(ranks, np.uint8))


def compared(*ranking):
    users = np.arange(N)
    return compare_with_best(ranking, users, users, seed=1)


def test_resamples_have_the_spread_of_the_mean(rng):
    values = rng.normal(3.0, 2.0, (900, 1))
    means = bootstrap_means(values, seed=1, n_resamples=4000)

    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.std() == pytest.approx(values.std() / 30, rel=0.05)


def test_columns_share_their_draws_whatever_is_drawn_at_once(rng, monkeypatch):
    values = rng.normal(size=(50, 1))
    together = bootstrap_means(np.hstack([values, values + 1.0]), seed=1)
    assert together[:, 1] - together[:, 0] == pytest.approx(1.0)

    monkeypatch.setattr(comparison, "_COUNTS_AT_ONCE", 130)
    assert intervals(bootstrap_means(values, 1))[0] == pytest.approx(intervals(together)[0], abs=0.05)


def test_the_same_seed_gives_the_same_interval(rng):
    values = rng.normal(size=(50, 2))

    assert intervals(bootstrap_means(values, 7)) == intervals(bootstrap_means(values, 7))


def test_a_clearly_worse_trial_is_distinguishable_and_an_equal_one_is_not(rng):
    best = trial(rng.integers(1, 12, N))
    same = trial(best.ranks, alpha=6.0)
    # Others win as often as they lose.
    near = trial(np.where(np.arange(N) % 2, rng.permutation(best.ranks), best.ranks), alpha=7.0)
    worse = trial(np.minimum(best.ranks + 3, 11), alpha=8.0)
    itself, of_same, of_near, of_worse, of_failed = compared(
        best, same, near, worse, TrialResult(TRIAL, None, float("nan"), "diverged")
    )

    assert itself == of_same == (0.0, 0.0)
    assert of_near.low < 0 < of_near.high
    assert of_worse.high < 0
    assert of_failed is None


def test_the_simplest_of_those_that_are_not_distinguishable_is_chosen(rng):
    ranks = rng.integers(1, 12, N)
    ranking = [
        trial(ranks, factors=64, iterations=10),
        trial(ranks, factors=32, iterations=20),
        trial(ranks, factors=32, iterations=10),
        trial(np.minimum(ranks + 3, 11), factors=8),
        trial(ranks, factors=4)._replace(iterations_done=1),
    ]
    differences = compared(*ranking)

    assert choose(ranking, differences, Prefer.best) == 0
    assert choose(ranking, differences, Prefer.simplest) == 2


# --- Against the incumbent ---


def some_ranking(rng):
    """The best, one that equals it but for chance and is cheaper, one that is surely worse."""
    ranks = rng.integers(1, 12, N)
    near = np.where(np.arange(N) % 2, rng.permutation(ranks), ranks)
    ranking = [
        trial(ranks, factors=64),
        trial(near, factors=32),
        trial(np.minimum(ranks + 3, 11), factors=16),
    ]
    ranking[:2] = sorted(ranking[:2], key=lambda each: -each.scores.map)
    return ranking


@pytest.mark.parametrize("incumbent", [None, 0, 1, 2])
def test_always_the_preferred_trial_wins_whatever_the_incumbent(rng, incumbent):
    ranking = some_ranking(rng)
    differences = compared(*ranking)

    for prefer in Prefer:
        choice = choose_or_keep(ranking, differences, incumbent, prefer, Switch.always)
        assert choice.chosen == choose(ranking, differences, prefer)


@pytest.mark.parametrize(
    ("incumbent", "chosen"),
    [
        pytest.param(None, 0, id="none to keep"),
        pytest.param(0, 0, id="the best itself"),
        pytest.param(1, 1, id="equals the best but for chance, so it stays"),
        pytest.param(2, 0, id="surely worse, so it gives way"),
    ],
)
def test_a_significant_switch_needs_a_surely_better_trial(rng, incumbent, chosen):
    ranking = some_ranking(rng)

    assert (
        choose_or_keep(ranking, compared(*ranking), incumbent, Prefer.best, Switch.significant).chosen
        == chosen
    )


def test_that_another_is_cheaper_is_no_reason_to_switch(rng):
    ranks = rng.integers(1, 12, N)
    ranking = [
        trial(ranks, factors=64),
        trial(ranks, factors=32),
        trial(np.minimum(ranks + 3, 11), factors=16),
    ]
    differences = compared(*ranking)

    def chosen(incumbent):
        return choose_or_keep(ranking, differences, incumbent, Prefer.simplest, Switch.significant).chosen

    assert chosen(0) == 0
    # Where the best is reason enough, what is preferred takes the place.
    assert chosen(2) == 1


def test_the_lead_of_the_best_is_told_with_its_interval(rng):
    ranking = some_ranking(rng)
    differences = compared(*ranking)
    choice = choose_or_keep(ranking, differences, 2, Prefer.best, Switch.always)

    assert choice.lead == pytest.approx(ranking[0].scores.map - ranking[2].scores.map)
    assert choice.interval == (-differences[2].high, -differences[2].low)
    assert choice.interval.low < choice.lead < choice.interval.high
    assert choice.is_significant


def test_lead_and_choice_go_by_what_selects():
    """By MAP@10 the incumbent is the better, by HitRate@20 the other, and surely."""
    by, users = Selection(SelectBy.HitRate, 20), np.arange(N)
    broad, bold = trial(np.full(N, 11), factors=8), trial(np.where(users % 2, 1, 21), factors=4)
    ranking = [each.by(by, users, users) for each in (broad, bold)]
    differences = compare_with_best(ranking, users, users, 1, by)
    choice = choose_or_keep(ranking, differences, 1, Prefer.simplest, Switch.significant)

    assert (choice.chosen, choice.lead) == (0, 0.5)
    assert choice.is_significant


def test_an_incumbent_that_failed_cannot_stay(rng):
    ranking = [*some_ranking(rng), TrialResult(TRIAL, None, float("nan"), "diverged")]
    choice = choose_or_keep(ranking, compared(*ranking), 3, Prefer.best, Switch.significant)

    assert (choice.chosen, choice.lead, choice.is_significant) == (0, None, False)
