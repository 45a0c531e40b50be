"""What is held out and what that leaves for training."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.trials import DEFAULT_STRENGTHS


class Holdout(NamedTuple):
    """One split of the pairs.

    Attributes:
        users: (n_held_out,) user index; from the number of users on for users who are not known.
        items: (n_held_out,) item index; -1 for an item that is not known. A user may have several.
        strengths: by the name of a mapping, (n_pairs,) strengths of all events; one is the default.
        left: by the same names, (n_pairs,) strengths without the held-out events; 0 leaves the pair.
        seen: (n_pairs,) pairs that hide their item from recommendation; no held-out pair does.
        events: by event, (n_pairs,) whether it is left for training.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    strengths: dict[str, NDArray[np.float64]]
    left: dict[str, NDArray[np.float64]]
    seen: NDArray[np.bool_]
    events: dict[str, NDArray[np.bool_]]


def hold_out_pairs(pattern: Pattern, strengths: NDArray[np.float64], positions: NDArray[np.int64]) -> Holdout:
    """The split that takes whole pairs out and in which every pair of the rest hides its item."""
    kept = np.ones(pattern.n_pairs, dtype=bool)
    kept[positions] = False
    return Holdout(
        pattern.user_of_pair[positions],
        pattern.indices[positions],
        {DEFAULT_STRENGTHS: strengths},
        {DEFAULT_STRENGTHS: np.where(kept, strengths, 0.0)},
        kept,
        {},
    )
