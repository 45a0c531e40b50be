"""The final model, trained on all interactions in memory, and what it is like."""

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.columns import ITEM, USER
from recsys_pipeline.core.contents import contents_of
from recsys_pipeline.core.distribution import Distribution
from recsys_pipeline.core.factors import FactorTables, factor_table, factors_in
from recsys_pipeline.core.hyperparameters import BM25
from recsys_pipeline.core.interactions import Datasets, Interactions, Tables
from recsys_pipeline.core.metrics import K, Scores, hits_of_recommended, score
from recsys_pipeline.core.model import Contents
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING, Factors, best_by_factors
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.core.weighting import weigh
from recsys_pipeline.engines.engine import Refitted
from recsys_pipeline.engines.local.preparation import require_positive_weights
from recsys_pipeline.engines.local.solvers import require_addressable, trainer_for
from recsys_pipeline.engines.local.training import train_to_the_end

# Whose scores on their own training data are taken, at most.
TRAIN_USERS = 20_000


def refit(bm25_matrix: Tables | Datasets, winner: Winner) -> Refitted:
    """See `recsys_pipeline.engines.engine.Engine`."""
    tables = _trained(bm25_matrix, winner)
    # Read again: while the model was trained, nothing was kept of them that training does not need.
    interactions = Interactions.from_tables(bm25_matrix)
    contents = contents_of(interactions, winner)
    factors = Factors(factors_in(tables.users), factors_in(tables.items))
    train, n_scored = _train_scores(factors, contents)
    return Refitted(
        tables,
        contents.to_table(),
        *interactions.pattern.shape,
        interactions.pattern.n_interactions,
        sum(int(counts.sum()) for counts in interactions.counts.values()),
        train,
        n_scored,
        Distribution.of(np.linalg.norm(factors.users, axis=1)),
        Distribution.of(np.linalg.norm(factors.items, axis=1)),
    )


def _trained(bm25_matrix: Tables | Datasets, winner: Winner) -> FactorTables:
    interactions = Interactions.from_tables(bm25_matrix)
    require_addressable(Solver(winner.solver), interactions.pattern.n_interactions)
    hyperparameters = winner.hyperparameters
    strengths = interactions.strengths_by(winner.strengths, hyperparameters.half_life_days)
    if hyperparameters.weighting == BM25:
        require_positive_weights(interactions)
    # What the chosen strengths leave out is not trained on.
    trained = strengths > 0
    pattern = interactions.pattern.select(trained)
    weights = weigh(pattern, strengths if trained.all() else strengths[trained], hyperparameters)
    user_items = pattern.user_items(weights)
    users, items = interactions.users, interactions.items
    # The fit takes the most memory: what it does not need goes first.
    del interactions, strengths, trained, weights
    trainer = trainer_for(Solver(winner.solver))
    state = train_to_the_end(trainer, user_items, hyperparameters, winner.seed)
    return FactorTables(
        factor_table(USER, users, state.user_factors),
        factor_table(ITEM, items, state.item_factors),
        state.seconds,
    )


def users_to_score(anyone: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of (n,) users with something to train on, those whose own training data are scored."""
    # Spread evenly over the ids; to score everybody takes time in proportion to users times items.
    chosen: NDArray[np.int64] = anyone[
        np.unique(np.linspace(0, len(anyone) - 1, TRAIN_USERS).astype(np.int64))
    ]
    return chosen


def _train_scores(factors: Factors, contents: Contents) -> tuple[Scores, int]:
    """The scores on the model's own training data, and of how many users."""
    pattern = contents.pattern.select(contents.weights > 0)
    scored = users_to_score(np.flatnonzero(pattern.interactions_per_user))
    nothing_excluded = Pattern.empty(*pattern.shape)
    recommended = best_by_factors(factors, scored.astype(np.int32), nothing_excluded, K)
    hits = hits_of_recommended(recommended, pattern, scored) & (recommended != NOTHING)
    return score(hits, pattern.interactions_per_user[scored]), len(scored)
