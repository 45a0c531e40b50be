"""The final model."""

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from recsys_pipeline.core import columns
from recsys_pipeline.core.contents import contents_of
from recsys_pipeline.core.factors import factors_in
from recsys_pipeline.core.interactions import Datasets, Interactions
from recsys_pipeline.core.lineage import ancestors_of
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.metrics import K, Scores, hits_of_recommended, score
from recsys_pipeline.core.model import Contents
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING, Factors, best_by_factors
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.selected import SELECTED_BY
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.reporting.metadata import distribution_table, rounded, shape_metadata
from recsys_pipeline.reporting.model import told_hyperparameters
from recsys_pipeline.steps import asset_step
from recsys_pipeline.storage.atomic import is_local
from recsys_pipeline.storage.models import write_model
from recsys_pipeline.storage.publishing import adopt_former
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


@asset(kinds={"arrow", "python"})
@asset_step
def best_model(
    context: AssetExecutionContext,
    warehouse: Warehouse,
    bm25_matrix: Datasets,
    grid_search_results: pa.Table,
) -> MaterializeResult[None]:
    """The winning configuration refitted on all interactions; what readers get, `release` decides.

    MAP@10 is that of the search on the held-out interactions; MAP@10 train scores the refitted model on those
    it was trained on (of 20,000 users at most), nothing filtered, as the notebook prints it, and says nothing
    of its quality.
    """
    winner = Winner.of(grid_search_results)
    hyperparameters = winner.hyperparameters
    fitted = LocalEngine().refit(bm25_matrix, winner)
    interactions = Interactions.from_tables(bm25_matrix)
    factors = Factors(factors_in(fitted.users), factors_in(fitted.items))
    contents = contents_of(interactions, winner)
    train, n_scored = _train_scores(factors, contents)
    selection = winner.selection
    names = dict.fromkeys([*_SEARCH_METRICS, selection.column, selection.error_column])
    quality = {
        **{name: winner.row[name] for name in names},
        TRAIN_MAP_AT_10: train.map,
        TRAIN_NOTEBOOK_MAP_AT_10: train.notebook_map,
    }
    n_users, n_items = interactions.pattern.shape
    n_interactions = interactions.pattern.n_interactions
    manifest = {
        "hyperparameters": hyperparameters.as_dict(),
        "seed": winner.seed,
        "solver": winner.solver,
        "strengths": dict(winner.strengths or interactions.rules.strengths),
        "rules": interactions.rules.to_metadata(),
        "target_events": list(interactions.rules.target_events),
        "seen_events": list(interactions.rules.seen_events),
        "blend": winner.blend.as_dict() if winner.blend else None,
        "graph": stored_metadata(grid_search_results).get("graph"),
        "metrics": quality,
        SELECTED_BY: selection.as_dict(),
        "counts": {
            "users": n_users,
            "items": n_items,
            "interactions": n_interactions,
            "events": sum(int(counts.sum()) for counts in interactions.counts.values()),
        },
        "inputs": ancestors_of([bm25_matrix, grid_search_results]),
    }
    if is_local(warehouse.root):
        adopt_former(warehouse.root)
    with warehouse.replacing("best_model") as folder:
        write_model(folder, fitted, contents, manifest)
    context.log.info(
        f"{told_hyperparameters(hyperparameters)}, refitted in {fitted.fit_seconds:.1f} s; {selection.name} "
        f"of the search {winner.row[selection.column]:.4f}; {n_interactions:,} interactions of {n_users:,} "
        f"users and {n_items:,} items"
    )
    return MaterializeResult(
        metadata={
            **{name: rounded(value) for name, value in quality.items()},
            selection.name: rounded(winner.row[selection.column]),
            **shape_metadata(n_users, n_items, n_interactions),
            **hyperparameters.told(),
            "users_scored_for_train": n_scored,
            "path": MetadataValue.path(str(warehouse.path_of("best_model"))),
            "fit_seconds": rounded(fitted.fit_seconds),
            "distributions": distribution_table(
                {
                    "length of user factors": np.linalg.norm(factors.users, axis=1),
                    "length of item factors": np.linalg.norm(factors.items, axis=1),
                }
            ),
        }
    )


def _train_scores(factors: Factors, contents: Contents) -> tuple[Scores, int]:
    """The scores on the model's own training data, and of how many users."""
    pattern = contents.pattern.select(contents.weights > 0)
    # Spread evenly over the ids; to score everybody takes time in proportion to users times items.
    anyone = np.flatnonzero(pattern.interactions_per_user)
    scored = anyone[np.unique(np.linspace(0, len(anyone) - 1, _TRAIN_USERS).astype(np.int64))]
    nothing_excluded = Pattern.empty(*pattern.shape)
    recommended = best_by_factors(factors, scored.astype(np.int32), nothing_excluded, K)
    hits = hits_of_recommended(recommended, pattern, scored) & (recommended != NOTHING)
    return score(hits, pattern.interactions_per_user[scored]), len(scored)
