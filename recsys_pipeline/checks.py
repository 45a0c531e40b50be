"""Claims about the assets, as Dagster asset checks."""

import numpy as np
import pyarrow as pa
from dagster import AssetCheckResult, AssetCheckSeverity, AssetIn, asset_check

from recsys_pipeline.assets.evaluation import POPULARITY, TUNED
from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.assets.splitting import holdouts
from recsys_pipeline.core.columns import (
    HIT_RATE_AT_10,
    ITEM,
    MAP,
    MAP_AT_10,
    MODEL,
    NDCG_AT_10,
    SPLIT,
    TO_TUNED_HIGH,
    USER,
    USER_INDEX,
    WEIGHT,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.splitting import Strategy
from recsys_pipeline.core.strengths import combined_strengths
from recsys_pipeline.core.trials import DEFAULT_STRENGTHS
from recsys_pipeline.recommender import load_model
from recsys_pipeline.storage.tables import notes_of
from recsys_pipeline.storage.warehouse import Warehouse


@asset_check(asset="bm25_matrix")
def every_weight_is_positive(bm25_matrix: Tables) -> AssetCheckResult:
    """No pair would reach a model as a dislike."""
    weights = bm25_matrix["pairs"][WEIGHT].to_numpy()
    n_bad = int(np.count_nonzero(~(weights > 0)))
    return AssetCheckResult(passed=n_bad == 0, metadata={"weights_at_or_below_zero": n_bad})


@asset_check(asset="leave_one_out_split", additional_ins={"bm25_matrix": AssetIn("bm25_matrix")})
def no_held_out_event_is_in_training(leave_one_out_split: pa.Table, bm25_matrix: Tables) -> AssetCheckResult:
    """Of a held-out pair training has what may stay and no more, and nothing hides its item."""
    pairs = Pairs.from_tables(bm25_matrix)
    try:
        splits = holdouts(pairs, leave_one_out_split, {DEFAULT_STRENGTHS: None})
    except InputError as error:
        return AssetCheckResult(passed=False, description=str(error))
    keep = notes_of(leave_one_out_split)["keep_other_events"]
    staying = {
        event: strength
        for event, strength in pairs.rules.strengths.items()
        if keep and event not in pairs.rules.target_events
    }
    n_leaked = n_hidden = 0
    for split in splits:
        known = (split.users < len(pairs.users)) & (split.items >= 0)
        held_out = pairs.pattern.positions_of(split.users[known], split.items[known])
        held_out = held_out[held_out >= 0]
        may_stay = combined_strengths(pairs.counts, staying, pairs.rules.aggregate)[held_out]
        n_leaked += int(np.count_nonzero(split.left[DEFAULT_STRENGTHS][held_out] > may_stay))
        n_hidden += int(np.count_nonzero(split.seen[held_out]))
    return AssetCheckResult(
        passed=n_leaked == n_hidden == 0,
        metadata={"held_out_events_in_training": n_leaked, "hidden_from_recommendation": n_hidden},
    )


@asset_check(asset="leave_one_out_split")
def one_held_out_pair_a_user(leave_one_out_split: pa.Table) -> AssetCheckResult:
    """No user has two held-out pairs in a split, unless they are given by a file."""
    stacked = np.stack([leave_one_out_split[name].to_numpy() for name in (SPLIT, USER_INDEX)])
    n_repeated = stacked.shape[1] - np.unique(stacked, axis=1).shape[1]
    of_file = notes_of(leave_one_out_split)["strategy"] == Strategy.file.value
    return AssetCheckResult(
        passed=n_repeated == 0 or of_file, metadata={"pairs_beyond_the_first": n_repeated}
    )


@asset_check(asset="grid_search_results")
def every_score_is_a_share(grid_search_results: pa.Table) -> AssetCheckResult:
    """MAP@10, NDCG@10 and HitRate@10 of every trial lie between 0 and 1, and the best is above 0."""
    scores = np.stack(
        [grid_search_results[name].to_numpy() for name in (MAP_AT_10, NDCG_AT_10, HIT_RATE_AT_10)]
    )
    passed = bool(((scores >= 0) & (scores <= 1)).all() and scores[0].max() > 0)
    return AssetCheckResult(passed=passed, metadata={"best MAP@10": float(scores[0].max())})


@asset_check(asset="evaluation", additional_ins={"leave_one_out_split": AssetIn("leave_one_out_split")})
def no_evaluated_pair_was_scored_by_the_search(
    evaluation: Tables, leave_one_out_split: pa.Table
) -> AssetCheckResult:
    """The pairs that the model is measured on had no part in choosing it."""
    scored = set(zip(*(leave_one_out_split[name].to_pylist() for name in (USER, ITEM)), strict=True))
    evaluated = set(zip(*(evaluation["held_out"][name].to_pylist() for name in (USER, ITEM)), strict=True))
    n_common = len(scored & evaluated)
    return AssetCheckResult(passed=n_common == 0, metadata={"pairs_in_both": n_common})


@asset_check(asset="evaluation")
def the_model_is_better_than_popularity(evaluation: Tables) -> AssetCheckResult:
    """On the same pairs, by more than chance."""
    models = {row[MODEL]: row for row in evaluation["models"].to_pylist()}
    popularity = models[POPULARITY]
    return AssetCheckResult(
        passed=popularity[TO_TUNED_HIGH] < 0,
        severity=AssetCheckSeverity.WARN,
        metadata={"tuned": models[TUNED][MAP], "popularity": popularity[MAP]},
    )


@asset_check(asset="best_model", additional_ins={})
def the_published_model_recommends(warehouse: Warehouse) -> AssetCheckResult:
    """The current version loads, its files are those that were published, and it has something to offer."""
    try:
        model = load_model(warehouse.root)
    except InputError as error:
        return AssetCheckResult(passed=False, description=str(error))
    offered = model.recommend(model.users[0], filter_already_liked_items=False)
    return AssetCheckResult(
        passed=len(offered) > 0,
        metadata={"version": str(model.manifest["version"]), "recommended": len(offered)},
    )
