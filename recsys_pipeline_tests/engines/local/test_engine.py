"""The engine of this machine: from tables and hyperparameters to ranks and factors."""

import tempfile
from itertools import islice

import numpy as np
import pytest
from upath import UPath

from recsys_pipeline.core import pattern
from recsys_pipeline.core.blending import GROUPS
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.factors import factors_in
from recsys_pipeline.core.holdout import Weights
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, Hyperparameters, draw, grid
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.neighbourhood import Neighbourhood
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.scale import Scale, Weighting
from recsys_pipeline.core.selecting import SelectBy, Selection
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline.engines.engine import SearchMethod, SearchPlan
from recsys_pipeline.engines.local import solvers
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.engines.local.memory import data_bytes
from recsys_pipeline.machine.cores import usable_cores
from recsys_pipeline.storage.journal import Journal
from recsys_pipeline_tests.core.small_feeds import (
    given_split,
    interactions_of,
    matrix_of,
    shop_events,
    split_of,
)

PURCHASES = {"target_events": ["buy"], "seen_events": ["buy"]}
TRIAL = Hyperparameters(factors=4, regularization=0.1, alpha=10.0, iterations=4, bm25_K1=100.0, bm25_B=0.8)
SHOP = interactions_of(shop_events(), **PURCHASES)
LISTS = {name: [value] for name, value in TRIAL.as_dict().items()}


def plan(trials, **changes):
    whole = SearchPlan(
        trials=trials,
        mappings={DEFAULT_STRENGTHS: None},
        solver="implicit",
        seed=42,
        method=SearchMethod.grid,
        course=None,
        most_steps=0,
        first_rung=5,
        workers=1,
        most_silent_seconds=3600.0,
    )
    return whole._replace(**changes)


def shop_split(n_splits=1, **options):
    held_out = [
        leave_one_out(SHOP.pattern, seed=seed, min_interactions=3, allowed=SHOP.target)
        for seed in range(n_splits)
    ]
    return split_of(SHOP, *held_out, **options)


def prepared(trials, split=None, interactions=SHOP, **changes):
    table = shop_split() if split is None else split
    return LocalEngine().search(matrix_of(interactions), table, plan(trials, **changes))


def remembering(known):
    """Somebody who knows these results."""
    return lambda trials: [known[trial] for trial in trials if trial in known]


NO_JOURNAL = remembering({})


def run(search, known=None):
    """By hyperparameters, the results; and what was computed."""
    computed = []
    results = search.run(remembering(known or {}), computed.append)
    return {result.hyperparameters: result for result in results}, computed


def journal_of(folder, search):
    strengths = {DEFAULT_STRENGTHS: {"view": 1.0}}
    return Journal(UPath(folder), search.content, "implicit", 42, "training", k=10, strengths=strengths)


def test_ranks_reach_as_far_as_what_selects_and_what_is_known_is_compared_by_it_too():
    by = Selection(SelectBy.HitRate, 15)
    trials = grid({**LISTS, "iterations": [2, 4]})
    split = shop_split(n_splits=2)
    short, _ = run(prepared(trials, split))
    found, computed = run(prepared(trials, split, selection=by))
    again, anew = run(
        prepared(trials, split, selection=by), {each.hyperparameters: each for each in computed}
    )

    assert anew == []
    for trial, result in found.items():
        assert result.ranks.max() == 16
        # Within the first ten nothing changes.
        assert np.minimum(result.ranks, 11).tolist() == short[trial].ranks.tolist()
        assert result.scores == short[trial].scores
        # Everybody has one interaction held out in each split.
        assert result.figure == pytest.approx(np.mean(result.ranks <= 15))
        assert again[trial].figure == result.figure
        assert short[trial].selected is None


def test_halving_over_several_splits_goes_on_from_every_state():
    trials = grid({**LISTS, "regularization": [0.01, 0.1], "iterations": [4, 12]})
    split = shop_split(n_splits=2)
    halved, _ = run(prepared(trials, split, method=SearchMethod.halving, first_rung=4))
    whole, _ = run(prepared(trials, split))

    to_the_end = [trial for trial, result in halved.items() if result.iterations_done is None]
    assert len(halved) == len(whole) == 4
    # Both fits pass 4 iterations; the better one goes on to 12.
    assert sorted(trial.iterations for trial in to_the_end) == [4, 4, 12]
    for trial in to_the_end:
        assert halved[trial].ranks.tolist() == whole[trial].ranks.tolist()


def test_the_state_of_a_fit_is_kept_no_longer_than_it_may_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trials = grid({**LISTS, "alpha": [float(n) for n in range(1, 9)], "iterations": [2, 8]})
    search = prepared(trials, method=SearchMethod.halving, first_rung=2)
    kept = [
        len(list(tmp_path.glob("recsys-search-*/states/*.npz")))
        for _ in search.run(NO_JOURNAL, lambda _: None)
    ]

    # Eight fits advance to 2 iterations, four of them to 4, two of these to 8.
    assert max(kept) == 8
    assert kept[-1] == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.runs
def test_a_wide_random_search_goes_on_where_it_was_interrupted(tmp_path):
    lists = {**LISTS, "factors": [2, 8], "alpha": [1.0, 40.0], "iterations": [1, 4], "bm25_K1": [10.0, 500.0]}

    def started():
        trials = draw(64, 42, lists)
        search = prepared(trials, method=SearchMethod.random)
        return search, journal_of(tmp_path, search)

    search, journal = started()
    interrupted = search.run(NO_JOURNAL, journal.add)
    begun = list(islice(interrupted, 24))
    interrupted.close()
    search, journal = started()
    known = {result.hyperparameters: result for result in journal.finished(draw(64, 42, lists))}
    results, computed = run(search, known)

    assert {result.hyperparameters for result in begun} == set(known)
    assert len(results) == 64
    assert {result.hyperparameters for result in computed} == set(results) - set(known)
    whole, _ = run(started()[0])
    assert {trial: result.scores for trial, result in results.items()} == {
        trial: result.scores for trial, result in whole.items()
    }


def test_a_search_around_a_start_goes_on_where_it_was_interrupted(tmp_path):
    lists = {**LISTS, "factors": [2, 4], "alpha": [10.0, 40.0], "iterations": [2, 4]}

    def started():
        around = Neighbourhood.around(TRIAL, lists, steps_beyond=2)
        search = prepared(around.first_round(), course=around, most_steps=2, method=SearchMethod.around)
        return search, journal_of(tmp_path, search)

    whole, _ = run(started()[0])
    search, journal = started()
    interrupted = search.run(NO_JOURNAL, journal.add)
    begun = list(islice(interrupted, len(whole) - 1))
    interrupted.close()
    search, journal = started()
    computed = []
    results = {result.hyperparameters: result for result in search.run(journal.finished, computed.append)}

    n_first = len(Neighbourhood.around(TRIAL, lists, steps_beyond=2).first_round())
    assert len(whole) > n_first
    assert {t: r.scores for t, r in results.items()} == {t: r.scores for t, r in whole.items()}
    assert {r.hyperparameters for r in computed} == set(whole) - {r.hyperparameters for r in begun}


def test_strangers_and_unknown_items_are_misses():
    events = [event for event in shop_events() if event[:2] not in {("u0", 0), ("u1", 1)}]
    interactions = interactions_of(events, **PURCHASES)
    given = [("u0", 0), ("u1", 1), ("stranger", 4), ("other stranger", 4), ("u1", 9999)]
    (result,) = run(prepared([TRIAL], given_split(interactions, given), interactions))[0].values()

    assert result.ranks[2:].tolist() == [11, 11, 11]
    # Of four users two are strangers, who stay in the denominator.
    assert result.scores.hit_rate in (0, 1 / 4, 2 / 4)


def test_a_user_with_several_held_out_items_counts_once():
    # So few items that what is held out is among the ten best of the 14 that are left.
    interactions = interactions_of(shop_events(n_items=20))
    of_users = [np.flatnonzero(interactions.pattern.user_of_interaction == user) for user in (0, 1)]
    table = split_of(interactions, [*of_users[0][:2], *of_users[1][:1]])
    (result,) = run(prepared([TRIAL], table, interactions))[0].values()

    first, second = sorted(result.ranks[:2].tolist())
    assert second <= 10
    precisions = [(1 / first + 2 / second) / 2, 1 / result.ranks[2]]
    assert result.scores.map == pytest.approx(np.mean(precisions))
    assert result.scores.standard_error == pytest.approx(np.std(precisions, ddof=1) / np.sqrt(2))


def test_workers_are_as_many_as_the_cores_that_may_be_used():
    assert prepared([TRIAL], workers=0).workers == usable_cores()
    assert prepared([TRIAL], workers=3).workers == 3


def test_the_content_of_a_search_tells_data_splits_and_mappings_apart():
    mappings = {
        DEFAULT_STRENGTHS: None,
        "equal": {"view": 1.0, "buy": 1.0},
        "same": {"view": 1.0, "buy": 3.0},
    }
    content = prepared([TRIAL], mappings=mappings).content

    assert content == prepared([TRIAL], mappings=mappings).content
    assert content["equal"] != content[DEFAULT_STRENGTHS] == content["same"]
    others = [
        prepared([TRIAL], shop_split(n_splits=2)),
        prepared([TRIAL], shop_split(keep_other_events=True)),
        prepared([TRIAL], interactions=interactions_of([*shop_events(), ("u0", 0, "view")], **PURCHASES)),
    ]
    assert content[DEFAULT_STRENGTHS] not in [other.content[DEFAULT_STRENGTHS] for other in others]


@pytest.mark.parametrize(
    ("trial", "changes", "message"),
    [
        pytest.param(
            TRIAL,
            {"mappings": {"default": None, "odd": {"refund": 1.0}}},
            "strength_mappings: the feedback has no refund. It has view, buy",
            id="event",
        ),
        pytest.param(TRIAL.replace(nu=0.5), {}, "Choose solver `batched`", id="solver"),
    ],
)
def test_what_the_data_or_the_solver_does_not_have_is_refused_before_anything_is_trained(
    trial, changes, message
):
    with pytest.raises(InputError, match=message):
        prepared([trial], **changes)


def test_the_scale_of_the_data_is_that_of_the_weights_that_a_weighting_gives():
    plain, bought = Weighting("default", "none", 0.0, 0.0), Weighting("bought", "none", 0.0, 0.0)
    bm25 = Weighting("default", "bm25", 10.0, 0.45)
    mappings = {DEFAULT_STRENGTHS: None, "bought": {"buy": 5.0}}
    scales = LocalEngine().scales(matrix_of(SHOP), mappings, [plain, bought, bm25])

    assert scales[plain] == Scale.of(SHOP.pattern.shape, SHOP.strengths)
    # What the mapping leaves out is not counted.
    n_bought = np.count_nonzero(SHOP.counts["buy"])
    assert 0 < n_bought < SHOP.pattern.n_interactions
    assert scales[bought].n_interactions == n_bought
    assert scales[bought].mean_weight % 5 == pytest.approx(0)
    weights = bm25_weights(SHOP.pattern, SHOP.strengths, k1=10.0, b=0.45)
    assert scales[bm25].mean_weight == pytest.approx(weights.mean(), rel=1e-6)
    assert scales[bm25].least_weight == pytest.approx(weights.min(), rel=1e-6)


def test_a_scale_by_events_that_the_feedback_does_not_have_is_refused():
    odd = {DEFAULT_STRENGTHS: None, "odd": {"refund": 1.0}}
    with pytest.raises(InputError, match="strength_mappings: the feedback has no refund"):
        LocalEngine().scales(matrix_of(SHOP), odd, [Weighting("odd", "none", 0.0, 0.0)])


def test_weights_at_or_below_zero_are_refused_where_there_are_weights():
    crawler = [("crawler", item, "view") for item in range(50)]
    interactions = interactions_of([*shop_events(), *crawler], **PURCHASES)

    with pytest.raises(InputError, match=r"1 users touched all 50 items.*: 'crawler'\."):
        prepared([TRIAL], interactions=interactions)
    with pytest.raises(InputError, match=r": 'crawler'\."):
        LocalEngine().refit(matrix_of(interactions), winner())
    unweighted = TRIAL.replace(weighting="none")
    prepared([unweighted], interactions=interactions)
    LocalEngine().refit(matrix_of(interactions), winner(unweighted))


def winner(trial=TRIAL, strengths=None):
    return Winner(trial, 42, "implicit", strengths, {}, None)


def test_the_winner_is_trained_on_all_interactions():
    fitted = LocalEngine().refit(matrix_of(SHOP), winner()).factors

    assert fitted.users["UserID"].to_pylist() == SHOP.users.to_pylist()
    assert fitted.items["ProductCode"].to_pylist() == SHOP.items.to_pylist()
    scores = factors_in(fitted.users) @ factors_in(fitted.items).T
    own = np.zeros(scores.shape, bool)
    own[SHOP.pattern.user_of_interaction, SHOP.pattern.indices] = True
    assert scores[own].mean() > 2 * scores[~own].mean()


def test_a_mapping_that_leaves_events_out_is_trained_on_the_rest():
    more_views = [*shop_events(), *(("u0", item, "view") for item in range(0, 50, 2))]
    fitted = [
        LocalEngine()
        .refit(matrix_of(interactions_of(events, **PURCHASES)), winner(strengths={"buy": 1.0}))
        .factors
        for events in (shop_events(), more_views)
    ]

    assert np.array_equal(*(factors_in(each.users) for each in fitted))
    assert np.array_equal(*(factors_in(each.items) for each in fitted))


def test_the_blend_is_learned_from_the_held_out_interactions():
    """Everybody buys what they viewed."""
    blend = prepared([TRIAL], shop_split(keep_other_events=True)).fit_blend(TRIAL).blend

    assert set(blend.events) == {"view", "buy"}
    assert blend.events["view"] > 0.5


def test_and_with_the_item_graph_as_a_term_and_without_each_of_its_groups():
    graph = GraphFilter(0.5, 0.5, strengths={"view": 1.0})
    fitted = prepared([TRIAL], shop_split(keep_other_events=True), graph=graph).fit_blend(TRIAL)

    assert fitted.blend.filter == graph
    assert list(fitted.without) == list(GROUPS)
    assert fitted.blend.graph != 0
    assert fitted.without["the item graph"].graph == 0


def test_there_is_no_blend_where_nothing_that_is_held_out_is_known():
    assert prepared([TRIAL], given_split(SHOP, [("stranger", 4), ("u1", 9999)])).fit_blend(TRIAL) is None


# --- More interactions than 32 bits count ----------------------------------------------------------


@pytest.fixture
def beyond_32_bits(monkeypatch):
    """The shop has more interactions than row pointers of 32 bits can address, were these so short."""
    for module in (pattern, solvers):
        monkeypatch.setattr(module, "MOST_INTERACTIONS_OF_IMPLICIT", 100)


@pytest.mark.usefixtures("beyond_32_bits")
@pytest.mark.parametrize("step", ["search", "refit"])
def test_implicit_is_refused_where_it_cannot_address_all_interactions(step):
    message = (
        "solver `implicit` has row pointers of 32 bits, and there are 240 interactions, more than 100. "
        "Choose solver `batched`."
    )
    with pytest.raises(InputError) as raised:
        prepared([TRIAL]) if step == "search" else LocalEngine().refit(matrix_of(SHOP), winner())
    assert str(raised.value) == message


@pytest.mark.runs
def test_batched_searches_refits_and_blends_as_ever(request):
    def all_of_it():
        split = shop_split(keep_other_events=True)
        trials = grid({**LISTS, "regularization": [0.01, 0.1], "iterations": [2, 4]})
        search = prepared(trials, split, solver="batched")
        results, _ = run(search)
        fitted = LocalEngine().refit(matrix_of(SHOP), winner()._replace(solver="batched")).factors
        return search, results, search.fit_blend(TRIAL), fitted

    usual = all_of_it()
    assert usual[0].reference(TRIAL).scores
    request.getfixturevalue("beyond_32_bits")
    search, results, blend, fitted = all_of_it()

    assert search._splits[0].training[DEFAULT_STRENGTHS].indptr.dtype == np.int64
    assert {t: r.ranks.tolist() for t, r in results.items()} == {
        t: r.ranks.tolist() for t, r in usual[1].items()
    }
    assert blend == usual[2]
    assert fitted.users.equals(usual[3].users)
    assert fitted.items.equals(usual[3].items)
    # There is nothing to compare with.
    assert search.reference(TRIAL) is None


# --- Memory --------------------------------------------------------------------------------------


def test_data_beyond_the_memory_limit_are_refused_before_anything_is_trained():
    with pytest.raises(InputError, match=r"^memory limit 1 kB: in the search the interactions alone take"):
        prepared([TRIAL], memory_limit=1e-6)


def test_where_not_even_one_fit_may_fit_one_is_tried_and_all_are_done():
    trials = grid({**LISTS, "alpha": [1.0, 10.0]})
    data = 2 * data_bytes(prepared(trials, workers=2)._splits)
    search = prepared(trials, workers=2, memory_limit=(data + 1) / 10**9)

    assert not search.memory.enough
    assert (
        "so even one may not fit: expect the worker to be killed, or raise memory_limit" in search.memory.told
    )
    results, _ = run(search)
    assert all(result.scores for result in results.values())
    assert set(results) == set(trials)


# --- From which interactions the weights are ---


def test_weights_of_training_interactions_are_the_default_and_those_of_all_score_otherwise():
    by_default, of_training, of_all = (
        run(prepared([TRIAL], **changes))
        for changes in ({}, {"weights": Weights.training}, {"weights": Weights.all})
    )

    def ranks(result):
        return result[0][TRIAL].ranks.tolist()

    assert ranks(by_default) == ranks(of_training)
    assert ranks(of_training) != ranks(of_all)
