"""Interactions as arrays, and what a split takes out of them."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline_tests.core.small_feeds import given_split, interactions_of, matrix_of, split_of

PURCHASES = {"target_events": ["buy"], "seen_events": ["buy"]}

# Interactions in order: (1, a) viewed and bought, (1, b) viewed, (1, c) bought, (2, c) viewed.
EVENTS = [(1, "a", "view"), (1, "a", "buy"), (1, "b", "view"), (1, "c", "buy"), (2, "c", "view")]


def the_split(interactions, table, mappings=None, **options):
    (split,) = interactions.splits(table, mappings or {DEFAULT_STRENGTHS: None}, weigh_all=True, **options)
    return split


def strengths_left(split, mapping=DEFAULT_STRENGTHS):
    return split.training_strengths[mapping].tolist()


def interactions_in(pattern):
    return list(zip(pattern.user_of_interaction.tolist(), pattern.indices.tolist(), strict=True))


def test_only_the_purchase_is_held_out_and_its_view_stays_where_that_is_asked_for():
    interactions = interactions_of(EVENTS, **PURCHASES)
    split = the_split(interactions, split_of(interactions, [0], keep_other_events=True))

    assert split.strengths[DEFAULT_STRENGTHS].tolist() == [4, 1, 3, 1]
    assert strengths_left(split) == [1, 1, 3, 1]
    assert split.events["view"].tolist() == [True, True, False, True]
    assert split.events["buy"].tolist() == [False, False, True, False]
    # The other purchase excludes its item; what is held out does not.
    assert interactions_in(split.exclusions) == [(0, 2)]


def test_or_nothing_of_the_interaction_stays():
    interactions = interactions_of(EVENTS, **PURCHASES)
    split = the_split(interactions, split_of(interactions, [0]))

    assert strengths_left(split) == [0, 1, 3, 1]
    assert interactions_in(split.training[DEFAULT_STRENGTHS]) == [(0, 1), (0, 2), (1, 2)]
    assert split.events["view"].tolist() == [False, True, False, True]


def test_an_event_that_stays_must_not_exclude_the_item():
    interactions = interactions_of(EVENTS, target_events=["buy"])

    with pytest.raises(InputError, match=r"of 1 held-out interactions .* exclude an item in `seen_events`"):
        the_split(interactions, split_of(interactions, [0], keep_other_events=True))


def test_each_split_of_a_table_holds_out_its_own():
    interactions = interactions_of(EVENTS)
    first, second = interactions.splits(
        split_of(interactions, [0], [1, 3]), {DEFAULT_STRENGTHS: None}, weigh_all=True
    )

    assert (first.users.tolist(), first.items.tolist()) == ([0], [0])
    assert (second.users.tolist(), second.items.tolist()) == ([0, 1], [1, 2])
    assert strengths_left(second) == [4, 0, 3, 0]


def test_what_training_must_not_know_beside_is_not_ranked_not_trained_on_and_excludes_nothing():
    interactions = interactions_of(EVENTS)
    split = the_split(interactions, split_of(interactions, [0]), unknown_to_training=np.array([2]))

    assert split.items.tolist() == [0]
    assert strengths_left(split) == [0, 1, 0, 1]
    assert interactions_in(split.exclusions) == [(0, 1), (1, 2)]
    assert not any(had[2] for had in split.events.values())


def test_strangers_and_unknown_items_are_held_out_too_each_under_an_index_of_no_one_else():
    interactions = interactions_of(EVENTS)
    table = given_split(interactions, [(2, "c"), (2, "z"), (7, "a"), (8, "a"), (7, "z")])

    assert table["user_index"].to_pylist() == [1, 1, 2, 3, 2]
    assert table["item_index"].to_pylist() == [2, -1, 0, 0, -1]
    split = the_split(interactions, table)
    assert split.can_be_hit.tolist() == [True, False, False, False, False]


def test_an_unknown_item_takes_nothing_out_of_training_and_excludes_nothing():
    """Index -1 of a user is the last item of the user before, and the last interaction of all."""
    interactions = interactions_of([(1, "c", "view"), (2, "a", "view"), (2, "b", "view")])
    table = given_split(interactions, [(2, "z"), (9, "a"), (2, "a")])

    assert interactions.positions_in(table).tolist() == [1]
    split = the_split(interactions, table)
    assert strengths_left(split) == [1, 0, 1]
    assert interactions_in(split.exclusions) == [(0, 2), (1, 1)]


def test_what_is_held_out_and_no_interaction_takes_nothing_out():
    interactions = interactions_of(EVENTS)
    table = given_split(interactions, [(2, "a")])

    assert interactions.positions_in(table).tolist() == []
    assert strengths_left(the_split(interactions, table)) == [4, 1, 3, 1]


def test_another_mapping_trains_on_what_it_has_strengths_for():
    interactions = interactions_of(EVENTS)
    mappings = {DEFAULT_STRENGTHS: None, "buy_only": {"buy": 5.0}, "equal": {"view": 2.0, "buy": 2.0}}
    split = the_split(interactions, split_of(interactions, [0]), mappings)

    assert strengths_left(split, "buy_only") == [0, 0, 5, 0]
    assert strengths_left(split, "equal") == [0, 2, 2, 2]
    assert interactions_in(split.training["buy_only"]) == [(0, 2)]
    # The same interactions are kept once.
    assert split.training["equal"] is split.training[DEFAULT_STRENGTHS]


def test_a_mapping_that_leaves_nothing_is_refused():
    interactions = interactions_of([(1, "a", "view"), (2, "b", "view")])

    with pytest.raises(InputError, match=r"'buy': 1.0.* leave no interaction.* It has view, buy"):
        interactions.strengths_by({"buy": 1.0})


def test_popularity_counts_users_with_a_target_event_that_is_left():
    interactions = interactions_of([*EVENTS, (2, "a", "buy"), (2, "a", "buy")], **PURCHASES)
    split = the_split(interactions, split_of(interactions, [0]))

    assert split.target_popularity(interactions.rules.target_events).tolist() == [1, 0, 1]


@pytest.mark.parametrize("clock", [(), (5,)], ids=["without timestamps", "with timestamps"])
def test_the_tables_of_the_matrix_are_read_back_as_the_same_interactions(clock):
    before = interactions_of([(*event, *clock) for event in EVENTS], **PURCHASES)
    after = Interactions.from_tables(matrix_of(before))

    assert after.users.equals(before.users)
    assert after.items.equals(before.items)
    assert interactions_in(after.pattern) == interactions_in(before.pattern)
    assert after.pattern.shape == before.pattern.shape == (2, 3)
    for name in ("strengths", "target", "excluded"):
        assert getattr(after, name).tolist() == getattr(before, name).tolist(), name
    assert {event: counts.tolist() for event, counts in after.counts.items()} == {
        "view": [1, 1, 0, 1],
        "buy": [1, 0, 1, 0],
    }
    assert after.rules == before.rules
    assert (after.timestamps is None) == (not clock)


def test_an_interaction_without_a_target_event_has_no_time_of_one():
    interactions = interactions_of(
        [(1, "a", "view", 7), (1, "a", "buy", 5), (1, "b", "view", 9)], **PURCHASES
    )
    table = matrix_of(interactions)["pairs"]
    long_ago = np.iinfo(np.int64).min

    assert [times.tolist() for times in interactions.timestamps] == [[7, 9], [5, long_ago]]
    assert table["target_timestamp"].cast(pa.int64()).to_pylist() == [5, None]


def test_a_weight_at_or_below_zero_names_its_user():
    # User 1 touches all items, user 2 all but one.
    interactions = interactions_of(
        [(1, item, "view") for item in "abc"] + [(2, item, "view") for item in "ab"] + [(3, "c", "view")]
    )
    weights = bm25_weights(interactions.pattern, interactions.strengths, k1=1.0, b=0.0)

    with pytest.raises(InputError, match=r"^5 BM25 weights .* 2 users touched all 3 items, .*: 1, 2\. "):
        interactions.require_positive(weights)
    interactions.require_positive(np.abs(weights) + 1)
