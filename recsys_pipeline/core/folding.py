"""Folding in: the factors of a user whom the model was not trained with.

With the item factors Y fixed, the loss of `loss` has one best x for the interactions of one user. In the
principal axes of the items, Y'Y = V diag(s) V', with x = V z, the rows Z = V'y[i] of the user's items,
d = 1 / (w0 * s + r) and W = diag(c - w0), it solves

    (diag(1/d) + Z'WZ) z = Z'c        as many equations as factors, or

    z = diag(d) Z't,  (I + W Z diag(d) Z') t = c        as many as interactions: the same z.

Whichever is smaller is solved. The models of an ensemble are folded into one by one, as they were trained.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.hyperparameters import NO_WEIGHTING, Hyperparameters
from recsys_pipeline.core.loss import confidences, penalties
from recsys_pipeline.core.model import Contents, Model
from recsys_pipeline.core.pattern import INTERACTIONS_AT_ONCE, Pattern
from recsys_pipeline.core.strengths import Aggregate, combined_strengths, faded_strengths
from recsys_pipeline.core.weighting import item_lengths, weigh_trained

_ITEMS_PER_BLOCK = 1 << 12
# Numbers in the arrays of users who are solved together.
_NUMBERS_AT_ONCE = 1 << 22
# An eigenvalue this small beside the largest is rounding.
_NEGLIGIBLE = 1e-7


class Events(NamedTuple):
    """Events of people, in any order.

    Attributes:
        rows: (n,) the person of each.
        items: (n,) item index.
        names: (n,) place of the event's name among `FoldIn.events`.
    """

    rows: NDArray[np.int64]
    items: NDArray[np.int64]
    names: NDArray[np.int64]


class FoldIn:
    """Makes of people's events what the training would have made of them, the items staying as they are.

    Attributes:
        events: names that the model knows.
    """

    def __init__(self, model: Model) -> None:
        """People are folded into this model."""
        self._model = model
        manifest = model.manifest
        self._strengths: Mapping[str, float] = manifest["strengths"]
        self._aggregate = model.aggregate
        self._seen_events = manifest["seen_events"]
        self._hyperparameters = Hyperparameters.from_mapping(manifest["hyperparameters"])
        self.events = list(dict.fromkeys([*model.contents.counts, *self._strengths, *self._seen_events]))

    def contents(self, events: Events, before: Contents) -> Contents:
        """The interactions of people, by what they did before and these events.

        Where events fade, these count in full, as the latest of the training do; what people did before
        stays as faded as it was in training.

        Args:
            events: of the people.
            before: the interactions of the same people that the model knows of.
        """
        n_items = before.pattern.n_items
        keys_before = before.pattern.user_of_interaction.astype(np.int64) * n_items + before.pattern.indices
        keys, place = np.unique(
            np.concatenate([keys_before, events.rows * n_items + events.items]), return_inverse=True
        )
        place_before, place = np.split(place, [len(keys_before)])
        counts = {}
        for number, name in enumerate(self.events):
            count = np.bincount(place[events.names == number], minlength=len(keys))
            if name in before.counts:
                count[place_before] += before.counts[name]
            counts[name] = count.astype(np.int32)
        people, items = np.divmod(keys, n_items)
        pattern = Pattern.from_coordinates(
            people.astype(np.int32), items.astype(np.int32), before.pattern.shape
        )
        fades = self._fades(counts, before, place_before)
        strengths = self._combined(counts, fades)
        weights = weigh_trained(pattern, strengths, self._hyperparameters, self._item_lengths)
        excluded = np.zeros(len(keys), dtype=bool)
        for event in self._seen_events:
            excluded |= counts[event] > 0
        return Contents(pattern, weights, excluded, counts, fades)

    def _fades(
        self, counts: Mapping[str, NDArray[np.int32]], before: Contents, place_before: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """By event, what is left of the old ones, at these places, and of the new ones among the counts."""
        fades: dict[str, NDArray[np.float64]] = {}
        for event, count in counts.items() if self._hyperparameters.half_life_days else ():
            fade = count.astype(np.float64)
            if event in before.counts:
                fade[place_before] -= before.counts[event]
                if self._aggregate is Aggregate.sum:
                    fade[place_before] += before.fades[event]
                else:
                    fade = np.minimum(fade, 1.0)
                    fade[place_before] = np.maximum(fade[place_before], before.fades[event])
            elif self._aggregate is Aggregate.max:
                fade = np.minimum(fade, 1.0)
            fades[event] = fade
        return fades

    def _combined(
        self, counts: Mapping[str, NDArray[np.int32]], fades: Mapping[str, NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        if self._hyperparameters.half_life_days:
            return faded_strengths(fades, self._strengths, self._aggregate)
        return combined_strengths(counts, self._strengths, self._aggregate)

    def factors(self, contents: Contents) -> NDArray[np.float32]:
        """(n_people, width) the factors of people with these interactions; 0 where nothing has a weight."""
        return self._solver.users(contents.pattern, contents.weights)

    @cached_property
    def _item_lengths(self) -> NDArray[np.float64] | None:
        """Of BM25, those of the training."""
        if self._hyperparameters.weighting == NO_WEIGHTING:
            return None
        contents = self._model.contents
        lengths = np.zeros(contents.pattern.n_items)
        for first in range(0, contents.pattern.n_interactions, INTERACTIONS_AT_ONCE):
            block = slice(first, first + INTERACTIONS_AT_ONCE)
            counts = {event: count[block] for event, count in contents.counts.items()}
            fades = {event: fade[block] for event, fade in contents.fades.items()}
            strengths = self._combined(counts, fades)
            lengths += item_lengths(contents.pattern.indices[block], strengths, len(lengths))
        return lengths

    @cached_property
    def _solver(self) -> "UserSolver":
        return UserSolver(self._model.factors.items, self._hyperparameters)


class _Axes(NamedTuple):
    """The principal axes of the items of one model.

    Attributes:
        lengths: (n_axes,) eigenvalues of Y'Y.
        directions: (factors, n_axes) eigenvectors.
    """

    lengths: NDArray[np.float64]
    directions: NDArray[np.float64]

    @classmethod
    def of(cls, items: NDArray[np.float32], *, penalised: bool) -> Self:
        gram = np.zeros((items.shape[1], items.shape[1]))
        for first in range(0, len(items), _ITEMS_PER_BLOCK):
            rows = items[first : first + _ITEMS_PER_BLOCK].astype(np.float64)
            gram += rows.T @ rows
        lengths, directions = np.linalg.eigh(gram)
        lengths = np.maximum(lengths, 0)
        if not penalised:
            # No item has a part in the others: no score depends on what a user's factors have there.
            kept = lengths > _NEGLIGIBLE * lengths.max(initial=0)
            lengths, directions = lengths[kept], directions[:, kept]
        return cls(lengths, directions)


class UserSolver:
    """Finds the factors of users by their interactions, the item factors staying as they are."""

    def __init__(self, items: NDArray[np.float32], hyperparameters: Hyperparameters) -> None:
        """`items` are the (n_items, width) factors that were trained with these hyperparameters."""
        self._hyperparameters = hyperparameters
        self._models = np.split(items, hyperparameters.ensemble_size, axis=1)
        penalised = hyperparameters.regularization > 0
        self._axes = [_Axes.of(model, penalised=penalised) for model in self._models]

    def users(self, pattern: Pattern, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """The factors under which the loss of each user is least.

        Args:
            pattern: the interactions of the users.
            weights: (n_interactions,) weight of each, as in training; what is not above 0 does not count.

        Returns:
            (n_users, width); 0 for users without interactions, as in training.
        """
        trained = weights > 0
        pattern, weights = pattern.select(trained), weights[trained]
        confidence = confidences(weights, self._hyperparameters).astype(np.float64)
        penalty = penalties(pattern.interactions_per_user, pattern.n_items, self._hyperparameters)
        factors = self._hyperparameters.factors
        solved = np.zeros((pattern.n_users, self._hyperparameters.width), dtype=np.float32)
        for users, n in _users_with_as_many(pattern.interactions_per_user, factors):
            positions = pattern.indptr[users].astype(np.int64)[:, None] + np.arange(n)
            items, c = pattern.indices[positions], confidence[positions]
            for number, (model, axes) in enumerate(zip(self._models, self._axes, strict=True)):
                z = self._solve(model[items] @ axes.directions, c, axes.lengths, penalty[users])
                solved[users, number * factors : (number + 1) * factors] = z @ axes.directions.T
        return solved

    def _solve(
        self,
        rows: NDArray[np.float64],
        c: NDArray[np.float64],
        lengths: NDArray[np.float64],
        penalty: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """(n_users, n_axes) the z of users with the same number n of interactions.

        Args:
            rows: (n_users, n, n_axes) Z of each.
            c: (n_users, n) confidence.
            lengths: (n_axes,) eigenvalues.
            penalty: (n_users,).
        """
        w0 = self._hyperparameters.unobserved_weight
        diagonal = w0 * lengths + penalty[:, None].astype(np.float64)
        excess = (c - w0)[:, :, None]
        transposed = rows.transpose(0, 2, 1)
        if rows.shape[1] < rows.shape[2]:
            scaled = rows / diagonal[:, None, :]
            t = np.linalg.solve(excess * (scaled @ transposed) + np.eye(rows.shape[1]), c[:, :, None])
            z: NDArray[np.float64] = scaled.transpose(0, 2, 1) @ t
        else:
            a = transposed @ (excess * rows) + diagonal[:, :, None] * np.eye(rows.shape[2])
            z = np.linalg.solve(a, transposed @ c[:, :, None]).astype(np.float64)
        return z[:, :, 0]


def _users_with_as_many(counts: NDArray[np.int64], factors: int) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Users with the same number of interactions, and that number, some at a time; not those without any."""
    for n in np.unique(counts[counts > 0]).tolist():
        users = np.flatnonzero(counts == n)
        at_once = max(1, _NUMBERS_AT_ONCE // (n * factors))
        for first in range(0, len(users), at_once):
            yield users[first : first + at_once], n
