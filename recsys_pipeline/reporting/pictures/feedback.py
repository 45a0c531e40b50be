"""What the feedback is like: who is active, what is popular, which events there are and when."""

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.distribution import Frequencies
from recsys_pipeline.reporting.pictures import style
from recsys_pipeline.reporting.pictures.style import Sheet, name_of, percent, short_number

_MOST_KINDS = 12
_MOST_PANELS = 5
_MOST_POINTS = 300
_MOST_TICKS = 8
# Of the days: beyond them lies one event of a thousand at each end, often by a wrong clock.
_SHARE_BEYOND = 0.001


def popularity(per_user: Frequencies, per_item: Frequencies) -> Sheet:
    """How unevenly interactions are spread: share of users, and of items, with at least so many.

    Args:
        per_user: how many users have so many interactions.
        per_item: how many items do.
    """
    (top_items, items), (top_users, users) = _share_of_top(per_item), _share_of_top(per_user)
    title = (
        f"The most popular {top_items} of the items have {percent(items)} of the interactions, the most "
        f"active {top_users} of the users {percent(users)}"
    )
    with style.sheet("popularity", title, 3.1) as drawn:
        panels = drawn.figure.subplots(1, 2, sharey=True)
        for axes, counts, one, colour in (
            (panels[0], per_user, "user", style.SERIES[0]),
            (panels[1], per_item, "item", style.SERIES[1]),
        ):
            values, shares = _share_with_at_least(counts)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.plot(values, shares, color=colour, marker="o", markersize=3, linewidth=1)
            style.log_axis(axes.xaxis, short_number)
            style.log_axis(axes.yaxis, percent)
            axes.grid()
            half = int(values[shares >= 0.5].max())
            most = int(counts.values[-1])
            axes.set_title(f"{counts.n:,} {one}s: half have {half:,} or more, one has {most:,}")
            axes.set_xlabel(f"interactions of the {one}")
            axes.set_ylabel(f"{one}s with at least so many")
    return drawn


def _share_with_at_least(counts: Frequencies) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    values, shares = counts.values, counts.share_with_at_least()
    if len(values) > _MOST_POINTS:
        wanted = np.geomspace(1, len(values), _MOST_POINTS).astype(np.int64) - 1
        values, shares = values[np.unique(wanted)], shares[np.unique(wanted)]
    return values, shares


def _share_of_top(counts: Frequencies) -> tuple[str, float]:
    """What the first per cent has, or the first tenth of few; which, and its share."""
    share = 0.01 if counts.n >= 1000 else 0.1
    return percent(share), counts.share_of_greatest(math.ceil(share * counts.n))


def events_by_kind(counts: Mapping[str, int]) -> Sheet | None:
    """How often each kind of event occurs, most frequent first.

    Args:
        counts: of each kind of event.
    """
    by_count = _by_count(counts)
    total = sum(counts.values())
    if not total:
        return None
    rest = by_count[_MOST_KINDS:]
    bars = [(name_of(event), count) for event, count in by_count[:_MOST_KINDS]]
    if rest:
        bars.append((f"{len(rest):,} other kinds", sum(count for _, count in rest)))
    first, most = by_count[0]
    title = f"{name_of(first)} is {percent(most / total)} of {total:,} events of {len(counts):,} kinds"
    if len(counts) == 1:
        title = f"All {total:,} events are of one kind, {name_of(first)}"
    with style.sheet("events_by_kind", title, 0.75 + 0.27 * len(bars)) as drawn:
        axes = drawn.figure.subplots()
        places = range(len(bars))
        axes.barh(places, [count for _, count in bars], color=style.ACCENT, height=0.65)
        axes.set_yticks(places, [event for event, _ in bars])
        for place, (_, count) in enumerate(bars):
            axes.annotate(
                f"{count:,}  ({percent(count / total)})", (count, place), (5, 0), textcoords="offset points",
                va="center",
            )  # fmt: skip
        axes.invert_yaxis()
        axes.set_xlim(0, 1.22 * max(count for _, count in bars))
        axes.set_xlabel("events")
        style.count_axis(axes.xaxis)
        style.grid(axes, "x")
        axes.tick_params(axis="y", length=0)
    return drawn


def events_by_day(days: Mapping[str, Mapping[date, int]]) -> Sheet | None:
    """The events of each day, a panel a kind, the most frequent kinds first.

    Args:
        days: by kind of event, the events of each day, UTC; days without any may be missing.
    """
    of_all: dict[date, int] = {}
    for of_kind in days.values():
        for day, count in of_kind.items():
            of_all[day] = of_all.get(day, 0) + count
    if not of_all:
        return None
    first, last = _usual_days(of_all)
    shown = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    by_count = [kind for kind, _ in _by_count({kind: sum(each.values()) for kind, each in days.items()})]
    panels = [(name_of(kind), days[kind]) for kind in by_count[:_MOST_PANELS]]
    if rest := by_count[_MOST_PANELS:]:
        others: dict[date, int] = {}
        for kind in rest:
            for day, count in days[kind].items():
                others[day] = others.get(day, 0) + count
        panels.append((f"{len(rest):,} other kinds", others))
    with style.sheet("events_by_day", _told_days(of_all, shown), 0.7 + 0.95 * len(panels)) as drawn:
        all_axes = drawn.figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (kind, counts) in zip(all_axes, panels, strict=True):
            heights = [counts.get(day, 0) for day in shown]
            places = np.arange(len(shown))
            # Steps, as wide as a day each.
            axes.fill_between(places, heights, step="mid", color=style.ACCENT, alpha=0.2, linewidth=0)
            axes.step(places, heights, where="mid", color=style.ACCENT, linewidth=1.2)
            if len(shown) == 1:
                axes.bar(places, heights, color=style.ACCENT, width=0.3)
            axes.set_title(f"{kind}: {sum(counts.values()):,}")
            axes.set_ylim(0, max(1.08 * max(heights), 1))
            style.count_axis(axes.yaxis)
            style.grid(axes, "y")
        last_axes = all_axes[-1]
        ticks = _ticks(shown)
        last_axes.set_xticks(ticks, [shown[place].isoformat() for place in ticks])
        last_axes.set_xlim(-0.6, len(shown) - 0.4)
        last_axes.set_xlabel("day (UTC)")
        drawn.figure.supylabel("events of a day", fontsize=9.5)
    return drawn


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _usual_days(of_all: Mapping[date, int]) -> tuple[date, date]:
    """First and last day; without the stray ones, where those would make the picture mostly empty."""
    in_order = sorted(of_all)
    seen = np.cumsum([of_all[day] for day in in_order])
    low, high = np.searchsorted(seen, [_SHARE_BEYOND * seen[-1], (1 - _SHARE_BEYOND) * seen[-1]])
    usual = in_order[low], in_order[high]
    is_wide = (in_order[-1] - in_order[0]).days > 3 * ((usual[1] - usual[0]).days + 1)
    return usual if is_wide else (in_order[0], in_order[-1])


def _told_days(of_all: Mapping[date, int], shown: Sequence[date]) -> str:
    counts = [of_all.get(day, 0) for day in shown]
    busiest = max(counts)
    day = shown[counts.index(busiest)].isoformat()
    told = f"{sum(counts):,} events on {style.counted(len(shown), 'day')}"
    if len(shown) > 1:
        told += f"; the busiest, {day}, has {busiest / max(float(np.median(counts)), 1):.2g} times the median"
    if stray := sum(of_all.values()) - sum(counts):
        told += f"; {style.counted(stray, 'event')} of other days left out"
    return told


def _ticks(shown: Sequence[date]) -> list[int]:
    """Places of few days that people count by: every day, Mondays, first days of months or of years."""
    for is_tick in (
        lambda _: True,
        lambda day: day.weekday() == 0,
        lambda day: day.day == 1,
        lambda day: day.day == 1 and day.month % 3 == 1,
        lambda day: day.day == 1 and day.month == 1,
    ):
        places = [place for place, day in enumerate(shown) if is_tick(day)]
        if len(places) <= _MOST_TICKS:
            return places or [0, len(shown) - 1]
    return places[:: math.ceil(len(places) / _MOST_TICKS)]
