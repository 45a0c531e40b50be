"""How good the winner is, on held-out interactions that the search never scored, beside simpler models."""

from collections.abc import Mapping
from enum import Enum
from functools import partial

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline import settings
from recsys_pipeline.assets.grid_config import MEMORY_LIMIT
from recsys_pipeline.assets.pictures import pictured
from recsys_pipeline.assets.run_tags import tag_run
from recsys_pipeline.configuration import Knobs
from recsys_pipeline.core.baseline_tables import ChosenBaselines
from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.columns import ITEM, TIMESTAMP, USER
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.evaluation import (
    ABLATIONS,
    BLEND,
    EASE,
    GRAPH_FILTER,
    ITEM_KNN,
    LEAKING,
    NOTEBOOK,
    POPULARITY,
    REPEAT_CONSUMPTION,
    TUNED,
    HeldOutRanks,
    Quality,
    qualities,
    share_out_of_reach,
    worth_of_terms,
)
from recsys_pipeline.core.evaluation_tables import models_table, segments_table
from recsys_pipeline.core.interactions import Datasets, Tables
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.core.presets import Preset, preset_to_try_next
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.splitting import HoldOutMethod
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.engines.engine import EvaluationPlan, HeldOut, HoldOutPlan, NothingToHoldOutError
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.evaluation import blend_terms_table, evaluation_metadata, verdict
from recsys_pipeline.reporting.metadata import SETTINGS, told_unknown, unknown_metadata
from recsys_pipeline.reporting.model import told_number_of_ends
from recsys_pipeline.reporting.pictures.evaluation import models as models_picture
from recsys_pipeline.reporting.pictures.evaluation import segments as segments_picture
from recsys_pipeline.steps.step import asset_step
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.held_out import read_held_out
from recsys_pipeline.storage.locations import LOCATION_CONFIG, OptionalLocation
from recsys_pipeline.storage.source import locations_in, watched
from recsys_pipeline.storage.warehouse import Warehouse


class EvaluationProtocol(Enum):
    """Which interactions the evaluation holds out."""

    same = "same"
    random = "random"
    last = "last"
    file = "file"


class Comparison(Enum):
    """What the tuned model is compared with, besides popularity."""

    item_knn = "item_knn"
    graph_filter = "graph_filter"
    ease = "ease"
    repeat_consumption = "repeat_consumption"
    notebook_als = "notebook_als"
    weights_of_all = "weights_of_all"
    blend_terms = "blend_terms"


_MODELS = {
    Comparison.item_knn: ITEM_KNN,
    Comparison.graph_filter: GRAPH_FILTER,
    Comparison.ease: EASE,
    Comparison.repeat_consumption: REPEAT_CONSUMPTION,
    Comparison.notebook_als: NOTEBOOK,
    Comparison.weights_of_all: LEAKING,
}
# Those that are an ALS fit of their own, those that `baselines` has tuned, and those that are fitted to all
# interactions in some way.
_ALS = (Comparison.notebook_als, Comparison.weights_of_all)
_TUNED = {
    Comparison.item_knn: Family.item_knn,
    Comparison.graph_filter: Family.graph_filter,
    Comparison.ease: Family.ease,
}
_FITTED = (*_TUNED, *_ALS)

_TOLD = {
    EvaluationProtocol.random: "random leave-one-out: the held-out interaction may be older than "
    "what the model knows",
    EvaluationProtocol.last: "the latest interaction but that of the search, which is left out of training",
    EvaluationProtocol.file: "the interactions of a file",
}


class EvaluationConfig(Knobs):
    """On what the winner is measured."""

    model_config = LOCATION_CONFIG

    strategy: EvaluationProtocol = Field(
        default=EvaluationProtocol.same,
        description="`same` as leave_one_out_split (`random` where that is `file`), or `random`, `last` or "
        "`file`.",
    )
    file: OptionalLocation = Field(
        default="", description="For the strategy `file`: CSV or Parquet, as in leave_one_out_split."
    )
    seeds: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Number of repetitions to average. Each has its own random start and, with `random`, its "
        "own held-out interactions.",
    )
    seed: int = Field(
        default=1042,
        ge=0,
        lt=2**32 - 100,
        description="Seed of the first repetition (the next has seed + 1, and so on) and of the bootstrap.",
    )
    min_interactions: int = Field(
        default=3, ge=2, description="Users with fewer interactions are left whole in training."
    )
    max_users: int = Field(
        default=20_000, ge=0, description="Hold out an interaction of at most this many users; 0 takes all."
    )
    k: int = Field(default=10, ge=1, le=1000, description="Length of the recommended lists.")
    # An Enum, for Dagster to refuse an unknown name before the run; it wants the names as defaults.
    compare_with: list[Comparison] = Field(
        default=[each.value for each in Comparison],
        validate_default=True,
        description="What the tuned model is compared with besides popularity: `item_knn`, `graph_filter`, "
        "`ease` and `repeat_consumption`, each as `baselines` has tuned it, and, each an ALS fit of its own, "
        "`notebook_als` and "
        "`weights_of_all` (the tuned model with weights from all interactions, held-out ones included). "
        "`blend_terms`: where the search has fitted a blend, what each of its terms is worth.",
    )
    seeds_of_fits: int = Field(
        default=1,
        ge=1,
        description="On how many of the seeds `notebook_als`, `weights_of_all` and `blend_terms` are "
        "measured.",
    )
    most_interactions_of_fits: int = Field(
        default=10_000_000,
        ge=0,
        description="All comparisons that are fitted to the interactions, which is all but popularity and "
        "`repeat_consumption`, are left out where there are more interactions.",
    )
    workers: int = Field(
        default=0, ge=0, description="Models side by side, one core each; 0 takes all cores."
    )
    memory_limit: float = Field(default=settings.MEMORY_LIMIT, ge=0, description=MEMORY_LIMIT)
    patience_hours: float = Field(
        default=4.0,
        gt=0,
        description="A model that takes longer is ended and left out; where it is the tuned one, the asset "
        "fails.",
    )


@asset(kinds={"parquet", "python"})
@asset_step
def evaluation(
    context: AssetExecutionContext,
    config: EvaluationConfig,
    feedback: Feedback,
    warehouse: Warehouse,
    bm25_matrix: Datasets,
    leave_one_out_split: pa.Table,
    baselines: pa.Table,
    grid_search_results: pa.Table,
) -> MaterializeResult[Tables]:
    """How good the chosen configuration is on held-out interactions that the search never scored.

    Weights come from training interactions only, as they would in use; figures are means over users and
    seeds, with 95 % intervals (bootstrap over users). Beside it, on the same held-out interactions:
    the best of each family of `baselines` and, on the first seed, the notebook's ALS before its search, and
    what it changes to take the weights from all interactions, as the search and the notebook do.
    """
    source = watched(locations_in(config))
    winner = Winner.of(grid_search_results)
    protocol = _protocol(config, leave_one_out_split)
    found = _held_out(bm25_matrix, config, protocol, feedback, leave_one_out_split)
    held_out, unknown, n_interactions = found.table, found.unknown, found.n_interactions
    if any(unknown.values()):
        context.log.warning(told_unknown(config.file, **unknown))
    # What the search held out as the last interaction is later than what is held out here: training must not
    # know it.
    later = leave_one_out_split if protocol is EvaluationProtocol.last else None
    chosen = ChosenBaselines.of(baselines)
    plan = EvaluationPlan(
        winner=winner,
        models=[_models(config, number, n_interactions, chosen) for number in range(config.seeds)],
        k=config.k,
        seed=config.seed,
        baselines=_configurations(chosen),
        mappings=chosen.mappings,
        unknown_to_training=later,
        workers=config.workers,
        most_silent_seconds=3600 * config.patience_hours,
        memory_limit=config.memory_limit,
    )
    ranks, lists, failures, seconds, head = chosen_engine().evaluate(
        bm25_matrix, held_out, plan, context.log.info
    )
    for name, failure in failures.items():
        context.log.warning(f"{name} is left out: {failure}")
    quality = qualities(ranks, config.k, config.seed)
    to_blend = _qualities_to_blend(ranks, config)
    worths = [worth._asdict() for worth in worth_of_terms(to_blend)]
    models = models_table(quality, lists, seconds, to_blend)
    by_segment = segments_table(ranks, head, config.k)
    preset = Preset(stored_metadata(grid_search_results).get("preset", Preset.notebook.value))
    told = verdict(quality, preset_to_try_next(preset))
    context.log.info(f"MAP@{config.k}: {told}")
    tag_run(context, f"MAP@{config.k}", f"{quality[TUNED].map:.4f}")
    protocol_told = _TOLD[protocol]
    if protocol is EvaluationProtocol.random and TIMESTAMP not in bm25_matrix["pairs"].schema.names:
        protocol_told += "; the feedback has no timestamps"
    out_of_reach = share_out_of_reach(ranks)
    left_out = _left_out(config, ranks, found, chosen, failures)
    stored = {
        "strategy": protocol.value,
        "protocol": protocol_told,
        "k": config.k,
        "seed": config.seed,
        "seeds": config.seeds,
        "verdict": told,
        "out_of_reach": out_of_reach,
        "left_out": left_out,
        "blend_terms": worths,
    }
    return MaterializeResult(
        value={
            "models": with_metadata(models, stored),
            "segments": with_metadata(by_segment, stored),
            "held_out": with_metadata(held_out, stored),
        },
        metadata={
            **evaluation_metadata(
                quality,
                lists,
                models,
                by_segment,
                ranks,
                config.k,
                told_number_of_ends(grid_search_results),
            ),
            "verdict": told,
            "left out": left_out,
            **({"blend terms": blend_terms_table(worths, config.k)} if worths else {}),
            **unknown_metadata(unknown),
            SETTINGS: settings_table(config, held_out=protocol_told),
            **pictured(
                context,
                warehouse,
                [models, by_segment],
                partial(models_picture, models, config.k),
                partial(segments_picture, by_segment, config.k),
            ),
        },
        tags=source.tags(),
    )


def _protocol(config: EvaluationConfig, split: pa.Table) -> EvaluationProtocol:
    """What `same` stands for."""
    if config.strategy is not EvaluationProtocol.same:
        return config.strategy
    of_split = HoldOutMethod(stored_metadata(split)["strategy"])
    if of_split is HoldOutMethod.file:
        return EvaluationProtocol.random
    return EvaluationProtocol(of_split.value)


def _held_out(
    bm25_matrix: Datasets,
    config: EvaluationConfig,
    protocol: EvaluationProtocol,
    feedback: Feedback,
    split: pa.Table,
) -> HeldOut:
    """The held-out interactions of all seeds, as rows of a `leave_one_out_split`; none is of the search."""
    of_file = protocol is EvaluationProtocol.file
    plan = HoldOutPlan(
        method=HoldOutMethod(protocol.value),
        seed=config.seed,
        min_interactions=config.min_interactions,
        max_users=config.max_users,
        n_splits=config.seeds,
        given=_of_file(bm25_matrix, config, feedback) if of_file else None,
        told={
            "keep_other_events": stored_metadata(split)["keep_other_events"],
            "strategy": protocol.value,
        },
        never=split,
    )
    try:
        return chosen_engine().hold_out(bm25_matrix, plan)
    except NothingToHoldOutError:
        raise InputError(
            f"evaluation: beside what the search has held out no user has {config.min_interactions} "
            "interactions and among them one to hold out. Bring more feedback, or lower min_interactions "
            "of evaluation."
        ) from None


def _of_file(bm25_matrix: Datasets, config: EvaluationConfig, feedback: Feedback) -> pa.Table:
    if not config.file:
        raise InputError("evaluation: the strategy `file` needs the path of a `file`.")
    users, items = (
        bm25_matrix[table].schema.field(name).type for table, name in (("users", USER), ("items", ITEM))
    )
    return read_held_out(config.file, feedback, users, items)


def _configurations(chosen: ChosenBaselines) -> dict[str, Baseline]:
    """By name of the model, the configuration of each baseline."""
    return {
        POPULARITY: Baseline(Family.popularity),
        REPEAT_CONSUMPTION: chosen.by_family.get(
            Family.repeat_consumption, Baseline(Family.repeat_consumption)
        ),
        **{
            _MODELS[comparison]: chosen.by_family[family]
            for comparison, family in _TUNED.items()
            if family in chosen.by_family
        },
    }


def _models(
    config: EvaluationConfig, number: int, n_interactions: int, baselines: ChosenBaselines
) -> list[str]:
    """What is measured on the seed of this number."""
    chosen = [
        _MODELS[comparison]
        for comparison in config.compare_with
        if comparison in _MODELS
        and (comparison not in _ALS or number < config.seeds_of_fits)
        and (comparison not in _FITTED or n_interactions <= config.most_interactions_of_fits)
        and (comparison not in _TUNED or _TUNED[comparison] in baselines.by_family)
    ]
    blend_terms = Comparison.blend_terms in config.compare_with and number < config.seeds_of_fits
    return [TUNED, POPULARITY, *chosen, *(ABLATIONS if blend_terms else ())]


def _qualities_to_blend(ranks: HeldOutRanks, config: EvaluationConfig) -> Mapping[str, Quality]:
    """The quality of each model, its difference to the blend; nothing without one."""
    if BLEND not in ranks.ranks:
        return {}
    return qualities(ranks.of_models([BLEND, *ranks.ranks]), config.k, config.seed)


def _left_out(
    config: EvaluationConfig,
    ranks: HeldOutRanks,
    held_out: HeldOut,
    baselines: ChosenBaselines,
    failures: Mapping[str, str],
) -> str:
    """What was not measured, and why."""
    n_users, n_interactions = held_out.n_users, held_out.n_interactions
    n_evaluated = np.count_nonzero(np.unique(ranks.users) < n_users)
    told = []
    if n_evaluated < n_users:
        told.append(f"nothing is held out of {n_users - n_evaluated:,} of {n_users:,} users")
    fitted, als = ([each.value for each in some if each in config.compare_with] for some in (_FITTED, _ALS))
    if fitted and n_interactions > config.most_interactions_of_fits:
        told.append(
            f"{', '.join(fitted)}: not measured, for {n_interactions:,} interactions are more than "
            f"most_interactions_of_fits {config.most_interactions_of_fits:,}"
        )
    else:
        told += _not_tuned(config, baselines)
        if als and config.seeds_of_fits < config.seeds:
            told.append(f"{', '.join(als)}: measured on {config.seeds_of_fits} of {config.seeds} seeds")
    told += [f"{name}: {failure}" for name, failure in failures.items()]
    return "; ".join(told) or "nothing"


def _not_tuned(config: EvaluationConfig, baselines: ChosenBaselines) -> list[str]:
    """Which comparisons `baselines` has no configuration for, and why."""
    return [
        f"{comparison.value}: {baselines.why_not.get(family, 'it is not among the families of baselines')}"
        for comparison, family in _TUNED.items()
        if comparison in config.compare_with and family not in baselines.by_family
    ]
