"""What the events of an interaction add up to."""

import numpy as np

from recsys_pipeline.core.strengths import Aggregate, combined_strengths


def test_another_mapping_of_the_same_counts():
    counts = {"view": np.array([2, 0, 1]), "click": np.array([1, 1, 0])}

    assert combined_strengths(counts, {"click": 3.0}, Aggregate.sum).tolist() == [3.0, 3.0, 0.0]
    assert combined_strengths(counts, {"view": 1.0, "click": 1.0}, Aggregate.sum).tolist() == [3, 1, 1]
    assert combined_strengths(counts, {"view": 1.0, "click": 3.0}, Aggregate.max).tolist() == [3, 3, 1]
