"""The blend: its score by the formula, its weights by what users do."""

import numpy as np
import pytest

from recsys_pipeline.core import blending
from recsys_pipeline.core.blending import Blend, History, by_blend, fit_blend
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
    scores = by_blend(blend, Factors(x, y), history)(np.array([0, 1], np.int32))

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
    als = Factors(taste, items).scorer()
    blend = fit_blend(als, history, nothing_excluded, users[:300], bought[:300], seed=1)

    assert blend.events["view"] > 1
    assert blend.als > 1
    later = users[300:]
    row = np.arange(len(later))

    def hit_rate(scorer):
        ranks = ranks_in_lists(best_lists(scorer, later, nothing_excluded, 1), row, bought[300:])
        return np.mean(ranks == 1)

    assert hit_rate(by_blend(blend, Factors(taste, items), history)) > 0.9
    assert hit_rate(als) < 0.5


def test_an_event_that_says_nothing_weighs_nothing(rng):
    history, taste, items, bought = shop(rng)
    users = np.arange(len(taste), dtype=np.int32)
    nothing_excluded = history.pattern.select(np.zeros(history.pattern.n_interactions, bool))
    blend = fit_blend(Factors(taste, items).scorer(), history, nothing_excluded, users, bought, seed=1)

    # Nobody buys twice in this shop, so no candidate was bought before.
    assert blend.events["buy"] == 0
    assert blend.target == 0


def test_what_is_excluded_is_no_candidate(rng):
    history, taste, items, bought = shop(rng)
    users = np.arange(len(taste), dtype=np.int32)
    everything_excluded = history.pattern

    # The bought items are all excluded: there is nothing to learn.
    assert (
        fit_blend(Factors(taste, items).scorer(), history, everything_excluded, users, bought, seed=1) is None
    )


def test_of_many_users_some_are_drawn_by_hash_not_the_first(rng, monkeypatch):
    """The first 50 of 600 buy what they like least; all others what they like best."""
    monkeypatch.setattr(blending, "_MAX_HELD_OUT", 50)
    history, taste, items, bought = shop(rng)
    users = np.arange(len(taste), dtype=np.int32)
    nothing_excluded = history.pattern.select(np.zeros(history.pattern.n_interactions, bool))
    als = Factors(np.where(users[:, None] < 50, -taste, taste), items).scorer()

    def fitted(held_out, seed):
        return fit_blend(als, history, nothing_excluded, users[held_out], bought[held_out], seed)

    assert fitted(slice(50), seed=1).als < -1
    assert fitted(slice(None), seed=1).als > 0.5
    assert fitted(slice(None), seed=1) == fitted(slice(None), seed=1) != fitted(slice(None), seed=2)
