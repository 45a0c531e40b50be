"""The models that an evaluation compares, each trained on what a split leaves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

from recsys_pipeline.core.baseline_tuning import Baseline
from recsys_pipeline.core.blending import Blend, terms_of
from recsys_pipeline.core.evaluation import (
    BLEND,
    LEAKING,
    NOTEBOOK,
    TUNED,
    blend_without,
)
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.ranking import Factors, Lister
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.baselines import trained_baselines
from recsys_pipeline.engines.local.compiling import ready
from recsys_pipeline.engines.local.training import Trainer, train_to_the_end

# The notebook's model before its grid search.
NOTEBOOK_HYPERPARAMETERS = Hyperparameters(
    factors=64, regularization=0.05, alpha=20.0, iterations=15, bm25_K1=100.0, bm25_B=0.8
)
# Names of the mappings of the events beside the default: the winner's, and that of its blend's item graph.
TUNED_STRENGTHS = "tuned"
GRAPH_STRENGTHS = "item graph"


class Contender(NamedTuple):
    """A trained model.

    Attributes:
        name: for people.
        lister: its lists; None where only the ranks are of interest.
        factors: where the scores are products of factors.
    """

    name: str
    lister: Lister | None
    factors: Factors | None = None


class Contest(NamedTuple):
    """What the models are made of, but for the data.

    Attributes:
        tuned: the winner's hyperparameters, with the mapping `TUNED_STRENGTHS`.
        solver: of the winner.
        blend: weights of the blend, where there is one.
        blend_without: by group of its terms, the weights of the others.
        target_events: events that count for popularity.
        baselines: by name of the model, the configuration of each baseline.
        k: length of the lists.
    """

    tuned: Hyperparameters
    solver: Solver
    blend: Blend | None
    blend_without: Mapping[str, Blend]
    target_events: list[str]
    baselines: Mapping[str, Baseline]
    k: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **self._asdict(),
            "tuned": self.tuned.as_dict(),
            "solver": self.solver.value,
            "blend": self.blend.as_dict() if self.blend else None,
            "blend_without": {group: blend.as_dict() for group, blend in self.blend_without.items()},
            "baselines": {name: baseline.as_dict() for name, baseline in self.baselines.items()},
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """From what `as_dict` gave."""
        made = {
            "tuned": Hyperparameters(**values["tuned"]),
            "solver": Solver(values["solver"]),
            "blend": Blend.from_mapping(values["blend"]) if values["blend"] else None,
            "baselines": {name: Baseline.from_mapping(each) for name, each in values["baselines"].items()},
            "blend_without": {
                group: Blend.from_mapping(blend) for group, blend in values["blend_without"].items()
            },
        }
        return cls(**{**values, **made})

    @property
    def blends(self) -> dict[str, Blend]:
        """By name of the model, the blends that come with the tuned one."""
        if not self.blend:
            return {}
        return {
            BLEND: self.blend,
            **{blend_without(group): blend for group, blend in self.blend_without.items()},
        }

    def with_ablations(self, names: Sequence[str]) -> Self:
        """With those blends alone of which terms are left out that have these names."""
        without = {group: b for group, b in self.blend_without.items() if blend_without(group) in names}
        return self._replace(blend_without=without)

    def trained(
        self, name: str, split: Split, seed: int, trainer_of: Callable[[Solver], Trainer]
    ) -> Iterator[Contender]:
        """The model of this name, trained on what the split leaves; with the tuned one its blend, if any.

        Args:
            name: one of those in `core.evaluation`.
            split: weights are those of its training data alone, but for the model that shows what that
                changes.
            seed: of the random start.
            trainer_of: who trains, by solver.
        """
        if name == TUNED:
            yield from self._tuned(split, seed, trainer_of(self.solver))
        elif name == LEAKING:
            leaking = replace(split, weigh_all=True)
            leaked = _by_factors(name, leaking, self.tuned, seed, trainer_of(self.solver))
            # It shows what the order of two steps changes, and is no model to recommend by.
            yield leaked._replace(lister=None)
        elif name == NOTEBOOK:
            yield _by_factors(name, split, NOTEBOOK_HYPERPARAMETERS, seed, trainer_of(self.solver))
        else:
            (baseline,) = trained_baselines([self.baselines[name]], split, self.target_events)
            yield Contender(name, baseline.lister)

    def _tuned(self, split: Split, seed: int, trainer: Trainer) -> Iterator[Contender]:
        tuned = _by_factors(TUNED, split, self.tuned, seed, trainer)
        yield tuned
        if self.blend:
            assert tuned.factors
            parameters = self.blend.filter
            if parameters:
                ready("recsys_pipeline.core.graph_loops")
            rows = split.graph_rows(parameters, GRAPH_STRENGTHS) if parameters else None
            terms = terms_of(tuned.factors, split.history(self.target_events), parameters, rows)
            for name, lister in terms.listers(self.blends).items():
                yield Contender(name, lister)


def _by_factors(
    name: str, split: Split, hyperparameters: Hyperparameters, seed: int, trainer: Trainer
) -> Contender:
    user_items = split.user_items(hyperparameters)
    factors = train_to_the_end(trainer, user_items, hyperparameters, seed).factors
    return Contender(name, factors.lister(), factors)
