"""How good the winner is, on pairs that the search never scored, beside simpler models."""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from numpy.typing import NDArray
from pydantic import Field

from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.assets.results import Winner
from recsys_pipeline.assets.splitting import file_split_table, holdouts, split_table
from recsys_pipeline.core import columns
from recsys_pipeline.core.blending import by_blend
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.evaluation import (
    Quality,
    Trials,
    mean_reach,
    qualities,
    quality_of_pairs,
    segments,
)
from recsys_pipeline.core.holdout import Holdout
from recsys_pipeline.core.lists import (
    Reach,
    Scorer,
    best_lists,
    by_factors,
    by_history,
    by_popularity,
    ranks_in_lists,
    reach,
)
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import require_finite
from recsys_pipeline.core.search import Checkpoint, SplitData
from recsys_pipeline.core.splitting import Strategy, held_out_pairs
from recsys_pipeline.core.trials import DEFAULT_STRENGTHS, NO_WEIGHTING, Trial, fits_for
from recsys_pipeline.engines.neighbours import Neighbours, by_neighbours
from recsys_pipeline.engines.solvers import Solver, trainer_for
from recsys_pipeline.failures import sorted_failures
from recsys_pipeline.reporting.evaluation import models_markdown, segments_markdown
from recsys_pipeline.reporting.figures import bars_with_intervals
from recsys_pipeline.reporting.metadata import fixed, rounded
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.tables import notes_of, with_notes
from recsys_pipeline.storage.warehouse import Warehouse

TUNED = "tuned ALS"
BLEND = "blend"
LEAKING = "tuned ALS, weights of all pairs"
NOTEBOOK = "notebook's ALS"
POPULARITY = "popularity"
HISTORY = "own history"
_NEIGHBOURS = {Neighbours.bm25: "item-kNN, BM25", Neighbours.cosine: "item-kNN, cosine"}
# Before its grid search.
NOTEBOOK_TRIAL = Trial(factors=64, regularization=0.05, alpha=20.0, iterations=15, bm25_k1=100.0, bm25_b=0.8)
_TUNED_STRENGTHS = "tuned"


class Protocol(Enum):
    """Which pairs the evaluation holds out."""

    same = "same"
    random = "random"
    last = "last"
    file = "file"


class EvaluationConfig(Config):
    """On what the winner is measured."""

    strategy: Protocol = Field(
        default=Protocol.same,
        description="`same` as leave_one_out_split (`random` where that is `file`), or `random`, `last` or "
        "`file`.",
    )
    file: str = Field(
        default="", description="Of the strategy `file`: CSV or Parquet, as in leave_one_out_split."
    )
    seeds: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Repetitions that are averaged, each with a random start and, if `random`, with pairs of "
        "its own.",
    )
    seed: int = Field(
        default=1042, ge=0, lt=2**32 - 100, description="The first of them, and the bootstrap's."
    )
    min_interactions: int = Field(default=3, ge=2, description="Of a user of whom a pair is held out.")
    max_users: int = Field(
        default=20_000, ge=0, description="Hold out a pair of so many users at most; 0 takes all."
    )
    k: int = Field(default=10, ge=1, le=1000, description="Length of the recommended lists.")
    neighbours: int = Field(default=20, ge=1, description="Of the item-kNN models.")


class _Repetition(NamedTuple):
    """Training data and held-out pairs of one seed."""

    number: int
    pattern: Pattern
    holdout: Holdout
    seed: int


@asset(kinds={"parquet", "python"})
@sorted_failures()
def evaluation(
    context: AssetExecutionContext,
    config: EvaluationConfig,
    feedback: Feedback,
    warehouse: Warehouse,
    bm25_matrix: Tables,
    leave_one_out_split: pa.Table,
    grid_search_results: pa.Table,
) -> MaterializeResult[Tables]:
    """How good the chosen configuration is on held-out pairs that the search never scored.

    Weights come from training pairs only, as they would in use; figures are means over users and seeds, with
    95 % intervals (bootstrap over users). Beside it, on the same pairs: popularity, item-kNN, the notebook's
    ALS before its search, the user's own history where that may be recommended, and what it changes to take
    the weights from all pairs, held-out ones included, as the search and the notebook do.
    """
    pairs = Pairs.from_tables(bm25_matrix)
    winner = Winner.of(grid_search_results)
    held_out, repetitions = _repetitions(pairs, winner, config, feedback, leave_one_out_split)
    models = _Models(pairs, winner, config)
    found: dict[str, list[NDArray[np.int64]]] = {}
    reached: dict[str, list[Reach]] = {}
    facts = []
    for repetition in repetitions:
        holdout = repetition.holdout
        users, row = np.unique(holdout.users, return_inverse=True)
        known = users < pairs.pattern.n_users
        training = repetition.pattern.select(holdout.left[DEFAULT_STRENGTHS] > 0)
        seen = pairs.pattern.select(holdout.seen)
        popularity = np.bincount(training.indices, minlength=training.n_items)
        for name, scorer in models.scorers(repetition):
            lists = np.full((len(users), config.k), -1, dtype=np.int32)
            lists[known] = best_lists(scorer, users[known], seen, config.k)
            found.setdefault(name, []).append(ranks_in_lists(lists, row.reshape(-1), holdout.items))
            reached.setdefault(name, []).append(reach(lists, training))
        of_users = np.zeros(int(users.max()) + 1, dtype=np.int64)
        of_users[: training.n_users] = training.pairs_per_user[: len(of_users)]
        facts.append((of_users[holdout.users], np.where(holdout.items < 0, 0, popularity[holdout.items])))
        context.log.info(
            f"seed {repetition.seed}: {len(holdout.users):,} pairs ranked by {len(found)} models"
        )

    trials = Trials(
        seed=np.repeat(np.arange(len(facts)), [len(each) for each, _ in facts]),
        users=held_out[columns.USER_INDEX].to_numpy(),
        items=held_out[columns.ITEM_INDEX].to_numpy(),
        pairs_of_user=np.concatenate([each for each, _ in facts]),
        popularity_of_item=np.concatenate([each for _, each in facts]),
        ranks={name: np.concatenate(ranks) for name, ranks in found.items()},
    )
    quality = qualities(trials, config.k, config.seed)
    reach_of = {name: mean_reach(each) for name, each in reached.items()}
    in_segments = _segments_table(trials, np.bincount(pairs.pattern.indices), config.k)
    models_table = _models_table(quality, reach_of)
    protocol = _protocol(config, leave_one_out_split)
    verdict = _verdict(quality)
    notes = {
        "strategy": protocol.value,
        "k": config.k,
        "seed": config.seed,
        "seeds": len(facts),
        "verdict": verdict,
        "inputs": {"grid_search_results": warehouse.fingerprint("grid_search_results")},
    }
    tuned = quality[TUNED]
    at_k = f"@{config.k}"
    return MaterializeResult(
        value={
            "models": with_notes(models_table, notes),
            "segments": with_notes(in_segments, notes),
            "held_out": with_notes(held_out, notes),
        },
        metadata={
            f"MAP{at_k}": rounded(tuned.map),
            f"MAP{at_k} standard error": rounded(tuned.standard_error),
            f"MAP{at_k} low": rounded(tuned.interval.low),
            f"MAP{at_k} high": rounded(tuned.interval.high),
            f"NDCG{at_k}": rounded(tuned.ndcg),
            f"HitRate{at_k}": rounded(tuned.hit_rate),
            f"Recall{at_k}": rounded(tuned.recall),
            "coverage": rounded(reach_of[TUNED].coverage),
            "novelty": rounded(reach_of[TUNED].novelty),
            "users_reached": rounded(reach_of[TUNED].users_reached),
            "users": len(np.unique(trials.users)),
            "held_out_pairs": len(trials.users),
            "seeds": len(facts),
            "protocol": _told(protocol, pairs),
            "verdict": verdict,
            "models": models_markdown(models_table, config.k),
            "picture": bars_with_intervals(
                f"MAP{at_k}, 95 % interval",
                {name: (each.map, *each.interval) for name, each in quality.items()},
            ),
            "segments": segments_markdown(in_segments),
            **_leak(quality),
        },
    )


def _protocol(config: EvaluationConfig, split: pa.Table) -> Protocol:
    """What `same` stands for."""
    if config.strategy is not Protocol.same:
        return config.strategy
    of_split = notes_of(split)["strategy"]
    return Protocol.random if of_split == Strategy.file.value else Protocol(of_split)


def _repetitions(
    pairs: Pairs, winner: Winner, config: EvaluationConfig, feedback: Feedback, split: pa.Table
) -> tuple[pa.Table, list[_Repetition]]:
    """The held-out pairs of all seeds, and the data of each."""
    protocol = _protocol(config, split)
    tuning = pairs.pattern.positions_of(
        split[columns.USER_INDEX].to_numpy(), np.maximum(split[columns.ITEM_INDEX].to_numpy(), 0)
    )
    tuning = np.unique(tuning[tuning >= 0])
    allowed = pairs.target.copy()
    allowed[tuning] = False
    tables = []
    for number in range(config.seeds):
        if protocol is Protocol.file:
            if not config.file:
                raise InputError("evaluation: the strategy `file` needs the path of a `file`.")
            table = file_split_table(pairs, config.file, feedback)
            place = table.schema.get_field_index(columns.SPLIT)
            numbers = pa.array(np.full(table.num_rows, number, dtype=np.int32))
            tables.append(table.set_column(place, columns.SPLIT, numbers))
            continue
        positions = held_out_pairs(
            pairs.pattern,
            seed=config.seed + number,
            min_interactions=config.min_interactions,
            strategy=Strategy(protocol.value),
            timestamps=pairs.timestamps[1] if pairs.timestamps else None,
            max_users=config.max_users or None,
            allowed=allowed,
        )
        if not len(positions):
            raise InputError(
                f"evaluation: beside the pairs of the search no user has {config.min_interactions} pairs and "
                "among them one to hold out. Bring more feedback, or lower min_interactions of evaluation."
            )
        tables.append(split_table(pairs, positions, number))
    notes = {
        "keep_other_events": notes_of(split)["keep_other_events"],
        "strategy": protocol.value,
    }
    held_out = with_notes(pa.concat_tables(tables), notes)
    mappings = {DEFAULT_STRENGTHS: None, _TUNED_STRENGTHS: winner.strengths}
    splits = holdouts(pairs, held_out, mappings)
    if protocol is Protocol.last:
        # The pair of the search is later than what is held out here: training must not know it.
        for holdout in splits:
            for left in holdout.left.values():
                left[tuning] = 0.0
            for had in holdout.events.values():
                had[tuning] = False
            holdout.seen[tuning] = False
    return held_out, [
        _Repetition(number, pairs.pattern, holdout, config.seed + number)
        for number, holdout in enumerate(splits)
    ]


class _Models:
    """The models that are compared."""

    def __init__(self, pairs: Pairs, winner: Winner, config: EvaluationConfig) -> None:
        self._pairs, self._winner, self._config = pairs, winner, config
        self._trial = winner.trial._replace(strengths=_TUNED_STRENGTHS)
        self._trainer = trainer_for(winner.solver)
        self._notebook_trainer = trainer_for(Solver.implicit)

    def scorers(self, repetition: _Repetition) -> Iterator[tuple[str, Scorer]]:
        """Each model trained on the pairs that a repetition leaves, the tuned one first."""
        pattern, holdout = repetition.pattern, repetition.holdout
        trials = {TUNED: self._trial, NOTEBOOK: NOTEBOOK_TRIAL}
        keys = [trial.weights for trial in trials.values()]
        data = SplitData.prepare(pattern, holdout, keys, weigh_all_pairs=False)
        state = self._state(data, self._trial, repetition.seed)
        yield TUNED, by_factors(state.user_factors, state.item_factors)
        if self._winner.blend:
            history = self._pairs.history(holdout.events)
            yield BLEND, by_blend(self._winner.blend, state.user_factors, state.item_factors, history)
        left = holdout.left[DEFAULT_STRENGTHS]
        training = data.training[DEFAULT_STRENGTHS]
        strengths = left[left > 0]
        if not (holdout.seen | (left == 0)).all():
            yield HISTORY, by_history(training, strengths, self._popularity(holdout))
        for kind, name in _NEIGHBOURS.items():
            yield name, by_neighbours(training.user_items(strengths), kind, self._config.neighbours)
        yield NOTEBOOK, self._als(data, NOTEBOOK_TRIAL, repetition.seed)
        yield POPULARITY, by_popularity(self._popularity(holdout))
        if self._trial.weighting != NO_WEIGHTING:
            leaking = SplitData.prepare(pattern, holdout, [self._trial.weights], weigh_all_pairs=True)
            yield LEAKING, self._als(leaking, self._trial, repetition.seed)

    def _als(self, data: SplitData, trial: Trial, seed: int) -> Scorer:
        state = self._state(data, trial, seed)
        return by_factors(state.user_factors, state.item_factors)

    def _state(self, data: SplitData, trial: Trial, seed: int) -> Checkpoint:
        trainer = self._notebook_trainer if trial == NOTEBOOK_TRIAL else self._trainer
        (fit,) = fits_for([trial])
        (state,) = trainer.train(data.user_items(trial), fit, seed)
        require_finite(state.user_factors, state.item_factors)
        return state

    def _popularity(self, holdout: Holdout) -> NDArray[np.int64]:
        """(n_items,) users who have a target event with the item in training."""
        pairs = self._pairs
        counted = np.logical_or.reduce([holdout.events[event] for event in pairs.rules.target_events])
        return np.bincount(pairs.pattern.indices[counted], minlength=pairs.pattern.n_items)


def _models_table(quality: Mapping[str, Quality], reach_of: Mapping[str, Reach]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                columns.MODEL: name,
                columns.MAP: each.map,
                columns.MAP_STANDARD_ERROR: each.standard_error,
                columns.MAP_LOW: each.interval.low,
                columns.MAP_HIGH: each.interval.high,
                columns.TO_TUNED_LOW: each.difference.low,
                columns.TO_TUNED_HIGH: each.difference.high,
                columns.NDCG: each.ndcg,
                columns.HIT_RATE: each.hit_rate,
                columns.RECALL: each.recall,
                columns.COVERAGE: reach_of[name].coverage,
                columns.NOVELTY: reach_of[name].novelty,
                columns.POPULARITY: reach_of[name].popularity,
                columns.USERS_REACHED: reach_of[name].users_reached,
            }
            for name, each in quality.items()
        ]
    )


def _segments_table(trials: Trials, popularity: NDArray[np.int64], k: int) -> pa.Table:
    rows = []
    for segment in segments(trials, popularity):
        for name, ranks in trials.ranks.items():
            if name != LEAKING:
                mean, error, hit_rate = quality_of_pairs(ranks[segment.chosen], k)
                rows.append(
                    {
                        columns.SEGMENT_KIND: segment.kind,
                        columns.SEGMENT: segment.name,
                        columns.HELD_OUT_PAIRS: int(segment.chosen.sum()),
                        columns.MODEL: name,
                        columns.MAP: mean,
                        columns.MAP_STANDARD_ERROR: error,
                        columns.HIT_RATE: hit_rate,
                    }
                )
    return pa.Table.from_pylist(rows)


def _told(protocol: Protocol, pairs: Pairs) -> str:
    return {
        Protocol.random: "random leave-one-out: the held-out pair may be older than what the model knows"
        + ("; the feedback has no timestamps" if pairs.timestamps is None else ""),
        Protocol.last: "the latest pair but that of the search, which is left out of training",
        Protocol.file: "the pairs of a file",
    }[protocol]


def _verdict(quality: Mapping[str, Quality]) -> str:
    """Is the tuned model worth having, and the blend on top of it?"""
    tuned = quality[TUNED]
    others = {name: each for name, each in quality.items() if name not in (TUNED, LEAKING, BLEND)}
    name, best = max(others.items(), key=lambda entry: entry[1].map)
    place = "the best of the others" if best.map > tuned.map else "the next"
    verdict = f"the tuned model ({fixed(tuned.map)}) is {_compared(best)} {name} ({fixed(best.map)}), {place}"
    if BLEND in quality:
        blend = quality[BLEND]
        verdict += f", and {_compared(blend)} its blend ({fixed(blend.map)})"
    return verdict


def _compared(other: Quality) -> str:
    if other.difference.high < 0:
        return "better than"
    return "worse than" if other.difference.low > 0 else "not distinguishable from"


def _leak(quality: Mapping[str, Quality]) -> dict[str, Any]:
    """What weights of all pairs add to the figure, with its interval."""
    if LEAKING not in quality:
        return {}
    leaking, tuned = quality[LEAKING], quality[TUNED]
    return {
        "leak_of_weights": rounded(leaking.map - tuned.map),
        "leak_of_weights_interval": f"{leaking.difference.low:+.4f} to {leaking.difference.high:+.4f}",
    }
