"""The structure of the matrix: a block at a time as at once, with row pointers of 64 bits as with 32."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_pipeline.core import pattern as pattern_module
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.pattern import Pattern, row_pointers
from recsys_pipeline.core.ranking import Factors, best_by_factors, best_lists, held_out_ranks
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline_tests.worlds import model_of, pattern_of, patterns


@pytest.fixture(autouse=True, params=[3, 1 << 22], ids=["blocks of three", "one block"])
def at_once(request, monkeypatch):
    """Users, and what is looked for, lie across the ends of blocks."""
    monkeypatch.setattr(pattern_module, "INTERACTIONS_AT_ONCE", request.param)
    return request.param


def coordinates(pattern):
    """(users, items) of a pattern, one by one."""
    users = [user for user in range(pattern.n_users) for _ in range(*pattern.indptr[user : user + 2])]
    return np.array(users, np.int32), pattern.indices


@given(patterns())
def test_row_pointers_are_where_users_begin(pattern):
    users, items = coordinates(pattern)
    made = row_pointers(users, pattern.n_users)

    assert made.tolist() == [int((users < user).sum()) for user in range(pattern.n_users + 1)]
    again = Pattern.from_coordinates(users, items, pattern.shape)
    assert again.indptr.tolist() == made.tolist()
    assert pattern.user_of_interaction.tolist() == users.tolist()


@pytest.mark.parametrize("n", range(2, 9))
def test_users_that_do_not_ascend_are_refused_wherever_that_is(n):
    users = np.arange(9, dtype=np.int32)
    users[n] = 0
    with pytest.raises(ValueError, match="must be sorted by user, then item"):
        row_pointers(users, 9)


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("repeated", [True, False])
def test_so_are_items_of_a_user_that_repeat_or_do_not_ascend(n, repeated):
    users, items = np.zeros(9, np.int32), np.arange(0, 18, 2, dtype=np.int32)
    items[n] = items[n - 1] - (not repeated)
    with pytest.raises(ValueError, match="and be distinct"):
        Pattern.from_coordinates(users, items, (1, 20))
    # The same items, but another user's.
    users[n:] = 1
    Pattern.from_coordinates(users, items, (2, 20))


@given(patterns())
def test_blocks_are_all_interactions_in_their_order(pattern):
    users, _ = coordinates(pattern)
    blocks = list(pattern.blocks())

    assert [place for block, _ in blocks for place in range(block.start, block.stop)] == list(
        range(len(users))
    )
    assert [user for _, of_block in blocks for user in of_block] == users.tolist()
    assert all(of_block.dtype == np.int32 and len(of_block) == b.stop - b.start for b, of_block in blocks)
    assert all(len(of_block) <= pattern_module.INTERACTIONS_AT_ONCE for _, of_block in blocks)


@given(patterns(), st.data())
def test_users_and_their_interactions_are_found(pattern, data):
    users, _ = coordinates(pattern)
    places = data.draw(st.lists(st.integers(0, max(len(users) - 1, 0)), max_size=12)) if len(users) else []
    positions = np.array(places, np.int64)
    counted = np.array(data.draw(st.lists(st.booleans(), min_size=len(users), max_size=len(users))), bool)
    asked = np.array(data.draw(st.lists(st.integers(0, pattern.n_users - 1), max_size=6)), np.int32)
    rows, of_users = pattern.interactions_of(asked)

    assert pattern.users_at(positions).tolist() == users[positions].tolist()
    assert pattern.per_user(counted).tolist() == [
        int(counted[users == user].sum()) for user in range(pattern.n_users)
    ]
    assert list(zip(rows.tolist(), of_users.tolist(), strict=True)) == [
        (row, place) for row, user in enumerate(asked) for place in np.flatnonzero(users == user).tolist()
    ]
    left = zip(coordinates(pattern.select(counted)), coordinates(pattern), strict=True)
    assert all(kept.tolist() == all_[counted].tolist() for kept, all_ in left)


@given(patterns(), st.lists(st.tuples(st.integers(0, 7), st.integers(-1, 12)), max_size=12))
def test_positions_of_interactions_are_found_and_of_others_not(pattern, asked):
    asked = [(user % pattern.n_users, item) for user, item in asked]
    known = list(zip(*(each.tolist() for each in coordinates(pattern)), strict=True))
    users, items = (np.array([pair[side] for pair in asked], np.int32) for side in (0, 1))

    assert pattern.positions_of(users, items).tolist() == [
        known.index(pair) if pair in known else -1 for pair in asked
    ]


@given(patterns().filter(lambda pattern: pattern.n_interactions))
def test_weights_are_the_same_in_blocks(pattern):
    strengths = 1.0 + np.arange(pattern.n_interactions)
    blocks = bm25_weights(pattern, strengths, k1=2.0, b=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pattern_module, "INTERACTIONS_AT_ONCE", 1 << 22)
        assert np.array_equal(bm25_weights(pattern, strengths, k1=2.0, b=0.5), blocks)


@given(patterns(), st.data())
def test_users_with_a_target_event_are_counted_by_item(pattern, data):
    rows = np.split(pattern.indices, pattern.indptr[1:-1])
    bought = [data.draw(st.sets(st.sampled_from(row.tolist()))) if len(row) else set() for row in rows]
    nothing = Factors(np.zeros((pattern.n_users, 1), np.float32), np.zeros((pattern.n_items, 1), np.float32))
    ids = range(pattern.n_users), range(pattern.n_items)
    model = model_of([row.tolist() for row in rows], nothing, *ids, bought=bought)

    expected = [sum(item in of_user for of_user in bought) for item in range(pattern.n_items)]
    assert model.target_users.tolist() == expected


# --- Row pointers of 64 bits ---------------------------------------------------------------------


def wide(pattern):
    """The same with row pointers of 64 bits."""
    return Pattern(pattern.indptr.astype(np.int64), pattern.indices, pattern.n_items)


def test_row_pointers_have_64_bits_where_32_do_not_suffice(monkeypatch):
    users = np.array([0, 0, 1], np.int32)
    assert row_pointers(users, 3).dtype == np.int32
    monkeypatch.setattr(pattern_module, "MOST_INTERACTIONS_OF_IMPLICIT", 2)
    made = row_pointers(users, 3)

    assert (made.dtype, made.tolist()) == (np.int64, [0, 2, 3, 3])


@given(patterns(), st.data())
def test_what_is_left_of_a_pattern_keeps_the_width_of_its_pointers(pattern, data):
    n = pattern.n_interactions
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    narrow, other = pattern.select(kept), wide(pattern).select(kept)

    assert (narrow.indptr.dtype, other.indptr.dtype) == (np.int32, np.int64)
    assert narrow.indptr.tolist() == other.indptr.tolist()
    assert wide(pattern).per_user(kept).tolist() == pattern.per_user(kept).tolist()
    assert wide(pattern).interactions_per_user.dtype == np.int64


def test_ranks_lists_and_weights_do_not_depend_on_the_width_of_the_pointers(rng):
    rows = [np.sort(rng.choice(50, 8, replace=False)).tolist() for _ in range(30)]
    narrow = pattern_of(rows, 50)
    both = [narrow, wide(narrow)]
    factors = Factors(rng.random((30, 4), np.float32), rng.random((50, 4), np.float32))
    users, strengths = np.arange(30, dtype=np.int32), rng.integers(1, 6, 240).astype(float)
    positions = np.arange(0, 240, 8)
    splits = [Split.leaving_out(pattern, strengths, positions) for pattern in both]
    held_out = [held_out_ranks(factors, split.exclusions, split.users, split.items, k=10) for split in splits]
    found = [
        (
            best_lists(factors.scorer(), users, pattern, 10),
            best_by_factors(factors, users, pattern, 10),
            bm25_weights(pattern, strengths, k1=2.0, b=0.5),
            ranks,
            pattern.positions_of(users, np.full(30, 7, np.int32)),
            np.asarray(pattern.user_items(strengths).todense()),
        )
        for pattern, ranks in zip(both, held_out, strict=True)
    ]

    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)
