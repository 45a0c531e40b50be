"""People whom the model has not seen: what it recommends is what training with them would have given."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import NO_WEIGHTING, ONE_PLUS_ALPHA_W, Hyperparameters
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.offer import Offer
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.recommender import Recommender
from recsys_pipeline_tests.core.small_feeds import interactions_of, model_of

TRIAL = Hyperparameters(factors=6, regularization=0.05, alpha=10.0, iterations=20, bm25_K1=50.0, bm25_B=0.6)
RULES = {"target_events": ["buy"], "seen_events": ["buy"]}
N_USERS, N_ITEMS, N_TASTES = 600, 80, 6


def shop():
    """Each user has two of six tastes; views 12 items, mostly of these, popular ones first, and buys 3."""
    rng = np.random.default_rng(0)
    items = np.arange(N_ITEMS)
    events = []
    for user in range(N_USERS):
        liked = np.isin(items % N_TASTES, rng.choice(N_TASTES, 2, replace=False))
        odds = np.where(liked, 10.0, 1.0) / (1 + items // N_TASTES)
        viewed = rng.choice(items, 12, replace=False, p=odds / odds.sum()).tolist()
        events += [(f"u{user}", f"p{item}", "view") for item in viewed]
        events += [(f"u{user}", f"p{item}", "buy") for item in viewed[:3]]
    return events


EVENTS = shop()


def history(user, events=EVENTS):
    return [(item, event) for who, item, event in events if who == user]


def recommender_of(events=EVENTS, trial=TRIAL, offer=None, rules=RULES, **options):
    return Recommender(model_of(interactions_of(events, **rules), trial, **options), offer)


@pytest.fixture(scope="module")
def model():
    return recommender_of(blend=Blend(als=1.0, events={"view": 0.5, "buy": -0.5}, target=0.1, any=0.01))


VARIANTS = {
    "as implicit": (TRIAL, Solver.batched),
    "by implicit": (TRIAL, Solver.implicit),
    "without BM25": (TRIAL.replace(weighting=NO_WEIGHTING, alpha=2.0), Solver.batched),
    "1 + alpha * w": (TRIAL.replace(confidence=ONE_PLUS_ALPHA_W), Solver.batched),
    "penalty by frequency": (TRIAL.replace(nu=0.9, regularization=0.002), Solver.batched),
    "faint unobserved": (TRIAL.replace(unobserved_weight=0.2, alpha=2.0), Solver.batched),
    "ensemble": (TRIAL.replace(ensemble_size=3), Solver.batched),
}


def shared(lists, others):
    """Share of the items of these lists that the others have too."""
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(lists, others, strict=True)])


@pytest.mark.parametrize("variant", VARIANTS)
def test_gets_what_a_model_trained_with_them_recommends(variant):
    """Of 30 users left out: four fifths of the top ten; and nearly all where the items are the same."""
    trial, solver = VARIANTS[variant]
    strangers = [f"u{user}" for user in range(30)]
    without = [event for event in EVENTS if event[0] not in strangers]
    folded_into = recommender_of(without, trial, solver=solver)
    trained_with = recommender_of(trial=trial, solver=solver)
    trained = [trained_with.recommend(user)["item"] for user in strangers]

    folded = [folded_into.recommend_for(history(user))["item"] for user in strangers]
    assert shared(folded, trained) >= 0.8
    into_the_same = [trained_with.recommend_for(history(user))["item"] for user in strangers]
    assert shared(into_the_same, trained) >= 0.95


@pytest.mark.runs
def test_so_it_is_on_the_sample(sample_csv):
    """A hundredth of its users left out, another random start: three fifths of the top ten."""
    table = pd.read_csv(sample_csv, dtype={"ProductCode": str})
    feed = list(table[["UserID", "ProductCode", "Event"]].itertuples(index=False, name=None))
    rules = {"strengths": dict.fromkeys(table["Event"].unique(), 1.0)}
    trial = TRIAL.replace(factors=32, regularization=1.0, alpha=1.0, iterations=10)
    strangers = table["UserID"].unique()[::100].tolist()
    trained_with = recommender_of(feed, trial, rules=rules)
    folded_into = recommender_of([event for event in feed if event[0] not in strangers], trial, rules=rules)
    histories = [history(user, feed) for user in strangers]

    def items_in(lists):
        return [of_one["item"] for _, of_one in lists.groupby("user", sort=False)]

    trained = items_in(trained_with.recommend_many(strangers))
    assert shared(items_in(folded_into.recommend_for_many(histories)), trained) >= 0.6
    assert shared(items_in(trained_with.recommend_for_many(histories)), trained) >= 0.9


def test_own_items_are_left_out_by_their_seen_events(model):
    """Only what was bought; what was viewed may be recommended again, and is marked."""
    given = history("u3")
    bought = {item for item, event in given if event == "buy"}
    table = model.recommend_for(given, n=N_ITEMS)

    assert set(table["item"]).isdisjoint(bought)
    assert set(table["item"][table["already_liked"]]) == {item for item, _ in given} - bought
    everything = model.recommend_for(given, n=N_ITEMS, filter_already_liked_items=False)
    assert len(everything) == N_ITEMS


def test_with_the_blend_they_score_as_the_same_user_of_the_training(model):
    """But for the factors, which are now the best for these events."""
    table = model.recommend_for(history("u3"), n=10, blend=True)
    trained = model.recommend("u3", n=10, blend=True)

    assert (table["source"] == "blend").all()
    assert len(set(table["item"]) & set(trained["item"])) >= 9
    assert table["score"].to_numpy() == pytest.approx(trained["score"].to_numpy(), abs=0.1)


def test_what_somebody_known_did_since_is_added_to_what_the_model_knows():
    before, since = history("u3")[:-4], history("u3")[-4:]
    shorter = recommender_of([event for event in EVENTS if event[0] != "u3"] + [("u3", *e) for e in before])

    together = shorter.recommend_for(before + since)
    assert shorter.recommend_for(since, user_id="u3").equals(together)
    assert not shorter.recommend_for(since).equals(together)
    nothing_new = shorter.recommend_for([], user_id="u3")
    assert nothing_new.equals(shorter.recommend_for(before))


@pytest.mark.parametrize(
    "given", [[], [("newer than the model", "view")]], ids=["nothing", "of unknown items"]
)
def test_without_a_known_product_all_items_are_popular(model, given):
    table = model.recommend_for(given, n=5)
    buyers = {}
    for _, item, event in EVENTS:
        buyers[item] = buyers.get(item, 0) + (event == "buy")

    assert (table["source"] == "popular").all()
    most = sorted(buyers.values(), reverse=True)[:5]
    assert table["score"].to_numpy() == pytest.approx(np.array(most) / N_USERS)
    assert [buyers[item] for item in table["item"]] == most
    assert model.recommend_for(given, fill_up=False).empty


def test_unknown_products_are_skipped_and_named(model):
    given = history("u3")
    table = model.recommend_for([("new", "view"), *given, (7, "view"), ("new", "buy")])

    assert table.equals(model.recommend_for(given))
    assert table.attrs["unknown_products"] == ["new", 7]
    assert model.recommend_for(given).attrs["unknown_products"] == []


def test_or_refused(model):
    with pytest.raises(KeyError, match="the model knows no item 'new', 7; its 80 item ids are strings"):
        model.recommend_for([("new", "view"), ("p1", "view"), (7, "view")], skip_unknown=False)


def test_an_event_that_means_nothing_is_an_error_that_says_which_ones_do(model):
    with pytest.raises(InputError, match=r"knows no event 'byu' \(of product 'p1'\). It knows view, buy"):
        model.recommend_for([("p1", "byu")])


@pytest.mark.parametrize("event", ["p1", ("p1",), ("p1", "view", 3), {"p1": "view"}, None], ids=repr)
def test_what_is_no_pair_is_an_error_that_shows_one(model, event):
    with pytest.raises(InputError, match=r"is no event: give pairs .* such as \('A1', 'view'\)"):
        model.recommend_for([event])


def test_an_event_that_the_chosen_strengths_leave_out_still_excludes():
    """Trained on purchases alone; a view counts nothing, unless it excludes."""
    found = recommender_of(strengths={"buy": 1.0}, rules={"target_events": ["buy"], "seen_events": ["view"]})
    table = found.recommend_for([("p1", "view"), ("p2", "buy")], n=N_ITEMS, fill_up=False)

    assert "p1" not in set(table["item"])
    assert "p2" in set(table["item"])
    assert found.recommend_for([("p1", "view")], fill_up=False).empty


def test_who_touched_nearly_everything_has_no_weights_left_and_gets_what_is_popular(model):
    """BM25 gives such a user weights at or below 0, which ALS would take for dislikes."""
    table = model.recommend_for([(f"p{item}", "view") for item in range(N_ITEMS)], n=5)

    assert (table["source"] == "popular").all()


# --- Many at a time ---


def offer_of(model):
    """Every third item is not available; two of a category at most."""
    places = np.array([int(item[1:]) for item in model.items])
    return Offer(places % 3 != 0, (places % 7).astype(np.int32), 2)


@pytest.fixture(scope="module", params=["everything", "under the shop's rules"])
def offering(request, model):
    rules = offer_of(model) if request.param != "everything" else None
    return Recommender(model._release, rules)


def rows_of(table, label):
    rows = table[table["user"] == label]
    assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
    return rows.drop(columns=["user", "rank"]).reset_index(drop=True)


def assert_same(many, one):
    """Up to the rounding of the scores."""
    assert list(many.columns) == list(one.columns)
    assert many["item"].tolist() == one["item"].tolist()
    assert many["score"].to_numpy() == pytest.approx(one["score"].to_numpy(), abs=1e-5)
    assert many["already_liked"].tolist() == one["already_liked"].tolist()
    assert many["source"].tolist() == one["source"].tolist()


GRAPH = GraphFilter(0.5, 0.0, strengths={"view": 1.0, "buy": 3.0})
BY_GRAPH = Blend(
    *(0.0, {"view": 0.0, "buy": 0.0}, 0.0, 0.0),
    graph=1.0,
    filter=GRAPH,
    scales={"graph": 0.1},
)


def released_by(scorer, **options):
    """What says that its lists are by this scorer."""
    made = recommender_of(**options)
    return Recommender(replace(made._release, manifest={**made.manifest, "scorer": scorer}))


@pytest.mark.parametrize("scorer", ["als", "blend"])
def test_who_does_not_say_which_scorer_gets_that_of_the_releases_own_lists(scorer):
    model = released_by(scorer, blend=BY_GRAPH)
    ask = {
        "one": lambda **chosen: model.recommend("u3", **chosen),
        "many": lambda **chosen: model.recommend_many(["u3"], **chosen),
        "new": lambda **chosen: model.recommend_for(history("u3"), **chosen),
        "many new": lambda **chosen: model.recommend_for_many([history("u3")], **chosen),
    }

    for asked in ask.values():
        assert set(asked()["source"]) == {scorer}
        pd.testing.assert_frame_equal(asked(), asked(blend=scorer == "blend"))
        assert set(asked(blend=scorer == "als")["source"]) == {"als", "blend"} - {scorer}


def test_a_release_from_before_the_scorer_was_a_choice_is_scored_by_als(model):
    assert set(model.recommend("u3")["source"]) == {"als"}


def test_the_graph_gives_somebody_new_what_one_that_has_them_gives_for_unseen_items():
    """But for the degrees of the items, which do not count in this one."""
    without = [event for event in EVENTS if event[0] != "u3"]
    new = released_by("blend", events=without, blend=BY_GRAPH).recommend_for(history("u3"), n=N_ITEMS)
    known = released_by("blend", blend=BY_GRAPH).recommend("u3", n=N_ITEMS)
    new, known = (table[~table["already_liked"]].set_index("item")["score"] for table in (new, known))

    assert list(new.index) == list(known.index)
    assert new.to_numpy() == pytest.approx(known.to_numpy(), rel=1e-5)


def test_a_user_without_new_events_gets_the_same_lists_by_the_graph():
    model = released_by("blend", blend=BY_GRAPH)
    again, before = model.recommend_for([], user_id="u3", n=20), model.recommend("u3", n=20)

    pd.testing.assert_frame_equal(again, before)


@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("fill_up", [False, True])
def test_users_of_the_model_many_or_one_at_a_time(offering, blend, fill_up, monkeypatch):
    monkeypatch.setattr("recsys_pipeline.recommender._USERS_AT_ONCE", 7)
    users = [f"u{user}" for user in range(20, 0, -1)]
    options = {"n": 12, "blend": blend, "fill_up": fill_up}
    table = offering.recommend_many(users, **options)

    assert table["user"].drop_duplicates().tolist() == users
    for user in users:
        assert_same(rows_of(table, user), offering.recommend(user, **options))


@pytest.mark.parametrize("blend", [False, True])
def test_people_with_histories_many_or_one_at_a_time(offering, blend, monkeypatch):
    monkeypatch.setattr("recsys_pipeline.recommender._USERS_AT_ONCE", 4)
    given = [history("u3"), [], [("p1", "view")], [("new", "buy")], history("u5"), history("u6")[:3]]
    known = [None, None, None, "u9", "u5", None]
    table = offering.recommend_for_many(given, n=8, user_ids=known, blend=blend)

    for place, (events, user_id) in enumerate(zip(given, known, strict=True)):
        one = offering.recommend_for(events, n=8, user_id=user_id, blend=blend)
        assert_same(rows_of(table, place), one)
    assert table.attrs["unknown_products"] == ["new"]


def test_nobody_gets_an_empty_table(model):
    columns = ["user", "rank", "item", "score", "already_liked", "source"]

    assert list(model.recommend_many([]).columns) == columns
    assert list(model.recommend_for_many([]).columns) == columns
    assert len(model.recommend_many([])) == len(model.recommend_for_many([])) == 0


def test_one_unknown_user_among_many_is_named(model):
    with pytest.raises(KeyError, match="the model knows no user 'nobody', 5; its 600 user ids are strings"):
        model.recommend_many(["u1", "nobody", 5])
    with pytest.raises(KeyError, match="the model knows no user 'nobody'"):
        model.recommend_for_many([[], []], user_ids=[None, "nobody"])


def test_there_is_a_user_id_for_each_history(model):
    with pytest.raises(ValueError, match="2 histories and 1 user ids"):
        model.recommend_for_many([[], []], user_ids=["u1"])


# --- The shop's rules ---


def test_the_rules_hold_whoever_asks(model):
    offer = offer_of(model)
    ruled = Recommender(model._release, offer)
    tables = [
        ruled.recommend("u1", n=20, fill_up=True),
        ruled.recommend("u1", n=20, blend=True),
        ruled.recommend_for(history("u2"), n=20),
        ruled.recommend_for([], n=20),
        ruled.similar_items("p3", n=20),
    ]

    for table in tables:
        places = table["item"].map(lambda item: int(item[1:]))
        assert len(table)
        assert (places % 3 != 0).all()
        assert (places % 7).value_counts().max() <= 2


def test_without_training_a_user_gets_popular_items_if_asked_to(model):
    """In a model of purchases alone views count nothing: it knows the user, and learned nothing of them."""
    events = [*EVENTS, ("looker", "p1", "view")]
    purchases = recommender_of(events, strengths={"buy": 1.0})

    assert not purchases.was_trained_on("looker")
    assert purchases.recommend("looker").empty
    filled, popular = purchases.recommend("looker", n=5, fill_up=True), model.recommend_for([], n=5)
    assert filled["source"].tolist() == ["popular"] * 5
    assert filled["item"].tolist() == popular["item"].tolist()


def test_an_item_without_training_is_like_no_other(model):
    nobody = model._release.factors.items.copy()
    nobody[model.items.get_loc("p3")] = 0
    factors = model._release.factors._replace(items=nobody)
    found = Recommender(replace(model._release, factors=factors))

    assert found.similar_items("p3").empty
    assert "p3" not in set(found.similar_items("p4", n=N_ITEMS)["item"])
    assert len(found.similar_items("p4", n=N_ITEMS)) == N_ITEMS - 2
