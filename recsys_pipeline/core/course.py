"""A search in rounds: what is tried next follows from what was found."""

from collections.abc import Sequence
from typing import Protocol

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.search import TrialResult


class Course(Protocol):
    """Rounds of trials; each depends on the results before it alone, so that it can be taken up again."""

    def first_round(self) -> list[Hyperparameters]:
        """What is tried before anything is known."""
        ...

    def next_round(self, results: Sequence[TrialResult]) -> list[Hyperparameters]:
        """What to try after these results, in whatever order they came; nothing where the course ends."""
        ...
