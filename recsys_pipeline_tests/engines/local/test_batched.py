"""The batched solver: `implicit`'s path where it can follow it, the exact solution, and a falling loss."""

from itertools import pairwise

import numpy as np
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import ALPHA_W, ONE_PLUS_ALPHA_W, Hyperparameters
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local import batched
from recsys_pipeline.engines.local.batched import BatchedTrainer
from recsys_pipeline.engines.local.compiling import ready
from recsys_pipeline.engines.local.implicit_als import ImplicitTrainer
from recsys_pipeline.engines.local.solvers import require_solvable
from recsys_pipeline.engines.local.training import Fit
from recsys_pipeline_tests.worlds import pattern_of

TRIAL = Hyperparameters(factors=6, regularization=0.1, alpha=7.0, iterations=4, bm25_K1=100.0, bm25_B=0.8)


def world(n_users=40, n_items=30):
    """User 3 and item 29 have no interaction."""
    rng = np.random.default_rng(0)
    rows = [rng.choice(n_items - 1, 6, replace=False) if user != 3 else [] for user in range(n_users)]
    pattern = pattern_of(rows, n_items)
    return pattern.user_items(rng.random(pattern.n_interactions) + 0.1)


def last_state(trainer, user_items, trial, seed=3):
    (state,) = trainer.train(user_items, Fit(trial, (trial.iterations,)), seed)
    return state


def confidence(user_items, trial):
    """Dense: c of observed interactions, w0 of the others; and the mask of the observed."""
    dense = np.asarray(user_items.todense(), dtype=float)
    observed = dense > 0
    c = trial.alpha * dense + (trial.confidence == ONE_PLUS_ALPHA_W)
    return np.where(observed, c, trial.unobserved_weight), observed


def ridges(observed, trial):
    """(users, items) penalties: regularization times frequency to the power nu."""
    n_users, n_items = observed.shape
    by_user = (observed.sum(1) + trial.unobserved_weight * n_items) ** trial.nu
    by_item = (observed.sum(0) + trial.unobserved_weight * n_users) ** trial.nu
    return trial.regularization * by_user, trial.regularization * by_item


def loss(user_items, trial, state):
    c, observed = confidence(user_items, trial)
    x, y = state.user_factors.astype(float), state.item_factors.astype(float)
    of_users, of_items = ridges(observed, trial)
    fit = (c * (observed - x @ y.T) ** 2).sum()
    return fit + (of_users[:, None] * x**2).sum() + (of_items[:, None] * y**2).sum()


VARIANTS = [
    TRIAL,
    TRIAL.replace(nu=1.0, regularization=0.01),
    TRIAL.replace(nu=0.5),
    TRIAL.replace(unobserved_weight=0.1),
    TRIAL.replace(confidence=ONE_PLUS_ALPHA_W),
    TRIAL.replace(nu=0.7, unobserved_weight=0.03, confidence=ONE_PLUS_ALPHA_W, regularization=0.02),
]


def products(state):
    """All inner products of the factors: what of them a rotation of both sides leaves as it is."""
    both = np.vstack([state.user_factors, state.item_factors]).astype(float)
    of_users, of_items = np.split(both @ both.T, [len(state.user_factors)])
    return of_users[:, : len(of_users)], of_users[:, len(of_users) :], of_items[:, len(of_users) :]


@pytest.mark.parametrize("rows", [7, 512])
@pytest.mark.parametrize("factors", [1, 6, 33])
def test_follows_implicits_path(monkeypatch, rows, factors):
    monkeypatch.setattr(batched, "_ROWS_PER_PRODUCT", rows)
    user_items, trial = world(), TRIAL.replace(factors=factors, iterations=1)
    ours = last_state(BatchedTrainer(), user_items, trial)
    theirs = last_state(ImplicitTrainer(1), user_items, trial)

    of_users, scores, of_items = products(ours)
    their_users, their_scores, their_items = products(theirs)
    assert of_users == pytest.approx(their_users, rel=1e-5, abs=1e-5)
    # The second half of the iteration starts from vectors that are almost parallel, which rounding shows in.
    assert scores == pytest.approx(their_scores, abs=5e-3)
    assert of_items == pytest.approx(their_items, rel=5e-3, abs=5e-3)
    assert not ours.user_factors[3].any()
    assert not ours.item_factors[29].any()

    longer = trial.replace(iterations=6)
    losses = [
        loss(user_items, longer, last_state(trainer, user_items, longer))
        for trainer in (BatchedTrainer(), ImplicitTrainer(1))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize("trial", VARIANTS, ids=str)
def test_reaches_the_closed_form_solution(monkeypatch, trial):
    # As many steps as factors make conjugate gradient exact, up to rounding.
    monkeypatch.setattr(batched, "_CG_STEPS", 12)
    user_items = world()
    state = last_state(BatchedTrainer(), user_items, trial)

    c, observed = confidence(user_items, trial)
    _, of_items = ridges(observed, trial)
    x = state.user_factors.astype(float)
    for item in range(29):
        a = (x * c[:, item, None]).T @ x + of_items[item] * np.eye(trial.factors)
        exact = np.linalg.solve(a, x.T @ (c[:, item] * observed[:, item]))
        assert state.item_factors[item] == pytest.approx(exact, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("trial", VARIANTS, ids=str)
def test_the_loss_falls_with_every_iteration(trial):
    user_items = world()
    fit = Fit(trial.replace(iterations=8), tuple(range(1, 9)))
    losses = [loss(user_items, trial, state) for state in BatchedTrainer().train(user_items, fit, 3)]

    assert all(after < before * (1 + 1e-6) for before, after in pairwise(losses))
    assert losses[-1] < losses[0]


def test_goes_on_from_where_an_earlier_fit_stopped():
    user_items = world()
    first, last = (
        state._replace(user_factors=state.user_factors.copy(), item_factors=state.item_factors.copy())
        for state in BatchedTrainer().train(user_items, Fit(TRIAL, (2, 4)), 3)
    )
    (resumed,) = BatchedTrainer().train(user_items, Fit(TRIAL, (4,)), 3, first)

    assert np.array_equal(resumed.user_factors, last.user_factors)


@pytest.mark.parametrize("factors", [1, 8, 9, 12, 15, 16, 24, 33])
def test_gives_the_same_wherever_its_arrays_lie_in_memory(factors):
    rng = np.random.default_rng(1)
    user_items = world().astype(np.float32)
    start = rng.random((40, factors), dtype=np.float32)
    fixed = rng.random((30, factors), dtype=np.float32)
    ones, ridge = np.ones(factors, np.float32), np.zeros(40, np.float32)
    solutions = set()
    for _ in range(300):
        kept = [np.empty(8 * size) for size in rng.integers(1, 50, size=5)]
        solved = start.copy()
        ready("recsys_pipeline.engines.local.kernels").solve_rows(
            *(user_items.indptr, user_items.indices, user_items.data, fixed.copy()),
            *(ones, np.float32(1), ridge, 3, solved),
        )
        solutions.add(solved.tobytes())
        del kept

    assert len(solutions) == 1


def test_leaves_its_input_as_it_was():
    user_items = world()
    before = user_items.copy()
    last_state(BatchedTrainer(), user_items, TRIAL)

    assert (user_items != before).nnz == 0


@pytest.mark.parametrize(
    "change", [{"nu": 0.5}, {"unobserved_weight": 0.1}, {"confidence": ONE_PLUS_ALPHA_W}]
)
def test_implicit_refuses_what_it_cannot_do(change):
    require_solvable(Solver.implicit, [TRIAL.replace(confidence=ALPHA_W)])
    require_solvable(Solver.batched, [TRIAL.replace(**change)])

    with pytest.raises(InputError, match="Choose solver `batched`"):
        require_solvable(Solver.implicit, [TRIAL, TRIAL.replace(**change)])


def test_the_loops_read_pointers_of_64_bits_too():
    """SciPy makes both arrays as wide as the widest has to be."""
    matrix, rng = world(), np.random.default_rng(1)
    fixed, start = rng.random((30, 6), np.float32), rng.random((40, 6), np.float32)
    spectrum, ridge = rng.random(6, np.float32), np.full(40, 0.1, np.float32)
    solved = []
    for width in (np.int32, np.int64):
        solved.append(start.copy())
        ready("recsys_pipeline.engines.local.kernels").solve_rows(
            matrix.indptr.astype(width),
            matrix.indices.astype(width),
            matrix.data,
            fixed,
            spectrum,
            np.float32(1),
            ridge,
            3,
            solved[-1],
        )

    assert np.array_equal(*solved)
    assert not np.array_equal(start, solved[0])
