"""The final model."""

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.assets.results import Winner
from recsys_pipeline.core import columns
from recsys_pipeline.core.metrics import K, hits_of_recommended, score
from recsys_pipeline.core.ranking import require_finite
from recsys_pipeline.core.trials import BM25, fits_for
from recsys_pipeline.core.weighting import bm25_weights, weigh
from recsys_pipeline.engines.local import top_items, trained_model
from recsys_pipeline.engines.solvers import trainer_for
from recsys_pipeline.failures import sorted_failures
from recsys_pipeline.reporting.metadata import distribution_table, rounded, shape_metadata
from recsys_pipeline.storage.releases import Release, publish
from recsys_pipeline.storage.tables import notes_of
from recsys_pipeline.storage.warehouse import Warehouse

TRAIN_MAP_AT_10 = "MAP@10 train"
TRAIN_NOTEBOOK_MAP_AT_10 = "MAP@10 train (notebook)"
_TRAIN_USERS = 20_000

_SEARCH_METRICS = (
    columns.MAP_AT_10,
    columns.MAP_AT_10_STANDARD_ERROR,
    columns.NDCG_AT_10,
    columns.HIT_RATE_AT_10,
    columns.NOTEBOOK_MAP_AT_10,
)

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
@sorted_failures()
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
    winner = Winner.of(grid_search_results)
    trial, seed = winner.trial, winner.seed
    pairs = Pairs.from_tables(bm25_matrix)
    inputs = {"/".join(names): warehouse.fingerprint(*names) for names in _INPUTS}
    if notes_of(grid_search_results)["inputs"]["bm25_matrix"] != inputs["bm25_matrix/pairs"]:
        context.log.warning("grid_search_results was made from another bm25_matrix than this model is")
    strengths = pairs.strengths_by(winner.strengths)
    trainer = trainer_for(winner.solver)
    if trial.weighting == BM25:
        pairs.require_no_dislikes(bm25_weights(pairs.pattern, pairs.strengths, k1=1.0, b=0.0))
    # Of what is not trained on the weight is 0: events that the chosen strengths leave out.
    trained = strengths > 0
    pattern = pairs.pattern.select(trained)
    weights = np.zeros(pairs.pattern.n_pairs, dtype=np.float32)
    weights[trained] = weigh(pattern, strengths[trained], trial)
    user_items = pattern.user_items(weights[trained])
    (fit,) = fits_for([trial])
    (state,) = trainer.train(user_items, fit, seed)
    require_finite(state.user_factors, state.item_factors)
    model = trained_model(trial, seed, state.user_factors, state.item_factors)
    # Spread evenly over the ids; to score everybody takes time in proportion to users times items.
    anyone = np.flatnonzero(pattern.pairs_per_user)
    scored = anyone[np.unique(np.linspace(0, len(anyone) - 1, _TRAIN_USERS).astype(np.int64))]
    train = score(
        hits_of_recommended(top_items(model, user_items, scored, K), pattern, scored),
        pattern.pairs_per_user[scored],
    )

    quality = {
        **{name: winner.row[name] for name in _SEARCH_METRICS},
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
            weights=weights,
            seen=pairs.seen,
            counts=pairs.counts,
            manifest={
                "hyperparameters": trial._asdict(),
                "seed": seed,
                "solver": winner.solver.value,
                "strengths": dict(winner.strengths or pairs.rules.strengths),
                "target_events": list(pairs.rules.target_events),
                "seen_events": list(pairs.rules.seen_events),
                "blend": winner.blend._asdict() if winner.blend else None,
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
