"""Penalty and unobserved weight relative to the data."""

import numpy as np
import pytest

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.scale import CRUSHING_PENALTY, IDLE_PENALTY, Relative, Scale, Weighting, corners

TRIAL = Hyperparameters(
    factors=8,
    regularization=0.1,
    alpha=1.0,
    iterations=4,
    bm25_K1=0.0,
    bm25_B=0.0,
    weighting="none",
)
# 16 interactions a user and 4 an item, each of weight 2.
SCALE = Scale.of((100, 400), np.full(1600, 2.0, np.float32))


def test_the_scale_of_equal_weights_by_hand():
    assert Scale(100, 400, 1600, mean_weight=2.0, rms_weight=2.0, least_weight=2.0) == SCALE
    assert SCALE.noise(TRIAL) == pytest.approx(4 + 2)
    assert SCALE.frequency(0.0) == pytest.approx(8)
    # Of a user 16 + 0.1 * 400, of an item 4 + 0.1 * 100.
    assert SCALE.frequency(0.1) == pytest.approx(np.sqrt(56 * 14))


def test_the_penalty_of_a_typical_row_is_told_in_mean_confidences_and_noise():
    trial = TRIAL.replace(regularization=0.5, nu=0.5, alpha=3.0, unobserved_weight=0.1)
    relative = SCALE.relative(trial)

    assert relative.penalty == pytest.approx(0.5 * np.sqrt(28) / 6 / 6)
    assert relative.unobserved_weight == pytest.approx(0.1 / 6)


@pytest.mark.parametrize("as_implicit", [False, True])
@pytest.mark.parametrize("nu", [0.0, 0.85, 1.0])
def test_hyperparameters_that_are_made_of_relative_ones_give_them_back(nu, as_implicit):
    wanted = Relative(0.25, 0.05)
    trial = SCALE.with_relative(TRIAL.replace(nu=nu), wanted, as_implicit=as_implicit)

    assert SCALE.relative(trial) == pytest.approx(wanted, rel=0.01)
    if as_implicit:
        assert (trial.alpha, trial.unobserved_weight) == (10.0, 1.0)
    else:
        assert (trial.alpha, trial.unobserved_weight) == (0.5, 0.05)


def test_a_confidence_above_one_counts_with_its_one():
    trial = TRIAL.replace(confidence="1 + alpha * w", alpha=1.5)

    assert SCALE.mean_confidence(trial) == 4
    assert SCALE.relative(trial).unobserved_weight == 1 / 4


def test_noise_is_the_largest_singular_value_of_a_matrix_without_structure():
    rng = np.random.default_rng(1)
    matrix = np.where(rng.random((300, 500)) < 0.1, rng.choice([-1.0, 1.0], (300, 500)), 0.0)
    weights = np.abs(matrix[matrix != 0])
    largest = np.linalg.svd(matrix, compute_uv=False)[0]

    assert Scale.of(matrix.shape, weights).noise(TRIAL) == pytest.approx(largest, rel=0.05)


def made(penalty, unobserved_weight):
    return SCALE.with_relative(TRIAL, Relative(penalty, unobserved_weight), as_implicit=False)


# Of each observed interaction there are 24 others: below a 24th they weigh less than the observed.
@pytest.mark.parametrize(
    ("penalty", "unobserved_weight", "why"),
    [
        pytest.param(0.25, 0.05, "", id="usual"),
        pytest.param(1.2, 0.05, "", id="a large penalty"),
        pytest.param(1.1 * CRUSHING_PENALTY, 0.05, "most factors vanish", id="a crushing penalty"),
        pytest.param(0.25, 0.01, "", id="a small unobserved weight"),
        pytest.param(0.5 * IDLE_PENALTY, 0.05, "", id="a small penalty"),
        pytest.param(0.5 * IDLE_PENALTY, 0.01, "weigh 0.24 of the observed", id="both small"),
    ],
)
def test_what_is_likely_to_be_ruined_and_why(penalty, unobserved_weight, why):
    trial = made(penalty, unobserved_weight)
    found = corners([TRIAL, trial], {Weighting.of(TRIAL): SCALE})

    if why:
        assert why in found.pop(trial)
    assert found == {}


def test_a_crushing_penalty_is_answered_with_a_usual_one():
    (why,) = corners([made(2.5, 0.05)], {Weighting.of(TRIAL): SCALE}).values()

    assert f"a regularization of {made(0.25, 0.05).regularization:g} would be usual" in why


def test_where_the_scale_is_unknown_nothing_is_told():
    assert corners([made(2.5, 0.05).replace(strengths="mild")], {Weighting.of(TRIAL): SCALE}) == {}
