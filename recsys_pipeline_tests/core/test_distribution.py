"""What many values are like, in few numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_pipeline.core.distribution import PROBABILITIES, Distribution, Frequencies

SAMPLES = st.lists(st.integers(1, 50), min_size=1, max_size=200).map(np.array)


def test_a_distribution_has_quantiles_and_the_mean():
    found = Distribution.of(np.array([4.0, 1.0, 2.0, 1.0]))

    assert found.quantiles[0] == 1
    assert found.median == 1.5
    assert found.quantiles[-1] == 4
    assert found.mean == 2


@given(SAMPLES)
def test_frequencies_say_the_same_as_the_values_themselves(values):
    frequencies, whole = Frequencies.of(values), Distribution.of(values)

    assert frequencies.n == len(values)
    assert frequencies.distribution().quantiles == pytest.approx(whole.quantiles)
    assert frequencies.distribution().mean == pytest.approx(whole.mean)
    assert len(whole.quantiles) == len(PROBABILITIES)


@given(SAMPLES, st.integers(1, 300))
def test_shares_are_those_of_the_values_themselves(values, n):
    frequencies = Frequencies.of(values)

    for value, share in zip(frequencies.values, frequencies.share_with_at_least(), strict=True):
        assert share == pytest.approx(np.mean(values >= value))
    greatest = np.sort(values)[::-1][:n]
    assert frequencies.share_of_greatest(n) == pytest.approx(greatest.sum() / values.sum())
