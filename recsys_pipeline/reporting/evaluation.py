"""What the UI shows of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from dagster import MarkdownMetadataValue

from recsys_pipeline.core import columns
from recsys_pipeline.core.beyond_accuracy import BeyondAccuracy
from recsys_pipeline.core.evaluation import (
    ABLATIONS,
    BLEND,
    LEAKING,
    NO_RIVALS,
    POPULARITY,
    TUNED,
    HeldOutRanks,
    Quality,
    share_out_of_reach,
)
from recsys_pipeline.core.presets import Preset
from recsys_pipeline.reporting.metadata import (
    AT_A_GLANCE,
    OUT_OF_REACH,
    Metadata,
    fixed,
    interval,
    markdown_table,
    percent,
    rounded,
    table_lines,
    told_beside,
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
    return table_lines(*_blend_terms(worths, k))


def blend_terms_table(worths: Sequence[Mapping[str, Any]], k: int) -> MarkdownMetadataValue:
    """The same for the UI."""
    return markdown_table(*_blend_terms(worths, k))


def _blend_terms(worths: Sequence[Mapping[str, Any]], k: int) -> tuple[list[str], list[list[Any]]]:
    header = ["left out", f"MAP@{k} without it", "what it adds", "95 % interval"]
    rows = [
        [
            each["group"],
            fixed(each["map_without"]),
            f"{each['adds']:+.4f}",
            interval(each["low"], each["high"]),
        ]
        for each in worths
    ]
    return header, rows


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
    return table_lines(*_segments(rows))


def segments_table(rows: Sequence[Mapping[str, Any]]) -> MarkdownMetadataValue:
    """The same for the UI."""
    return markdown_table(*_segments(rows))


def _segments(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    models = list(dict.fromkeys(row[columns.MODEL] for row in rows))
    lines: dict[str, list[Any]] = {}
    for row in rows:
        head = [row[columns.SEGMENT_KIND], row[columns.SEGMENT], row[columns.HELD_OUT]]
        line = lines.setdefault(row[columns.SEGMENT], head)
        line.append(with_error(row[columns.MAP], row[columns.MAP_STANDARD_ERROR]))
    return ["of", "segment", "held-out interactions", *models], list(lines.values())


def evaluation_metadata(
    quality: Mapping[str, Quality],
    lists: Mapping[str, BeyondAccuracy],
    models: pa.Table,
    segments: pa.Table,
    held_out: HeldOutRanks,
    k: int,
    at_the_ends: str = "",
) -> Metadata:
    """What an evaluation says: what matters, the tuned model's figures, the comparison.

    Args:
        quality: of each model, the tuned one first.
        lists: what else is known of the lists of a model.
        models: the table of the models.
        segments: the table of the segments.
        held_out: what was ranked.
        k: length of the lists.
        at_the_ends: on how many dimensions the search came to the end of its list, in a few words.
    """
    name, tuned = next(iter(quality.items()))
    at_k = f"@{k}"
    out_of_reach = share_out_of_reach(held_out)
    return {
        AT_A_GLANCE: "; ".join(filter(None, [told_in_short(quality, k), at_the_ends])),
        f"MAP{at_k} (unseen)": rounded(tuned.map),
        f"NDCG{at_k}": rounded(tuned.ndcg),
        f"HitRate{at_k}": rounded(tuned.hit_rate),
        f"Recall{at_k}": rounded(tuned.recall),
        "Coverage": rounded(lists[name].coverage),
        OUT_OF_REACH: rounded(out_of_reach),
        "Held-out interactions": len(held_out.users),
        "Users": len(set(held_out.users.tolist())),
        "models": models_markdown(models, k),
        "segments": segments_table(segments.to_pylist()),
        "out of reach": f"{percent(out_of_reach)} of the held-out interactions: nobody has the item in "
        "training, or the user has nothing there; no model can rank them by what it has learned",
        **_leak(quality),
    }


def told_in_short(quality: Mapping[str, Quality], k: int) -> str:
    """How good the tuned model is beside the best of the others and beside popularity, in a few words."""
    tuned, others = quality[TUNED], _rivals(quality)
    (low, high), seeds = tuned.interval, "1 seed" if tuned.seeds == 1 else f"{tuned.seeds} seeds"
    told = [f"MAP@{k} {fixed(tuned.map)} ({fixed(low)} to {fixed(high)}) on unseen data, {seeds}"]
    strongest = max(others, key=lambda name: others[name].mean_difference)
    place = "the best of the others" if others[strongest].mean_difference > 0 else "the next best"
    for name in dict.fromkeys([strongest, POPULARITY]):
        if name in others:
            other, place_of = others[name], place if name == strongest else ""
            on = "" if other.seeds == tuned.seeds else f"on {_of_seeds(other, tuned)}"
            who_is = ", ".join(filter(None, [place_of, on]))
            low, high = other.difference
            told.append(told_beside(name, -other.mean_difference, -high, -low, who_is))
    return "; ".join(told)


def _rivals(quality: Mapping[str, Quality]) -> dict[str, Quality]:
    return {name: each for name, each in quality.items() if name not in (TUNED, BLEND, *NO_RIVALS)}


def _of_seeds(other: Quality, tuned: Quality) -> str:
    return f"{other.seeds} of {tuned.seeds} seeds"


def verdict(quality: Mapping[str, Quality], further: Preset | None = None) -> str:
    """Is the tuned model worth having, and the blend on top of it?

    Args:
        quality: of each model.
        further: the preset to try where the tuned model does not beat the strongest of the others.
    """
    tuned = quality[TUNED]
    # By the difference, for that is of the seeds that both were measured on.
    name, best = max(_rivals(quality).items(), key=lambda entry: entry[1].mean_difference)
    place = "the best of the others" if best.mean_difference > 0 else "the next best"
    told = (
        f"the tuned model ({fixed(tuned.map)}) is {_compared(best)} {name} ({_figure(best, tuned)}), {place}"
    )
    if BLEND in quality:
        blend = quality[BLEND]
        told += f", and {_compared(blend)} its blend ({_figure(blend, tuned)})"
    if best.difference.high >= 0 and further:
        told += f"; {told_further(further)}"
    return told


def _figure(other: Quality, tuned: Quality) -> str:
    """Of another model; where it is a mean over fewer seeds, with the tuned model's over the same ones."""
    if other.seeds == tuned.seeds:
        return fixed(other.map)
    on_these = fixed(other.map - other.mean_difference)
    return f"{fixed(other.map)} on {_of_seeds(other, tuned)}, on which the tuned model has {on_these}"


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
        "leak of weights": "weights of all interactions would change MAP by "
        f"{leaking.mean_difference:+.4f}, 95 % "
        f"{interval(leaking.difference.low, leaking.difference.high)}",
    }
