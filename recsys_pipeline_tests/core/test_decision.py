"""What is released, what is refused, and with which words."""

import pytest

from recsys_pipeline.core.decision import Evidence, decide

GOOD = Evidence(
    failed_checks=[],
    broken_promises=[],
    factors_are_finite=True,
    k=10,
    scorer="ALS",
    released_map=0.09,
    popularity_map=0.006,
    popularity_low=-0.09,
    popularity_high=-0.08,
    events=1_000,
    events_of_last=1_100,
)


def decided(must_beat_popularity=True, max_feed_shrink=0.5, **evidence):
    return decide(
        GOOD._replace(**evidence),
        must_beat_popularity=must_beat_popularity,
        max_feed_shrink=max_feed_shrink,
    )


def test_what_nothing_speaks_against_is_released_with_its_reasons():
    decision = decided()

    assert decision.released
    assert decision.reasons_for == [
        "no asset check failed",
        "the tables keep every promise",
        "better than popularity: MAP@10 0.0900 of ALS against 0.0060 of popularity (difference "
        "+0.0840, 95 % interval +0.0800 to +0.0900)",
        "the feedback has 1,000 events, -9.1% against the 1,100 of the last release",
    ]


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (
            {"failed_checks": ["best_model.the_model_recommends (0)"]},
            "check failed: best_model.the_mod",
        ),
        ({"broken_promises": ["2 duplicates"]}, "promise broken: 2 duplicates"),
        ({"factors_are_finite": False}, "the factors hold NaN or infinity"),
        ({"popularity_high": 0.001}, "not better than popularity by more than chance: MAP@10 0.0900"),
        ({"popularity_high": 0.0}, "not better than popularity by more than chance"),
        ({"events": 549}, "the feedback has 549 events, -50.1% against the 1,100 of the last release"),
        ({"held": "releases are held"}, "releases are held"),
    ],
)
def test_each_of_these_alone_is_reason_enough_to_refuse(evidence, reason):
    decision = decided(**evidence)

    assert not decision.released
    (told,) = decision.reasons_against
    assert told.startswith(reason)


def test_a_popularity_that_could_not_be_measured_is_no_popularity_that_is_as_good():
    decision = decided(popularity_map=None, popularity_low=None, popularity_high=None)

    (told,) = decision.reasons_against
    assert told.startswith("popularity could not be measured")


def test_lists_by_the_blend_are_judged_by_the_blend():
    (told,) = [reason for reason in decided(scorer="the blend").reasons_for if "popularity" in reason]

    assert told.startswith("better than popularity: MAP@10 0.0900 of the blend against 0.0060 of popularity")


def test_a_scorer_that_could_not_be_measured_is_not_released():
    (told,) = decided(scorer="the blend", released_map=None, must_beat_popularity=False).reasons_against

    assert (
        told == "the blend could not be measured, so that nothing tells whether it is better than popularity"
    )


def test_everything_that_speaks_against_it_is_told():
    decision = decided(failed_checks=["a", "b"], factors_are_finite=False, events=1)

    assert len(decision.reasons_against) == 4


def test_a_feed_may_shrink_by_the_share_that_is_allowed():
    assert decided(events=550).released
    assert decided(events=110, max_feed_shrink=0.9).released
    assert not decided(events=1_000, max_feed_shrink=0.05).released


def test_the_first_release_has_nothing_to_have_shrunk_from():
    decision = decided(events_of_last=None)

    assert decision.released
    assert decision.reasons_for[-1] == "the feedback has 1,000 events; no release before says how many it had"


def test_a_shop_may_accept_a_model_that_is_no_better_than_popularity():
    decision = decided(must_beat_popularity=False, popularity_high=0.001)

    assert decision.released
    assert any("which is accepted" in reason for reason in decision.reasons_for)
