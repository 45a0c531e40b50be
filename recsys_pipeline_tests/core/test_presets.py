"""What the presets try, on scores that are given."""

import math
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.presets import (
    RECIPES,
    Preset,
    PresetCourse,
    fit_bytes,
    fit_seconds,
    preset_to_try_next,
    weightings,
)
from recsys_pipeline.core.scale import Scale, Weighting
from recsys_pipeline.core.search import TrialResult, best_first

SCALE = Scale(20_000, 10_000, 400_000, mean_weight=1.0, rms_weight=1.0, least_weight=1.0)
PRESETS = [Preset.quick, Preset.thorough]


def course_of(preset, scale=SCALE, strengths=(DEFAULT_STRENGTHS,), **rest):
    scales = dict.fromkeys(weightings(preset, strengths), scale)
    return PresetCourse(RECIPES[preset], scales, **{"most_bytes": math.inf, **rest})


def result(trial, score):
    if score is None:
        return TrialResult(trial, None, float("nan"), "diverged")
    return TrialResult(trial, Scores(score, 0.0, score, score, score, score), 1.0)


def rounds_of(course, score):
    """The trials of each round where `score` says what a trial is worth."""
    rounds, results = [], []
    trials = course.first_round()
    while trials:
        rounds.append(trials)
        results += [result(trial, score(trial)) for trial in trials]
        trials = course.next_round(results)
    return rounds, results


def fits_of(trials):
    return {trial.replace(iterations=0) for trial in trials}


def near(course, *, factors, penalty, unobserved_weight):
    """A world with one best place: scores fall with the distance from it on a logarithmic scale."""

    def score(trial):
        relative = course.scales[Weighting.of(trial)].relative(trial)
        distances = (
            math.log2(trial.factors / factors) / 2,
            math.log2(relative.penalty / penalty),
            math.log2(relative.unobserved_weight / unobserved_weight),
        )
        of_bm25 = 0.9 if trial.weighting == "bm25" else 1.0
        return of_bm25 * math.exp(-0.05 * sum(distance**2 for distance in distances))

    return score


def best_of(results):
    return best_first(results)[0].hyperparameters


# --- What they find ---


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("factors", [16, 64, 512])
def test_it_finds_the_best_place_in_the_reach_of_a_few_steps(preset, factors):
    course = course_of(preset)
    _, results = rounds_of(course, near(course, factors=factors, penalty=0.5, unobserved_weight=0.025))
    best = best_of(results)
    relative = SCALE.relative(best)

    assert (best.factors, best.weighting) == (factors, "none")
    assert relative.penalty == pytest.approx(0.5, rel=0.01)
    assert relative.unobserved_weight == pytest.approx(0.025, rel=0.01)


def test_the_first_round_compares_all_ways_to_make_weights_with_few_factors():
    course = course_of(Preset.quick, strengths=[DEFAULT_STRENGTHS, "mild"])
    trials = course.first_round()

    assert {trial.factors for trial in trials} == {64}
    assert {(trial.strengths, trial.weighting) for trial in trials} == {
        (name, weighting) for name in (DEFAULT_STRENGTHS, "mild") for weighting in ("none", "bm25")
    }
    # Numbers of iterations come out of one fit.
    assert [trial.iterations for trial in trials[:3]] == [4, 8, 16]
    assert len(fits_of(trials)) == 4


def test_more_factors_are_tried_as_long_as_they_pay():
    course = course_of(Preset.quick)
    worth = {64: 0.10, 128: 0.11, 256: 0.12, 512: 0.1205}
    rounds, _ = rounds_of(course, lambda trial: worth.get(trial.factors, 0.05))
    widths = [{trial.factors for trial in trials} for trials in rounds]

    assert widths == [{64}, {64}, {32, 128}, {256}, {512}]


def test_the_better_of_the_narrow_ones_go_on_to_the_wider():
    course = course_of(Preset.quick)
    score = near(course, factors=512, penalty=0.5, unobserved_weight=0.05)
    rounds, _ = rounds_of(course, score)
    going_on = fits_of(trial for trial in rounds[3] if trial.factors == 128)

    assert len(going_on) == 2
    best_narrow = max(rounds[0] + rounds[1] + rounds[2], key=score)
    best = SCALE.relative(best_narrow)
    assert any(SCALE.relative(trial) == pytest.approx(best, rel=0.01) for trial in going_on)


def test_thorough_also_tries_other_powers_of_frequency_and_an_ensemble_of_the_best():
    course = course_of(Preset.thorough)
    _, results = rounds_of(course, near(course, factors=256, penalty=0.25, unobserved_weight=0.05))
    tried = [each.hyperparameters for each in results]

    assert {trial.nu for trial in tried} == {0.5, 0.85, 1.0}
    assert {trial.factors for trial in tried if trial.ensemble_size == 3} == {256}


# --- How much they do ---


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("strengths", [[DEFAULT_STRENGTHS], [DEFAULT_STRENGTHS, "mild", "equal"]])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), slope=st.sampled_from([-1.0, 0.0, 1.0]))
@pytest.mark.runs
def test_it_plans_no_fewer_fits_and_rounds_than_it_does(preset, strengths, seed, slope):
    course = course_of(preset, strengths=strengths)

    def score(trial):
        noise = crc32(f"{seed} {trial}".encode()) % 1000 / 1000
        return None if noise < 0.1 else trial.factors**slope * (0.5 + noise)

    rounds, results = rounds_of(course, score)

    assert len(fits_of(each.hyperparameters for each in results)) <= course.most_fits
    assert len(rounds) <= course.most_rounds
    assert course.most_fits <= {Preset.quick: 25, Preset.thorough: 80}[preset]


def test_the_widest_model_is_bounded_by_the_data():
    def widest(n_users, n_items):
        return course_of(Preset.quick, SCALE._replace(n_users=n_users, n_items=n_items)).widest

    assert widest(20_000, 10_000) == 1024
    assert widest(600, 10_000) == 256
    assert widest(20_000, 100) == 32
    assert widest(10, 10) == 8


def test_by_memory():
    course = course_of(Preset.quick, most_bytes=fit_bytes(SCALE, 256))

    assert course.widest == 256


def test_and_by_time():
    large = SCALE._replace(n_users=5_000_000, n_items=1_000_000, n_interactions=100_000_000)
    course = course_of(Preset.quick, large)

    assert 64 <= course.widest < 1024
    assert fit_seconds(large, course.widest, 8) <= RECIPES[Preset.quick].most_seconds
    assert course_of(Preset.thorough, large).widest > course.widest


# --- What else holds ---


@pytest.mark.parametrize("preset", PRESETS)
def test_for_implicit_nothing_is_tried_that_it_cannot_train(preset):
    course = course_of(preset, as_implicit=True)
    _, results = rounds_of(course, near(course, factors=128, penalty=0.5, unobserved_weight=0.1))
    tried = [each.hyperparameters for each in results]

    assert {(trial.nu, trial.unobserved_weight) for trial in tried} == {(0.0, 1.0)}
    assert SCALE.relative(best_of(results)) == pytest.approx((0.5, 0.1), rel=0.01)


def test_the_incumbent_is_tried_in_the_first_round():
    incumbent = course_of(Preset.quick).first_round()[0].replace(factors=48, regularization=7.0)
    course = course_of(Preset.quick, incumbent=incumbent)
    rounds, results = rounds_of(course, near(course, factors=128, penalty=0.5, unobserved_weight=0.1))

    assert incumbent in rounds[0]
    assert sum(each.hyperparameters == incumbent for each in results) == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_the_order_of_the_results_makes_no_difference(preset):
    course = course_of(preset)
    score = near(course, factors=128, penalty=0.5, unobserved_weight=0.1)
    rounds, results = rounds_of(course, score)
    n_before = sum(map(len, rounds[:2]))

    assert course.next_round(results[:n_before][::-1]) == rounds[2]


def test_where_all_fail_it_ends():
    rounds, results = rounds_of(course_of(Preset.quick), lambda _: None)

    assert all(each.scores is None for each in results)
    assert max(trial.factors for trial in rounds[-1]) == 128


def test_which_preset_looks_further():
    assert preset_to_try_next(Preset.notebook) is Preset.quick
    assert preset_to_try_next(Preset.quick) is Preset.thorough
    assert preset_to_try_next(Preset.thorough) is None
