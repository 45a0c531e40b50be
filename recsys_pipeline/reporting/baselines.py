"""What the UI shows of the baselines, and how the search compares with them."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from recsys_pipeline.core import columns
from recsys_pipeline.core.baseline_tables import Lead
from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.evaluation import EASE, GRAPH_FILTER, ITEM_KNN, POPULARITY, REPEAT_CONSUMPTION
from recsys_pipeline.core.presets import Preset
from recsys_pipeline.reporting.metadata import Metadata, fixed, markdown_table, rounded, with_error
from recsys_pipeline.reporting.model import told_further

NAMES: Mapping[Family, str] = {
    Family.item_knn: ITEM_KNN,
    Family.graph_filter: GRAPH_FILTER,
    Family.ease: EASE,
    Family.popularity: POPULARITY,
    Family.repeat_consumption: REPEAT_CONSUMPTION,
}
_SHOWN = 10


def told_baseline(baseline: Baseline) -> str:
    """Its name, and its parameters in brackets."""
    parameters = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in baseline.told().items()
    )
    return f"{NAMES[baseline.family]}{f' ({parameters})' if parameters else ''}"


def told_strongest(baselines: pa.Table) -> str:
    """Which baseline is the strongest, in a sentence."""
    row = baselines.slice(0, 1).to_pylist()[0]
    if row[columns.MAP_AT_10] is None:
        return "no baseline could be measured"
    return f"the strongest baseline is {told_baseline(Baseline.from_mapping(row))}: MAP@10 {_score(row)}"


def told_lead(lead: Lead | None, further: Preset | None) -> str:
    """How the best trial compares with the strongest baseline on the pairs of the search, in a sentence.

    Args:
        lead: of the trial; None where no baseline was measured.
        further: the preset to try where the trial does not lead.
    """
    if lead is None:
        return "no baseline was measured to compare the best trial with"
    sample = f" on {lead.n_compared:,} of the held-out interactions" if lead.n_compared else ""
    figure = f"MAP@10 {fixed(lead.baseline_map)}{sample}"
    beaten = f"{told_baseline(lead.baseline)}, the strongest baseline ({figure})"
    (low, high), mean = lead.difference.interval, lead.difference.mean
    if lead.is_significant:
        return f"the best trial is better than {beaten} by {fixed(mean)}, 95 % {fixed(low)} to {fixed(high)}"
    return (
        f"the best trial is not better than {beaten}: the difference is {mean:+.4f}, "
        f"95 % {low:+.4f} to {high:+.4f}{f'; {told_further(further)}' if further else ''}"
    )


def baselines_metadata(baselines: pa.Table) -> Metadata:
    """The strongest, the best of each family, and what was tried."""
    rows = baselines.to_pylist()
    measured = [row for row in rows if row[columns.MAP_AT_10] is not None]
    strongest = {columns.MAP_AT_10: rounded(measured[0][columns.MAP_AT_10])} if measured else {}
    return {
        **strongest,
        "strongest": told_strongest(baselines),
        "configurations": len(measured),
        "not_measured": "; ".join(
            f"{NAMES[Family(row[columns.FAMILY])]}: {row[columns.FAILURE]}"
            for row in rows
            if row[columns.FAILURE]
        )
        or "nothing",
        "best_of_each_family": _table([row for row in measured if row[columns.CHOSEN]]),
        "best_configurations": _table(measured[:_SHOWN]),
    }


def _table(rows: list[dict[str, Any]]) -> Any:
    header = ["baseline", columns.MAP_AT_10, "NDCG@10", "HitRate@10", "Recall@10", "seconds"]
    return markdown_table(
        header,
        [
            [
                told_baseline(Baseline.from_mapping(row)),
                _score(row),
                fixed(row[columns.NDCG_AT_10]),
                fixed(row[columns.HIT_RATE_AT_10]),
                fixed(row[columns.RECALL_AT_10]),
                f"{row[columns.SECONDS]:.1f}",
            ]
            for row in rows
        ],
    )


def _score(row: Mapping[str, Any]) -> str:
    return with_error(row[columns.MAP_AT_10], row[columns.MAP_AT_10_STANDARD_ERROR])
