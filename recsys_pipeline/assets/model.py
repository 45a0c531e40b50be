"""The final model."""

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.assets.search import best_trial
from recsys_pipeline.core import columns
from recsys_pipeline.core.metrics import K, hits_of_recommended, score
from recsys_pipeline.core.trials import fits_for
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline.engines.local import top_items, trained_model
from recsys_pipeline.engines.solvers import trainer_for
from recsys_pipeline.failures import input_errors_fail_the_run
from recsys_pipeline.reporting.metadata import distribution_table, rounded, shape_metadata
from recsys_pipeline.storage.releases import Release, publish
from recsys_pipeline.storage.tables import notes_of
from recsys_pipeline.storage.warehouse import Warehouse

TRAIN_MAP_AT_10 = "MAP@10 train"
TRAIN_NOTEBOOK_MAP_AT_10 = "MAP@10 train (notebook)"
_TRAIN_USERS = 20_000

# What the manifest fingerprints: by these files the model can be made again.
_INPUTS = (
    ("raw_feedback",),
    ("feedback_strengths",),
    ("bm25_matrix", "pairs"),
    ("bm25_matrix", "users"),
    ("bm25_matrix", "items"),
    ("leave_one_out_split",),
    ("grid_search_results",),
)


@asset(kinds={"parquet", "python"})
def best_model(
    context: AssetExecutionContext,
    warehouse: Warehouse,
    bm25_matrix: Tables,
    grid_search_results: pa.Table,
) -> MaterializeResult[None]:
    """The winning configuration refitted on all pairs: a new version, to which `current.json` points.

    MAP@10 is that of the search on the held-out pairs; MAP@10 train scores the refitted model on the pairs
    it was trained on (of 20,000 users at most), nothing filtered, as the notebook prints it, and says
    nothing of its quality.
    """
    trial, seed, solver = best_trial(grid_search_results)
    pairs = Pairs.from_tables(bm25_matrix)
    inputs = {"/".join(names): warehouse.fingerprint(*names) for names in _INPUTS}
    if notes_of(grid_search_results)["inputs"]["bm25_matrix"] != inputs["bm25_matrix/pairs"]:
        context.log.warning("grid_search_results was made from another bm25_matrix than this model is")
    weights = bm25_weights(pairs.pattern, pairs.strengths, k1=trial.bm25_k1, b=trial.bm25_b)
    with input_errors_fail_the_run():
        pairs.require_no_dislikes(weights)

    user_items = pairs.pattern.user_items(weights)
    (fit,) = fits_for([trial])
    with input_errors_fail_the_run():
        trainer = trainer_for(solver)
    (state,) = trainer.train(user_items, fit, seed)
    if not (np.isfinite(state.user_factors).all() and np.isfinite(state.item_factors).all()):
        raise FloatingPointError("the factors hold NaN or infinity: the fit diverged; nothing is published")
    model = trained_model(trial, seed, state.user_factors, state.item_factors)
    # Spread evenly over the ids; to score everybody takes time in proportion to users times items.
    scored = np.unique(np.linspace(0, len(pairs.users) - 1, _TRAIN_USERS).astype(np.int32))
    train = score(
        hits_of_recommended(top_items(model, user_items, scored, K), pairs.pattern, scored),
        pairs.pattern.pairs_per_user[scored],
    )

    best_row = grid_search_results.slice(0, 1).to_pylist()[0]
    quality = {
        columns.MAP_AT_10: best_row[columns.MAP_AT_10],
        columns.MAP_AT_10_STANDARD_ERROR: best_row[columns.MAP_AT_10_STANDARD_ERROR],
        columns.NDCG_AT_10: best_row[columns.NDCG_AT_10],
        columns.HIT_RATE_AT_10: best_row[columns.HIT_RATE_AT_10],
        columns.NOTEBOOK_MAP_AT_10: best_row[columns.NOTEBOOK_MAP_AT_10],
        TRAIN_MAP_AT_10: train.map,
        TRAIN_NOTEBOOK_MAP_AT_10: train.notebook_map,
    }
    n_users, n_items = pairs.pattern.shape
    folder = publish(
        warehouse.root,
        Release(
            users=pairs.users,
            items=pairs.items,
            user_factors=state.user_factors,
            item_factors=state.item_factors,
            pattern=pairs.pattern,
            weights=user_items.data,
            manifest={
                "hyperparameters": trial._asdict(),
                "seed": seed,
                "solver": solver.value,
                "metrics": quality,
                "counts": {"users": n_users, "items": n_items, "pairs": pairs.pattern.n_pairs},
                "inputs": inputs,
            },
        ),
        model,
    )
    return MaterializeResult(
        metadata={
            **{name: rounded(value) for name, value in quality.items()},
            **shape_metadata(n_users, n_items, pairs.pattern.n_pairs),
            **trial._asdict(),
            "users_scored_for_train": len(scored),
            "version": folder.name,
            "path": MetadataValue.path(str(folder)),
            "fit_seconds": rounded(state.seconds),
            "distributions": distribution_table(
                {
                    "length of user factors": np.linalg.norm(state.user_factors, axis=1),
                    "length of item factors": np.linalg.norm(state.item_factors, axis=1),
                }
            ),
        }
    )
