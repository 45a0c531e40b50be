"""How good the winner is, on held-out interactions that the search never scored, beside simpler models."""

from enum import Enum

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline.core.beyond_accuracy import mean_beyond_accuracy
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.evaluation import qualities
from recsys_pipeline.core.evaluation_tables import models_table, segments_table
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.interactions import Interactions, Tables, unknown_in
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.splitting import HoldOutMethod, leave_one_out
from recsys_pipeline.engines.local.contenders import TUNED_STRENGTHS, Contenders
from recsys_pipeline.engines.local.measuring import all_ranks, measure
from recsys_pipeline.reporting.evaluation import evaluation_metadata, verdict
from recsys_pipeline.reporting.metadata import told_unknown
from recsys_pipeline.steps import asset_step
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.held_out import read_held_out
from recsys_pipeline.storage.locations import LOCATION_CONFIG, OptionalLocation


class EvaluationProtocol(Enum):
    """Which interactions the evaluation holds out."""

    same = "same"
    random = "random"
    last = "last"
    file = "file"


_TOLD = {
    EvaluationProtocol.random: "random leave-one-out: the held-out interaction may be older than "
    "what the model knows",
    EvaluationProtocol.last: "the latest interaction but that of the search, which is left out of training",
    EvaluationProtocol.file: "the interactions of a file",
}


class EvaluationConfig(Config):
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
    neighbours: int = Field(default=20, ge=1, description="Number of neighbours of the item-kNN models.")


@asset(kinds={"parquet", "python"})
@asset_step
def evaluation(
    context: AssetExecutionContext,
    config: EvaluationConfig,
    feedback: Feedback,
    bm25_matrix: Tables,
    leave_one_out_split: pa.Table,
    grid_search_results: pa.Table,
) -> MaterializeResult[Tables]:
    """How good the chosen configuration is on held-out interactions that the search never scored.

    Weights come from training interactions only, as they would in use; figures are means over users and
    seeds, with 95 % intervals (bootstrap over users). Beside it, on the same held-out interactions:
    popularity, item-kNN, the notebook's ALS before its search, repeat consumption where that may be
    recommended, and what it changes to take the weights from all interactions, held-out ones included, as
    search and notebook do.
    """
    interactions = Interactions.from_tables(bm25_matrix)
    winner = Winner.of(grid_search_results)
    protocol = _protocol(config, leave_one_out_split)
    held_out = _held_out(interactions, config, protocol, feedback, leave_one_out_split)
    unknown = unknown_in(held_out, interactions.pattern.n_users)
    if any(unknown.values()):
        context.log.warning(told_unknown(config.file, **unknown))
    splits = _splits(interactions, winner, protocol, held_out, leave_one_out_split)
    measured = []
    contenders = Contenders(interactions, winner, config.neighbours)
    for number, split in enumerate(splits):
        measured.append(measure(contenders, split, config.k, config.seed + number))
        context.log.info(
            f"seed {config.seed + number}: {len(split.users):,} held-out interactions ranked by "
            f"{len(measured[-1].ranks)} models"
        )
    ranks = all_ranks(held_out, measured)
    quality = qualities(ranks, config.k, config.seed)
    lists = {name: mean_beyond_accuracy([each.lists[name] for each in measured]) for name in quality}
    models = models_table(quality, lists)
    by_segment = segments_table(ranks, np.bincount(interactions.pattern.indices), config.k)
    told = verdict(quality)
    context.log.info(f"MAP@{config.k}: {told}")
    stored = {
        "strategy": protocol.value,
        "k": config.k,
        "seed": config.seed,
        "seeds": len(splits),
        "verdict": told,
    }
    protocol_told = _TOLD[protocol]
    if protocol is EvaluationProtocol.random and interactions.timestamps is None:
        protocol_told += "; the feedback has no timestamps"
    return MaterializeResult(
        value={
            "models": with_metadata(models, stored),
            "segments": with_metadata(by_segment, stored),
            "held_out": with_metadata(held_out, stored),
        },
        metadata={
            **evaluation_metadata(
                quality, lists, models, by_segment, ranks, config.k, len(splits), protocol_told
            ),
            **{f"held_out_{kind}_unknown": count for kind, count in unknown.items()},
        },
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
    interactions: Interactions,
    config: EvaluationConfig,
    protocol: EvaluationProtocol,
    feedback: Feedback,
    split: pa.Table,
) -> pa.Table:
    """The held-out interactions of all seeds, as rows of a `leave_one_out_split`; none is of the search."""
    if protocol is EvaluationProtocol.file:
        tables = _of_file(interactions, config, feedback)
    else:
        tables = _drawn(interactions, config, HoldOutMethod(protocol.value), split)
    metadata = {
        "keep_other_events": stored_metadata(split)["keep_other_events"],
        "strategy": protocol.value,
    }
    return with_metadata(pa.concat_tables(tables), metadata)


def _of_file(interactions: Interactions, config: EvaluationConfig, feedback: Feedback) -> list[pa.Table]:
    if not config.file:
        raise InputError("evaluation: the strategy `file` needs the path of a `file`.")
    given = read_held_out(config.file, feedback, interactions.users.type, interactions.items.type)
    return [interactions.given_table(given, number) for number in range(config.seeds)]


def _drawn(
    interactions: Interactions, config: EvaluationConfig, method: HoldOutMethod, split: pa.Table
) -> list[pa.Table]:
    allowed = interactions.target.copy()
    allowed[interactions.positions_in(split)] = False
    tables = []
    for number in range(config.seeds):
        positions = leave_one_out(
            interactions.pattern,
            seed=config.seed + number,
            min_interactions=config.min_interactions,
            method=method,
            timestamps=interactions.timestamps[1] if interactions.timestamps else None,
            max_users=config.max_users or None,
            allowed=allowed,
        )
        if not len(positions):
            raise InputError(
                f"evaluation: beside what the search has held out no user has {config.min_interactions} "
                "interactions and among them one to hold out. Bring more feedback, or lower min_interactions "
                "of evaluation."
            )
        tables.append(interactions.held_out_table(positions, number))
    return tables


def _splits(
    interactions: Interactions,
    winner: Winner,
    protocol: EvaluationProtocol,
    held_out: pa.Table,
    split: pa.Table,
) -> list[Split]:
    """The data of each seed."""
    mappings = {DEFAULT_STRENGTHS: None, TUNED_STRENGTHS: winner.strengths}
    # What the search held out as the last interaction is later than what is held out here: training must not
    # know it.
    later = interactions.positions_in(split) if protocol is EvaluationProtocol.last else None
    return interactions.splits(held_out, mappings, weigh_all=False, unknown_to_training=later)
