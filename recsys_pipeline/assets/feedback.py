"""From raw events to one strength per (user, item) pair."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from dagster import Config, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline.assets.pairs import EventRules
from recsys_pipeline.core.columns import ITEM, STRENGTH, USER
from recsys_pipeline.core.strengths import Aggregate, pair_strengths
from recsys_pipeline.failures import sorted_failures
from recsys_pipeline.reporting.metadata import (
    counts_table,
    distribution_table,
    markdown_table,
    rounded,
    shape_metadata,
    table_metadata,
)
from recsys_pipeline.storage.feedback import Feedback, ingest
from recsys_pipeline.storage.tables import with_notes
from recsys_pipeline.storage.warehouse import Warehouse


@asset(kinds={"parquet", "pyarrow"})
@sorted_failures()
def raw_feedback(feedback: Feedback, warehouse: Warehouse) -> MaterializeResult[None]:
    """The events as they came, typed and validated, one row an event.

    Rows that are no events (a blank id, an unknown event, a line that does not parse) are kept with file,
    line and reason in `rejected_feedback.parquet`; too many of them fail the run and leave this table as
    it was.
    """
    report = ingest(feedback, warehouse, accepted="raw_feedback", rejected="rejected_feedback")
    assert report.schema is not None
    return MaterializeResult(
        metadata={
            **table_metadata(report.schema, report.n_accepted, warehouse.table_path("raw_feedback")),
            "source": feedback.path,
            "files": len(report.files),
            "rejected": report.n_rejected,
            "rejected_share": rounded(report.rejected_share),
            "ignored": report.n_ignored,
            "empty_lines": report.n_empty,
            "events": counts_table("event", report.events),
            "reasons_of_rejection": counts_table("reason", report.reasons),
        }
    )


class StrengthsConfig(Config):
    """How the events of one pair become its strength."""

    aggregate: Aggregate = Field(
        default=Aggregate.sum,
        description="`sum` of the strengths of a pair's events, or their `max`.",
    )


@asset(kinds={"parquet", "pyarrow"})
@sorted_failures()
def feedback_strengths(
    config: StrengthsConfig, raw_feedback: ds.Dataset, feedback: Feedback
) -> MaterializeResult[pa.Table]:
    """One row a (user, item) pair: the summed strength of its events, and its latest timestamp."""
    pairs = pair_strengths(
        raw_feedback,
        feedback.strengths,
        config.aggregate,
        feedback.target_events,
        feedback.seen_events,
    )
    rules = EventRules(
        feedback.strengths,
        config.aggregate,
        feedback.target_events or list(feedback.strengths),
        feedback.seen_events or list(feedback.strengths),
    )
    per_user = pc.value_counts(pairs[USER]).field("counts").to_numpy()
    per_item = pc.value_counts(pairs[ITEM]).field("counts").to_numpy()
    return MaterializeResult(
        value=with_notes(pairs, rules.to_notes()),
        metadata={
            **shape_metadata(len(per_user), len(per_item), pairs.num_rows),
            "strengths": markdown_table(
                ["event", "strength", "may be held out", "hides the item"],
                [
                    [event, strength, event in rules.target_events, event in rules.seen_events]
                    for event, strength in rules.strengths.items()
                ],
            ),
            "distributions": distribution_table(
                {
                    "pairs per user": per_user,
                    "pairs per item": per_item,
                    "strength of a pair": pairs[STRENGTH].to_numpy(),
                }
            ),
        },
    )
