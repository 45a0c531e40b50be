"""What the UI shows of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from dagster import MarkdownMetadataValue, MetadataValue

from recsys_pipeline.core import columns
from recsys_pipeline.core.beyond_accuracy import BeyondAccuracy
from recsys_pipeline.core.evaluation import (
    ABLATIONS,
    BLEND,
    LEAKING,
    NO_RIVALS,
    TUNED,
    HeldOutRanks,
    Quality,
)
from recsys_pipeline.core.presets import Preset
from recsys_pipeline.reporting.metadata import (
    Metadata,
    fixed,
    interval,
    markdown_table,
    rounded,
    table_lines,
    with_error,
)
from recsys_pipeline.reporting.model import told_further


def models_markdown(models: pa.Table, k: int) -> MarkdownMetadataValue:
    """A row a model, the tuned one first."""
    header = [
        "model",
        f"MAP@{k}",
        "95 % interval",
        "difference to the tuned",
        "seeds",
        "seconds",
        f"NDCG@{k}",
        f"HitRate@{k}",
        f"Recall@{k}",
        "coverage",
        "novelty (bits)",
        "users reached",
    ]
    return markdown_table(
        header,
        [
            [
                row[columns.MODEL],
                with_error(row[columns.MAP], row[columns.MAP_STANDARD_ERROR]),
                f"{row[columns.MAP_LOW]:.4f} to {row[columns.MAP_HIGH]:.4f}",
                interval(row[columns.TO_TUNED_LOW], row[columns.TO_TUNED_HIGH]) if place else "",
                str(row[columns.SEEDS]),
                f"{row[columns.SECONDS]:.1f}",
                fixed(row[columns.NDCG]),
                fixed(row[columns.HIT_RATE]),
                fixed(row[columns.RECALL]),
                *_told_lists(row),
            ]
            for place, row in enumerate(models.to_pylist())
            if row[columns.MODEL] not in ABLATIONS
        ],
    )


def blend_terms_lines(worths: Sequence[Mapping[str, Any]], k: int) -> str:
    """What each group of terms is worth to the blend, of `Worth` as mappings: a row a group."""
    header = ["left out", f"MAP@{k} without it", "what it adds", "95 % interval"]
    return table_lines(
        header,
        [
            [
                each["group"],
                fixed(each["map_without"]),
                f"{each['adds']:+.4f}",
                interval(each["low"], each["high"]),
            ]
            for each in worths
        ],
    )


def _told_lists(row: Mapping[str, Any]) -> list[str]:
    if row[columns.COVERAGE] is None:
        return ["", "", ""]
    return [
        f"{row[columns.COVERAGE]:.1%}",
        f"{row[columns.NOVELTY]:.1f}",
        f"{row[columns.USERS_REACHED]:.1%}",
    ]


def segments_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of the rows of the table: a row a segment, a column a model."""
    models = list(dict.fromkeys(row[columns.MODEL] for row in rows))
    lines: dict[str, list[Any]] = {}
    for row in rows:
        head = [row[columns.SEGMENT_KIND], row[columns.SEGMENT], row[columns.HELD_OUT]]
        line = lines.setdefault(row[columns.SEGMENT], head)
        line.append(with_error(row[columns.MAP], row[columns.MAP_STANDARD_ERROR]))
    return table_lines(["of", "segment", "held-out interactions", *models], list(lines.values()))


def evaluation_metadata(
    quality: Mapping[str, Quality],
    lists: Mapping[str, BeyondAccuracy],
    models: pa.Table,
    segments: pa.Table,
    held_out: HeldOutRanks,
    k: int,
    n_seeds: int,
    protocol: str,
    told_verdict: str,
) -> Metadata:
    """What an evaluation says: the tuned model's figures, the verdict, the comparison."""
    name, tuned = next(iter(quality.items()))
    at_k = f"@{k}"
    return {
        f"MAP{at_k}": rounded(tuned.map),
        f"MAP{at_k} standard error": rounded(tuned.standard_error),
        f"MAP{at_k} low": rounded(tuned.interval.low),
        f"MAP{at_k} high": rounded(tuned.interval.high),
        f"NDCG{at_k}": rounded(tuned.ndcg),
        f"HitRate{at_k}": rounded(tuned.hit_rate),
        f"Recall{at_k}": rounded(tuned.recall),
        "coverage": rounded(lists[name].coverage),
        "novelty": rounded(lists[name].novelty),
        "users_reached": rounded(lists[name].users_reached),
        "users": len(set(held_out.users.tolist())),
        "held_out_interactions": len(held_out.users),
        "seeds": n_seeds,
        "protocol": protocol,
        "verdict": told_verdict,
        "models": models_markdown(models, k),
        "segments": MetadataValue.md(segments_markdown(segments.to_pylist())),
        **_leak(quality),
    }


def verdict(quality: Mapping[str, Quality], further: Preset | None = None) -> str:
    """Is the tuned model worth having, and the blend on top of it?

    Args:
        quality: of each model.
        further: the preset to try where the tuned model does not beat the strongest of the others.
    """
    tuned = quality[TUNED]
    others = {name: each for name, each in quality.items() if name not in (TUNED, BLEND, *NO_RIVALS)}
    name, best = max(others.items(), key=lambda entry: entry[1].map)
    place = "the best of the others" if best.map > tuned.map else "the next best"
    told = f"the tuned model ({fixed(tuned.map)}) is {_compared(best)} {name} ({fixed(best.map)}), {place}"
    if BLEND in quality:
        blend = quality[BLEND]
        told += f", and {_compared(blend)} its blend ({fixed(blend.map)})"
    if best.difference.high >= 0 and further:
        told += f"; {told_further(further)}"
    return told


def _compared(other: Quality) -> str:
    if other.difference.high < 0:
        return "better than"
    return "worse than" if other.difference.low > 0 else "not distinguishable from"


def _leak(quality: Mapping[str, Quality]) -> Metadata:
    """What weights of all interactions add to the figure, with its interval."""
    if LEAKING not in quality:
        return {}
    leaking = quality[LEAKING]
    return {
        "leak_of_weights": rounded(leaking.mean_difference),
        "leak_of_weights_interval": interval(leaking.difference.low, leaking.difference.high),
    }
