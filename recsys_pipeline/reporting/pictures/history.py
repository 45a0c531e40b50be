"""How the last runs went."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from recsys_pipeline.reporting.pictures import style
from recsys_pipeline.reporting.pictures.style import Sheet, counted

_MOST_TICKS = 8
# A single run is no wall.
_FEWEST_PLACES = 10


class Night(NamedTuple):
    """A run that came as far as an evaluation.

    Attributes:
        when: it was evaluated, UTC.
        map: its mean average precision.
        events: that the feed had; None where nobody knows.
        released: whether readers got it.
    """

    when: datetime
    map: float
    events: float | None
    released: bool


def history(nights: Sequence[Night], k: int) -> Sheet | None:
    """The metric and the volume of the data over the last runs, with the releases marked.

    Args:
        nights: the oldest first.
        k: length of the lists.
    """
    if not nights:
        return None
    released = sum(night.released for night in nights)
    title = f"MAP@{k} is {nights[-1].map:.4f}"
    if len(nights) > 1:
        before = [night.map for night in nights[:-1]]
        runs = counted(len(before), "run")
        title += f"; it was {min(before):.4f} to {max(before):.4f} in the {runs} before"
        title += f"; {released:,} of {len(nights):,} were released"
    else:
        title += " in the first run"
    with style.sheet("history", title, 3.6) as drawn:
        upper, lower = drawn.figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2]})
        places = range(len(nights))
        figures = [night.map for night in nights]
        upper.plot(places, figures, color=style.FAINT, linewidth=1.2, zorder=1)
        for is_released, face, told in ((True, style.ACCENT, "released"), (False, "white", "not released")):
            some = [place for place in places if nights[place].released == is_released]
            if some:
                upper.scatter(
                    some, [figures[place] for place in some], s=42, facecolors=face, edgecolors=style.ACCENT,
                    linewidths=1.5, label=told, zorder=2,
                )  # fmt: skip
        low, high = min(figures), max(figures)
        room = max(0.15 * (high - low), 0.02 * high, 1e-6)
        upper.set_ylim(low - room, high + room)
        upper.set_ylabel(f"MAP@{k} (unseen)")
        upper.legend(
            loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=2, borderpad=0, handletextpad=0.2,
        )  # fmt: skip
        known = [place for place in places if nights[place].events is not None]
        lower.bar(known, [nights[place].events or 0 for place in known], color=style.SERIES[1], width=0.55)
        lower.set_ylabel("events in the feed")
        style.count_axis(lower.yaxis)
        if not known:
            lower.set_yticks([])
        for axes in (upper, lower):
            style.grid(axes, "y")
        step = -(-len(nights) // _MOST_TICKS)
        # The last run always has a label.
        ticks = list(places)[::-1][::step][::-1]
        lower.set_xticks(ticks, [f"{nights[place].when:%Y-%m-%d\n%H:%M}" for place in ticks])
        lower.set_xlim(-0.7, max(len(nights), _FEWEST_PLACES) - 0.3)
        for axes in (upper, lower):
            axes.tick_params(axis="x", length=0)
        lower.set_xlabel("run (UTC)")
    return drawn
