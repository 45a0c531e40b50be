"""What the UI shows of the baselines, and how the search compares with them."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from recsys_pipeline.core import columns
from recsys_pipeline.core.baseline_tables import BASELINES_TABLE, Lead
from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.evaluation import EASE, GRAPH_FILTER, ITEM_KNN, POPULARITY, REPEAT_CONSUMPTION
from recsys_pipeline.core.interactions import Tables
from recsys_pipeline.core.presets import Preset
from recsys_pipeline.core.selected import selection_of
from recsys_pipeline.core.selecting import MAP_AT_10, Selection
from recsys_pipeline.reporting.metadata import (
    AT_A_GLANCE,
    Metadata,
    bullets,
    fixed,
    markdown_table,
    rounded,
    told_beside,
    with_error,
)
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
    selection = selection_of(baselines)
    told = told_baseline(Baseline.from_mapping(row))
    return f"the strongest baseline is {told}: {selection.name} {_score(row, selection)}"


def why_no_lead(baselines: Tables, selection: Selection) -> str:
    """Why the best trial of a search that is selected by that is not compared with a baseline."""
    reach = selection_of(baselines[BASELINES_TABLE]).reach
    if reach >= selection.k:
        return "no baseline was measured to compare the best trial with"
    return (
        f"the best trial is not compared with the baselines: their ranks are known up to {reach}, and "
        f"{selection.name} needs {selection.k}; give `baselines` the k of the search and materialize both"
    )


def told_lead(lead: Lead, further: Preset | None = None) -> str:
    """How the best trial compares with the strongest baseline on the pairs of the search, in a sentence.

    Args:
        lead: of the trial.
        further: the preset to try where the trial does not lead.
    """
    by = lead.selection.name
    sample = f" on {lead.n_compared:,} of the held-out interactions" if lead.n_compared else ""
    tuned = "" if lead.tuned_by == lead.selection else f", tuned by {lead.tuned_by.name}"
    figure = f"{by} {fixed(lead.figure)}{sample}{tuned}"
    beaten = f"{told_baseline(lead.baseline)}, the strongest baseline ({figure})"
    (low, high), mean = lead.difference.interval, lead.difference.mean
    if lead.is_significant:
        return f"the best trial is better than {beaten} by {fixed(mean)}, 95 % {fixed(low)} to {fixed(high)}"
    return (
        f"the best trial is not better than {beaten}: the difference is {mean:+.4f}, "
        f"95 % {low:+.4f} to {high:+.4f}{f'; {told_further(further)}' if further else ''}"
    )


def told_lead_in_short(lead: Lead) -> str:
    """The same in a few words."""
    low, high = lead.difference.interval
    other = NAMES[lead.baseline.family]
    return told_beside(other, lead.difference.mean, low, high, "the strongest baseline")


def baselines_metadata(baselines: pa.Table) -> Metadata:
    """The strongest, the best of each family, and what was tried."""
    rows = baselines.to_pylist()
    measured = [row for row in rows if row[columns.MAP_AT_10] is not None]
    selection = selection_of(baselines)
    strongest = {
        f"{each.name} of the strongest": rounded(measured[0][each.column])
        for each in dict.fromkeys([MAP_AT_10, selection])
        if measured
    }
    not_measured = [
        f"{NAMES[Family(row[columns.FAMILY])]}: {row[columns.FAILURE]}"
        for row in rows
        if row[columns.FAILURE]
    ]
    return {
        AT_A_GLANCE: told_strongest(baselines),
        **strongest,
        "Configurations": len(measured),
        "best of each family": _table([row for row in measured if row[columns.CHOSEN]], selection),
        "best configurations": _table(measured[:_SHOWN], selection),
        **({"not measured": bullets(not_measured)} if not_measured else {}),
    }


def _table(rows: list[dict[str, Any]], selection: Selection) -> Any:
    # What selects stands first, and MAP@10 always.
    compared = list(dict.fromkeys([selection, MAP_AT_10]))
    names = [each.name for each in compared]
    header = ["baseline", *names, "NDCG@10", "HitRate@10", "Recall@10", "seconds"]
    return markdown_table(
        header,
        [
            [
                told_baseline(Baseline.from_mapping(row)),
                *(_score(row, each) for each in compared),
                fixed(row[columns.NDCG_AT_10]),
                fixed(row[columns.HIT_RATE_AT_10]),
                fixed(row[columns.RECALL_AT_10]),
                f"{row[columns.SECONDS]:.1f}",
            ]
            for row in rows
        ],
    )


def _score(row: Mapping[str, Any], selection: Selection) -> str:
    return with_error(row[selection.column], row[selection.error_column])
