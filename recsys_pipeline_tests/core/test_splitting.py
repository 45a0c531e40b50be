"""Leave one out: a function of data and seed, that loses and invents nothing."""

import numpy as np
import pytest
import xxhash
from hypothesis import assume, given
from hypothesis import strategies as st

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.splitting import HoldOutMethod, hash_long, interaction_hashes, leave_one_out
from recsys_pipeline_tests.worlds import pattern_of, patterns

seeds = st.integers(0, 2**63 - 1)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1))
def test_the_hash_is_xxh64_of_eight_bytes(value, seed):
    ours = hash_long(np.array([value]), np.array([seed], dtype=np.uint64))[0]

    assert ours == xxhash.xxh64_intdigest(value.to_bytes(8, "little", signed=True), seed=seed)


def test_the_hash_of_an_interaction_chains_seed_user_and_item():
    def chained(*values):
        digest = 42
        for value in values:
            digest = xxhash.xxh64_intdigest(value.to_bytes(8, "little"), seed=digest)
        return digest

    pattern = pattern_of([[5], [0, 7]], 8)

    assert interaction_hashes(pattern, 3).tolist() == [chained(3, 0, 5), chained(3, 1, 0), chained(3, 1, 7)]


@given(patterns(), seeds, st.integers(2, 5))
def test_each_eligible_user_loses_one_interaction_and_no_other_user_any(pattern, seed, min_interactions):
    held_out = leave_one_out(pattern, seed=seed, min_interactions=min_interactions)

    eligible = np.flatnonzero(pattern.interactions_per_user >= min_interactions)
    assert pattern.user_of_interaction[held_out].tolist() == eligible.tolist()


@given(patterns(), seeds)
def test_training_and_held_out_interactions_make_up_the_whole(pattern, seed):
    held_out = leave_one_out(pattern, seed=seed, min_interactions=2)
    kept = np.ones(pattern.n_interactions, bool)
    kept[held_out] = False
    training = pattern.select(kept)

    trained_on = set(zip(training.user_of_interaction.tolist(), training.indices.tolist(), strict=True))
    out = set(
        zip(pattern.user_of_interaction[held_out].tolist(), pattern.indices[held_out].tolist(), strict=True)
    )
    assert not trained_on & out
    assert trained_on | out == set(
        zip(pattern.user_of_interaction.tolist(), pattern.indices.tolist(), strict=True)
    )


@given(patterns(), seeds)
def test_equal_seeds_give_equal_splits(pattern, seed):
    first, second = (leave_one_out(pattern, seed=seed, min_interactions=2) for _ in range(2))

    assert first.tolist() == second.tolist()


def test_every_interaction_of_a_user_is_as_likely_and_seeds_differ():
    pattern = pattern_of([list(range(4))] * 2000, 4)
    items = pattern.indices[leave_one_out(pattern, seed=1, min_interactions=3)]
    others = pattern.indices[leave_one_out(pattern, seed=2, min_interactions=3)]

    assert np.bincount(items) == pytest.approx(np.full(4, 500), abs=100)
    assert (items == others).mean() == pytest.approx(0.25, abs=0.05)


@given(patterns(), seeds, st.data())
def test_last_takes_the_latest_interaction(pattern, seed, data):
    assume(pattern.n_interactions)
    times = np.array(
        data.draw(
            st.lists(st.integers(0, 3), min_size=pattern.n_interactions, max_size=pattern.n_interactions)
        )
    )
    held_out = leave_one_out(
        pattern, seed=seed, min_interactions=2, method=HoldOutMethod.last, timestamps=times
    )

    assert len(held_out) == np.count_nonzero(pattern.interactions_per_user >= 2)
    for position in held_out:
        user = pattern.user_of_interaction[position]
        assert times[position] == times[pattern.user_of_interaction == user].max()


def test_so_many_users_at_most_active_or_not():
    # Half of the users touched 4 items, the others 40.
    pattern = pattern_of([list(range(4 if user % 2 else 40)) for user in range(2000)], 41)
    everyone = leave_one_out(pattern, seed=1, min_interactions=3)
    some = leave_one_out(pattern, seed=1, min_interactions=3, max_users=500)

    assert len(some) == 500
    assert set(some) < set(everyone)
    assert (np.diff(some) > 0).all()
    assert np.mean(pattern.user_of_interaction[some] % 2) == pytest.approx(0.5, abs=0.1)
    assert len(leave_one_out(pattern, seed=1, min_interactions=3, max_users=5000)) == 2000


def test_last_needs_timestamps():
    with pytest.raises(InputError, match=r"needs timestamps.*timestamp_column"):
        leave_one_out(pattern_of([[0, 1, 2]], 3), seed=1, min_interactions=3, method=HoldOutMethod.last)
