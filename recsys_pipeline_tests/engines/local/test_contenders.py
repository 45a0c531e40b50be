"""The models that an evaluation compares: trained on what a split leaves, measured on what it holds out."""

import numpy as np
import pytest

from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, Hyperparameters
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.engines.local.contenders import TUNED_STRENGTHS, Contenders
from recsys_pipeline.engines.local.measuring import measure
from recsys_pipeline_tests.core.small_feeds import given_split, interactions_of, shop_events, split_of

PURCHASES = {"target_events": ["buy"], "seen_events": ["buy"]}
TRIAL = Hyperparameters(factors=4, regularization=0.1, alpha=10.0, iterations=4, bm25_K1=100.0, bm25_B=0.8)
BLEND = Blend(als=1.0, events={"view": 1.0, "buy": 0.0}, target=0.0, any=0.0)
LEAKING = "tuned ALS, weights of all interactions"
ALWAYS = ["tuned ALS", "item-kNN, BM25", "item-kNN, cosine", "notebook's ALS", "popularity"]


def measured(interactions, table=None, trial=TRIAL, blend=None):
    if table is None:
        positions = leave_one_out(
            interactions.pattern, seed=1, min_interactions=3, allowed=interactions.target
        )
        table = split_of(interactions, positions, keep_other_events=blend is not None)
    mappings = {DEFAULT_STRENGTHS: None, TUNED_STRENGTHS: None}
    (split,) = interactions.splits(table, mappings, weigh_all=False)
    winner = Winner(trial, 42, "implicit", None, {}, blend)
    return measure(Contenders(interactions, winner, n_neighbours=20), split, k=10, seed=1)


@pytest.mark.parametrize(
    ("rules", "options", "expected"),
    [
        pytest.param({}, {}, [*ALWAYS, LEAKING], id="all that was touched is excluded"),
        pytest.param({}, {"trial": TRIAL.replace(weighting="none")}, ALWAYS, id="no weights that could leak"),
        pytest.param(
            PURCHASES,
            {"blend": BLEND},
            ["tuned ALS", "blend", "repeat consumption", *ALWAYS[1:], LEAKING],
            id="what was viewed may be recommended",
        ),
    ],
)
def test_who_is_compared(rules, options, expected):
    found = measured(interactions_of(shop_events(), **rules), **options)

    assert list(found.ranks) == list(found.lists) == expected


def test_what_people_viewed_is_what_they_buy():
    found = measured(interactions_of(shop_events(), **PURCHASES), blend=BLEND)
    hit_rates = {name: np.mean(ranks <= 10) for name, ranks in found.ranks.items()}

    # Six items are left of those that a user has viewed, among them the one that is held out.
    assert hit_rates["repeat consumption"] == hit_rates["blend"] == 1
    assert hit_rates["popularity"] < 0.6


def test_an_unknown_user_or_item_is_a_miss_for_everybody_without_interactions_or_popularity():
    interactions = interactions_of(shop_events())
    table = given_split(interactions, [("u0", 9999), ("stranger", 4)])
    found = measured(interactions, table)

    assert {tuple(ranks.tolist()) for ranks in found.ranks.values()} == {(11, 11)}
    assert found.interactions_of_user.tolist() == [8, 0]
    assert found.popularity_of_item[0] == 0
    # Half of the users are strangers, whose list is empty.
    assert found.lists["popularity"].users_reached == 1 / 2
