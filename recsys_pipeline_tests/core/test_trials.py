"""The grid and the fits that answer it."""

from recsys_pipeline.core.trials import fits_for, grid


def test_the_notebooks_grid_is_64_trials_by_32_fits():
    trials = grid([32, 64], [0.01, 0.05], [10, 20], [10, 20], [50, 100], [0.6, 0.8])
    fits = fits_for(trials)

    assert len(trials) == 64
    assert len(fits) == 32
    assert {fit.checkpoints for fit in fits} == {(10, 20)}
    assert {fit.trial(n) for fit in fits for n in fit.checkpoints} == set(trials)


def test_a_value_given_twice_is_tried_once():
    assert len(grid([8, 8], [0.1], [1.0], [5, 3, 5], [100.0], [0.8])) == 2


def test_checkpoints_ascend_whatever_the_order_of_the_list():
    (fit,) = fits_for(grid([8], [0.1], [1.0], [20, 5, 10], [100.0], [0.8]))

    assert fit.checkpoints == (5, 10, 20)
