"""Lists under the shop's rules: as one would make them with pencil and paper."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_pipeline.core import ranking
from recsys_pipeline.core.offer import ByFactors, Offer, Popularity, make_lists
from recsys_pipeline.core.ranking import NOTHING, Factors
from recsys_pipeline_tests.worlds import pattern_of


@st.composite
def shops(draw):
    """Small integers as factors, so that scores are exact and often equal; few categories."""
    n_items, n_users = draw(st.integers(1, 25)), draw(st.integers(1, 4))
    vectors = st.lists(st.integers(-2, 2), min_size=2, max_size=2)
    factors = Factors(
        *(np.array(draw(st.lists(vectors, min_size=n, max_size=n)), np.float32) for n in (n_users, n_items))
    )
    per_item = {"min_size": n_items, "max_size": n_items}
    offer = Offer(
        np.array(draw(st.lists(st.sampled_from([True, True, True, False]), **per_item))),
        np.array(draw(st.lists(st.integers(-1, 2), **per_item)), np.int32),
        draw(st.integers(0, 3)),
    )
    excluded = [sorted(draw(st.sets(st.integers(0, n_items - 1)))) for _ in range(n_users)]
    popular = np.array(draw(st.lists(st.integers(0, 3), **per_item)))
    return factors, offer, pattern_of(excluded, n_items), popular, draw(st.integers(1, 12))


def take_while_there_is_room(candidates, taken, excluded, offer, k):
    """One item after the other, unless the list is full or a rule forbids it."""
    taken = list(taken)
    for item in candidates:
        of_category = sum(offer.category[item] == offer.category[other] for other in taken)
        full = offer.max_per_category and offer.category[item] >= 0 and of_category >= offer.max_per_category
        if len(taken) < k and offer.allowed[item] and item not in {*taken, *excluded} and not full:
            taken.append(item)
    return taken


def expected_lists(score, knows_user, offer, exclusions, popular, k):
    """(items, how many are the model's) of each user, by a full sort."""
    lists = []
    for user in range(len(score)):
        excluded = exclusions.indices[exclusions.indptr[user] : exclusions.indptr[user + 1]].tolist()
        scored = [item for item in range(len(popular)) if knows_user[user] and score[user, item] > -np.inf]
        scored.sort(key=lambda item: (-score[user, item], item))
        of_model = take_while_there_is_room(scored, [], excluded, offer, k)
        most_popular = sorted(np.flatnonzero(popular).tolist(), key=lambda item: (-popular[item], item))
        lists.append((take_while_there_is_room(most_popular, of_model, excluded, offer, k), len(of_model)))
    return lists


def assert_lists(made, expected, score, share, k):
    for user, (items, n_of_model) in enumerate(expected):
        ends = [NOTHING] * (k - len(items))
        scores = [score[user, item] for item in items[:n_of_model]] + [share[i] for i in items[n_of_model:]]
        assert made.items[user].tolist() == items + ends
        assert made.scores[user].tolist() == scores + [0] * len(ends)
        assert (made.n_of_model[user], made.lengths[user]) == (n_of_model, len(items))


@pytest.mark.parametrize("source", ["factors", "scores"])
@given(shop=shops())
def test_lists_are_those_of_taking_one_item_after_the_other(source, shop):
    factors, offer, exclusions, popular, k = shop
    score = factors.users @ factors.items.T
    score[:, ~factors.items.any(axis=1)] = -np.inf
    knows_user = factors.users.any(axis=1)
    users = np.arange(len(score), dtype=np.int32)
    popularity = Popularity.of(popular, 4, offer)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("USERS_PER_BLOCK", 2), ("_ITEMS_PER_BLOCK", 3), ("SCORES_AT_ONCE", 40)):
            patch.setattr(ranking, name, size)
        by = ByFactors.of(factors, offer) if source == "factors" else factors.scorer()
        made = make_lists(by, users, exclusions, k, offer, popularity)

    expected = expected_lists(score, knows_user, offer, exclusions, popular, k)
    assert_lists(made, expected, score, popular / 4, k)


def test_a_list_that_runs_short_stays_short_without_popularity():
    factors = Factors(np.ones((1, 1), np.float32), np.array([[3], [0], [2]], np.float32))
    offer = Offer.everything(3)
    made = make_lists(ByFactors.of(factors, offer), np.zeros(1, np.int32), pattern_of([[]], 3), 3, offer)

    assert made.items.tolist() == [[0, 2, NOTHING]]
    assert made.scores.tolist() == [[3, 2, 0]]


def test_lists_of_other_users_than_the_models():
    factors = Factors(np.ones((1, 1), np.float32), np.array([[3], [-1], [2]], np.float32))
    offer = Offer.everything(3)
    source = ByFactors.of(factors, offer)._replace(users=np.array([[-1], [1]], np.float32))
    made = make_lists(source, np.arange(2, dtype=np.int32), pattern_of([[], [0]], 3), 1, offer)

    assert made.items.tolist() == [[1], [2]]


def test_where_nothing_may_be_listed_lists_are_empty():
    factors = Factors(np.ones((2, 1), np.float32), np.ones((3, 1), np.float32))
    offer = Offer(np.zeros(3, bool), np.full(3, -1, np.int32), 0)
    users, nothing = np.arange(2, dtype=np.int32), pattern_of([[], []], 3)
    popularity = Popularity.of(np.ones(3, int), 2, offer)
    made = make_lists(ByFactors.of(factors, offer), users, nothing, 4, offer, popularity)

    assert (made.items == NOTHING).all()
    assert made.lengths.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("category", "most", "longest"),
    [
        pytest.param([-1, -1, -1, -1], 2, 4, id="no categories"),
        pytest.param([0, 0, 0, -1], 2, 3, id="one of a category too many"),
        pytest.param([0, 1, 2, 2], 1, 3, id="three categories"),
        pytest.param([0, 0, 0, 0], 0, 4, id="no limit"),
    ],
)
def test_no_list_is_longer_than_its_categories_allow(category, most, longest):
    assert Offer(np.ones(4, bool), np.array(category, np.int32), most).longest_list == longest


def test_a_model_that_diverged_lists_nothing():
    broken = Factors(np.ones((1, 1), np.float32), np.array([[np.nan]], np.float32))

    with pytest.raises(FloatingPointError, match="diverged"):
        ByFactors.of(broken, Offer.everything(1))
