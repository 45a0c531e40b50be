"""The baselines, measured by worker processes on what the search holds out."""

import numpy as np
import pytest

from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.columns import SPLIT, USER_INDEX
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.evaluation import NOT_MEASURED
from recsys_pipeline.core.metrics import hits_of_groups, score
from recsys_pipeline.core.selecting import SelectBy, Selection
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.engines.engine import BaselinePlan
from recsys_pipeline.engines.local import tuning
from recsys_pipeline.engines.local.baselines import sharing
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline_tests.core.small_feeds import (
    BASELINES,
    interactions_of,
    matrix_of,
    shop_events,
    split_of,
)

pytestmark = pytest.mark.runs

PURCHASES = {"target_events": ["buy"], "seen_events": ["buy"]}
SHOP = interactions_of(shop_events(), **PURCHASES)
KNN, GRAPH, EASE, POPULAR, _ = BASELINES


def drawn(interactions, seed):
    return leave_one_out(interactions.pattern, seed=seed, min_interactions=3, allowed=interactions.target)


def tuned(interactions, table, baselines=BASELINES, told=None, **plan):
    given = {
        "baselines": baselines,
        "mappings": {"default": None},
        "most_items_of_ease": 1000,
        "most_interactions": 1000,
        "max_users": 0,
        "workers": 1,
        "most_silent_seconds": 100,
        **plan,
    }
    report = ([] if told is None else told).append
    return LocalEngine().baselines(matrix_of(interactions), table, BaselinePlan(**given), report)


def test_every_baseline_ranks_what_is_held_out():
    table = split_of(SHOP, drawn(SHOP, 1), keep_other_events=True)
    told = []
    results = tuned(SHOP, table, told=told, workers=2)

    assert [result.baseline for result in results] == list(BASELINES)
    for result in results:
        assert not result.failure
        assert result.scores.map == pytest.approx(
            sum(1 / rank for rank in result.ranks.tolist() if rank <= 10) / table.num_rows
        )
        assert result.seconds > 0
    by_family = {result.baseline.family: result.scores.hit_rate for result in results}
    # Six items are left of those that a user has viewed, among them the one that is held out.
    assert by_family[Family.repeat_consumption] == 1
    assert by_family[Family.popularity] < 0.6
    assert told[0].startswith("5 configurations of baselines, splits: 1, workers: 2; memory limit ")


def test_splits_are_averaged_as_those_of_trials_are():
    first, second = drawn(SHOP, 1), drawn(SHOP, 2)
    both = tuned(SHOP, split_of(SHOP, first, second, keep_other_events=True))
    alone = [tuned(SHOP, split_of(SHOP, each, keep_other_events=True)) for each in (first, second)]

    for together, *apart in zip(both, *alone, strict=True):
        ranks = np.concatenate([result.ranks for result in apart])
        assert together.ranks.tolist() == ranks.tolist()
        # Everybody has an interaction held out in either split.
        assert together.scores.map == pytest.approx(np.mean([result.scores.map for result in apart]))


def test_ranks_reach_as_far_as_what_selects():
    table, by = split_of(SHOP, drawn(SHOP, 1), keep_other_events=True), Selection(SelectBy.HitRate, 15)

    for result, short in zip(tuned(SHOP, table, selection=by), tuned(SHOP, table), strict=True):
        assert result.ranks.max() <= 16
        assert np.minimum(result.ranks, 11).tolist() == short.ranks.tolist()
        assert result.scores == short.scores
        assert result.figure == pytest.approx(np.mean(result.ranks <= 15))
        assert short.figure == short.scores.map


def test_of_many_users_the_same_few_are_ranked_by_every_configuration_in_every_split():
    table = split_of(SHOP, drawn(SHOP, 1), drawn(SHOP, 2), keep_other_events=True)
    told = []
    results = tuned(SHOP, table, max_users=10, told=told)
    everybody = tuned(SHOP, table)

    ranked = results[0].ranks != NOT_MEASURED
    users, split = (table[name].to_numpy() for name in (USER_INDEX, SPLIT))
    of_splits = [set(users[ranked & (split == number)].tolist()) for number in (0, 1)]
    assert of_splits[0] == of_splits[1]
    assert len(of_splits[0]) == 10
    for result, of_all in zip(results, everybody, strict=True):
        assert result.ranks.tolist() == np.where(ranked, of_all.ranks, NOT_MEASURED).tolist()
        # As if nobody else had been asked: one relevant item a user and split.
        assert result.scores == score(
            hits_of_groups(of_all.ranks[ranked], np.arange(20)), np.ones(20, np.int64), users[ranked]
        )
    assert told[0] == (
        "the baselines are tuned on 20 of 60 held-out interactions, those of 10 users (max_users)"
    )


def test_a_split_may_hold_out_of_nobody_who_is_ranked():
    first, second = drawn(SHOP, 1)[:15], drawn(SHOP, 2)[15:]
    table = split_of(SHOP, first, second, keep_other_events=True)

    for result in tuned(SHOP, table, max_users=1):
        assert not result.failure
        assert np.count_nonzero(result.ranks) == 1


def test_what_shares_its_work_gives_the_same_as_alone():
    table = split_of(SHOP, drawn(SHOP, 1), keep_other_events=True)
    several = [
        KNN._replace(neighbours=n, shrinkage=h, weighting=weighting)
        for weighting in ("tf_idf", "presence")
        for n in (1, 20)
        for h in (0.0, 10.0)
    ]
    assert [len(group) for group in sharing([*several, GRAPH, EASE])] == [4, 4, 1, 1]

    together = tuned(SHOP, table, several)
    for baseline, result in zip(several, together, strict=True):
        (alone,) = tuned(SHOP, table, [baseline])
        assert result.baseline == baseline
        assert result.ranks.tolist() == alone.ranks.tolist()


def test_a_baseline_sees_the_strengths_that_it_names():
    table = split_of(SHOP, drawn(SHOP, 1), keep_other_events=True)
    mappings = {"default": None, "buys": {"buy": 1.0}}
    by_buys = [baseline._replace(strengths="buys") for baseline in (KNN, GRAPH)]
    found = tuned(SHOP, table, by_buys, mappings=mappings)
    purchases = interactions_of([event for event in shop_events() if event[2] == "buy"], **PURCHASES)

    # As if there had been nothing but purchases.
    expected = tuned(purchases, split_of(purchases, _same(purchases, table)), [KNN, GRAPH])
    for result, alone in zip(found, expected, strict=True):
        assert result.ranks.tolist() == alone.ranks.tolist()


def _same(interactions, table):
    """Where the rows of a split stand in other interactions of the same users and items."""
    users = interactions.users.to_pylist()
    items = interactions.items.to_pylist()
    return interactions.pattern.positions_of(
        np.array([users.index(user) for user in table["UserID"].to_pylist()], np.int32),
        np.array([items.index(item) for item in table["ProductCode"].to_pylist()], np.int32),
    )


@pytest.mark.parametrize(
    ("interactions", "plan", "expected"),
    [
        pytest.param(
            SHOP,
            {"most_items_of_ease": 49},
            {
                Family.ease: "50 items are more than most_items_of_ease 49: it inverts a matrix of all items "
                "by all items, in 60 kB"
            },
            id="too many items for EASE",
        ),
        pytest.param(
            SHOP,
            {"most_interactions": 239},
            dict.fromkeys(
                (Family.item_knn, Family.graph_filter, Family.ease),
                "240 interactions are more than most_interactions 239",
            ),
            id="too many interactions for what is fitted to all",
        ),
        pytest.param(
            interactions_of(shop_events()),
            {},
            {
                Family.repeat_consumption: "nothing that a user has already may be recommended to them "
                "(seen_events of feedback)"
            },
            id="nothing to repeat",
        ),
    ],
)
def test_what_is_not_measured_on_this_data_says_why(interactions, plan, expected):
    results = tuned(interactions, split_of(interactions, drawn(interactions, 1)), **plan)

    assert {r.baseline.family: r.failure for r in results if r.failure} == expected
    assert {r.baseline.family for r in results if r.scores} == set(Family) - set(expected)
    assert [r.baseline for r in results if r.failure] == [Baseline(family) for family in expected]


def test_one_that_fails_is_a_result_without_scores():
    table = split_of(SHOP, drawn(SHOP, 1), keep_other_events=True)
    unknown = KNN._replace(weighting="no such weighting")
    failed, fine = tuned(SHOP, table, [unknown, POPULAR])

    assert failed.scores is None
    assert "no such weighting" in failed.failure
    assert fine.scores


def test_events_that_there_are_not_are_refused():
    with pytest.raises(InputError, match="strength_mappings: the feedback has no purchase"):
        tuned(SHOP, split_of(SHOP, drawn(SHOP, 1)), mappings={"default": None, "other": {"purchase": 1.0}})


def test_jobs_say_what_they_take(monkeypatch):
    """The pool runs side by side what the memory limit has room for."""
    asked = []
    do = tuning.WorkerPool.do

    def noted(pool, jobs, room):
        asked.extend((job.baselines[0].family, job.bytes) for job in jobs)
        return do(pool, jobs, room)

    monkeypatch.setattr(tuning.WorkerPool, "do", noted)
    tuned(SHOP, split_of(SHOP, drawn(SHOP, 1), keep_other_events=True), memory_limit=0.001)

    assert {family for family, _ in asked} == set(Family)
    # Three matrices of 50 x 50, and the scores of 30 users.
    assert dict(asked)[Family.ease] == 3 * 8 * 50**2 + 3 * 4 * 30 * 50
