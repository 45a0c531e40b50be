"""A trained model with all that recommending takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.lineage import Lineage
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.weighting import weigh


class Contents(NamedTuple):
    """What recommending takes beside the factors.

    Attributes:
        pattern: all interactions, so what each user already knows.
        weights: (n_interactions,) float32 weight in training; 0 for what the model was not trained on.
        excluded: (n_interactions,) whether it excludes its item from recommendation.
        counts: by event, (n_interactions,) how often it occurred.
    """

    pattern: Pattern
    weights: NDArray[np.float32]
    excluded: NDArray[np.bool_]
    counts: Mapping[str, NDArray[np.int32]]


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        users: raw id of each row of the users' factors.
        items: raw id of each row of the items' factors.
        factors: of the model.
        contents: the interactions.
        manifest: how it was made and how good it is.
        lineage: where it comes from; None for a release, whose manifest says so.
    """

    users: pa.Array
    items: pa.Array
    factors: Factors
    contents: Contents
    manifest: Mapping[str, Any]
    lineage: Lineage | None = None


def contents_of(interactions: Interactions, winner: Winner) -> Contents:
    """The interactions as the model was trained on them; what the chosen strengths leave out weighs 0."""
    strengths = interactions.strengths_by(winner.strengths)
    trained = strengths > 0
    pattern = interactions.pattern.select(trained)
    if trained.all():
        weights = weigh(pattern, strengths, winner.hyperparameters)
    else:
        weights = np.zeros(interactions.pattern.n_interactions, dtype=np.float32)
        weights[trained] = weigh(pattern, strengths[trained], winner.hyperparameters)
    return Contents(interactions.pattern, weights, interactions.excluded, interactions.counts)
