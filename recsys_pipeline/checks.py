"""Claims about the assets, as Dagster asset checks."""

import numpy as np
import pyarrow as pa
from dagster import AssetCheckResult, AssetIn, asset_check

from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.assets.splitting import held_out_positions
from recsys_pipeline.core.columns import HIT_RATE_AT_10, MAP_AT_10, NDCG_AT_10, USER_INDEX, WEIGHT
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.recommender import load_model
from recsys_pipeline.storage.warehouse import Warehouse


@asset_check(asset="bm25_matrix")
def every_weight_is_positive(bm25_matrix: Tables) -> AssetCheckResult:
    """No pair would reach a model as a dislike."""
    weights = bm25_matrix["pairs"][WEIGHT].to_numpy()
    n_bad = int(np.count_nonzero(~(weights > 0)))
    return AssetCheckResult(passed=n_bad == 0, metadata={"weights_at_or_below_zero": n_bad})


@asset_check(asset="leave_one_out_split", additional_ins={"bm25_matrix": AssetIn("bm25_matrix")})
def held_out_pairs_are_known_and_one_a_user(
    leave_one_out_split: pa.Table, bm25_matrix: Tables
) -> AssetCheckResult:
    """Each held-out pair is a pair of the matrix, so none is in training too, and no user has two."""
    users = leave_one_out_split[USER_INDEX].to_numpy()
    n_repeated = len(users) - len(np.unique(users))
    try:
        held_out_positions(Pairs.from_tables(bm25_matrix), leave_one_out_split)
    except InputError as error:
        return AssetCheckResult(passed=False, description=str(error))
    return AssetCheckResult(passed=n_repeated == 0, metadata={"users_with_several": n_repeated})


@asset_check(asset="grid_search_results")
def every_score_is_a_share(grid_search_results: pa.Table) -> AssetCheckResult:
    """MAP@10, NDCG@10 and HitRate@10 of every trial lie between 0 and 1, and the best is above 0."""
    scores = np.stack(
        [grid_search_results[name].to_numpy() for name in (MAP_AT_10, NDCG_AT_10, HIT_RATE_AT_10)]
    )
    passed = bool(((scores >= 0) & (scores <= 1)).all() and scores[0].max() > 0)
    return AssetCheckResult(passed=passed, metadata={"best MAP@10": float(scores[0].max())})


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
