"""How good the model is beside others, and for whom."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from recsys_pipeline.core import columns
from recsys_pipeline.core.evaluation import BLEND, NO_RIVALS, POPULARITY, TUNED
from recsys_pipeline.reporting.pictures import style
from recsys_pipeline.reporting.pictures.style import Sheet

_MOST_SERIES = 4
_MARKERS = ("o", "s", "D", "^")


def models(table: pa.Table, k: int) -> Sheet:
    """The metric of each model with its interval, the best on top; what shows an effect is no rival.

    Args:
        table: `models` of the evaluation.
        k: length of the lists.
    """
    rows = [row for row in table.to_pylist() if row[columns.MODEL] not in NO_RIVALS]
    rows.sort(key=lambda row: (-row[columns.MAP], row[columns.MODEL]))
    with style.sheet("models", _told_models(rows, k), 0.75 + 0.3 * len(rows)) as drawn:
        axes = drawn.figure.subplots()
        for place, row in enumerate(rows):
            is_ours = row[columns.MODEL] in (TUNED, BLEND)
            low, middle, high = row[columns.MAP_LOW], row[columns.MAP], row[columns.MAP_HIGH]
            colour = style.ACCENT if is_ours else style.MUTED
            axes.errorbar(
                [middle], [place], xerr=style.whiskers([low], [middle], [high]), fmt="o", color=colour,
                markersize=6, elinewidth=2, capsize=0,
            )  # fmt: skip
            axes.annotate(
                f"{middle:.4f}  ({low:.4f} to {high:.4f})", (high, place), (8, 0), va="center",
                textcoords="offset points", fontweight="bold" if row[columns.MODEL] == TUNED else "normal",
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [row[columns.MODEL] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 1.38 * max(row[columns.MAP_HIGH] for row in rows) or 1)
        axes.set_xlabel(f"MAP@{k} on held-out interactions that no search saw, with 95 % interval")
        style.grid(axes, "x")
        axes.tick_params(axis="y", length=0)
    return drawn


def _told_models(rows: Sequence[Mapping[str, Any]], k: int) -> str:
    tuned = next(row for row in rows if row[columns.MODEL] == TUNED)
    others = [row for row in rows if row[columns.MODEL] not in (TUNED, BLEND)]
    if not others:
        return f"{TUNED}: MAP@{k} {tuned[columns.MAP]:.4f}"
    best = others[0]
    # Of the other minus this model.
    low, high = best[columns.TO_TUNED_LOW], best[columns.TO_TUNED_HIGH]
    by = abs(tuned[columns.MAP] - best[columns.MAP])
    if high < 0:
        compared = f"beats {best[columns.MODEL]}, the best of the others, by {by:.4f}"
    elif low > 0:
        compared = f"is below {best[columns.MODEL]} by {by:.4f}"
    else:
        compared = f"cannot be told from {best[columns.MODEL]} ({best[columns.MAP]:.4f})"
    return f"{TUNED}: MAP@{k} {tuned[columns.MAP]:.4f}; it {compared}"


def segments(table: pa.Table, k: int) -> Sheet | None:
    """The metric in each segment of users and of items, of this model and of few others.

    Args:
        table: `segments` of the evaluation.
        k: length of the lists.
    """
    rows = table.to_pylist()
    ours = [row for row in rows if row[columns.MODEL] == TUNED]
    if not ours:
        return None
    kinds = list(dict.fromkeys(row[columns.SEGMENT_KIND] for row in ours))
    of_kind = {kind: [row for row in ours if row[columns.SEGMENT_KIND] == kind] for kind in kinds}
    shown = _shown_models(rows)
    best = max(ours, key=lambda row: row[columns.MAP])
    worst = min(ours, key=lambda row: row[columns.MAP])
    title = (
        f"MAP@{k} of {TUNED}: highest, {best[columns.MAP]:.4f}, for {_told_segment(best)}; lowest, "
        f"{worst[columns.MAP]:.4f}, for {_told_segment(worst)}"
    )
    widths = [len(each) for each in of_kind.values()]
    with style.sheet("segments", title, 3.3) as drawn:
        panels = drawn.figure.subplots(
            1, len(kinds), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths}
        )[0]
        by_key = {(row[columns.SEGMENT], row[columns.MODEL]): row for row in rows}
        for axes, (kind, of_ours) in zip(panels, of_kind.items(), strict=True):
            for number, model in enumerate(shown):
                found = [
                    (place, by_key[row[columns.SEGMENT], model])
                    for place, row in enumerate(of_ours)
                    if (row[columns.SEGMENT], model) in by_key
                ]
                aside = 0.16 * (number - (len(shown) - 1) / 2)
                figures = [row[columns.MAP] for _, row in found]
                errors = [style.Z * (row[columns.MAP_STANDARD_ERROR] or 0) for _, row in found]
                # Below 0 there is nothing.
                low = [max(0.0, each - error) for each, error in zip(figures, errors, strict=True)]
                high = [each + error for each, error in zip(figures, errors, strict=True)]
                axes.errorbar(
                    [place + aside for place, _ in found], figures, yerr=style.whiskers(low, figures, high),
                    fmt=_MARKERS[number], color=style.SERIES[number], markersize=5.5, elinewidth=1.6,
                    label=model, clip_on=False,
                )  # fmt: skip
            labels = [
                f"{_in_lines(row[columns.SEGMENT])}\n{row[columns.HELD_OUT]:,} held out" for row in of_ours
            ]
            axes.set_xticks(range(len(of_ours)), labels)
            axes.set_xlim(-0.5, len(of_ours) - 0.5)
            axes.set_title(f"{kind}s")
            style.grid(axes, "y")
            axes.tick_params(axis="x", length=0)
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel(f"MAP@{k}, 95 % interval")
        handles, names = panels[0].get_legend_handles_labels()
        drawn.figure.legend(handles, names, loc="outside lower center", ncols=len(shown))
    return drawn


def _in_lines(segment: str) -> str:
    """What is in brackets on lines of its own."""
    return "\n".join(textwrap.fill(part, 24) for part in segment.replace(" (", "\n(").split("\n"))


def _told_segment(row: Mapping[str, Any]) -> str:
    kind, segment = row[columns.SEGMENT_KIND], row[columns.SEGMENT]
    return f"users with {segment}" if kind == "user" else f"{kind}s of the {segment}"


def _shown_models(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """This model, its blend, the best of the others and popularity, as far as they are there."""
    means: dict[str, list[float]] = {}
    for row in rows:
        means.setdefault(row[columns.MODEL], []).append(row[columns.MAP])
    by_mean = sorted(means, key=lambda name: (-sum(means[name]) / len(means[name]), name))
    first = [name for name in (TUNED, BLEND) if name in means]
    last = [POPULARITY] if POPULARITY in means else []
    others = [name for name in by_mean if name not in {*first, *last}]
    return [*first, *others[: _MOST_SERIES - len(first) - len(last)], *last]
