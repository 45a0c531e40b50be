"""The blend: its score by the formula, its weights by what users do."""

import numpy as np
import pytest

from recsys_pipeline.core.blending import Blend, Choices, History, fit_blend, terms_of
from recsys_pipeline.core.item_graph import GraphFilter, ItemGraph
from recsys_pipeline.core.ranking import Factors, best_lists, ranks_in_lists
from recsys_pipeline_tests.worlds import pattern_of


def history_of(view, buy, n_items):
    """Who viewed and who bought what."""
    pattern = pattern_of([sorted({*v, *b}) for v, b in zip(view, buy, strict=True)], n_items)
    interactions = list(zip(pattern.user_of_interaction.tolist(), pattern.indices.tolist(), strict=True))
    events = {
        name: np.array([item in rows[user] for user, item in interactions])
        for name, rows in (("view", view), ("buy", buy))
    }
    return History(pattern, events, ["buy"])


def test_the_score_is_the_formula(rng):
    history = history_of(view=[[0, 1], [1]], buy=[[2], [0]], n_items=4)
    x, y = rng.random((2, 3), np.float32), rng.random((4, 3), np.float32)
    blend = Blend(als=2.0, events={"view": 0.5, "buy": -1.0}, target=0.25, any=-0.125)
    scores = terms_of(Factors(x, y), history, None, None).scorer(blend)(np.array([0, 1], np.int32))

    view, buy = np.array([[1, 1, 0], [0, 1, 0]]), np.array([[0, 0, 1], [1, 0, 0]])
    target, anything = np.log1p([1, 0, 1]), np.log1p([2, 2, 1])
    expected = 2 * (x @ y.T)[:, :3] + 0.5 * view - buy + 0.25 * target - 0.125 * anything
    assert scores[:, :3] == pytest.approx(expected, abs=1e-6)
    assert np.isneginf(scores[:, 3]).all()


def shop(rng, n_users=600, n_items=40):
    """Users view 8 items and buy one of them: always the one whose factor they share, if any."""
    view = [sorted(rng.choice(n_items, 8, replace=False).tolist()) for _ in range(n_users)]
    taste = rng.normal(size=(n_users, 2)).astype(np.float32)
    items = rng.normal(size=(n_items, 2)).astype(np.float32)
    bought = [max(mine, key=lambda item: taste[user] @ items[item]) for user, mine in enumerate(view)]
    return history_of(view, [[] for _ in view], n_items), taste, items, np.array(bought, np.int32)


def test_learns_that_people_buy_what_they_viewed_and_like(rng):
    history, taste, items, bought = shop(rng)
    users = np.arange(len(taste), dtype=np.int32)
    nothing_excluded = history.pattern.select(np.zeros(history.pattern.n_interactions, bool))
    terms = terms_of(Factors(taste, items), history, None, None)
    blend = fit_blend(Choices.of(terms, nothing_excluded, users[:300], bought[:300], seed=1), None).blend

    assert blend.events["view"] > 1
    assert blend.als > 1
    later = users[300:]
    row = np.arange(len(later))

    def hit_rate(scorer):
        ranks = ranks_in_lists(best_lists(scorer, later, nothing_excluded, 1), row, bought[300:])
        return np.mean(ranks == 1)

    assert hit_rate(terms.scorer(blend)) > 0.9
    assert hit_rate(terms.als) < 0.5


def test_an_event_that_says_nothing_weighs_nothing(rng):
    history, taste, items, bought = shop(rng)
    users = np.arange(len(taste), dtype=np.int32)
    nothing_excluded = history.pattern.select(np.zeros(history.pattern.n_interactions, bool))
    terms = terms_of(Factors(taste, items), history, None, None)
    blend = fit_blend(Choices.of(terms, nothing_excluded, users, bought, seed=1), None).blend

    # Nobody buys twice in this shop, so no candidate was bought before.
    assert blend.events["buy"] == 0
    assert blend.target == 0


def test_what_is_excluded_is_no_candidate(rng):
    history, taste, items, bought = shop(rng)
    users = np.arange(len(taste), dtype=np.int32)
    everything_excluded = history.pattern

    # The bought items are all excluded: there is nothing to learn.
    terms = terms_of(Factors(taste, items), history, None, None)
    assert fit_blend(Choices.of(terms, everything_excluded, users, bought, seed=1), None) is None


def test_of_many_users_some_are_drawn_by_hash_not_the_first(rng):
    """The first 50 of 600 buy what they like least; all others what they like best."""
    history, taste, items, bought = shop(rng)
    users = np.arange(len(taste), dtype=np.int32)
    nothing_excluded = history.pattern.select(np.zeros(history.pattern.n_interactions, bool))
    factors = Factors(np.where(users[:, None] < 50, -taste, taste), items)
    terms = terms_of(factors, history, None, None)

    def fitted(held_out, seed):
        held_out_of = users[held_out], bought[held_out]
        return fit_blend(Choices.of(terms, nothing_excluded, *held_out_of, seed, at_most=50), None).blend

    assert fitted(slice(50), seed=1).als < -1
    assert fitted(slice(None), seed=1).als > 0.5
    assert fitted(slice(None), seed=1) == fitted(slice(None), seed=1) != fitted(slice(None), seed=2)


def communities(rng, n_users=400, n_items=60):
    """Users of three communities view 6 items of their own 20; one more of them is held out."""
    rows, held_out = [], []
    for user in range(n_users):
        mine = rng.choice(20, 7, replace=False) + 20 * (user % 3)
        rows.append(sorted(mine[:-1].tolist()))
        held_out.append(mine[-1])
    return history_of(rows, [[] for _ in rows], n_items), np.array(held_out, np.int32)


def graph_terms(history, factors):
    rows = history.pattern.user_items(np.ones(history.pattern.n_interactions, np.float32))
    return terms_of(factors, history, GraphFilter(0.5, 0.5, strengths={"view": 1.0}), rows)


def blind_factors(rng, history):
    """Factors that know nothing of the communities."""
    n_users, n_items = history.pattern.shape
    return Factors(rng.random((n_users, 2), np.float32), rng.random((n_items, 2), np.float32))


def test_the_graph_is_a_term_divided_by_its_scale(rng):
    history, _ = communities(rng)
    factors = blind_factors(rng, history)
    users = np.array([3, 1], np.int32)
    terms = graph_terms(history, factors)
    blend = Blend(
        als=2.0,
        events={"view": 0.5},
        target=0.0,
        any=0.0,
        graph=3.0,
        scales={"als": 4.0, "graph": 0.5, "own view": 2.0},
        filter=GraphFilter(0.5, 0.5, strengths={"view": 1.0}),
    )
    rows = history.pattern.user_items(np.ones(history.pattern.n_interactions, np.float32))
    by_graph = ItemGraph.of(rows, blend.filter).scorer(rows)(users)
    viewed = rows[users].toarray()
    expected = 2 / 4 * (factors.users[users] @ factors.items.T) + 3 / 0.5 * by_graph + 0.5 / 2 * viewed
    assert terms.scorer(blend)(users) == pytest.approx(expected, rel=1e-4)


def test_learns_that_items_go_together_where_the_factors_do_not_know_it(rng):
    history, held_out = communities(rng)
    users = np.arange(len(held_out), dtype=np.int32)
    terms = graph_terms(history, blind_factors(rng, history))
    parameters = GraphFilter(0.5, 0.5, strengths={"view": 1.0})
    fitted = fit_blend(Choices.of(terms, history.pattern, users, held_out, seed=1), parameters)

    assert fitted.blend.graph > 1 > abs(fitted.blend.als)
    assert fitted.blend.filter == parameters
    assert fitted.without["the item graph"].graph == 0
    assert "the own history" not in fitted.without  # excluded altogether, so it says nothing


def learned_from(terms, history, users, held_out):
    return fit_blend(Choices.of(terms, history.pattern, users, held_out, seed=1), None).blend


def mean_log_rank(choices, factors):
    scores = sum(factors[name] * values for name, values in choices.features.items())
    ranks = []
    for row in np.unique(choices.rows):
        mine, picked = scores[choices.rows == row], choices.picked[choices.rows == row]
        ranks.append(np.count_nonzero(mine >= mine[picked]))
    return np.mean(np.log(ranks))


def test_no_other_weight_of_a_term_puts_what_was_picked_higher(rng):
    history, held_out = communities(rng, n_users=150)
    users = np.arange(len(held_out), dtype=np.int32)
    terms = graph_terms(history, blind_factors(rng, history))
    choices = Choices.of(terms, history.pattern, users, held_out, seed=1)
    blend = fit_blend(choices, GraphFilter(0.5, 0.5)).blend
    factors = {name: float(blend.factor(name)) for name in choices.features}
    reached = mean_log_rank(choices, factors)
    for name in ("als", "graph", "any"):
        for share in (0.0, 0.5, 2.0):
            assert mean_log_rank(choices, factors | {name: share * factors[name]}) >= reached * 0.99


def test_of_several_splits_what_is_learned_is_learned_from_all(rng):
    histories = [communities(rng, n_users=60) for _ in range(2)]
    parts = [
        Choices.of(
            graph_terms(history, blind_factors(rng, history)),
            history.pattern,
            np.arange(60, dtype=np.int32),
            held_out,
            seed=1,
        )
        for history, held_out in histories
    ]
    together = Choices.together(parts)
    assert len(np.unique(together.rows)) == sum(len(np.unique(part.rows)) for part in parts)
    np.testing.assert_array_equal(
        together.features["graph"], np.concatenate([part.features["graph"] for part in parts])
    )
    assert (np.diff(together.rows) >= 0).all()


def test_weights_are_those_of_terms_that_vary_by_one_among_the_candidates(rng):
    """What is multiplied with is weight over scale: the unit of a term changes no list."""
    history, held_out = communities(rng)
    users = np.arange(len(held_out), dtype=np.int32)
    factors = blind_factors(rng, history)
    small = learned_from(graph_terms(history, factors), history, users, held_out)
    thousandfold = factors._replace(items=1000 * factors.items)
    large = learned_from(graph_terms(history, thousandfold), history, users, held_out)
    assert large.als == pytest.approx(small.als, rel=1e-3)
    assert large.scales["als"] == pytest.approx(1000 * small.scales["als"], rel=1e-3)


def test_the_lists_of_several_blends_are_those_of_each_and_score_every_term_once(rng):
    history, held_out = communities(rng)
    terms, asked = graph_terms(history, blind_factors(rng, history)), []

    def counting(users):
        asked.append(len(users))
        return als(users)

    als = terms.als
    terms = terms._replace(als=counting)
    users = np.arange(0, len(held_out), 3, dtype=np.int32)
    blends = {
        name: Blend(weight, {"view": 0.0}, 0.1, 0.2, graph, GraphFilter(0.5, 0.5))
        for name, weight, graph in (("both", 1.0, 2.0), ("als", 1.0, 0.0))
    }
    listers = terms.listers(blends)
    lists = {name: listers[name](users, history.pattern, 5) for name in blends}
    assert sum(asked) == len(users)
    for name, blend in blends.items():
        np.testing.assert_array_equal(lists[name], best_lists(terms.scorer(blend), users, history.pattern, 5))
    others = users[1:]
    np.testing.assert_array_equal(
        listers["both"](others, history.pattern, 5),
        best_lists(terms.scorer(blends["both"]), others, history.pattern, 5),
    )


def test_a_blend_survives_json_and_one_from_before_the_item_graph_is_read():
    blend = Blend(
        1.0, {"view": 2.0}, 3.0, 4.0, 5.0, GraphFilter(0.25, 0.5, strengths={"view": 1.0}), {"als": 0.1}
    )
    assert Blend.from_mapping(blend.as_dict()) == blend
    former = Blend.from_mapping({"als": 0.5, "events": {"view": 1.0}, "target": 0.25, "any": 0.0})
    assert former.filter is None
    assert former.factor("als") == 0.5
