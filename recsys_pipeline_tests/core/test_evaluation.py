"""Quality by hand-worked cases."""

import numpy as np
import pytest

from recsys_pipeline.core.evaluation import Trials, qualities, quality_of_pairs, segments


def trials(ranks, users=(0, 1, 2, 0, 1, 2), seed=(0, 0, 0, 1, 1, 1)):
    n = len(users)
    return Trials(
        seed=np.array(seed),
        users=np.array(users, np.int32),
        items=np.arange(n, dtype=np.int32),
        pairs_of_user=np.arange(n) + 1,
        popularity_of_item=np.arange(n)[::-1],
        ranks={name: np.array(each) for name, each in ranks.items()},
    )


def test_a_figure_is_the_mean_over_users_of_the_mean_over_seeds():
    # User 0 is hit at rank 1 in one of two seeds, user 1 in both, user 2 never (k is 3).
    found = qualities(trials({"model": [1, 1, 4, 4, 2, 4]}), k=3, seed=1)["model"]

    assert found.map == pytest.approx((0.5 + 0.75 + 0.0) / 3)
    assert found.hit_rate == found.recall == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert found.ndcg == pytest.approx((0.5 + (1 + 1 / np.log2(3)) / 2 + 0) / 3)
    assert found.standard_error == pytest.approx(np.std([0.5, 0.75, 0.0], ddof=1) / np.sqrt(3))
    assert found.interval.low < found.map < found.interval.high
    assert found.difference == (0.0, 0.0)


def test_several_held_out_items_of_a_user_share_one_list():
    # Two items of user 0 at ranks 1 and 3, of three: AP = (1/1 + 2/3) / 3; user 1 has one, beyond k.
    given = trials({"model": [1, 3, 4, 4]}, users=(0, 0, 0, 1), seed=(0, 0, 0, 0))
    found = qualities(given, k=3, seed=1)["model"]

    assert found.map == pytest.approx(((1 + 2 / 3) / 3 + 0) / 2)
    assert found.recall == pytest.approx((2 / 3 + 0) / 2)
    ideal = 1 + 1 / np.log2(3) + 1 / 2
    assert found.ndcg == pytest.approx(((1 + 1 / 2) / ideal + 0) / 2)
    assert found.hit_rate == 1 / 2


def test_differences_are_paired():
    users, seed = np.arange(300), np.zeros(300, int)
    first = np.random.default_rng(0).integers(1, 12, 300)
    # Every hit but those at rank 1 is a rank later: a small difference, and always the same way.
    later = np.where(first == 1, 1, np.minimum(first + 1, 11))
    found = qualities(trials({"first": first, "later": later}, users, seed), k=10, seed=1)

    assert found["later"].difference.high < 0
    # Unpaired, the intervals overlap.
    assert found["first"].interval.low < found["later"].interval.high


def test_segments_part_the_pairs():
    given = trials({"model": [1, 1, 1, 1, 1, 1]})
    parts = segments(given, popularity=np.arange(6)[::-1])

    for kind in ("user", "item"):
        counted = np.sum([part.chosen for part in parts if part.kind == kind], axis=0)
        assert counted.tolist() == [1] * 6
    # 15 training pairs: the items with 5 and 4 of them hold more than half.
    (head,) = [part for part in parts if part.name.startswith("head")]
    assert head.chosen.tolist() == [True, True, False, False, False, False]


def test_quality_of_some_pairs():
    mean, _, share = quality_of_pairs(np.array([1, 2, 4]), k=3)

    assert mean == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert share == pytest.approx(2 / 3)
