"""What the UI shows of a search."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from dagster import MarkdownMetadataValue

from recsys_pipeline.core import columns
from recsys_pipeline.core.agreement import Agreement
from recsys_pipeline.core.blending import ALS, ANY, GRAPH, TARGET, Blend
from recsys_pipeline.core.comparison import Choice, Prefer, Switch
from recsys_pipeline.core.hyperparameters import DIMENSIONS, Hyperparameters, varying
from recsys_pipeline.core.item_graph import PRESENCE, GraphFilter
from recsys_pipeline.core.presets import PresetCourse
from recsys_pipeline.core.search import SEARCHES_DIFFER_IN, KnownTrial
from recsys_pipeline.core.selected import selection_of
from recsys_pipeline.core.selecting import MAP_AT_10, Selection
from recsys_pipeline.reporting.known import told_known
from recsys_pipeline.reporting.metadata import (
    AT_A_GLANCE,
    MAP_IN_SEARCH,
    Metadata,
    fixed,
    interval,
    markdown_table,
    percent,
    rounded,
    with_error,
)
from recsys_pipeline.reporting.model import (
    told_ends,
    told_hyperparameters,
    told_number_of_ends,
    told_values,
)

_SHOWN = 10
_AGREEMENT = "agreement with implicit"
_TERMS = {
    ALS: "ALS score",
    GRAPH: "item graph",
    TARGET: "log popularity, target events",
    ANY: "log popularity, any event",
}


def search_metadata(table: pa.Table, blend: Blend | None, beside_baselines: str = "") -> Metadata:
    """What a search found: the chosen trial's scores, the best trials, what dimensions are worth.

    Args:
        table: of the search.
        blend: that was fitted.
        beside_baselines: how the best trial compares with the strongest of them, in a few words.
    """
    chosen = table.filter(table[columns.CHOSEN]).to_pylist()[0]
    selection = selection_of(table)
    blend_shown = {"blend": blend_table(blend)} if blend else {}
    n_failed = table[columns.MAP_AT_10].null_count
    n_as_good = table[columns.DISTINGUISHABLE].to_pylist().count(False) - 1
    selected = f"{selection.name} {with_error(chosen[selection.column], chosen[selection.error_column])}"
    sentences = [
        f"{selected} of the best of {table.num_rows:,} trials",
        beside_baselines,
        told_number_of_ends(table),
        f"{n_failed:,} trials failed" if n_failed else "",
    ]
    return {
        AT_A_GLANCE: "; ".join(filter(None, sentences)),
        MAP_IN_SEARCH: rounded(chosen[columns.MAP_AT_10]),
        **({} if selection == MAP_AT_10 else {selection.name: rounded(chosen[selection.column])}),
        "NDCG@10": rounded(chosen[columns.NDCG_AT_10]),
        "HitRate@10": rounded(chosen[columns.HIT_RATE_AT_10]),
        "Trials": table.num_rows,
        "Failed trials": n_failed,
        "best trials": best_trials_table(table),
        "as good as the best but for chance": "1 other trial"
        if n_as_good == 1
        else f"{n_as_good:,} other trials",
        "at the ends of the lists": told_ends(table) or "nothing",
        **worth_tables(table, ["strengths", "weighting"]),
        **blend_shown,
    }


def agreement_metadata(agreement: Agreement | None) -> Metadata:
    """The chosen trial beside the same by `implicit`."""
    if agreement is None:
        return {}
    if agreement.failure:
        return {_AGREEMENT: f"could not be measured: {agreement.failure}"}
    return {
        _AGREEMENT: f"MAP@10 {fixed(agreement.reference_map)} by implicit, {fixed(agreement.map)} by "
        f"this solver: difference {agreement.map - agreement.reference_map:+.4f}, 95 % "
        f"{interval(*agreement.difference)}; {percent(agreement.ranks_differing)} of the ranks differ"
    }


def told_agreement(agreement: Agreement) -> str:
    """The same in a sentence."""
    if agreement.failure:
        return f"the chosen trial, trained by implicit too: {agreement.failure}"
    return (
        f"the chosen trial, trained by implicit too: MAP@10 {agreement.reference_map:.4f}, and "
        f"{agreement.map:.4f} by this solver; {percent(agreement.ranks_differing)} of the ranks differ"
    )


def told_choice(choice: Choice, version: str | None, why_none: str) -> str:
    """What became of the released configuration, and why, as a sentence.

    Args:
        choice: of the search.
        version: of the release; None where there is none.
        why_none: why the released configuration was not compared; empty where it was.
    """
    best = choice.prefer is Prefer.best
    taken = "the best trial" if best else "the simplest trial that equals the best but for chance"
    if choice.lead is None or choice.interval is None:
        release = f"the configuration of release {version} was not compared: " if version else ""
        return f"{release}{why_none}; {taken} is chosen"
    release = f"the configuration of release {version}"
    low, high = choice.interval
    lead = f"the best trial is better by {fixed(choice.lead)}, 95 % {fixed(low)} to {fixed(high)}"
    if choice.chosen != choice.incumbent:
        perhaps = "" if choice.is_significant else f", which may be chance (switch {choice.switch.value})"
        return f"{release} is replaced: {lead}{perhaps}{'' if best else f'; {taken} is chosen'}"
    if choice.incumbent == 0:
        return f"{release} stays: it is the best trial"
    if choice.switch is Switch.significant and not choice.is_significant:
        return f"{release} stays: {lead}"
    return f"{release} stays: it is {taken}"


def told_grid(trials: Sequence[Hyperparameters]) -> str:
    """What is tried of each dimension, and of how many trials, as a sentence."""
    values = {d.name: list(dict.fromkeys(getattr(trial, d.name) for trial in trials)) for d in DIMENSIONS}
    usual = {d.name: list(d.values[:1]) for d in DIMENSIONS if len(d.values) == 1}
    lists = [
        f"{name} {', '.join(each if isinstance(each, str) else f'{each:g}' for each in found[:_SHOWN])}"
        + (f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else "")
        for name, found in values.items()
        if found != usual.get(name)
    ]
    return f"{'; '.join(lists)} ({len(trials):,} trials)"


def told_terminated(n_done: int, n_planned: int | None) -> str:
    """What a search that was terminated leaves: the journal has what was done.

    Args:
        n_done: trials.
        n_planned: trials; None where nobody knows.
    """
    of = f"{n_done:,} trials" if n_planned is None else f"{n_done:,} of {n_planned:,} trials"
    return f"terminated, {of} kept: the next search over the same data goes on from there"


def told_course(course: PresetCourse) -> str:
    """What a preset plans, as a sentence."""
    fits, first, widest = course.most_fits, course.narrowest, course.widest
    incumbent = " and the released configuration" if course.incumbent else ""
    return (
        f"at most {fits} fits{incumbent}, in rounds: the first of {first} factors, then up to {widest} as "
        f"long as that pays; a fit of {widest} takes some {course.most_seconds_of_fit:.0f} s of CPU per split"
    )


def told_corners(likely_ruined: Mapping[Hyperparameters, str]) -> str:
    """How many trials are likely to be ruined, with an example; empty where none is."""
    if not likely_ruined:
        return ""
    trial, why = next(iter(likely_ruined.items()))
    number = "1 trial is" if len(likely_ruined) == 1 else f"{len(likely_ruined)} trials are"
    return f"{number} likely to be ruined, such as {told_hyperparameters(trial)}: {why}"


def best_trials_table(table: pa.Table) -> MarkdownMetadataValue:
    """The best trials: what they differ in, and how sure their order is."""
    rows = table.slice(0, _SHOWN).to_pylist()
    names = varying(table.to_pylist())
    selection = selection_of(table)
    header = [
        "",
        *names,
        selection.name,
        "95 % interval of the difference to the best",
        "distinguishable",
        *(name for name in (columns.MAP_AT_10,) if name != selection.name),
        "NDCG@10",
        "HitRate@10",
    ]
    lines = [
        [
            ", ".join(name for name in (columns.CHOSEN, columns.INCUMBENT) if row[name]),
            *(row[name] for name in names),
            with_error(row[selection.column], row[selection.error_column]),
            interval(row[columns.DIFFERENCE_LOW], row[columns.DIFFERENCE_HIGH]),
            {True: "yes", False: "no", None: "failed"}[row[columns.DISTINGUISHABLE]],
            *(fixed(row[name]) for name in (columns.MAP_AT_10,) if name != selection.name),
            fixed(row[columns.NDCG_AT_10]),
            fixed(row[columns.HIT_RATE_AT_10]),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def earlier_searches(
    best_first: Sequence[tuple[KnownTrial, float | None]], selection: Selection
) -> str | MarkdownMetadataValue:
    """Trials over the same data that are not in the table, with the figure of each by what selects."""
    if not best_first:
        return "nothing else is known of this data"
    by_both = selection != MAP_AT_10
    shown = best_first[:_SHOWN]
    lines = [
        [
            *([fixed(figure)] if by_both else []),
            with_error(known.scores.map, known.scores.standard_error),
            *(known.search[name] for name in SEARCHES_DIFFER_IN),
            told,
        ]
        for (known, figure), told in zip(shown, told_known([known for known, _ in shown]), strict=True)
    ]
    header = [*([selection.name] if by_both else []), MAP_AT_10.name, *SEARCHES_DIFFER_IN, "hyperparameters"]
    number = "1 trial is" if len(best_first) == 1 else f"{len(best_first):,} trials are"
    told = f"{number} known over the same data that are not in this table; the best:"
    return markdown_table(header, lines, told)


def blend_table(blend: Blend) -> MarkdownMetadataValue:
    """The weights of the blend: what a standard deviation of each term is worth."""
    lines = [[_TERMS.get(name, name), rounded(weight)] for name, weight in blend.weights.items()]
    return markdown_table(["term", "weight of a standard deviation"], lines)


def told_blend(blend: Blend) -> str:
    """The same on one line."""
    told = told_values({_TERMS.get(name, name): rounded(weight) for name, weight in blend.weights.items()})
    return f"{told}; item graph: {told_filter(blend.filter)}" if blend.filter else told


def told_filter(parameters: GraphFilter) -> str:
    """The parameters of an item graph on one line."""
    by = "presence of" if parameters.weighting == PRESENCE else "strengths of"
    events = ", ".join(parameters.strengths) if parameters.strengths else "all events"
    return f"exponents {parameters.user_exponent:g} and {parameters.item_exponent:g}, by {by} {events}"


def worth_tables(table: pa.Table, dimensions: Sequence[str]) -> dict[str, MarkdownMetadataValue]:
    """Of each dimension that has several values: the best trial of each value."""
    tables = {}
    selection = selection_of(table)
    for name in dimensions:
        best_of: dict[str, dict[str, Any]] = {}
        for row in table.to_pylist():
            if row[columns.MAP_AT_10] is not None:
                best_of.setdefault(row[name], row)
        if len(best_of) > 1:
            tables[f"best by {name}"] = markdown_table(
                [name, f"best {selection.name}", "95 % interval of the difference to the best"],
                [
                    [
                        value,
                        with_error(row[selection.column], row[selection.error_column]),
                        interval(row[columns.DIFFERENCE_LOW], row[columns.DIFFERENCE_HIGH]),
                    ]
                    for value, row in best_of.items()
                ],
            )
    return tables
