"""The final model."""

import pyarrow as pa
from dagster import AssetExecutionContext, MarkdownMetadataValue, MaterializeResult, MetadataValue, asset

from recsys_pipeline.core import columns
from recsys_pipeline.core.interactions import Datasets
from recsys_pipeline.core.lineage import ancestors_of
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.selected import SELECTED_BY
from recsys_pipeline.core.selecting import MAP_AT_10
from recsys_pipeline.core.strengths import EventRules
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.metadata import (
    AT_A_GLANCE,
    MAP_IN_SEARCH,
    SETTINGS,
    WHERE_IT_IS,
    distribution_table,
    fixed,
    markdown_table,
    rounded,
    shape_metadata,
    with_error,
)
from recsys_pipeline.reporting.model import told_hyperparameters
from recsys_pipeline.steps.step import asset_step
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

    MAP@10 is that of the search on the held-out interactions. The table of scores also has that of the
    refitted model on what it was trained on (of 20,000 users at most), nothing filtered, as the notebook
    prints it, which says nothing of its quality.
    """
    winner = Winner.of(grid_search_results)
    hyperparameters = winner.hyperparameters
    fitted = chosen_engine().refit(bm25_matrix, winner)
    rules = EventRules.from_metadata(stored_metadata(bm25_matrix["pairs"]))
    train = fitted.train
    selection = winner.selection
    names = dict.fromkeys([*_SEARCH_METRICS, selection.column, selection.error_column])
    quality = {
        **{name: winner.row[name] for name in names},
        TRAIN_MAP_AT_10: train.map,
        TRAIN_NOTEBOOK_MAP_AT_10: train.notebook_map,
    }
    n_users, n_items, n_interactions = fitted.n_users, fitted.n_items, fitted.n_interactions
    manifest = {
        "hyperparameters": hyperparameters.as_dict(),
        "seed": winner.seed,
        "solver": winner.solver,
        "strengths": dict(winner.strengths or rules.strengths),
        "rules": rules.to_metadata(),
        "target_events": list(rules.target_events),
        "seen_events": list(rules.seen_events),
        "blend": winner.blend.as_dict() if winner.blend else None,
        "graph": stored_metadata(grid_search_results).get("graph"),
        "metrics": quality,
        SELECTED_BY: selection.as_dict(),
        "counts": {
            "users": n_users,
            "items": n_items,
            "interactions": n_interactions,
            "events": fitted.n_events,
        },
        "inputs": ancestors_of([bm25_matrix, grid_search_results]),
    }
    if is_local(warehouse.root):
        adopt_former(warehouse.root)
    with warehouse.replacing("best_model") as folder:
        write_model(folder, fitted.factors, fitted.interactions, manifest)
    told_figure = f"{selection.name} {winner.row[selection.column]:.4f}"
    context.log.info(
        f"{told_hyperparameters(hyperparameters)}, refitted in {fitted.factors.fit_seconds:.1f} s; "
        f"{told_figure} in the search; {n_interactions:,} interactions of {n_users:,} users and {n_items:,} "
        f"items; {n_users + n_items:,} vectors of {hyperparameters.width:,} factors are in "
        f"{warehouse.path_of('best_model')}"
    )
    return MaterializeResult(
        metadata={
            AT_A_GLANCE: (
                f"{told_hyperparameters(hyperparameters)}; {told_figure} in the search; trained on "
                f"{n_interactions:,} interactions of {n_users:,} users with {n_items:,} items"
            ),
            MAP_IN_SEARCH: rounded(winner.row[columns.MAP_AT_10]),
            **(
                {}
                if selection == MAP_AT_10
                else {f"{selection.name} (search)": rounded(winner.row[selection.column])}
            ),
            **shape_metadata(n_users, n_items, n_interactions),
            "Fit seconds": rounded(fitted.factors.fit_seconds),
            "hyperparameters": markdown_table(["", ""], list(hyperparameters.told().items())),
            "scores": _scores_table(winner, train, fitted.n_scored),
            "distributions": distribution_table(
                {
                    "length of user factors": fitted.user_lengths,
                    "length of item factors": fitted.item_lengths,
                }
            ),
            SETTINGS: settings_table(
                seed=winner.seed,
                solver=winner.solver,
                compared_by=selection.name,
                strengths=manifest["strengths"],
                target_events=manifest["target_events"],
                seen_events=manifest["seen_events"],
            ),
            WHERE_IT_IS: MetadataValue.path(str(warehouse.path_of("best_model"))),
        }
    )


def _scores_table(winner: Winner, train: Scores, n_scored: int) -> MarkdownMetadataValue:
    """Of the search, and of the model on its own training data, which says nothing of its quality."""
    row = winner.row
    found = {
        "MAP@10": with_error(row[columns.MAP_AT_10], row[columns.MAP_AT_10_STANDARD_ERROR]),
        "NDCG@10": fixed(row[columns.NDCG_AT_10]),
        "HitRate@10": fixed(row[columns.HIT_RATE_AT_10]),
        winner.selection.name: with_error(row[winner.selection.column], row[winner.selection.error_column]),
        f"MAP@10 on its own training data ({n_scored:,} users)": fixed(train.map),
        "MAP@10 by the notebook's formula": fixed(row[columns.NOTEBOOK_MAP_AT_10]),
        "the same on its own training data": fixed(train.notebook_map),
    }
    return markdown_table(["score", "value"], list(found.items()))
