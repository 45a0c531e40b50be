"""Claims about the events and what they add up to."""

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from dagster import AssetCheckExecutionContext, AssetCheckResult

from recsys_pipeline import settings
from recsys_pipeline.checks.claims import batches, claim, claims, n_not, n_true
from recsys_pipeline.checks.past import WARNS, distance, first_run, past_figures, usual
from recsys_pipeline.core.columns import EVENT, ITEM, STRENGTH, USER
from recsys_pipeline.storage.feedback import Feedback

_COMPLETE = "ids_are_complete"
_KNOWN = "events_are_known"
_VOLUME = "volume_is_as_usual"
_MIX = "event_mix_is_as_usual"
_POSITIVE = "strengths_are_positive_and_finite"
_COUNTS = "events by kind"


@claims(
    "raw_feedback",
    {
        _COMPLETE: "Every event has a user and an item: no id is null or blank.",
        _KNOWN: "Every event is of a kind that has a strength.",
        _VOLUME: "The number of events differs from the median of the last seven runs by no more than "
        "RECSYS_VOLUME_LIMIT.",
        _MIX: "The kinds of events have the shares of the last run, but for RECSYS_EVENT_MIX_LIMIT.",
    },
    inputs=["raw_feedback"],
    blocking=[_COMPLETE, _KNOWN],
)
def claims_of_raw_feedback(
    context: AssetCheckExecutionContext, feedback: Feedback, raw_feedback: ds.Dataset
) -> Iterator[AssetCheckResult]:
    """The events are read once, as a stream."""
    n_rows, without = 0, {USER: 0, ITEM: 0}
    kinds: Counter[str] = Counter()
    for batch in batches(raw_feedback, [USER, ITEM, EVENT]):
        n_rows += len(batch)
        for name in without:
            without[name] += _n_blank(batch[name])
        for each in pc.value_counts(batch[EVENT]).to_pylist():
            kinds[str(each["values"])] += each["counts"]
    yield claim(
        _COMPLETE,
        n_rows > 0 and not any(without.values()),
        f"{n_rows:,} events: {without[USER]:,} without a user, {without[ITEM]:,} without an item.",
        metadata={"events without a user": without[USER], "events without an item": without[ITEM]},
    )
    unknown = {kind: count for kind, count in kinds.items() if kind not in feedback.strengths}
    told = ", ".join(f"{kind} {count:,}" for kind, count in sorted(unknown.items())) or "none"
    yield claim(
        _KNOWN,
        not unknown,
        f"{n_rows:,} events of {len(kinds)} kinds; of a kind without strength: {told}.",
        metadata={"events of unknown kinds": sum(unknown.values())},
    )
    yield _volume(context, n_rows)
    yield _mix(context, kinds)


def _volume(context: AssetCheckExecutionContext, n_rows: int) -> AssetCheckResult:
    past = [float(said["Events"]) for said in past_figures(context, "raw_feedback", _VOLUME)]
    before = usual(past)
    noted = {"Events": n_rows}
    if not before:
        return claim(_VOLUME, True, first_run(f"{n_rows:,} events"), metadata=noted)
    change = n_rows / before - 1
    return claim(
        _VOLUME,
        abs(change) <= settings.VOLUME_LIMIT,
        f"{n_rows:,} events, {change:+.1%} against {before:,.0f}, the median of the last {len(past)} "
        f"runs; the limit is {settings.VOLUME_LIMIT:.0%}.",
        warns=WARNS,
        metadata={**noted, "change": change},
    )


def _mix(context: AssetCheckExecutionContext, kinds: Counter[str]) -> AssetCheckResult:
    past = past_figures(context, "raw_feedback", _MIX)
    noted = {_COUNTS: dict(kinds)}
    total = kinds.total() or 1
    told = ", ".join(f"{kind} {count / total:.1%}" for kind, count in kinds.most_common(8))
    if not past:
        return claim(_MIX, True, first_run(told or "no events"), metadata=noted)
    before = past[-1][_COUNTS]
    moved = distance(kinds, before)
    total_before = sum(before.values()) or 1
    was = ", ".join(f"{kind} {before.get(kind, 0) / total_before:.1%}" for kind, _ in kinds.most_common(8))
    return claim(
        _MIX,
        moved <= settings.EVENT_MIX_LIMIT,
        f"{told}; in the last run {was}: {moved:.1%} of the events changed their kind, and the limit is "
        f"{settings.EVENT_MIX_LIMIT:.0%}.",
        warns=WARNS,
        metadata={**noted, "share of changed kind": moved},
    )


def _n_blank(ids: pa.Array) -> int:
    """Ids that are null or, of text, nothing but white space."""
    n_null: int = ids.null_count
    if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        return n_null
    return n_null + n_true(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(ids)), 0))


@claims(
    "feedback_strengths",
    {
        _POSITIVE: "Every interaction has a strength above 0, which is finite.",
    },
    inputs=["feedback_strengths"],
    blocking=[_POSITIVE],
)
def claims_of_feedback_strengths(feedback_strengths: ds.Dataset) -> Iterator[AssetCheckResult]:
    """One column is read, as a stream."""
    n_rows, n_bad = 0, 0
    for batch in batches(feedback_strengths, [STRENGTH]):
        strengths = batch[STRENGTH]
        n_rows += len(strengths)
        n_bad += n_not(pc.and_(pc.greater(strengths, 0), pc.is_finite(strengths)))
    yield claim(
        _POSITIVE,
        n_rows > 0 and n_bad == 0,
        f"{n_rows:,} interactions, {n_bad:,} of them with a strength that is not above 0 or not finite.",
        metadata={"strengths at fault": n_bad},
    )
