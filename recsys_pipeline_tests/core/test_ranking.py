"""Ranks by blocks and early stopping, and lists, are those of a full sort: by score, then by item index."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicit.cpu.topk import topk
from scipy.sparse import csr_matrix

from recsys_pipeline.core import ranking
from recsys_pipeline.core.ranking import (
    NOTHING,
    Factors,
    best_lists,
    held_out_ranks,
    ranks_in_lists,
)
from recsys_pipeline_tests.worlds import pattern_of


@st.composite
def held_out_worlds(draw):
    """Factors of small integers, so that scores are exact and often equal; some have almost all excluded."""
    n_items = draw(st.integers(1, 30))
    n_users = draw(st.integers(1, 5))
    vectors = st.lists(st.integers(-2, 2), min_size=2, max_size=2)
    user_factors = draw(st.lists(vectors, min_size=n_users, max_size=n_users))
    item_factors = draw(st.lists(vectors, min_size=n_items, max_size=n_items))
    items = draw(st.lists(st.integers(0, n_items - 1), min_size=n_users, max_size=n_users))
    excluded = [draw(st.sets(st.integers(0, n_items - 1))) - {item} for item in items]
    return (
        Factors(np.array(user_factors, np.float32), np.array(item_factors, np.float32)),
        pattern_of([sorted(row) for row in excluded], n_items),
        np.array(items, np.int32),
        draw(st.integers(1, 12)),
    )


def ranks_by_a_sort(factors, exclusions, users, items, k):
    """By score descending, then by item index; nothing for or of what has no factors."""
    ranks = []
    for user, item in zip(users, items, strict=True):
        excluded = exclusions.indices[exclusions.indptr[user] : exclusions.indptr[user + 1]]
        scores = np.einsum("if,f->i", factors.items, factors.users[user])
        offered = [i for i in range(len(scores)) if i not in excluded and factors.items[i].any()]
        order = sorted(offered, key=lambda i: (-scores[i], i)) if factors.users[user].any() else []
        ranks.append(min(order.index(item), k) + 1 if item in order else k + 1)
    return ranks


@pytest.mark.parametrize("block", [(2, 3), (512, 2048)])
@given(world=held_out_worlds())
def test_equal_scores_are_ordered_by_item_index(block, world):
    factors, exclusions, items, k = world
    users = np.arange(len(items), dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "USERS_PER_BLOCK", block[0])
        patch.setattr(ranking, "_ITEMS_PER_BLOCK", block[1])
        ranks = held_out_ranks(factors, exclusions, users, items, k=k)

    assert ranks.tolist() == ranks_by_a_sort(factors, exclusions, users, items, k)


@given(world=held_out_worlds())
def test_the_ranker_and_the_lists_follow_one_rule(world):
    factors, exclusions, items, k = world
    users = np.arange(len(items), dtype=np.int32)
    lists = best_lists(factors.scorer(), users, exclusions, k)

    ranks = held_out_ranks(factors, exclusions, users, items, k=k)
    assert ranks.tolist() == ranks_in_lists(lists, np.arange(len(items)), items).tolist()


@pytest.mark.parametrize("width", [16, 33, 64])
def test_items_of_equal_factors_have_equal_scores(rng, width):
    """However a product of matrices rounds each of them: twins stand side by side for every user."""
    n_items, n_twins, n_users = 1500, 370, 20
    items = rng.normal(size=(n_items, width)).astype(np.float32)
    first, second = rng.permutation(n_items)[: 2 * n_twins].reshape(2, n_twins)
    items[second] = items[first]
    factors = Factors(rng.normal(size=(n_users, width)).astype(np.float32), items)
    twins = np.concatenate([first, second]).astype(np.int32)
    users = np.repeat(np.arange(n_users, dtype=np.int32), len(twins))
    nothing = pattern_of([[]] * n_users, n_items)
    ranks = held_out_ranks(factors, nothing, users, np.tile(twins, n_users), k=n_items)

    expected = np.empty((n_users, n_items), dtype=int)
    for user, vector in enumerate(factors.users):
        scores = np.einsum("uf,uf->u", np.tile(vector, (n_items, 1)), items)
        expected[user, np.lexsort([np.arange(n_items), -scores])] = np.arange(1, n_items + 1)
    assert ranks.tolist() == expected[:, twins].ravel().tolist()


def test_ranks_are_the_places_in_implicits_lists(rng):
    factors = Factors(
        rng.normal(size=(300, 12)).astype(np.float32), rng.normal(size=(900, 12)).astype(np.float32)
    )
    items = rng.integers(0, 900, 300).astype(np.int32)
    rows = [sorted(set(rng.choice(900, 30).tolist()) - {int(item)}) for item in items]
    exclusions, users = pattern_of(rows, 900), np.arange(300, dtype=np.int32)
    filtered = exclusions.user_items(np.ones(exclusions.n_interactions))
    listed, _ = topk(factors.items, factors.users, 100, filter_query_items=filtered)

    ranks = held_out_ranks(factors, exclusions, users, items, k=100)
    assert ranks.tolist() == ranks_in_lists(listed, np.arange(300), items).tolist()


def test_early_stopping_changes_no_rank(rng):
    n_users, n_items = 700, 5000
    user_factors = rng.normal(size=(n_users, 16)).astype(np.float32)
    # Norms of all sizes, so that most blocks are never scored.
    item_factors = (rng.normal(size=(n_items, 16)) * rng.pareto(1.0, (n_items, 1))).astype(np.float32)
    items = rng.integers(0, n_items, n_users).astype(np.int32)
    excluded = csr_matrix(rng.random((n_users, n_items)) < 0.01)
    training = pattern_of(
        [sorted(set(row.indices) - {item}) for row, item in zip(excluded, items, strict=True)], n_items
    )
    users = np.arange(n_users, dtype=np.int32)

    scores = user_factors @ item_factors.T
    for user in users:
        scores[user, training.indices[training.indptr[user] : training.indptr[user + 1]]] = -np.inf
    expected = 1 + (scores > scores[users, items][:, None]).sum(axis=1)
    for k in (1, 10, n_items):
        ranks = held_out_ranks(Factors(user_factors, item_factors), training, users, items, k=k)
        assert ranks.tolist() == np.minimum(expected, k + 1).tolist()


def test_users_in_any_order_and_number(rng):
    user_factors = rng.normal(size=(6, 3)).astype(np.float32)
    item_factors = rng.normal(size=(9, 3)).astype(np.float32)
    training = pattern_of([[0], [1, 2], [], [3], [4], [5]], 9)
    factors = Factors(user_factors, item_factors)
    every = held_out_ranks(factors, training, np.arange(6, dtype=np.int32), np.full(6, 8, np.int32), k=9)
    some = held_out_ranks(factors, training, np.array([4, 1], np.int32), np.full(2, 8, np.int32), k=9)

    assert some.tolist() == every[[4, 1]].tolist()


def test_who_or_what_is_not_known_is_beyond_the_list_and_changes_no_other_rank():
    factors = Factors(np.array([[1.0], [1.0]], np.float32), np.array([[3], [2], [1], [4]], np.float32))
    nothing = pattern_of([[], []], 4)
    # User 2 and item -1 are not known; counted from the end of the items, -1 is the best of all.
    users, items = np.array([0, 0, 2, 1], np.int32), np.array([1, -1, 1, 0], np.int32)

    assert held_out_ranks(factors, nothing, users, items, k=3).tolist() == [3, 4, 4, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_model_is_no_good_model(bad):
    factors = np.ones((2, 2), np.float32)
    broken = factors.copy()
    broken[1, 1] = bad
    index = np.zeros(1, np.int32)
    for users, items in [(broken, factors), (factors, broken)]:
        with pytest.raises(FloatingPointError, match="diverged"):
            held_out_ranks(Factors(users, items), pattern_of([[1], []], 2), index, index, k=10)


@st.composite
def scored_worlds(draw):
    """Small integers as scores, so that many are equal, some of minus infinity; some items excluded."""
    n_items = draw(st.integers(1, 20))
    n_users = draw(st.integers(1, 4))
    score = st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 2.0])
    scores = [draw(st.lists(score, min_size=n_items, max_size=n_items)) for _ in range(n_users)]
    excluded = [sorted(draw(st.sets(st.integers(0, n_items - 1)))) for _ in range(n_users)]
    return np.array(scores, np.float32), pattern_of(excluded, n_items), draw(st.integers(1, 12))


@given(world=scored_worlds())
def test_equal_a_full_sort(world):
    scores, excluded, k = world
    users = np.arange(len(scores), dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "SCORES_AT_ONCE", 40)
        lists = best_lists(lambda block: scores[block].copy(), users, excluded, k)

    for user, listed in enumerate(lists.tolist()):
        out = set(excluded.indices[excluded.indptr[user] : excluded.indptr[user + 1]].tolist())
        offered = [i for i in range(excluded.n_items) if i not in out and scores[user, i] > -np.inf]
        expected = sorted(offered, key=lambda item: (-scores[user, item], item))[:k]
        assert listed == expected + [NOTHING] * (k - len(expected))


@pytest.mark.parametrize("k", [1, 3, 40])
def test_lists_by_factors_are_those_of_all_scores(k, monkeypatch):
    """Small integers as factors, so that products are exact and many are equal; some have none."""
    rng = np.random.default_rng(k)
    users, items = (rng.integers(-2, 3, (n, 2)).astype(np.float32) for n in (50, 33))
    users[::7], items[::5] = 0, 0
    excluded = pattern_of([sorted(rng.choice(33, 4, replace=False).tolist()) for _ in users], 33)
    factors, everyone = Factors(users, items), np.arange(len(users), dtype=np.int32)
    monkeypatch.setattr(ranking, "USERS_PER_BLOCK", 20)
    monkeypatch.setattr(ranking, "_ITEMS_PER_BLOCK", 4)

    lists = factors.lister()(everyone, excluded, k)
    assert lists.tolist() == best_lists(factors.scorer(), everyone, excluded, k).tolist()


def test_ranks_are_places_in_the_list_or_beyond_it():
    lists = np.array([[5, 3, NOTHING], [1, 2, 3]], np.int32)
    row, items = np.array([0, 0, 1, 1, 0]), np.array([3, 4, 1, 3, -1], np.int32)

    assert ranks_in_lists(lists, row, items).tolist() == [2, 4, 1, 3, 4]


def test_factors_of_zero_recommend_nothing():
    user_factors = np.array([[1, 1], [0, 0]], np.float32)
    item_factors = np.array([[1, 0], [0, 0], [0, 2]], np.float32)
    nobody = pattern_of([[], []], 3)

    lists = best_lists(Factors(user_factors, item_factors).scorer(), np.arange(2, dtype=np.int32), nobody, 3)
    assert lists.tolist() == [[2, 0, NOTHING], [NOTHING] * 3]
