"""Quality by hand-worked cases."""

import numpy as np
import pytest

from recsys_pipeline.core.distribution import Frequencies
from recsys_pipeline.core.evaluation import (
    NOT_MEASURED,
    HeldOutRanks,
    Segment,
    head_of,
    qualities,
    segment_quality,
    segments,
    share_out_of_reach,
)


def held_out(ranks, users=(0, 1, 2, 0, 1, 2), seed=(0, 0, 0, 1, 1, 1)):
    n = len(users)
    return HeldOutRanks(
        seed=np.array(seed),
        users=np.array(users, np.int32),
        items=np.arange(n, dtype=np.int32),
        interactions_of_user=np.arange(n) + 1,
        popularity_of_item=np.arange(n)[::-1],
        ranks={name: np.array(each) for name, each in ranks.items()},
    )


def test_a_figure_is_the_mean_over_users_of_the_mean_over_seeds():
    # User 0 is hit at rank 1 in one of two seeds, user 1 in both, user 2 never (k is 3).
    found = qualities(held_out({"model": [1, 1, 4, 4, 2, 4]}), k=3, seed=1)["model"]

    assert found.map == pytest.approx((0.5 + 0.75 + 0.0) / 3)
    assert found.hit_rate == found.recall == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert found.ndcg == pytest.approx((0.5 + (1 + 1 / np.log2(3)) / 2 + 0) / 3)
    assert found.standard_error == pytest.approx(np.std([0.5, 0.75, 0.0], ddof=1) / np.sqrt(3))
    assert found.interval.low < found.map < found.interval.high
    assert found.difference == (0.0, 0.0)


def test_several_held_out_items_of_a_user_share_one_list():
    # Two items of user 0 at ranks 1 and 3, of three: AP = (1/1 + 2/3) / 3; user 1 has one, beyond k.
    given = held_out({"model": [1, 3, 4, 4]}, users=(0, 0, 0, 1), seed=(0, 0, 0, 0))
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
    found = qualities(held_out({"first": first, "later": later}, users, seed), k=10, seed=1)

    assert found["later"].difference.high < 0
    # Unpaired, the intervals overlap.
    assert found["first"].interval.low < found["later"].interval.high


def test_a_model_that_was_measured_on_one_seed_is_compared_with_the_first_on_that_seed():
    # Users 0, 1, 2 in two seeds; the other model has nothing on the second.
    first, other = [1, 2, 4, 4, 4, 4], [2, 2, 4, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED]
    found = qualities(held_out({"first": first, "other": other}), k=3, seed=1)

    assert (found["first"].seeds, found["other"].seeds) == (2, 1)
    assert found["first"].map == pytest.approx((0.5 + 0.25 + 0) / 3)
    assert found["other"].map == pytest.approx((0.5 + 0.5 + 0) / 3)
    # On the first seed the other is the worse one, though its mean is the higher.
    assert found["other"].mean_difference == pytest.approx((0.5 - 1) / 3)
    assert found["other"].difference.high <= 0
    assert (
        found["other"]
        == qualities(
            held_out({"first": first[:3], "other": other[:3]}, users=(0, 1, 2), seed=(0, 0, 0)), k=3, seed=1
        )["other"]
    )


def test_a_segment_leaves_out_the_seeds_that_a_model_was_not_measured_on():
    given = held_out(
        {"first": [1, 1, 1, 1, 1, 1], "other": [2, 2, 2, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED]}
    )
    second_seed = Segment("user", "second seed", given.seed == 1)
    of_user_0 = Segment("user", "user 0", given.users == 0)

    assert list(segment_quality(given, second_seed, k=3)) == ["first"]
    assert segment_quality(given, of_user_0, k=3)["other"][0] == 1 / 2


def test_segments_part_what_is_held_out():
    given = held_out({"model": [1, 1, 1, 1, 1, 1]})
    parts = segments(given, head_of(Frequencies.of(np.arange(6))))

    for kind in ("user", "item"):
        counted = np.sum([part.chosen for part in parts if part.kind == kind], axis=0)
        assert counted.tolist() == [1] * 6
    # 15 training interactions: the items with 5 and 4 of them hold more than half.
    (head,) = [part for part in parts if part.name.startswith("head")]
    assert head.chosen.tolist() == [True, True, False, False, False, False]


def test_the_error_of_a_segment_is_that_over_users_whose_seeds_are_averaged_first():
    # Two seeds of three users: the seeds of a user are no independent draws.
    given = held_out({"model": [1, 2, 4, 1, 2, 4]})
    all_of_it = Segment("user", "all", np.ones(6, bool))
    ((mean, error, hit_rate),) = segment_quality(given, all_of_it, k=3).values()

    assert mean == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert error == pytest.approx(np.std([1, 1 / 2, 0], ddof=1) / np.sqrt(3))
    assert hit_rate == pytest.approx(2 / 3)
    whole = qualities(given, k=3, seed=1)["model"]
    assert (mean, error, hit_rate) == pytest.approx((whole.map, whole.standard_error, whole.hit_rate))


def test_a_segments_figure_is_the_mean_over_its_users_and_what_is_held_out_of_them_there():
    # User 0 has two items in the segment, at ranks 1 and 3, and one outside at 2; user 1 has one, at 2.
    given = held_out({"model": [1, 3, 2, 2]}, users=(0, 0, 0, 1), seed=(0, 0, 0, 0))
    segment = Segment("item", "head", np.array([True, True, False, True]))
    ((mean, _, hit_rate),) = segment_quality(given, segment, k=3).values()

    assert mean == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert hit_rate == 1


def test_what_nobody_else_has_and_who_has_nothing_is_out_of_reach():
    ranks = held_out({"model": [1] * 4}, users=range(4), seed=[0] * 4)._replace(
        popularity_of_item=np.array([0, 2, 3, 0]), interactions_of_user=np.array([5, 0, 2, 0])
    )

    assert share_out_of_reach(ranks) == 3 / 4
