"""From raw events to one strength per interaction."""

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from numpy.typing import NDArray
from pydantic import Field

from recsys_pipeline import settings
from recsys_pipeline.assets.grid_config import MEMORY_LIMIT
from recsys_pipeline.core.columns import ITEM, STRENGTH, USER
from recsys_pipeline.core.lineage import ancestors_of, with_ancestors
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.strengths import Aggregate, EventRules
from recsys_pipeline.engines.local.aggregation import interaction_strengths
from recsys_pipeline.engines.local.memory import memory_limit, told
from recsys_pipeline.reporting.metadata import (
    counts_table,
    distribution_table,
    markdown_table,
    rounded,
    shape_metadata,
)
from recsys_pipeline.steps import asset_step
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.ingest import ingest
from recsys_pipeline.storage.io_manager import table_metadata
from recsys_pipeline.storage.warehouse import Warehouse


@asset(kinds={"parquet", "pyarrow"})
@asset_step
def raw_feedback(
    context: AssetExecutionContext, feedback: Feedback, warehouse: Warehouse
) -> MaterializeResult[None]:
    """The events as they came, typed and validated, one row an event.

    Rows that are no events (a blank id, an unknown event, a line that does not parse) are kept with file,
    line and reason in `rejected_feedback.parquet`; too many of them fail the run and leave this table as
    it was.
    """
    report = ingest(feedback, warehouse, accepted="raw_feedback", rejected="rejected_feedback")
    assert report.schema is not None
    for remark in report.remarks:
        context.log.warning(remark)
    if report.skipped:
        context.log.warning(
            f"{feedback.path}: {len(report.skipped):,} entries are not read: they are no files but folders "
            f"or links that lead nowhere: {', '.join(report.skipped[:5])}"
        )
    context.log.info(
        f"{report.n_accepted:,} events; rows rejected: {report.n_rejected:,}, ignored: {report.n_ignored:,}; "
        f"files: {len(report.files):,}"
    )
    forgotten = report.forgotten or {}
    if forgotten:
        context.log.info(
            f"forgotten: {forgotten['events']:,} events of {forgotten['users']:,} users; of the "
            f"{forgotten['listed']:,} ids in {feedback.forget_users} the feed does not have "
            f"{forgotten['not in the feed']:,}"
        )
    return MaterializeResult(
        metadata={
            **table_metadata(report.schema, report.n_accepted, warehouse.path_of("raw_feedback")),
            "source": feedback.path,
            "files": len(report.files),
            **{f"forgotten: {what}": count for what, count in forgotten.items()},
            "rejected": report.n_rejected,
            "rejected_share": rounded(report.rejected_share),
            "ignored": report.n_ignored,
            "empty_lines": report.n_empty,
            "events": counts_table("event", report.events),
            "reasons_of_rejection": counts_table("reason", report.reasons),
        }
    )


class StrengthsConfig(Config):
    """How the events of one interaction become its strength."""

    aggregate: Aggregate = Field(
        default=Aggregate.sum,
        description="`sum` of the strengths of an interaction's events, or their `max`.",
    )
    memory_limit: float = Field(default=settings.MEMORY_LIMIT, ge=0, description=MEMORY_LIMIT)


@asset(kinds={"parquet", "duckdb"})
@asset_step
def feedback_strengths(
    context: AssetExecutionContext,
    config: StrengthsConfig,
    raw_feedback: ds.Dataset,
    feedback: Feedback,
    warehouse: Warehouse,
) -> MaterializeResult[None]:
    """One row an interaction of a user and an item: the summed strength of its events, the latest time.

    It is made as a stream: what does not fit into memory_limit is kept in temporary files (TMPDIR).
    """
    rules = EventRules(
        feedback.strengths,
        config.aggregate,
        feedback.target_events or list(feedback.strengths),
        feedback.seen_events or list(feedback.strengths),
    )
    limit = memory_limit(config.memory_limit)
    context.log.info(f"memory limit {told(limit)}")
    table = with_metadata(interaction_strengths(raw_feedback, *rules, most_bytes=limit), rules.to_metadata())
    warehouse.write_batches("feedback_strengths", with_ancestors(table, ancestors_of([raw_feedback])))
    written = warehouse.open_table("feedback_strengths")
    n_interactions = written.count_rows()
    per_user, per_item = (_rows_per_id(written, name) for name in (USER, ITEM))
    return MaterializeResult(
        metadata={
            **table_metadata(written.schema, n_interactions, warehouse.path_of("feedback_strengths")),
            **shape_metadata(len(per_user), len(per_item), n_interactions),
            "strengths": markdown_table(
                ["event", "strength", "may be held out", "excludes the item"],
                [
                    [event, strength, event in rules.target_events, event in rules.seen_events]
                    for event, strength in rules.strengths.items()
                ],
            ),
            "distributions": distribution_table(
                {
                    "interactions per user": per_user,
                    "interactions per item": per_item,
                    "strength of an interaction": written.to_table([STRENGTH])[STRENGTH].to_numpy(),
                }
            ),
        },
    )


def _rows_per_id(table: ds.Dataset, name: str) -> NDArray[np.int64]:
    counted: NDArray[np.int64] = pc.value_counts(table.to_table([name])[name]).field("counts").to_numpy()
    return counted
