"""The models that an evaluation compares, each trained on what a split leaves."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from recsys_pipeline.core.blending import by_blend
from recsys_pipeline.core.evaluation import BLEND, LEAKING, POPULARITY, TUNED
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, NO_WEIGHTING, Hyperparameters
from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.ranking import Factors, Scorer
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.scorers import by_popularity, by_repeat_consumption
from recsys_pipeline.engines.local.neighbours import Neighbours, by_neighbours
from recsys_pipeline.engines.local.solvers import Solver, trainer_for
from recsys_pipeline.engines.local.training import train_to_the_end

NOTEBOOK = "notebook's ALS"
REPEAT_CONSUMPTION = "repeat consumption"
_NEIGHBOURS = {Neighbours.bm25: "item-kNN, BM25", Neighbours.cosine: "item-kNN, cosine"}
# The notebook's model before its grid search.
NOTEBOOK_HYPERPARAMETERS = Hyperparameters(
    factors=64, regularization=0.05, alpha=20.0, iterations=15, bm25_K1=100.0, bm25_B=0.8
)
# Name of the winner's mapping of the events, beside the default.
TUNED_STRENGTHS = "tuned"


class Contender(NamedTuple):
    """A trained model.

    Attributes:
        name: for people.
        scorer: scores of all items.
        factors: where the scores are products of factors.
    """

    name: str
    scorer: Scorer
    factors: Factors | None = None


class Contenders:
    """Trains them; the tuned model comes first."""

    def __init__(self, interactions: Interactions, winner: Winner, n_neighbours: int) -> None:
        self._interactions, self._winner, self._n_neighbours = interactions, winner, n_neighbours
        self._tuned = winner.hyperparameters.replace(strengths=TUNED_STRENGTHS)
        self._trainer = trainer_for(Solver(winner.solver))
        self._notebook_trainer = trainer_for(Solver.implicit)

    def trained_on(self, split: Split, seed: int) -> Iterator[Contender]:
        """Each model trained on what the split leaves; weights are those of the training data alone."""
        tuned = self._train(split, self._tuned, seed)
        yield Contender(TUNED, tuned.scorer(), tuned)
        if self._winner.blend:
            history = self._interactions.history(split.events)
            yield Contender(BLEND, by_blend(self._winner.blend, tuned, history))
        popularity = self._interactions.target_popularity(split.events)
        training = split.training[DEFAULT_STRENGTHS]
        left = split.training_strengths[DEFAULT_STRENGTHS]
        strengths = left[left > 0]
        if _may_be_repeated(split):
            yield Contender(REPEAT_CONSUMPTION, by_repeat_consumption(training, strengths, popularity))
        for kind, name in _NEIGHBOURS.items():
            user_items = training.user_items(strengths)
            yield Contender(name, by_neighbours(user_items, kind, self._n_neighbours))
        notebook = self._train(split, NOTEBOOK_HYPERPARAMETERS, seed)
        yield Contender(NOTEBOOK, notebook.scorer(), notebook)
        yield Contender(POPULARITY, by_popularity(popularity))
        if self._tuned.weighting != NO_WEIGHTING:
            leaking = self._train(replace(split, weigh_all=True), self._tuned, seed)
            yield Contender(LEAKING, leaking.scorer(), leaking)

    def _train(self, split: Split, hyperparameters: Hyperparameters, seed: int) -> Factors:
        is_notebook = hyperparameters == NOTEBOOK_HYPERPARAMETERS
        trainer = self._notebook_trainer if is_notebook else self._trainer
        return train_to_the_end(trainer, split.user_items(hyperparameters), hyperparameters, seed).factors


def _may_be_repeated(split: Split) -> bool:
    """Whether something that a user has interacted with may be recommended to them again."""
    training = split.training[DEFAULT_STRENGTHS]
    excluded = split.exclusions.positions_of(training.user_of_interaction, training.indices)
    return bool((excluded < 0).any())
