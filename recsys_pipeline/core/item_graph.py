"""The item graph: which items go together, directly, without factors.

With R the interactions, D_u the degrees of users and D_i those of items (the sums of the rows and of the
columns of R), a in [0, 1] the exponent of the users and b that of the items,

    R~ = D_u^-a R D_i^-b,    score(u, i) = (r_u R~' R~)_i

which is a linear filter on the graph that joins items by the users who share them. With both exponents 1/2 it
is that of GF-CF: Shen et al., "How Powerful is Graph Convolution for Recommendation?" (CIKM 2021). Nothing
is trained, and no item x item matrix is formed: for each user we walk from the own items over the users who
share them to all items of these users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.ranking import Scorer

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    Steps = tuple[NDArray[np.signedinteger], NDArray[np.int32], NDArray[np.float32]]

PRESENCE = "presence"
STRENGTHS = "strengths"


class GraphFilter(NamedTuple):
    """The parameters of the filter.

    Attributes:
        user_exponent: of a user's degree: the larger, the less users with many items count.
        item_exponent: of an item's degree: the larger, the less popular items count, at both ends.
        weighting: an entry of R is 1 (`presence`) or the strength of the interaction (`strengths`).
        strengths: of the events; one that is not named does not count. None for those of the feedback.
    """

    user_exponent: float
    item_exponent: float
    weighting: str = PRESENCE
    strengths: Mapping[str, float] | None = None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """From JSON."""
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**self._asdict(), "strengths": None if self.strengths is None else dict(self.strengths)}

    def weigh(self, strengths: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n,) the entries of R, of interactions of these strengths; 0 for one that does not count."""
        entries = strengths > 0 if self.weighting == PRESENCE else strengths
        return entries.astype(np.float32)


@dataclass(frozen=True)
class ItemGraph:
    """The graph of some users, ready to be walked.

    Attributes:
        parameters: of the filter.
        items_of_user: R~ (CSR).
        users_of_item: its transpose (CSR).
        item_scale: (n_items,) D_i^-b; 0 for an item that nobody touched.
    """

    parameters: GraphFilter
    items_of_user: "csr_matrix"
    users_of_item: "csr_matrix"
    item_scale: NDArray[np.float32]

    @classmethod
    def of(cls, user_items: "csr_matrix", parameters: GraphFilter) -> Self:
        """Of R, (n_users, n_items) float32 with entries above 0: see `GraphFilter.weigh`."""
        item_scale = _scale(_sums(user_items, axis=0), parameters.item_exponent)
        user_scale = _scale(_sums(user_items, axis=1), parameters.user_exponent)
        steps = user_items.copy()
        steps.data *= item_scale[steps.indices]
        steps.data *= np.repeat(user_scale, np.diff(steps.indptr))
        return cls(parameters, steps, steps.T.tocsr(), item_scale)

    def scorer(self, people: "csr_matrix", known: NDArray[np.integer] | None = None) -> Scorer:
        """The scores of people with these rows of R; 0 for an item that no walk reaches.

        Somebody who is a user of the graph walks with the row that is given, in place of the one that the
        graph has. So the scores of somebody new are those of a graph that has them too, but for the items'
        degrees.

        Args:
            people: (n, n_items) float32, the scorer's users.
            known: (n,) the user of the graph who each of them is, -1 for none; None where person n is user n.
        """
        from recsys_pipeline.core.graph_loops import walk  # numba: half a second that not everybody needs

        if known is None:
            known = np.arange(people.shape[0])
        known = known.astype(np.int32)

        def scores_of(users: NDArray[np.int32]) -> NDArray[np.float32]:
            rows = people[users]
            scores = np.empty(rows.shape, dtype=np.float32)
            walk(
                *_arrays(rows),
                known[users],
                _arrays(self.users_of_item),
                _arrays(self.items_of_user),
                self.item_scale,
                self.parameters.user_exponent,
                scores,
            )
            return scores

        return scores_of

    def neighbours(self) -> Scorer:
        """Of each item the others, by the weight of the edge to them: the entries of R~' R~.

        What no walk reaches is no neighbour. The scorer's users are the items.
        """
        from scipy.sparse import identity

        n_items = len(self.item_scale)
        nobody = np.full(n_items, -1, dtype=np.int32)
        return reached_only(self.scorer(identity(n_items, np.float32, format="csr"), nobody))


def reached_only(scorer: Scorer) -> Scorer:
    """The same scores as recommendations by themselves: what no walk reaches is not recommended."""

    def scores_of(users: NDArray[np.int32]) -> NDArray[np.float32]:
        scores = scorer(users)
        scores[scores <= 0] = -np.inf
        return scores

    return scores_of


def _sums(matrix: "csr_matrix", axis: int) -> NDArray[np.float64]:
    return np.asarray(matrix.sum(axis=axis, dtype=np.float64)).reshape(-1)


def _scale(degrees: NDArray[np.float64], exponent: float) -> NDArray[np.float32]:
    """(n,) degrees to the power of minus the exponent; 0 where there is none."""
    scale = np.zeros(len(degrees), dtype=np.float32)
    some = degrees > 0
    scale[some] = degrees[some] ** -exponent
    return scale


def _arrays(matrix: "csr_matrix") -> "Steps":
    return matrix.indptr, matrix.indices, matrix.data
