"""Claims about the assets, as Dagster asset checks; inputs of different ancestors make a claim false."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetCheckResult, AssetCheckSeverity, AssetIn, asset_check

from recsys_pipeline.core.agreement import Agreement
from recsys_pipeline.core.columns import (
    HIT_RATE_AT_10,
    ITEM,
    ITEM_INDEX,
    MAP,
    MAP_AT_10,
    MODEL,
    NDCG_AT_10,
    SPLIT,
    TARGET,
    TO_TUNED_HIGH,
    USER,
    USER_INDEX,
    WEIGHT,
    count_column,
)
from recsys_pipeline.core.evaluation import POPULARITY, TUNED
from recsys_pipeline.core.interactions import Datasets, Tables
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.metrics import K
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING, best_lists
from recsys_pipeline.core.selected import selection_of
from recsys_pipeline.core.splitting import HoldOutMethod
from recsys_pipeline.recommender import Recommender
from recsys_pipeline.steps import check_step

_SAMPLED_USERS = 100


@asset_check(asset="bm25_matrix")
@check_step
def every_weight_is_positive(bm25_matrix: Datasets) -> AssetCheckResult:
    """All BM25 weights are positive: ALS would take any other for a dislike."""
    n_bad = bm25_matrix["pairs"].count_rows(filter=~(pc.field(WEIGHT) > 0))
    return AssetCheckResult(passed=n_bad == 0, metadata={"weights_at_or_below_zero": n_bad})


@asset_check(asset="leave_one_out_split", additional_ins={"bm25_matrix": AssetIn("bm25_matrix")})
@check_step
def what_is_held_out_may_be_held_out(
    leave_one_out_split: pa.Table, bm25_matrix: Datasets
) -> AssetCheckResult:
    """Every held-out row is an interaction with a target event, under its own ids, and nothing excludes it.

    Counted from the tables by a join, not by the code that makes the training data.
    """
    stored = stored_metadata(leave_one_out_split)
    rules = stored_metadata(bm25_matrix["pairs"])
    of_these_users = pc.field(USER_INDEX).isin(leave_one_out_split[USER_INDEX].unique())
    joined = leave_one_out_split.select([USER_INDEX, ITEM_INDEX, USER, ITEM]).join(
        bm25_matrix["pairs"].to_table(filter=of_these_users),
        [USER_INDEX, ITEM_INDEX],
        join_type="left outer",
    )
    n_unknown = joined[TARGET].null_count
    n_not_target = pc.sum(pc.invert(joined[TARGET].drop_null())).as_py() or 0
    n_other_id = 0
    for index, name, table in ((USER_INDEX, USER, "users"), (ITEM_INDEX, ITEM, "items")):
        renamed = bm25_matrix[table].to_table([index, name]).rename_columns([index, "id"])
        ids = joined.select([index, name]).join(renamed, index, join_type="inner")
        n_other_id += pc.sum(pc.not_equal(ids[name], ids["id"])).as_py() or 0
    n_excluded = 0
    if stored["keep_other_events"]:
        staying = set(rules["seen_events"]) - set(rules["target_events"])
        for event in staying & set(rules["strengths"]):
            n_excluded += pc.sum(pc.greater(joined[count_column(event)].drop_null(), 0)).as_py() or 0
    # A file may name users and items that the feedback does not have, and any event.
    of_file = stored["strategy"] == HoldOutMethod.file.value
    return AssetCheckResult(
        passed=(of_file or n_unknown == n_not_target == 0) and n_other_id == n_excluded == 0,
        metadata={
            "unknown_interactions": n_unknown,
            "without_target_event": n_not_target,
            "under_other_ids": n_other_id,
            "excluded_from_recommendation": n_excluded,
        },
    )


@asset_check(asset="leave_one_out_split")
@check_step
def one_held_out_interaction_a_user(leave_one_out_split: pa.Table) -> AssetCheckResult:
    """No user has two held-out interactions in a split, unless they are given by a file."""
    stacked = np.stack([leave_one_out_split[name].to_numpy() for name in (SPLIT, USER_INDEX)])
    n_repeated = stacked.shape[1] - np.unique(stacked, axis=1).shape[1]
    of_file = stored_metadata(leave_one_out_split)["strategy"] == HoldOutMethod.file.value
    return AssetCheckResult(
        passed=n_repeated == 0 or of_file, metadata={"interactions_beyond_the_first": n_repeated}
    )


@asset_check(asset="grid_search_results")
@check_step
def every_score_is_a_share(grid_search_results: pa.Table) -> AssetCheckResult:
    """What selects, MAP@10, NDCG@10 and HitRate@10 of all trials that did not fail lie in [0, 1].

    What selects is above 0 for the best.
    """
    selection = selection_of(grid_search_results)
    names = (selection.column, MAP_AT_10, NDCG_AT_10, HIT_RATE_AT_10)
    scored = grid_search_results.filter(pc.is_valid(grid_search_results[MAP_AT_10]))
    scores = np.stack([scored[name].to_numpy() for name in names])
    passed = bool(scored.num_rows and ((scores >= 0) & (scores <= 1)).all() and scores[0].max() > 0)
    return AssetCheckResult(
        passed=passed,
        metadata={
            f"best {selection.name}": float(scores[0].max(initial=0)),
            "failed_trials": grid_search_results.num_rows - scored.num_rows,
        },
    )


@asset_check(asset="grid_search_results")
@check_step
def the_solver_agrees_with_implicit(grid_search_results: pa.Table) -> AssetCheckResult:
    """The chosen trial scores as `implicit` scores it, and ranks the same, but for what rounding explains.

    Fails where the 95 % interval of the difference in MAP@10 lies beyond 1 % of it. If more than 5 % of the
    ranks differ that is a warning: it happens on small data with more factors than the data bears.
    """
    stored = stored_metadata(grid_search_results)
    if not stored.get("agreement"):
        return AssetCheckResult(
            passed=True,
            description="Nothing to compare: the solver is `implicit` itself, or `implicit` cannot train the "
            "chosen configuration or so many interactions, or compare_with_implicit is false. "
            f"The solver is `{stored['solver']}`.",
        )
    found = Agreement.from_mapping(stored["agreement"])
    if found.failure:
        return AssetCheckResult(passed=False, description=f"`implicit` failed: {found.failure}")
    return AssetCheckResult(
        passed=found.holds,
        severity=AssetCheckSeverity.WARN if found.is_as_good else AssetCheckSeverity.ERROR,
        metadata={
            "difference in MAP@10": found.map - found.reference_map,
            "difference low": found.difference.low,
            "difference high": found.difference.high,
            "share of ranks that differ": found.ranks_differing,
        },
    )


@asset_check(asset="evaluation", additional_ins={"leave_one_out_split": AssetIn("leave_one_out_split")})
@check_step
def nothing_evaluated_was_scored_by_the_search(
    evaluation: Tables, leave_one_out_split: pa.Table
) -> AssetCheckResult:
    """The held-out interactions that the model is measured on had no part in choosing it."""
    scored = set(zip(*(leave_one_out_split[name].to_pylist() for name in (USER, ITEM)), strict=True))
    evaluated = set(zip(*(evaluation["held_out"][name].to_pylist() for name in (USER, ITEM)), strict=True))
    n_common = len(scored & evaluated)
    return AssetCheckResult(passed=n_common == 0, metadata={"interactions_in_both": n_common})


@asset_check(asset="evaluation")
@check_step
def the_model_is_better_than_popularity(evaluation: Tables) -> AssetCheckResult:
    """On the same held-out interactions, by more than chance."""
    models = {row[MODEL]: row for row in evaluation["models"].to_pylist()}
    popularity = models[POPULARITY]
    return AssetCheckResult(
        passed=popularity[TO_TUNED_HIGH] < 0,
        severity=AssetCheckSeverity.WARN,
        metadata={"tuned": models[TUNED][MAP], "popularity": popularity[MAP]},
    )


@asset_check(asset="best_model")
@check_step
def the_model_recommends(best_model: Model) -> AssetCheckResult:
    """The model can be opened as readers will open it, and has something to offer.

    A hundred users, spread over the ids, are tried, but for those without training interactions. The first
    of them is also asked for by id, as readers do.
    """
    model = Recommender(best_model)
    places = np.unique(np.linspace(0, len(model.users) - 1, _SAMPLED_USERS).astype(np.int64))
    tried = np.array([at for at in places if model.was_trained_on(model.users[at])], dtype=np.int32)
    # All at once: one user takes nearly as long to score as a hundred.
    nothing = Pattern.empty(len(model.users), len(model.items))
    offered = np.count_nonzero(best_lists(best_model.factors.scorer(), tried, nothing, K) != NOTHING, axis=1)
    of_first = [
        len(model.recommend(user, K, filter_already_liked_items=False)) for user in model.users[tried[:1]]
    ]
    return AssetCheckResult(
        passed=bool(len(offered) and offered.min() > 0 and of_first == [offered[0]]),
        metadata={"users_tried": len(tried), "fewest_recommended": min(offered.tolist(), default=0)},
    )
