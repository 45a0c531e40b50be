"""What a search found: what each hyperparameter is worth, and how sure the order of the trials is."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recsys_pipeline.core import columns
from recsys_pipeline.core.hyperparameters import DIMENSIONS, varying
from recsys_pipeline.core.selected import selection_of
from recsys_pipeline.core.selecting import Selection
from recsys_pipeline.reporting.pictures import style
from recsys_pipeline.reporting.pictures.style import Sheet, counted, name_of, number

Row = Mapping[str, Any]

_MOST_VALUES = 8
_MOST_PANELS = 8
_PANELS_A_LINE = 4
_MOST_TRIALS = 15
_LOGARITHMIC = {dimension.name: dimension.logarithmic for dimension in DIMENSIONS}


class _Values(NamedTuple):
    """The values of a hyperparameter, or ranges of them where there are many.

    Attributes:
        name: of the hyperparameter.
        labels: of each value, in order.
        rows: by value, the trials that have it, the best first.
        weight: share of the variance of the metric that the values explain.
    """

    name: str
    labels: list[str]
    rows: list[list[Row]]
    weight: float

    @property
    def told_best(self) -> str:
        """The value of the best trial."""
        return self.labels[self.place_of_best]

    @property
    def place_of_best(self) -> int:
        """Place of the value of the best trial."""
        return int(np.argmax([rows[0]["figure"] for rows in self.rows]))


def hyperparameters(table: pa.Table) -> Sheet | None:
    """A panel a hyperparameter that varies, the one that matters most first.

    Of each value the best trial with its interval, and faintly all others.

    Args:
        table: `grid_search_results`.
    """
    scored, selection = _scored(table), selection_of(table)
    if not scored:
        return None
    dimensions = _dimensions(scored)[:_MOST_PANELS]
    lines = math.ceil(len(dimensions) / _PANELS_A_LINE)
    low, high = _window([rows[0] for each in dimensions for rows in each.rows], scored)
    below = sum(row["figure"] < low for row in scored)
    title = _told_dimensions(dimensions, scored, selection)
    if below:
        title += f"; {counted(below, 'trial')} below the picture"
    with style.sheet("hyperparameters", title, 0.55 + 2.15 * lines) as drawn:
        across = math.ceil(len(dimensions) / lines)
        panels = drawn.figure.subplots(lines, across, sharey=True, squeeze=False).ravel()
        for place, axes in enumerate(panels):
            if place >= len(dimensions):
                axes.set_visible(False)
                continue
            _draw_dimension(axes, dimensions[place])
            style.grid(axes, "y")
            axes.set_ylim(low, high)
            if place % across == 0:
                axes.set_ylabel(f"{selection.name} (search)")
        legend = (
            "of each value the best trial with its 95 % interval, the best of all in blue; faint: all others"
        )
        drawn.figure.supxlabel(legend, fontsize=9.5)
    return drawn


def _draw_dimension(axes: Any, values: _Values) -> None:
    others = [(place, row["figure"]) for place, rows in enumerate(values.rows) for row in rows[1:]]
    of_others = [place for place, _ in others], [figure for _, figure in others]
    axes.plot(*of_others, "o", color=style.FAINT, markersize=3.5)
    best = [rows[0] for rows in values.rows]
    places = range(len(best))
    figures = [row["figure"] for row in best]
    axes.plot(places, figures, color=style.FAINT, linewidth=1)
    colours = [style.ACCENT if place == values.place_of_best else style.MUTED for place in places]
    errors = [style.Z * row["error"] for row in best]
    axes.errorbar(places, figures, yerr=errors, fmt="none", ecolor=colours, elinewidth=1.8)
    axes.scatter(places, figures, s=30, c=colours, zorder=3)
    long = max(map(len, values.labels)) * len(values.labels) > 22
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(places, values.labels, **turned)
    axes.set_xlim(-0.5, len(best) - 0.5)
    axes.set_xlabel(values.name)
    axes.tick_params(axis="x", length=0)


def _told_dimensions(dimensions: Sequence[_Values], scored: Sequence[Row], selection: Selection) -> str:
    if len(scored) == 1:
        return f"One trial: {selection.name} {scored[0]['figure']:.4f}"
    first = dimensions[0]
    best = [rows[0]["figure"] for rows in first.rows]
    return (
        f"{first.name} matters most: {selection.name} up to {max(best):.4f} with {first.told_best}, "
        f"{min(best):.4f} with {first.labels[int(np.argmin(best))]}"
    )


def heat_map(table: pa.Table) -> Sheet | None:
    """The best trial of each pair of values of the two hyperparameters that matter most.

    Args:
        table: `grid_search_results`.
    """
    scored, selection = _scored(table), selection_of(table)
    dimensions = [each for each in _dimensions(scored) if len(each.rows) > 1] if scored else []
    if len(dimensions) < 2:
        return None
    across, down = dimensions[:2]
    cells = np.full((len(down.rows), len(across.rows)), np.nan)
    for j, rows in enumerate(across.rows):
        of_value = {id(row) for row in rows}
        for i, others in enumerate(down.rows):
            both = [row["figure"] for row in others if id(row) in of_value]
            if both:
                cells[i, j] = max(both)
    best = np.unravel_index(np.nanargmax(cells), cells.shape)
    title = (
        f"The two that matter most: {selection.name} is best, {np.nanmax(cells):.4f}, with {across.name} "
        f"{across.labels[best[1]]} and {down.name} {down.labels[best[0]]}"
    )
    with style.sheet("heat_map", title, 1.0 + 0.42 * len(down.rows)) as drawn:
        from matplotlib.patches import Rectangle

        axes = drawn.figure.subplots()
        low = _low_end([float(cell) for cell in cells.ravel() if not np.isnan(cell)])
        span = max(float(np.nanmax(cells)) - low, 1e-12)
        axes.imshow(cells, cmap="Blues", vmin=low - 0.15 * span, vmax=low + 1.05 * span, aspect="auto")
        for (i, j), cell in np.ndenumerate(cells):
            told = "not tried" if np.isnan(cell) else f"{cell:.4f}"
            is_dark = not np.isnan(cell) and (cell - low) / span > 0.55
            axes.text(
                j, i, told, ha="center", va="center", fontweight="bold" if (i, j) == best else "normal",
                color="white" if is_dark else style.MUTED if np.isnan(cell) else style.INK,
            )  # fmt: skip
        corner = (best[1] - 0.5, best[0] - 0.5)
        axes.add_patch(
            Rectangle(corner, 1, 1, fill=False, edgecolor=style.SERIES[1], linewidth=2, clip_on=False)
        )
        axes.set_xticks(range(len(across.labels)), across.labels)
        axes.set_yticks(range(len(down.labels)), down.labels)
        axes.set_xlabel(f"{across.name} (in each cell the best trial by {selection.name})")
        axes.set_ylabel(down.name)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(1, len(across.labels)) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, len(down.labels)) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=2)
        axes.tick_params(which="minor", length=0)
    return drawn


def best_trials(table: pa.Table) -> Sheet | None:
    """The best trials: what they differ in, and whether they can be told from the best.

    The interval is that of the paired difference to the best trial, drawn from the best trial's figure: where
    it reaches that figure, chance alone may explain the difference.

    Args:
        table: `grid_search_results`.
    """
    scored, selection = _scored(table), selection_of(table)
    if not scored:
        return None
    shown = scored[:_MOST_TRIALS]
    best = scored[0]["figure"]
    names = varying(shown)
    equals = sum(row[columns.DISTINGUISHABLE] is False for row in scored) - 1
    failed = table.num_rows - len(scored)
    others = "all others are below it by more than chance"
    if equals > 0:
        others = f"{equals:,} of the others cannot be told from it"
    title = f"The best of {counted(len(scored), 'trial')} has {selection.name} {best:.4f}"
    title += "" if len(scored) == 1 else f"; {others}"
    title += f"; {counted(failed, 'trial')} failed" if failed else ""
    with style.sheet("best_trials", title, 1.1 + 0.25 * (len(shown) + 1)) as drawn:
        axes = drawn.figure.subplots()
        axes.axvline(best, color=style.FAINT, linewidth=1.2, zorder=0)
        figures = [row["figure"] for row in shown]
        low, high = (
            [best + (row[name] or 0) for row in shown]
            for name in (columns.DIFFERENCE_LOW, columns.DIFFERENCE_HIGH)
        )
        colours = [_colour(row) for row in shown]
        places = range(len(shown))
        ends = style.whiskers(low, figures, high)
        # One colour each, which the stubs do not know.
        bars: Any = axes
        bars.errorbar(figures, places, xerr=ends, fmt="none", ecolor=colours, elinewidth=1.8)
        axes.scatter(figures, places, s=30, c=colours, zorder=3)
        header, *lines = _in_columns(
            [
                [*(name.replace("regularization", "reg.") for name in names), ""],
                *([*(_label(row[name]) for name in names), _marks(row)] for row in shown),
            ]
        )
        axes.set_yticks(range(-1, len(shown)), [header, *lines], fontfamily="DejaVu Sans Mono", fontsize=8.5)
        axes.set_ylim(len(shown) - 0.4, -1.5)
        legend = (
            f"{selection.name} (search), with the 95 % interval of the difference to the best\n"
            "orange: chosen; blue: cannot be told from the best; grey: below it by more than chance"
        )
        drawn.figure.supxlabel(legend, fontsize=9.5)
        style.grid(axes, "x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
    return drawn


SEARCH_PICTURES = (hyperparameters, heat_map, best_trials)


def _colour(row: Row) -> str:
    if row[columns.CHOSEN]:
        return style.SERIES[1]
    return style.MUTED if row[columns.DISTINGUISHABLE] else style.ACCENT


def _marks(row: Row) -> str:
    return ", ".join(
        told for told, name in (("chosen", columns.CHOSEN), ("released", columns.INCUMBENT)) if row.get(name)
    )


def _in_columns(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def _scored(table: pa.Table) -> list[Row]:
    """The trials that did not fail, the best first, with `figure` and `error` of what selects."""
    selection = selection_of(table)
    rows = [
        {**row, "figure": row[selection.column], "error": row[selection.error_column] or 0.0}
        for row in table.to_pylist()
        if row[selection.column] is not None
    ]
    return sorted(rows, key=lambda row: -row["figure"])


def _dimensions(scored: Sequence[Row]) -> list[_Values]:
    """What varies, by how much of the metric's variance it explains; of one trial, one."""
    return sorted((_values(name, scored) for name in varying(scored)), key=lambda each: -each.weight)


def _values(name: str, scored: Sequence[Row]) -> _Values:
    found = sorted({row[name] for row in scored if row[name] is not None})
    has_none = any(row[name] is None for row in scored)
    groups: list[tuple[str, list[Row]]]
    if len(found) <= _MOST_VALUES or isinstance(found[0], str):
        groups = [(_label(value), [row for row in scored if row[name] == value]) for value in found]
        groups = sorted(groups, key=lambda group: -group[1][0]["figure"])[:_MOST_VALUES]
        order = {_label(value): place for place, value in enumerate(found)}
        groups.sort(key=lambda group: order[group[0]])
    else:
        groups = _ranges(name, found, scored)
    if has_none:
        groups.append(("none", [row for row in scored if row[name] is None]))
    groups = [(label, rows) for label, rows in groups if rows]
    return _Values(name, [label for label, _ in groups], [rows for _, rows in groups], _explained(groups))


def _ranges(name: str, found: Sequence[float], scored: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Five ranges of equal width, on a logarithmic scale where the hyperparameter has one."""
    low, high = found[0], found[-1]
    make = np.geomspace if _LOGARITHMIC[name] and low > 0 else np.linspace
    ends = make(low, high, 6)
    of_range: list[list[Row]] = [[] for _ in range(5)]
    for row in scored:
        if row[name] is not None:
            of_range[min(4, int(np.searchsorted(ends[1:-1], row[name], side="right")))].append(row)
    return [
        (f"{_short(ends[place])} to {_short(ends[place + 1])}", rows) for place, rows in enumerate(of_range)
    ]


def _explained(groups: Sequence[tuple[str, Sequence[Row]]]) -> float:
    figures = [[row["figure"] for row in rows] for _, rows in groups]
    everything = np.concatenate(figures)
    total = float(((everything - everything.mean()) ** 2).sum())
    between = sum(len(each) * (float(np.mean(each)) - float(everything.mean())) ** 2 for each in figures)
    return between / total if total else 0.0


def _label(value: Any) -> str:
    if value is None:
        return "none"
    return name_of(value, 14) if isinstance(value, str) else number(value)


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def _low_end(figures: Sequence[float]) -> float:
    """What is far below all others would leave these no room: the lower end that the picture has."""
    usual, best = float(np.quantile(figures, 0.25)), max(figures)
    return max(min(figures), best - 3 * (best - usual)) if best > usual else min(figures)


def _window(best: Sequence[Row], scored: Sequence[Row]) -> tuple[float, float]:
    low = _low_end([row["figure"] for row in scored])
    low = min(low, *(row["figure"] - style.Z * row["error"] for row in best if row["figure"] >= low))
    high = max(row["figure"] + style.Z * row["error"] for row in best)
    room = 0.08 * ((high - low) or abs(high) or 1)
    return max(0.0, low - room), high + room
