"""The search."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, MaterializeResult, asset
from numpy.typing import NDArray

from recsys_pipeline.assets.grid_config import GridConfig, SearchConfig
from recsys_pipeline.assets.incumbent import Incumbent, incumbent_of, told_start
from recsys_pipeline.assets.pictures import pictured
from recsys_pipeline.core import columns
from recsys_pipeline.core.agreement import Agreement, agreement
from recsys_pipeline.core.baseline_tables import BASELINES_TABLE, ChosenBaselines, lead_over_baselines
from recsys_pipeline.core.comparison import choose_or_keep, compare_with_best
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.interactions import Datasets, Tables
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.core.metrics import group_by_user
from recsys_pipeline.core.presets import PresetCourse, preset_to_try_next
from recsys_pipeline.core.results import ranks_table, results_table
from recsys_pipeline.core.scale import Scale, Weighting, corners
from recsys_pipeline.core.search import TrialResult, best_first, best_known_first
from recsys_pipeline.core.selected import SELECTED_BY
from recsys_pipeline.core.strengths import EventRules
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.engines.engine import Finished, PreparedSearch, SearchPlan
from recsys_pipeline.reporting.baselines import told_lead, told_lead_in_short, why_no_lead
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.metadata import NOTEBOOK_MAP_IN_SEARCH, SETTINGS, rounded
from recsys_pipeline.reporting.model import told_ends
from recsys_pipeline.reporting.pictures.search import SEARCH_PICTURES
from recsys_pipeline.reporting.progress import Progress
from recsys_pipeline.reporting.trials import (
    agreement_metadata,
    earlier_searches,
    search_metadata,
    told_agreement,
    told_choice,
    told_corners,
    told_course,
    told_grid,
    told_terminated,
)
from recsys_pipeline.steps.failures import told_if_terminated
from recsys_pipeline.steps.step import asset_step
from recsys_pipeline.storage.journal import Journal
from recsys_pipeline.storage.warehouse import Warehouse

RANKS_TABLE = "trial_ranks"


@asset(kinds={"parquet", "python"})
@asset_step
def grid_search_results(
    context: AssetExecutionContext,
    config: GridConfig,  # type: ignore[valid-type]  # made from the declared hyperparameters
    warehouse: Warehouse,
    bm25_matrix: Datasets,
    leave_one_out_split: pa.Table,
    baselines: Tables,
) -> MaterializeResult[Tables]:
    """One row a trial: its hyperparameters and how it ranks the held-out interactions, the best first.

    The best is that by `select_by` at `k`, MAP@10 by default; the figures at 10 are always there.
    Weights are those of the training interactions, or, with `weights: all`, of all interactions, as in the
    notebook; training leaves the held-out ones out. The configuration of the released model is a trial too.
    A trial that failed is a row with its reason. Finished trials are journalled: a search that was killed
    goes on where it stopped. `trial_ranks.parquet`, replaced together with it, has the rank of each held-out
    interaction by each trial.
    """
    search_config: SearchConfig = config
    incumbent = incumbent_of(search_config, warehouse, context.log.info)
    graph = ChosenBaselines.of(baselines[BASELINES_TABLE]).graph
    of_blend = graph if search_config.blend else None
    prepared = _prepare(
        search_config, incumbent, of_blend, bm25_matrix, leave_one_out_split, context.log.info
    )
    plan, search, incumbent, scales = prepared
    around = told_start(plan, incumbent, context.log.info)
    if told := told_corners(corners(plan.trials, scales)):
        context.log.warning(told)
    begin = time.perf_counter()
    weights, solver = search_config.weights.value, search_config.solver.value
    rules = EventRules.from_metadata(stored_metadata(bm25_matrix["pairs"]))
    strengths = {
        name: dict(rules.strengths if mapping is None else mapping)
        for name, mapping in search_config.mappings().items()
    }
    selection, seed = search_config.selection(), search_config.seed
    of_journal = (search.content, solver, seed, weights)
    journal = Journal(warehouse.root, *of_journal, k=selection.reach, strengths=strengths)
    finished: Finished = journal.finished if search_config.reuse_finished_trials else lambda _: ()
    n_known = len(list(finished(plan.trials)))
    results: list[TrialResult] = []
    with told_if_terminated(lambda: told_terminated(len(results), None if plan.course else len(plan.trials))):
        # One by one, for a termination to know how many there are.
        results.extend(
            _run(context, search_config, plan, search, journal, finished, n_known, len(leave_one_out_split))
        )
    search_seconds = time.perf_counter() - begin

    ranking = best_first(results)
    if ranking[0].scores is None:
        raise InputError(f"all {len(results)} trials failed; the first: {ranking[0].failure}")
    split, users = (leave_one_out_split[name].to_numpy() for name in (columns.SPLIT, columns.USER_INDEX))
    groups = group_by_user(split, users)
    differences = compare_with_best(ranking, *groups, seed=seed, selection=selection)
    tried = [result.hyperparameters for result in ranking]
    place = tried.index(incumbent.hyperparameters) if incumbent.hyperparameters else None
    choice = choose_or_keep(ranking, differences, place, search_config.prefer, search_config.switch)
    chosen = choice.chosen
    why_none = incumbent.why_none if place is None else ranking[place].failure
    decided = told_choice(choice, incumbent.version, why_none)
    context.log.info(decided)
    best_ranks = ranking[0].ranks
    assert best_ranks is not None
    lead = lead_over_baselines(best_ranks, baselines, *groups, seed=seed, selection=selection)
    further = preset_to_try_next(search_config.preset)
    beside_baselines = told_lead(lead, further) if lead else why_no_lead(baselines, selection)
    context.log.info(beside_baselines)
    fitted = search.fit_blend(ranking[chosen].hyperparameters) if search_config.blend else None
    if search_config.blend and fitted is None:
        context.log.warning("no held-out item is within reach of the blend: there is nothing to learn from")
    agreed = _agreement(search_config, search, ranking[chosen], *groups)
    if agreed:
        context.log.info(told_agreement(agreed))
    stored: dict[str, Any] = {
        "seed": seed,
        "solver": solver,
        "weights": weights,
        SELECTED_BY: selection.as_dict(),
        "strengths": strengths,
        "blend": fitted.blend.as_dict() if fitted else None,
        "blend_without": {name: each.as_dict() for name, each in fitted.without.items()} if fitted else {},
        "graph": graph.as_dict() if graph else None,
        "agreement": agreed._asdict() if agreed else None,
        "around": around,
        "incumbent": incumbent.as_dict(),
        "strategy": search_config.method,
        "preset": search_config.preset.value,
        "prefer": search_config.prefer.value,
        "switch": search_config.switch.value,
        "decision": decided,
        "beside_baselines": beside_baselines,
        "journal": journal.search,
    }
    table = with_metadata(results_table(ranking, differences, chosen, place, selection), stored)
    others = journal.others(tried)
    earlier = best_known_first(others, [each.figure(selection, *groups) for each in others])
    if at_the_ends := told_ends(table):
        context.log.info(at_the_ends)
    likely_ruined = corners(tried, scales)
    return MaterializeResult(
        value={
            "grid_search_results": table,
            RANKS_TABLE: with_metadata(ranks_table(ranking), stored),
        },
        metadata={
            **search_metadata(
                table, fitted.blend if fitted else None, told_lead_in_short(lead) if lead else ""
            ),
            "Trials from the journal": n_known,
            "Search seconds": rounded(search_seconds),
            # Above 1 where a user has several held-out interactions, and no figure to compare: the last one.
            NOTEBOOK_MAP_IN_SEARCH: rounded(_notebook_map(table)),
            **agreement_metadata(agreed),
            "decision": decided,
            "beside the baselines": beside_baselines,
            **({"likely ruined": told_corners(likely_ruined)} if likely_ruined else {}),
            "earlier searches": earlier_searches(earlier, selection),
            SETTINGS: settings_table(
                search_config,
                searched_by=search_config.method,
                compared_by=selection.name,
                splits=int(split.max()) + 1,
                incumbent=incumbent.version or incumbent.why_none,
                **({"around": around["version"] or "the first values of the lists"} if around else {}),
            ),
            **pictured(context, warehouse, [table], *(partial(draw, table) for draw in SEARCH_PICTURES)),
        },
    )


def _notebook_map(table: pa.Table) -> float:
    chosen = table.filter(table[columns.CHOSEN])
    value: float = chosen[columns.NOTEBOOK_MAP_AT_10][0].as_py()
    return value


class _Prepared(NamedTuple):
    plan: SearchPlan
    search: PreparedSearch
    incumbent: Incumbent
    scales: Mapping[Weighting, Scale]


def _prepare(
    config: SearchConfig,
    incumbent: Incumbent,
    graph: GraphFilter | None,
    bm25_matrix: Datasets,
    leave_one_out_split: pa.Table,
    log: Callable[[str], None],
) -> _Prepared:
    """The search with the incumbent as one of its trials, or without where that is all that is wrong."""
    engine = chosen_engine()
    tried = incumbent.hyperparameters
    scales = engine.scales(bm25_matrix, config.mappings(), config.weightings(tried))
    plan = config.plan(tried, scales)._replace(graph=graph)
    try:
        search = engine.search(bm25_matrix, leave_one_out_split, plan)
        return _Prepared(plan, search, incumbent, scales)
    except InputError as error:
        without = config.plan(scales=scales)._replace(graph=graph)
        if without.trials == plan.trials:
            raise
        search = engine.search(bm25_matrix, leave_one_out_split, without)
        log(f"the released configuration is not tried: {error}")
        return _Prepared(without, search, incumbent.without(str(error).rstrip(".")), scales)


def _agreement(
    config: SearchConfig,
    search: PreparedSearch,
    chosen: TrialResult,
    group: NDArray[np.int64],
    user: NDArray[np.int64],
) -> Agreement | None:
    """The chosen trial beside the same by `implicit`; None where there is nothing to compare."""
    reference = search.reference(chosen.hyperparameters) if config.compare_with_implicit else None
    if reference is None:
        return None
    if reference.ranks is None or chosen.ranks is None:
        return Agreement.failed(reference.failure)
    return agreement(chosen.ranks, reference.ranks, group, user, config.seed)


def _run(
    context: AssetExecutionContext,
    config: SearchConfig,
    plan: SearchPlan,
    search: PreparedSearch,
    journal: Journal,
    finished: Finished,
    n_known: int,
    n_held_out: int,
) -> Iterator[TrialResult]:
    """The result of each trial, journalled and reported as it comes."""
    in_rounds = plan.course is not None
    if isinstance(plan.course, PresetCourse):
        context.log.info(f"preset {config.preset.value}: {told_course(plan.course)}")
    else:
        context.log.info(f"{config.method}: {told_grid(plan.trials)}")
    context.log.info(
        f"{len(plan.trials)} trials{' in the first round' if in_rounds else ''}, {n_held_out:,} held-out "
        f"interactions, solver {config.solver.value}, {search.workers} workers; {n_known} are in the journal "
        "already"
    )
    (context.log.info if search.memory.enough else context.log.warning)(search.memory.told)
    with Progress(
        context.log.info,
        plan.trials,
        in_journal=n_known,
        more_may_follow=in_rounds,
        selection=plan.selection,
        workers=search.workers,
    ) as progress:
        for result in search.run(finished, journal.add):
            progress.report(result)
            yield result
    journal.drop_others()
