"""Claims about the model."""

from collections.abc import Iterator

import numpy as np
from dagster import AssetCheckResult, asset_check

from recsys_pipeline.checks.claims import claim, claims
from recsys_pipeline.core.metrics import K
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING, best_lists
from recsys_pipeline.recommender import Recommender
from recsys_pipeline.steps.step import check_step

_SAMPLED_USERS = 100


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
        description=f"{len(tried):,} users are tried, and the fewest items that one gets are "
        f"{min(offered.tolist(), default=0)}.",
        metadata={"users_tried": len(tried), "fewest_recommended": min(offered.tolist(), default=0)},
    )


_FINITE = "factors_are_finite_and_of_the_right_shape"
_ROWS = 1 << 16


@claims(
    "best_model",
    {_FINITE: "A row of finite factors for every user and item, as wide as the hyperparameters say."},
    inputs=["best_model"],
    blocking=[_FINITE],
)
def claims_of_best_model(best_model: Model) -> Iterator[AssetCheckResult]:
    """The factors are mapped, and read block by block."""
    said = best_model.manifest["hyperparameters"]
    width = said["factors"] * said.get("ensemble_size", 1)
    expected = ((len(best_model.users), width), (len(best_model.items), width))
    shapes = tuple(factors.shape for factors in best_model.factors)
    n_not_finite = sum(
        int(np.count_nonzero(~np.isfinite(factors[begin : begin + _ROWS])))
        for factors in best_model.factors
        for begin in range(0, len(factors), _ROWS)
    )
    told = " and ".join(f"{rows:,} x {columns:,}" for rows, columns in shapes)
    due = " and ".join(f"{rows:,} x {columns:,}" for rows, columns in expected)
    yield claim(
        _FINITE,
        shapes == expected and n_not_finite == 0,
        f"the factors of users and items are {told}, due are {due}; {n_not_finite:,} values are not finite.",
        metadata={"values that are not finite": n_not_finite},
    )
