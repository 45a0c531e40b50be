"""The grid, drawn trials, and the fits that answer them."""

from recsys_pipeline.core.trials import Trial, draw, fits_for, grid

LISTS = {
    "factors": [32, 64],
    "regularization": [0.01, 0.05],
    "alpha": [10.0, 20.0],
    "iterations": [10, 20],
    "bm25_k1": [50.0, 100.0],
    "bm25_b": [0.6, 0.8],
}


def test_the_notebooks_grid_is_64_trials_by_32_fits():
    trials = grid(**LISTS)
    fits = fits_for(trials)

    assert len(trials) == 64
    assert len(fits) == 32
    assert {fit.checkpoints for fit in fits} == {(10, 20)}
    assert {fit.trial(n) for fit in fits for n in fit.checkpoints} == set(trials)


def test_a_value_given_twice_is_tried_once():
    assert len(grid(**{**LISTS, "factors": [8, 8], "iterations": [5, 3, 5]})) == 32


def test_checkpoints_ascend_whatever_the_order_of_the_list():
    (fit,) = fits_for([Trial(8, 0.1, 1.0, n, 100.0, 0.8) for n in (20, 5, 10)])

    assert fit.checkpoints == (5, 10, 20)
    assert fit.longest.iterations == 20


def test_drawn_trials_lie_between_the_ends_of_the_lists():
    trials = draw(200, 1, **LISTS, nu=[0.0, 1.0], confidence=["alpha * w", "1 + alpha * w"])

    for name, values in {**LISTS, "nu": [0.0, 1.0]}.items():
        drawn = [getattr(trial, name) for trial in trials]
        assert min(values) <= min(drawn) < max(drawn) <= max(values), name
        assert {type(value) for value in drawn} == {type(values[0])}, name
    assert {trial.confidence for trial in trials} == {"alpha * w", "1 + alpha * w"}


def test_scales_are_drawn_evenly_by_their_logarithm():
    drawn = sorted(trial.regularization for trial in draw(999, 1, **{**LISTS, "regularization": [1e-4, 1.0]}))

    assert 0.005 < drawn[len(drawn) // 2] < 0.02


def test_equal_seeds_draw_equal_trials():
    assert draw(5, 7, **LISTS) == draw(5, 7, **LISTS) != draw(5, 8, **LISTS)
