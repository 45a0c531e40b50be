"""The models that an evaluation compares: trained on what a split leaves, measured on what it holds out."""

import numpy as np
import pytest

from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.evaluation import (
    ABLATIONS,
    IN_ORDER,
    ITEM_KNN,
    LEAKING,
    NOT_MEASURED,
    NOTEBOOK,
    POPULARITY,
    TUNED,
    blend_without,
)
from recsys_pipeline.core.evaluation import (
    BLEND as BLENDED,
)
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.engines.engine import EvaluationPlan
from recsys_pipeline.engines.local.evaluating import evaluate
from recsys_pipeline.engines.local.pool import WorkerPool
from recsys_pipeline.machine import memory
from recsys_pipeline.reporting.baselines import NAMES
from recsys_pipeline_tests.core.small_feeds import (
    BASELINES,
    given_split,
    interactions_of,
    shop_events,
    split_of,
)

pytestmark = pytest.mark.runs

PURCHASES = {"target_events": ["buy"], "seen_events": ["buy"]}
TRIAL = Hyperparameters(factors=4, regularization=0.1, alpha=10.0, iterations=4, bm25_K1=100.0, bm25_B=0.8)
BLEND = Blend(als=1.0, events={"view": 1.0, "buy": 0.0}, target=0.0, any=0.0)
ALWAYS = ["tuned ALS", "graph filter", "item-kNN", "EASE", "notebook's ALS", "popularity"]


def measured(
    interactions,
    table=None,
    trial=TRIAL,
    blend=None,
    models=None,
    solver="batched",
    limit=0.0,
    told=None,
    without=None,
    workers=1,
):
    if table is None:
        table = split_of(interactions, drawn(interactions, 1), keep_other_events=blend is not None)
    winner = Winner(trial, 42, solver, None, {}, blend, without or {})
    plan = EvaluationPlan(
        winner=winner,
        models=models or [[model for model in IN_ORDER if model != BLENDED]],
        k=10,
        seed=1,
        baselines={NAMES[baseline.family]: baseline for baseline in BASELINES},
        mappings={"default": None},
        unknown_to_training=None,
        workers=workers,
        most_silent_seconds=100,
        memory_limit=limit,
    )
    return evaluate(interactions, table, plan, ([] if told is None else told).append)


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

    assert list(found.ranks.ranks) == expected
    assert list(found.lists) == [model for model in expected if model != LEAKING]
    assert not found.failures


def test_what_people_viewed_is_what_they_buy():
    found = measured(interactions_of(shop_events(), **PURCHASES), blend=BLEND)
    hit_rates = {name: np.mean(ranks <= 10) for name, ranks in found.ranks.ranks.items()}

    # Six items are left of those that a user has viewed, among them the one that is held out.
    assert hit_rates["repeat consumption"] == hit_rates["blend"] == 1
    assert hit_rates["popularity"] < 0.6


GRAPH = GraphFilter(0.5, 0.5, strengths={"view": 1.0})
BY_GRAPH = BLEND._replace(graph=1.0, filter=GRAPH)
WITHOUT = {"ALS": BY_GRAPH._replace(als=0.0), "the item graph": BY_GRAPH._replace(graph=0.0)}


def test_blends_without_some_of_their_terms_are_measured_where_they_are_asked_for():
    """Beside the model whose weights are of all interactions, which the graph has nothing to do with."""
    interactions = interactions_of(shop_events(), **PURCHASES)
    table = split_of(interactions, drawn(interactions, 0), drawn(interactions, 1), keep_other_events=True)
    models = [[TUNED, POPULARITY, LEAKING, *ABLATIONS], [TUNED, POPULARITY]]
    found = measured(interactions, table, blend=BY_GRAPH, without=WITHOUT, models=models)

    without = [blend_without(group) for group in WITHOUT]
    assert list(found.ranks.ranks) == [TUNED, BLENDED, *without, POPULARITY, LEAKING]
    second = found.ranks.seed == 1
    assert (found.ranks.ranks[without[0]][second] == NOT_MEASURED).all()
    assert (found.ranks.ranks[BLENDED] != NOT_MEASURED).all()
    first = {name: ranks[~second] for name, ranks in found.ranks.ranks.items()}
    assert not np.array_equal(first[without[0]], first[without[1]])
    # Without the graph it is the blend of former versions.
    alone = measured(interactions, table, blend=BLEND, models=[[TUNED], [TUNED]])
    assert np.array_equal(first[without[1]], alone.ranks.ranks[BLENDED][~second])


def test_nobody_walks_the_graph_for_strangers():
    interactions = interactions_of(shop_events())
    table = given_split(interactions, [("u0", 9999), ("stranger", 4)])
    found = measured(interactions, table, blend=BY_GRAPH, models=[[TUNED]])

    assert found.ranks.ranks[BLENDED].tolist() == [11, 11]


def test_an_unknown_user_or_item_is_a_miss_for_everybody_without_interactions_or_popularity():
    interactions = interactions_of(shop_events())
    table = given_split(interactions, [("u0", 9999), ("stranger", 4)])
    found = measured(interactions, table)

    assert {tuple(ranks.tolist()) for ranks in found.ranks.ranks.values()} == {(11, 11)}
    assert found.ranks.interactions_of_user.tolist() == [8, 0]
    assert found.ranks.popularity_of_item[0] == 0
    # Half of the users are strangers, whose list is empty.
    assert found.lists["popularity"].users_reached == 1 / 2


def drawn(interactions, seed):
    return leave_one_out(interactions.pattern, seed=seed, min_interactions=3, allowed=interactions.target)


def test_a_model_of_the_first_seed_alone_has_no_rank_on_the_second():
    interactions = interactions_of(shop_events())
    table = split_of(interactions, drawn(interactions, 0), drawn(interactions, 1))
    found = measured(interactions, table, models=[[TUNED, POPULARITY, NOTEBOOK], [TUNED, POPULARITY]])

    second = found.ranks.seed == 1
    assert 0 < np.count_nonzero(second) < len(second)
    for model, ranks in found.ranks.ranks.items():
        assert (ranks != NOT_MEASURED).tolist() == (~second | (model != NOTEBOOK)).tolist()


def test_each_seed_has_a_random_start_of_its_own():
    """The same held-out interactions twice: what needs no random start has the same ranks."""
    interactions = interactions_of(shop_events())
    table = split_of(interactions, *[drawn(interactions, 0)] * 2)
    ranks = measured(interactions, table, models=[[TUNED, ITEM_KNN]] * 2).ranks.ranks

    first, second = np.split(ranks[ITEM_KNN], 2)
    assert first.tolist() == second.tolist()
    first, second = np.split(ranks[TUNED], 2)
    assert first.tolist() != second.tolist()


def test_a_model_that_fails_is_left_out_and_says_why_but_not_the_tuned_one():
    interactions = interactions_of(shop_events())
    diverging = TRIAL.replace(alpha=1e38)
    with pytest.raises(RuntimeError, match=r"tuned ALS could not be measured: seed 1: .*diverged"):
        measured(interactions, trial=diverging, models=[[TUNED, POPULARITY]])

    found = measured(interactions, trial=diverging, models=[[LEAKING, POPULARITY]])
    assert list(found.ranks.ranks) == [POPULARITY]
    assert "diverged" in found.failures[LEAKING]


@pytest.mark.parametrize(("limit", "workers"), [(1e-6, 1), (0.5, 2)])
def test_as_many_models_are_measured_side_by_side_as_the_memory_limit_allows(monkeypatch, limit, workers):
    started = []
    start = WorkerPool._start

    def counted(pool, selector):
        started.append(pool)
        return start(pool, selector)

    monkeypatch.setattr(WorkerPool, "_start", counted)
    told = []
    found = measured(interactions_of(shop_events()), limit=limit, told=told, workers=2)

    assert len(started) == workers
    assert list(found.ranks.ranks) == [*ALWAYS, LEAKING]
    assert told[0] == (
        "7 models to measure on 1 seeds, 2 workers; "
        f"memory limit {memory.told(limit * memory.GB)}, a model up to 78 kB"
    )


def test_each_seed_is_trained_on_what_it_leaves():
    """The second of two seeds that hold out other interactions ranks as if it were alone."""
    interactions = interactions_of(shop_events(), **PURCHASES)
    first, second = drawn(interactions, 3), drawn(interactions, 4)
    models = [ITEM_KNN, POPULARITY]
    both = measured(interactions, split_of(interactions, first, second), models=[models] * 2).ranks
    alone = measured(interactions, split_of(interactions, second), models=[models]).ranks

    assert first.tolist() != second.tolist()
    for model in models:
        assert both.ranks[model][both.seed == 1].tolist() == alone.ranks[model].tolist()
