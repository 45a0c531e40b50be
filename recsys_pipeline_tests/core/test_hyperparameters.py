"""Hyperparameters are declared once: configuration, grid, draws, columns and manifest follow."""

import json

import pytest
from pydantic import ValidationError

from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.core.columns import DESCRIPTIONS
from recsys_pipeline.core.hyperparameters import DIMENSIONS, Hyperparameters, draw, ends, grid
from recsys_pipeline.core.results import results_table
from recsys_pipeline.core.search import TrialResult

LISTS = {
    "factors": [32, 64],
    "regularization": [0.01, 0.05],
    "alpha": [10.0, 20.0],
    "iterations": [10, 20],
    "bm25_K1": [50.0, 100.0],
    "bm25_B": [0.6, 0.8],
}


def test_a_value_given_twice_is_tried_once():
    assert len(grid({**LISTS, "factors": [8, 8], "iterations": [5, 3, 5]})) == 32


def test_drawn_trials_lie_between_the_ends_of_the_lists():
    trials = draw(200, 1, {**LISTS, "nu": [0.0, 1.0], "confidence": ["alpha * w", "1 + alpha * w"]})

    for name, values in {**LISTS, "nu": [0.0, 1.0]}.items():
        drawn = [getattr(trial, name) for trial in trials]
        assert min(values) <= min(drawn) < max(drawn) <= max(values), name
        assert {type(value) for value in drawn} == {type(values[0])}, name
    assert {trial.confidence for trial in trials} == {"alpha * w", "1 + alpha * w"}


def test_scales_are_drawn_evenly_by_their_logarithm():
    drawn = sorted(trial.regularization for trial in draw(999, 1, {**LISTS, "regularization": [1e-4, 1.0]}))

    assert 0.005 < drawn[len(drawn) // 2] < 0.02


def test_equal_seeds_draw_equal_trials():
    assert draw(5, 7, LISTS) == draw(5, 7, LISTS) != draw(5, 8, LISTS)


def test_no_configuration_is_drawn_twice():
    # 2 x 2 configurations in all, and each is drawn many times over.
    lists = {**{name: values[:1] for name, values in LISTS.items()}, "factors": [8, 9], "iterations": [1, 2]}
    drawn = draw(50, 1, lists)

    assert len(drawn) == len(set(drawn)) == 4
    assert {len(draw(3, seed, lists)) for seed in range(20)} == {3}


def test_what_a_configuration_does_not_use_makes_no_difference():
    trials = grid({**LISTS, "weighting": ["none"]})

    assert len(trials) == 64 / 4
    assert {(trial.bm25_K1, trial.bm25_B) for trial in trials} == {(0.0, 0.0)}


def test_each_is_a_field_of_the_configuration_a_column_of_the_results_and_has_a_meaning():
    names = [dimension.name for dimension in DIMENSIONS]
    result = TrialResult(GridConfig().trials()[0], None, float("nan"), "diverged")

    assert results_table([result], [None], 0).column_names[: len(names)] == names
    assert set(names) - set(GridConfig.model_fields) == {"strengths"}  # whose values are names of mappings
    assert all(DESCRIPTIONS[name] for name in names)


def outside(dimension):
    """Values that a dimension refuses."""
    if dimension.choices:
        yield "else"
    if dimension.minimum is not None:
        yield dimension.type(dimension.minimum - (0 if dimension.above_minimum else 1))
    if dimension.maximum is not None:
        yield dimension.type(dimension.maximum + 1)
    if dimension.type is float:
        yield float("inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [(dimension.name, value) for dimension in DIMENSIONS for value in outside(dimension)],
)
def test_the_configuration_refuses_what_lies_outside_the_declared_bounds(name, value):
    with pytest.raises(ValidationError, match=name):
        GridConfig(**{name: [value]})


def test_each_is_drawn_by_a_random_search():
    lists = {
        dimension.name: [*dimension.values, dimension.type(dimension.maximum or 100.0)]
        for dimension in DIMENSIONS
        if dimension.type is not str
    }
    lists |= {dimension.name: dimension.choices for dimension in DIMENSIONS if dimension.choices}
    mappings = {"equal": {"view": 1.0}}
    drawn = GridConfig(strategy="random", n_trials=50, strength_mappings=mappings, **lists).trials()

    for dimension in DIMENSIONS:
        assert len({getattr(trial, dimension.name) for trial in drawn}) > 1, dimension.name


def test_each_is_in_the_manifest_of_a_model_and_comes_back():
    trial = Hyperparameters(8, 0.1, 1.0, 3, 50.0, 0.6, 0.5, 0.1, "1 + alpha * w", "bm25", "equal", 3)
    manifest = json.loads(json.dumps(trial.as_dict()))

    assert list(manifest) == [dimension.name for dimension in DIMENSIONS]
    assert Hyperparameters.from_mapping(manifest) == trial


def test_a_row_of_the_results_is_read_back_as_what_was_tried():
    for trial in (Hyperparameters(8, 0.1, 1.0, 3, 50.0, 0.6), grid({**LISTS, "weighting": ["none"]})[0]):
        result = TrialResult(trial, None, float("nan"), "diverged")
        (row,) = results_table([result], [None], 0).to_pylist()

        assert Hyperparameters.from_mapping(row) == trial


def test_the_default_configuration_is_the_notebooks_grid():
    assert set(GridConfig().trials()) == set(grid(LISTS))
    assert len(GridConfig().trials()) == 64


def test_the_former_name_of_the_ensemble_size_still_works():
    sizes = {trial.ensemble_size for trial in GridConfig(starts=[1, 3]).trials()}

    assert sizes == {1, 3}


TRIAL = Hyperparameters(factors=64, regularization=0.1, alpha=8.0, iterations=8, bm25_K1=50.0, bm25_B=0.6)


def test_the_ends_are_told_of_dimensions_that_varied():
    tried = [TRIAL.replace(factors=f, alpha=a) for f in (32, 64) for a in (4.0, 8.0, 16.0)]

    assert ends(TRIAL, tried) == {"factors": "largest"}
    assert ends(TRIAL.replace(factors=32, alpha=4.0), tried) == {"factors": "smallest", "alpha": "smallest"}


def test_a_declared_bound_is_no_end():
    tried = [TRIAL.replace(iterations=i, bm25_B=b) for i in (1, 8) for b in (0.5, 1.0)]

    assert ends(tried[1], tried) == {}
    assert ends(tried[2], tried) == {"iterations": "largest", "bm25_B": "smallest"}


def test_what_the_chosen_does_not_use_has_no_end():
    without = TRIAL.replace(weighting="none", bm25_K1=0.0, bm25_B=0.0)

    assert ends(without, [TRIAL, TRIAL.replace(bm25_K1=100.0), without]) == {}
    # Nor is that a value of K1 that the others were compared with.
    assert ends(TRIAL, [TRIAL, TRIAL.replace(bm25_K1=100.0), without]) == {"bm25_K1": "smallest"}
