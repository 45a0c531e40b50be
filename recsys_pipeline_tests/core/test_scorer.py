"""Who scores the lists where the evidence decides: the blend only if it is better by more than chance."""

import pytest

from recsys_pipeline.core.evaluation import BLEND, TUNED
from recsys_pipeline.core.scorer import blend_against_als, by_evidence


def rows(low, high):
    names = ("model", "map", "difference_to_tuned_low", "difference_to_tuned_high")
    found = [(TUNED, 0.3, 0.0, 0.0), (BLEND, 0.4, low, high)]
    return [dict(zip(names, row, strict=True)) for row in found]


FIGURES = "MAP@10 0.4000 against 0.3000, 95 % interval of the difference"


def test_a_blend_that_is_better_by_more_than_chance_scores():
    choice = by_evidence(rows(0.05, 0.15), 10, has_blend=True)

    assert choice.scorer == "blend"
    assert choice.told == (
        f"scored by the blend, which is better than ALS by more than chance: {FIGURES} +0.0500 to +0.1500"
    )


@pytest.mark.parametrize("low", [0.0, -0.01])
def test_one_whose_interval_has_zero_in_it_does_not(low):
    choice = by_evidence(rows(low, 0.2), 10, has_blend=True)

    assert choice.scorer == "als"
    assert choice.told == (
        f"scored by ALS, for the blend is not better than ALS by more than chance: {FIGURES} {low:+.4f} to "
        "+0.2000"
    )


def test_nor_does_one_that_was_not_measured_or_not_fitted():
    measured, unmeasured = rows(0.05, 0.15), rows(0.05, 0.15)[:1]

    assert by_evidence(unmeasured, 10, has_blend=True) == (
        *("als", "scored by ALS: the blend could not be measured"),
    )
    assert by_evidence(measured, 10, has_blend=False) == (
        *("als", "scored by ALS: the search has fitted no blend"),
    )
    assert blend_against_als(unmeasured, 10) is None
