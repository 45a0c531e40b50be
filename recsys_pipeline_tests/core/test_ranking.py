"""Ranks by blocks and early stopping are those of a full sort, and of `implicit`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicit.cpu.topk import topk
from scipy.sparse import csr_matrix

from recsys_pipeline.core import ranking
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import held_out_ranks
from recsys_pipeline_tests.worlds import pattern_of


def ranks_by_implicit(user_factors, item_factors, training: Pattern, users, items, k):
    """Where `implicit` lists the item, filling up left out."""
    filtered = training.user_items(np.ones(training.n_pairs))[users]
    ids, scores = topk(
        item_factors, user_factors[users], min(k, len(item_factors)), filter_query_items=filtered
    )
    ranks = []
    for listed, listed_scores, item, user in zip(ids, scores, items, users, strict=True):
        # Of a user it knows nothing of, implicit lists the first items it comes across.
        real = listed[(listed_scores > -3e38) & user_factors[user].any()]
        ranks.append(real.tolist().index(item) + 1 if item in real else k + 1)
    return ranks


@st.composite
def held_out_worlds(draw):
    """Factors of small integers, so that scores are exact and often equal; users who saw almost all."""
    n_items = draw(st.integers(1, 30))
    n_users = draw(st.integers(1, 5))
    vectors = st.lists(st.integers(-2, 2), min_size=2, max_size=2)
    user_factors = draw(st.lists(vectors, min_size=n_users, max_size=n_users))
    item_factors = draw(st.lists(vectors, min_size=n_items, max_size=n_items))
    items = draw(st.lists(st.integers(0, n_items - 1), min_size=n_users, max_size=n_users))
    seen = [draw(st.sets(st.integers(0, n_items - 1))) - {item} for item in items]
    return (
        np.array(user_factors, np.float32),
        np.array(item_factors, np.float32),
        pattern_of([sorted(row) for row in seen], n_items),
        np.array(items, np.int32),
        draw(st.integers(1, 12)),
    )


@pytest.mark.parametrize("block", [(2, 3), (512, 2048)])
@given(world=held_out_worlds())
def test_equal_scores_fall_as_in_implicit(block, world):
    user_factors, item_factors, training, items, k = world
    users = np.arange(len(items), dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_USERS_PER_BLOCK", block[0])
        patch.setattr(ranking, "_ITEMS_PER_BLOCK", block[1])
        ranks = held_out_ranks(user_factors, item_factors, training, users, items, k=k)

    assert ranks.tolist() == ranks_by_implicit(user_factors, item_factors, training, users, items, k)


def test_early_stopping_changes_no_rank(rng):
    n_users, n_items = 700, 5000
    user_factors = rng.normal(size=(n_users, 16)).astype(np.float32)
    # Norms of all sizes, so that most blocks are never scored.
    item_factors = (rng.normal(size=(n_items, 16)) * rng.pareto(1.0, (n_items, 1))).astype(np.float32)
    items = rng.integers(0, n_items, n_users).astype(np.int32)
    seen = csr_matrix(rng.random((n_users, n_items)) < 0.01)
    training = pattern_of(
        [sorted(set(row.indices) - {item}) for row, item in zip(seen, items, strict=True)], n_items
    )
    users = np.arange(n_users, dtype=np.int32)

    scores = user_factors @ item_factors.T
    for user in users:
        scores[user, training.indices[training.indptr[user] : training.indptr[user + 1]]] = -np.inf
    expected = 1 + (scores > scores[users, items][:, None]).sum(axis=1)
    for k in (1, 10, n_items):
        ranks = held_out_ranks(user_factors, item_factors, training, users, items, k=k)
        assert ranks.tolist() == np.minimum(expected, k + 1).tolist()


def test_users_in_any_order_and_number(rng):
    user_factors = rng.normal(size=(6, 3)).astype(np.float32)
    item_factors = rng.normal(size=(9, 3)).astype(np.float32)
    training = pattern_of([[0], [1, 2], [], [3], [4], [5]], 9)
    every = held_out_ranks(
        user_factors, item_factors, training, np.arange(6, dtype=np.int32), np.full(6, 8, np.int32), k=9
    )
    some = held_out_ranks(
        user_factors, item_factors, training, np.array([4, 1], np.int32), np.full(2, 8, np.int32), k=9
    )

    assert some.tolist() == every[[4, 1]].tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_model_is_no_good_model(bad):
    factors = np.ones((2, 2), np.float32)
    broken = factors.copy()
    broken[1, 1] = bad
    index = np.zeros(1, np.int32)
    for users, items in [(broken, factors), (factors, broken)]:
        with pytest.raises(FloatingPointError, match="diverged"):
            held_out_ranks(users, items, pattern_of([[1], []], 2), index, index, k=10)
