"""The model card: what it says, of whom, and that nothing in it is taken for Markdown."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest

from recsys_pipeline.core.agreement import Agreement
from recsys_pipeline.core.beyond_accuracy import BeyondAccuracy
from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.comparison import Interval
from recsys_pipeline.core.evaluation import (
    BLEND,
    LEAKING,
    POPULARITY,
    TUNED,
    HeldOutRanks,
    Quality,
    blend_without,
)
from recsys_pipeline.core.evaluation_tables import models_table, segments_table
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.model import Contents, Model
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.core.results import results_table
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.reporting.card import card, card_facts
from recsys_pipeline_tests.worlds import pattern_of

TRIAL = Hyperparameters(factors=4, regularization=0.1, alpha=5.0, iterations=6, bm25_K1=100.0, bm25_B=0.8)
FEED = {
    "files": 2,
    "first_file": "monday.csv",
    "last_file": "sunday.csv",
    "rows": 1234567,
    "rejected": 7,
    "ignored": 8,
    "events": {"view": 1000000, "click": 234567},
    "first_event": "2026-01-05T00:00:01+00:00",
    "last_event": "2026-02-01T23:59:59+00:00",
}
SEARCHED = {
    "strategy": "halving",
    "prefer": "best",
    "switch": "significant",
    "decision": "the configuration of release 7 stays: the best trial is better by 0.0004",
    "agreement": Agreement(0.4, 0.4001, Interval(-0.001, 0.001), 0.02)._asdict(),
    "blend": None,
}
EVALUATED = {
    "k": 10,
    "seeds": 3,
    "protocol": "random leave-one-out",
    "verdict": "the tuned model (0.3000) is better than popularity (0.1000), the next best",
    "out_of_reach": 0.125,
    "left_out": "nothing",
}
USERS, ITEMS = [11, 12, 13], ["a", "b", "c", "d"]


def quality(mean, low, high):
    return Quality(mean, 0.01, Interval(mean - 0.02, mean + 0.02), 0.0, Interval(low, high), *[mean] * 3, 3)


QUALITY = {
    POPULARITY: quality(0.1, -0.25, -0.15),
    TUNED: quality(0.3, 0.0, 0.0),
    LEAKING: quality(0.9, 0.5, 0.7),
    "item-kNN": quality(0.2, -0.15, -0.05),
}


def evaluation(**changes):
    ranks = HeldOutRanks(
        seed=np.zeros(3, int),
        users=np.arange(3, dtype=np.int32),
        items=np.arange(3, dtype=np.int32),
        interactions_of_user=np.array([1, 2, 3]),
        popularity_of_item=np.array([3, 2, 1]),
        ranks={name: np.array([1, 2, 11]) for name in QUALITY},
    )
    lists = {TUNED: BeyondAccuracy(0.75, 2.0, 0.25, 1.0), POPULARITY: BeyondAccuracy(0.01, 2.0, 0.5, 1.0)}
    tables = {
        "models": models_table(QUALITY, lists, dict.fromkeys(QUALITY, 1.5)),
        "segments": segments_table(ranks, 3, 10),
    }
    return {name: with_metadata(table, {**EVALUATED, **changes}) for name, table in tables.items()}


def search_results(**changes):
    ranking = [
        TrialResult(TRIAL, Scores(0.4, 0.01, 0.4, 0.4, 0.4, 0.4), 1.0),
        TrialResult(TRIAL.replace(alpha=2.0), Scores(0.3, 0.01, 0.3, 0.3, 0.3, 0.3), 1.0),
        TrialResult(TRIAL.replace(alpha=3.0), None, float("nan"), "diverged"),
    ]
    table = results_table(ranking, [Interval(0.0, 0.0), Interval(-0.2, -0.1), None], chosen=0)
    return with_metadata(table, {**SEARCHED, **changes})


def model(items=ITEMS):
    pattern = pattern_of([[0], [0, 1], [0, 1, 2]], len(items))
    counts = {"view": np.array([1, 1, 5, 1, 2, 3], np.int32), "click": np.array([0, 2, 0, 0, 0, 1], np.int32)}
    weights = np.array([1, 2, 3, 1, 2, 3], np.float32)
    manifest = {
        "hyperparameters": TRIAL.as_dict(),
        "seed": 42,
        "solver": "batched",
        "strengths": {"click": 3.0, "view": 1.0},
        "target_events": ["view", "click"],
        "seen_events": ["click"],
    }
    factors = Factors(np.ones((3, 4), np.float32), np.ones((len(items), 4), np.float32))
    contents = Contents(pattern, weights, np.ones(6, bool), counts)
    return Model(pa.array(USERS), pa.array(items), factors, contents, manifest)


def recommendations(items=ITEMS):
    """Not in the order of their ranks."""
    rows = [(11, 2, items[2], 0.5, "als"), (11, 1, items[3], 0.75, "als"), (13, 1, items[3], 2.0, "popular")]
    names = ("UserID", "rank", "ProductCode", "score", "source")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])


def facts(feed=FEED, searched=None, evaluated=None, items=ITEMS):
    return card_facts(
        feed,
        evaluation(**(evaluated or {})),
        search_results(**(searched or {})),
        model(items),
        recommendations(items),
    )


def section(text, title):
    """What stands under a heading, of whatever level."""
    (found,) = re.findall(rf"^#+ {title}.*?\n\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    return found


def rows_of(text):
    """The cells of the only table in a text, without its header."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# --- What it says ---


def test_the_verdict_comes_first():
    first, second, *_ = card(facts()).split("\n\n")

    assert first == "# Model card"
    assert second == (
        "**On interactions that its search never saw, the tuned model (0.3000) is better than popularity "
        "(0.1000), the next best.** Its MAP@10 is 0.3000, 95 % interval 0.2800 to 0.3200."
    )


def test_for_who_has_read_nothing_else_it_says_what_a_figure_and_an_interval_mean():
    text = card(facts())

    assert "MAP@10 in words: " in text
    assert "How to read an interval: " in text


def test_it_says_from_what_data_it_was_made():
    data = section(card(facts()), "What it was made from")

    files, rest = "2 files, monday.csv to sunday.csv", "from 2026-01-05 to 2026-02-01 (UTC)"
    assert f"{files}: 1,234,567 events, {rest}: 1,000,000 view, 234,567 click." in data
    assert "rejected because they are no events: 7;" in data
    assert "ignored as configured: 8" in data
    assert "3 users, 4 items, 6 interactions" in data
    assert "view 1, click 3" in data
    assert "to be held out: view, click; events after which" in data
    assert "any more: click." in data


def test_a_feed_without_times_says_so():
    feed = {**FEED, "files": 1, "first_event": None, "last_event": None}

    assert "- monday.csv: 1,234,567 events, without times: " in card(facts(feed))


def test_models_are_compared_best_first_and_what_shows_an_effect_last():
    rows = rows_of(section(card(facts()), "How good it is"))

    assert [row[0] for row in rows] == [TUNED, "item-kNN", POPULARITY, LEAKING]
    assert rows[0][2:6] == ["0.3000", "0.2800 to 0.3200", "", "0.3000"]
    assert rows[1][2:5] == ["0.2000", "0.1800 to 0.2200", "-0.1500 to -0.0500"]
    assert all(row[1] for row in rows)


def test_it_says_what_was_decided_and_why():
    decided = section(card(facts()), "What was decided")

    assert r"factors 4, regularization 0.1, alpha 5, iterations 6, bm25\_K1 100, bm25\_B 0.8" in decided
    assert "stays: the best trial is better by 0.0004." in decided
    assert "strategy halving, 3 trials, of which 1 failed; prefer best, switch significant" in decided
    assert "not distinguishable from the best: none" in decided
    assert "MAP@10 0.4000 +- 0.0100" in decided
    assert "alpha 5 is the largest tried: widen the list, or set preset quick." in decided
    assert "by implicit too: MAP@10 0.4001" in decided
    assert "The blend" not in decided


def test_and_of_a_blend_its_weights():
    blend = Blend(als=0.5, events={"view": 1.5}, target=0.25, any=-2.0)
    decided = section(card(facts(searched={"blend": blend.as_dict()})), "What was decided")

    assert (
        "ALS score 0.5, own view 1.5, log popularity, target events 0.25, log popularity, any event -2"
        in (decided)
    )


WEIGHTS = Blend(als=0.5, events={"view": 1.5}, target=0.25, any=-2.0).as_dict()


def told_of_the_blend(scorer, low, monkeypatch, blend=WEIGHTS, **evaluated):
    if low is not None:
        monkeypatch.setitem(QUALITY, BLEND, quality(0.4, low, 0.15))
        monkeypatch.setitem(QUALITY, blend_without("the item graph"), quality(0.35, low, 0.15))
    told = card_facts(
        FEED,
        evaluation(**evaluated),
        search_results(blend=blend),
        model(),
        with_metadata(recommendations(), {"scorer": scorer}),
    )
    text = section(card(json.loads(json.dumps(told))), "How good it is")
    return [paragraph for paragraph in text.split("\n\n") if paragraph.startswith("The lists are by ")], text


COMPARED = "MAP@10 0.4000 against 0.3000, 95 % interval of the difference"


@pytest.mark.parametrize(
    ("scorer", "low", "expected"),
    [
        (
            *("als", 0.05),
            "The lists are by ALS, although the blend is better by more than chance: "
            f"{COMPARED} +0.0500 to +0.1500. With `scorer: blend` of `recommendations` it makes the lists; "
            "`scorer: auto` lets the evidence decide.",
        ),
        (
            *("blend", 0.05),
            "The lists are by the blend, which is better than ALS by more than chance: "
            f"{COMPARED} +0.0500 to +0.1500.",
        ),
        (
            *("als", -0.05),
            "The lists are by ALS; the blend is not better than ALS by more than chance: "
            f"{COMPARED} -0.0500 to +0.1500.",
        ),
        (
            *("blend", -0.05),
            "The lists are by the blend, which is not better than ALS by more than chance: "
            f"{COMPARED} -0.0500 to +0.1500.",
        ),
        ("als", None, "The lists are by ALS; how ALS and the blend compare could not be measured."),
    ],
)
def test_of_a_blend_it_says_in_a_sentence_whether_the_lists_are_better_made_by_it(
    scorer, low, expected, monkeypatch
):
    told, text = told_of_the_blend(scorer, low, monkeypatch)

    assert told == [expected]
    assert "blend without" not in text


def test_and_what_its_terms_are_worth(monkeypatch):
    worths = [{"group": "the item graph", "map_without": 0.35, "adds": 0.05, "low": 0.02, "high": 0.08}]
    _, text = told_of_the_blend("blend", 0.05, monkeypatch, blend_terms=worths)

    assert "| the item graph | 0.3500 | +0.0500 | +0.0200 to +0.0800 |" in text


def test_where_there_is_no_blend_it_says_nothing_of_one(monkeypatch):
    assert told_of_the_blend("als", None, monkeypatch, blend=None)[0] == []


def test_or_that_there_was_nothing_to_compare():
    decided = section(card(facts(searched={"agreement": None})), "What was decided")

    assert "The solver: it was not compared with `implicit`" in decided


def test_it_says_where_the_model_ends():
    limits = section(card(facts()), "Limits")

    assert "75.0 % of the items are recommended to at least one user (1.0 % by popularity)" in limits
    assert (
        "on average, 25.00 % of all users have interacted with a recommended item (50.00 % by popularity)"
        in limits
    )
    assert "of the held-out interactions 12.5 % have an item that nobody else has" in limits
    assert [row[:3] for row in rows_of(limits)][-1] == ["item", "tail (below 3)", "2"]


def test_a_model_that_could_not_be_measured_is_not_compared_with(monkeypatch):
    monkeypatch.delitem(QUALITY, POPULARITY)

    assert "75.0 % of the items are recommended to at least one user; 100.0 % of" in card(facts())


def test_of_some_users_it_shows_what_they_did_beside_what_they_get():
    text = card(facts())

    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == [
        "User 11: 1 interaction, more than about 10 % of the users",
        "User 12: 2 interactions, more than about 50 % of the users",
        "User 13: 3 interactions, the most of all users",
    ]
    assert rows_of(section(text, "User 11")) == [
        ["1", "a", "view 1", "d", "0.7500", "als"],
        ["2", "", "", "c", "0.5000", "als"],
    ]
    # The most weight in training comes first.
    assert rows_of(section(text, "User 13")) == [
        ["1", "c", "view 3, click 1", "d", "2.0000", "popular"],
        ["2", "b", "view 2", "", "", ""],
        ["3", "a", "view 1", "", "", ""],
    ]
    assert [row[3] for row in rows_of(section(text, "User 12"))] == ["", ""]


# --- As data ---


def test_the_same_facts_give_the_same_card_also_through_json_in_any_order():
    told = facts()
    through_json = json.loads(json.dumps(told, sort_keys=True, allow_nan=False))

    assert card(through_json) == card(told) == card(facts())


def test_what_is_no_number_is_no_figure(monkeypatch):
    # The standard error over a single user.
    monkeypatch.setitem(QUALITY, TUNED, QUALITY[TUNED]._replace(standard_error=float("nan")))

    (tuned,) = [row for row in facts()["evaluation"]["models"] if row["model"] == TUNED]
    assert tuned["map_standard_error"] is None


HOSTILE = "![x](http://evil.example/p.png) <img src=x> | a\n# b `c` *d*"


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({"items": [HOSTILE, "b", "c", f"2{HOSTILE}"]}, id="items"),
        pytest.param({"feed": {**FEED, "events": {HOSTILE: 3}}}, id="events"),
        pytest.param({"feed": {**FEED, "first_file": HOSTILE}}, id="files"),
        pytest.param({"searched": {"decision": HOSTILE}}, id="reasons"),
        pytest.param({"evaluated": {"left_out": HOSTILE}}, id="failures"),
    ],
)
def test_a_name_of_the_feed_is_never_markdown(told):
    text = card(facts(**told))

    assert "evil.example" in text
    without_escaped = re.sub(r"\\.", "", text)
    for sign in ("![", "](", "<", "`c`", "*d*"):
        assert sign not in without_escaped
    assert text.count("\n#") == card(facts()).count("\n#")


def test_an_id_of_any_length_leaves_the_facts_small():
    long_ids = ["x" * 1_000_000, "b", "c", "y" * 1_000_000]

    assert len(json.dumps(facts(items=long_ids))) < 20_000
