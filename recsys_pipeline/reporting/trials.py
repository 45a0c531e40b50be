"""What the UI shows of a search."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from dagster import MarkdownMetadataValue, MetadataValue

from recsys_pipeline.core import columns
from recsys_pipeline.core.agreement import Agreement
from recsys_pipeline.core.blending import ALS, ANY, GRAPH, TARGET, Blend
from recsys_pipeline.core.comparison import Choice, Prefer, Switch
from recsys_pipeline.core.hyperparameters import Hyperparameters, varying
from recsys_pipeline.core.item_graph import PRESENCE, GraphFilter
from recsys_pipeline.core.presets import PresetCourse
from recsys_pipeline.core.search import SEARCHES_DIFFER_IN, KnownTrial
from recsys_pipeline.core.selected import selection_of
from recsys_pipeline.core.selecting import MAP_AT_10, Selection
from recsys_pipeline.reporting.known import told_known
from recsys_pipeline.reporting.metadata import (
    Metadata,
    fixed,
    interval,
    markdown_table,
    rounded,
    table_lines,
    with_error,
)
from recsys_pipeline.reporting.model import told_ends, told_hyperparameters, told_values

_SHOWN = 10
_TERMS = {
    ALS: "ALS score",
    GRAPH: "item graph",
    TARGET: "log popularity, target events",
    ANY: "log popularity, any event",
}


def search_metadata(table: pa.Table, blend: Blend | None) -> Metadata:
    """What a search found: the chosen trial's scores, the best trials, what dimensions are worth."""
    chosen = table.filter(table[columns.CHOSEN]).to_pylist()[0]
    selection = selection_of(table)
    blend_shown = {"blend": blend_table(blend)} if blend else {}
    return {
        columns.MAP_AT_10: rounded(chosen[columns.MAP_AT_10]),
        "MAP@10 standard error": rounded(chosen[columns.MAP_AT_10_STANDARD_ERROR]),
        selection.name: rounded(chosen[selection.column]),
        f"{selection.name} standard error": rounded(chosen[selection.error_column]),
        "NDCG@10": rounded(chosen[columns.NDCG_AT_10]),
        "HitRate@10": rounded(chosen[columns.HIT_RATE_AT_10]),
        "MAP@10 (notebook)": rounded(chosen[columns.NOTEBOOK_MAP_AT_10]),
        "trials": table.num_rows,
        "failed_trials": table[columns.MAP_AT_10].null_count,
        "not_distinguishable_from_best": table[columns.DISTINGUISHABLE].to_pylist().count(False),
        "at_the_ends": told_ends(table) or "nothing",
        "best_trials": best_trials_table(table),
        **worth_tables(table, ["strengths", "weighting"]),
        **blend_shown,
    }


def agreement_metadata(agreement: Agreement | None) -> Metadata:
    """The chosen trial beside the same by `implicit`."""
    if agreement is None:
        return {}
    if agreement.failure:
        return {"agreement_with_implicit": f"could not be measured: {agreement.failure}"}
    return {
        "MAP@10 by implicit": rounded(agreement.reference_map),
        "difference_to_implicit": rounded(agreement.map - agreement.reference_map),
        "difference_to_implicit_interval": interval(*agreement.difference),
        "ranks_unlike_implicit": rounded(agreement.ranks_differing),
    }


def told_agreement(agreement: Agreement) -> str:
    """The same in a sentence."""
    if agreement.failure:
        return f"the chosen trial, trained by implicit too: {agreement.failure}"
    return (
        f"the chosen trial, trained by implicit too: MAP@10 {agreement.reference_map:.4f}, and "
        f"{agreement.map:.4f} by this solver; {agreement.ranks_differing:.2%} of the ranks differ"
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
    return MetadataValue.md(f"{told}\n\n{table_lines(header, lines)}")


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
            tables[f"worth_of_{name}"] = markdown_table(
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
