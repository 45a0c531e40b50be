"""Folding in: the least loss with the items fixed, whatever the hyperparameters."""

import numpy as np
import pytest
from scipy.optimize import minimize

from recsys_pipeline.core.folding import Events, FoldIn, UserSolver
from recsys_pipeline.core.hyperparameters import NO_WEIGHTING, ONE_PLUS_ALPHA_W, Hyperparameters
from recsys_pipeline.core.implicit_model import trained_model
from recsys_pipeline.core.loss import confidences, penalties
from recsys_pipeline.core.strengths import Aggregate
from recsys_pipeline.engines.local import batched
from recsys_pipeline.engines.local.batched import BatchedTrainer
from recsys_pipeline_tests.core.small_feeds import interactions_of, model_of, shop_events
from recsys_pipeline_tests.worlds import pattern_of

TRIAL = Hyperparameters(factors=6, regularization=0.1, alpha=7.0, iterations=4, bm25_K1=100.0, bm25_B=0.8)
VARIANTS = [
    TRIAL,
    TRIAL.replace(nu=1.0, regularization=0.01),
    TRIAL.replace(nu=0.5, unobserved_weight=0.1),
    TRIAL.replace(confidence=ONE_PLUS_ALPHA_W),
    # Some confidences lie below that of unobserved interactions.
    TRIAL.replace(alpha=0.8),
    TRIAL.replace(ensemble_size=3),
    TRIAL.replace(nu=0.7, unobserved_weight=0.03, confidence=ONE_PLUS_ALPHA_W, ensemble_size=2),
]
N_ITEMS = 30


def world(trial):
    """Item factors, and users with fewer interactions than factors, as many, more, and none."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=(N_ITEMS, trial.width)).astype(np.float32)
    pattern = pattern_of(
        [rng.choice(N_ITEMS, n, replace=False).tolist() for n in (1, 3, 6, 0, 25, 3)], N_ITEMS
    )
    return items, pattern, (rng.random(pattern.n_interactions) * 2 + 0.1).astype(np.float32)


def loss(x, items, row, weights, trial):
    """Of one user, written as the sum over all items."""
    c = np.full(N_ITEMS, trial.unobserved_weight)
    c[row] = trial.alpha * weights + (trial.confidence == ONE_PLUS_ALPHA_W)
    wanted = np.isin(np.arange(N_ITEMS), row)
    ridge = trial.regularization * (len(row) + trial.unobserved_weight * N_ITEMS) ** trial.nu
    return (c * (wanted - items.astype(float) @ x) ** 2).sum() + ridge * x @ x


@pytest.mark.parametrize("trial", VARIANTS, ids=str)
def test_no_other_factors_have_a_smaller_loss(trial):
    items, pattern, weights = world(trial)
    found = UserSolver(items, trial).users(pattern, weights)

    for user in range(pattern.n_users):
        own = slice(pattern.indptr[user], pattern.indptr[user + 1])
        row, of_row = pattern.indices[own], weights[own]
        if not len(row):
            assert not found[user].any()
            continue
        for number in range(trial.ensemble_size):
            model = slice(number * trial.factors, (number + 1) * trial.factors)
            best = minimize(loss, np.zeros(trial.factors), (items[:, model], row, of_row, trial), tol=1e-10)
            assert found[user, model] == pytest.approx(best.x, abs=2e-5)


def test_one_user_or_many_at_a_time_is_the_same():
    items, pattern, weights = world(TRIAL)
    fold_in = UserSolver(items, TRIAL)
    together = fold_in.users(pattern, weights)

    for user in range(pattern.n_users):
        own = slice(pattern.indptr[user], pattern.indptr[user + 1])
        alone = fold_in.users(pattern_of([pattern.indices[own].tolist()], N_ITEMS), weights[own])
        assert np.array_equal(alone[0], together[user])


def test_what_has_no_weight_does_not_count():
    items, pattern, weights = world(TRIAL)
    without = weights.copy()
    without[0] = 0
    without[1] = -1
    found = UserSolver(items, TRIAL).users(pattern, without)

    assert not found[0].any()
    left = pattern.select(without > 0)
    assert np.array_equal(found, UserSolver(items, TRIAL).users(left, weights[without > 0]))


def test_without_regularization_it_takes_the_shortest_of_equals():
    """Three items cannot span six factors: what none of them has a part in stays 0."""
    trial = TRIAL.replace(regularization=0.0)
    items = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    found = UserSolver(items, trial).users(pattern_of([[0], [0, 1, 2]], 3), np.ones(4, np.float32))

    assert np.isfinite(found).all()
    # It can tell each item from the others exactly.
    assert found @ items.T == pytest.approx(np.array([[1, 0, 0], [1, 1, 1]]), abs=1e-3)


# --- Against those who train ---


@pytest.mark.parametrize("trial", [*VARIANTS, TRIAL.replace(weighting=NO_WEIGHTING)], ids=str)
def test_is_where_the_users_half_of_an_iteration_ends(trial, monkeypatch):
    """The batched solver, with as many steps as it takes; bases may differ, so scores are compared."""
    monkeypatch.setattr(batched, "_CG_STEPS", 200)
    model = model_of(interactions_of(shop_events()), trial)
    contents = model.contents
    matrix = contents.pattern.user_items(confidences(contents.weights, trial))
    ridge = penalties(contents.pattern.interactions_per_user, contents.pattern.n_items, trial)
    scores = np.zeros(matrix.shape)
    for items in np.split(model.factors.items, trial.ensemble_size, axis=1):
        items = np.ascontiguousarray(items)
        users = np.zeros((len(model.users), trial.factors), np.float32)
        BatchedTrainer()._solve(matrix, users, items, ridge, trial)
        scores += users @ items.T

    assert FoldIn(model).factors(contents) @ model.factors.items.T == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("weighting", ["bm25", NO_WEIGHTING])
def test_is_what_implicit_solves_for_one_user(weighting):
    trial = TRIAL.replace(weighting=weighting)
    model = model_of(interactions_of(shop_events()), trial)
    theirs = trained_model(trial, 1, model.factors)
    found = FoldIn(model).factors(model.contents)

    matrix = model.contents.pattern.user_items(model.contents.weights)
    for user in range(len(found)):
        assert found[user] == pytest.approx(theirs.recalculate_user(user, matrix[user]), abs=1e-4)


# --- What events make ---


@pytest.mark.parametrize("weighting", ["bm25", NO_WEIGHTING])
@pytest.mark.parametrize("aggregate", list(Aggregate))
@pytest.mark.parametrize("strengths", [None, {"buy": 1.0}], ids=["default", "purchases alone"])
@pytest.mark.parametrize("share_before", [0, 0.4, 1])
def test_events_make_the_contents_that_the_training_made(weighting, aggregate, strengths, share_before):
    """Whether they came all at once or after others."""
    events = shop_events()
    events += [event for event in events if event[1] % 3 == 0]
    rules = {"seen_events": ["buy"], "aggregate": aggregate}
    model = model_of(
        interactions_of(events, **rules), TRIAL.replace(weighting=weighting), strengths=strengths
    )
    fold_in = FoldIn(model)
    n_before = int(share_before * len(events))
    place = {name: number for number, name in enumerate(model.users.to_pylist())}
    item_place = {item: number for number, item in enumerate(model.items.to_pylist())}
    before = FoldIn(model).contents(_events(events[:n_before], place, item_place, fold_in), _nothing(model))
    found = fold_in.contents(_events(events[n_before:], place, item_place, fold_in), before)

    trained = model.contents
    assert np.array_equal(found.pattern.indptr, trained.pattern.indptr)
    assert np.array_equal(found.pattern.indices, trained.pattern.indices)
    assert found.weights == pytest.approx(trained.weights, rel=1e-6)
    assert np.array_equal(found.excluded, trained.excluded)
    for event, counts in trained.counts.items():
        assert np.array_equal(found.counts[event], counts)


def _events(events, users, items, fold_in):
    return Events(
        np.array([users[user] for user, _, _ in events], dtype=np.int64),
        np.array([items[item] for _, item, _ in events], dtype=np.int64),
        np.array([fold_in.events.index(event) for _, _, event in events], dtype=np.int64),
    )


def _nothing(model):
    """Contents of as many users, who did nothing yet."""
    contents = model.contents
    none = np.zeros(contents.pattern.n_interactions, dtype=bool)
    return contents._replace(
        pattern=contents.pattern.select(none),
        weights=contents.weights[none],
        excluded=contents.excluded[none],
        counts={event: counts[none] for event, counts in contents.counts.items()},
    )
