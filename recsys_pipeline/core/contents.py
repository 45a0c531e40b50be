"""The interactions that a model carries along, as it was trained on them."""

import numpy as np

from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.model import Contents
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.weighting import weigh


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
