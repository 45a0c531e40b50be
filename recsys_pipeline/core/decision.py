"""Whether what was made tonight deserves to be what readers get."""

from collections.abc import Sequence
from typing import NamedTuple


class Evidence(NamedTuple):
    """What speaks for and against a release.

    Attributes:
        failed_checks: what the asset checks of this run say that failed, or did not come to an end.
        broken_promises: what is wrong in the tables as they were written.
        factors_are_finite: whether no factor is NaN or infinite.
        k: length of the evaluated lists.
        scorer: of the lists that are to be released, for people.
        released_map: mean average precision of that scorer on data that the search never scored; None where
            it could not be measured.
        popularity_map: that of the most popular items, on the same data; None, as the two ends, where it
            could not be measured.
        popularity_low: 95 % interval of popularity's minus the released scorer's: its lower end.
        popularity_high: its upper end.
        events: in the feedback.
        events_of_last: in that of the last release; None for the first.
        held: why nothing is to be released now; empty for no hold.
    """

    failed_checks: Sequence[str]
    broken_promises: Sequence[str]
    factors_are_finite: bool
    k: int
    scorer: str
    released_map: float | None
    popularity_map: float | None
    popularity_low: float | None
    popularity_high: float | None
    events: int
    events_of_last: int | None
    held: str = ""


class Decision(NamedTuple):
    """What was decided, and why.

    Attributes:
        reasons_for: what was looked at and is as it should be.
        reasons_against: what is not; empty for a release.
        against_popularity: how the model compares with popularity, with the figures.
    """

    reasons_for: list[str]
    reasons_against: list[str]
    against_popularity: str = ""

    @property
    def released(self) -> bool:
        """Whether readers get it."""
        return not self.reasons_against


def decide(evidence: Evidence, *, must_beat_popularity: bool, max_feed_shrink: float) -> Decision:
    """Release, unless something speaks against it.

    Args:
        evidence: what is known.
        must_beat_popularity: refuse a model that is not better than popularity by more than chance.
        max_feed_shrink: refuse if more than this share of the last release's events is missing.
    """
    good: list[str] = []
    bad: list[str] = []
    bad += [evidence.held] if evidence.held else []
    bad += [f"check failed: {told}" for told in evidence.failed_checks]
    bad += [f"promise broken: {told}" for told in evidence.broken_promises]
    if not evidence.failed_checks:
        good.append("no asset check failed")
    if not evidence.broken_promises:
        good.append("the tables keep every promise")
    if not evidence.factors_are_finite:
        bad.append("the factors hold NaN or infinity")

    is_better, told = against_popularity = _against_popularity(evidence)
    if is_better:
        good.append(f"better than popularity: {told}")
    elif is_better is None:
        bad.append(told)
    elif must_beat_popularity:
        bad.append(f"not better than popularity by more than chance: {told}")
    else:
        good.append(f"not better than popularity by more than chance, which is accepted: {told}")

    if evidence.events_of_last is None:
        good.append(f"the feedback has {evidence.events:,} events; no release before says how many it had")
    else:
        change = evidence.events / max(evidence.events_of_last, 1) - 1
        told = (
            f"the feedback has {evidence.events:,} events, {change:+.1%} against the "
            f"{evidence.events_of_last:,} of the last release"
        )
        if change < -max_feed_shrink:
            bad.append(f"{told}; max_feed_shrink allows {-max_feed_shrink:+.0%}")
        else:
            good.append(told)
    return Decision(good, bad, against_popularity[1])


def _against_popularity(evidence: Evidence) -> tuple[bool | None, str]:
    """Whether the model is better by more than chance, and the figures; None where nobody can tell."""
    released, popularity = evidence.released_map, evidence.popularity_map
    low, high = evidence.popularity_low, evidence.popularity_high
    if released is None:
        return None, (
            f"{evidence.scorer} could not be measured, so that nothing tells whether it is better than "
            "popularity"
        )
    if popularity is None or low is None or high is None:
        return None, "popularity could not be measured, so that nothing tells whether the model is better"
    # The interval is popularity minus the model; people ask for the model minus popularity.
    told = (
        f"MAP@{evidence.k} {released:.4f} of {evidence.scorer} against {popularity:.4f} of popularity "
        f"(difference {released - popularity:+.4f}, 95 % interval {-high:+.4f} to {-low:+.4f})"
    )
    return -high > 0, told
