"""What the search and the baselines have in common: which strengths are tried, and what is better."""

import re
from typing import Self

from pydantic import Field, model_validator

from recsys_pipeline.configuration import Knobs
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.interactions import Mappings
from recsys_pipeline.core.metrics import K
from recsys_pipeline.core.selecting import MOST_K, SelectBy, Selection


class TuningConfig(Knobs):
    """How models are tuned on what the split holds out."""

    strength_mappings: dict[str, dict[str, float]] = Field(
        default={},
        description="Other strengths of the events to try, by name, beside those of the `feedback` resource; "
        "an event that a mapping does not name counts for nothing.",
    )
    select_by: SelectBy = Field(
        default=SelectBy.MAP,
        description="The metric that orders what is tried and picks the best; `grid_search_results` and "
        "`baselines` should have the same.",
    )
    k: int = Field(default=K, ge=1, le=MOST_K, description="Ranks beyond count as misses for that metric.")

    @model_validator(mode="after")
    def _mappings_can_be_tried(self) -> Self:
        for name, strengths in self.strength_mappings.items():
            if not re.fullmatch(r"[\w-]+", name) or name == DEFAULT_STRENGTHS:
                raise ValueError(
                    f"strength_mappings: {name!r} is no name for a mapping; use letters, digits, _ and -, "
                    f"and not {DEFAULT_STRENGTHS!r}, which is that of the `feedback` resource"
                )
            if not strengths or not all(0 < value < float("inf") for value in strengths.values()):
                raise ValueError(f"strength_mappings: {name} needs at least one event, each above 0")
        return self

    def mappings(self) -> Mappings:
        """The mappings from events to strengths by name; None stands for that of the feedback."""
        return {DEFAULT_STRENGTHS: None, **self.strength_mappings}

    def selection(self) -> Selection:
        """What is compared."""
        return Selection(self.select_by, self.k)
