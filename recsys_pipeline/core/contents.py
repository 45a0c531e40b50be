"""The interactions that a model carries along, as it was trained on them."""

from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.model import Contents
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.weighting import weigh_trained


def contents_of(interactions: Interactions, winner: Winner) -> Contents:
    """The interactions as the model was trained on them; what the chosen strengths leave out weighs 0."""
    half_life = winner.hyperparameters.half_life_days
    strengths = interactions.strengths_by(winner.strengths, half_life)
    weights = weigh_trained(interactions.pattern, strengths, winner.hyperparameters)
    fades = interactions.fades(half_life) if half_life else {}
    return Contents(interactions.pattern, weights, interactions.excluded, interactions.counts, fades)
