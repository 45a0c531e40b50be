"""What may be listed, and the lists: those of the model, filled up with popular items.

Whoever recommends for the shop comes here, for all users or for one, so that the same rules hold: nothing
that is excluded for the user, nothing that the shop does not offer, no more items of a category than it
wants, nothing twice. The order is that of `ranking`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.baselines import popular_first
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import (
    NOTHING,
    CategoryLimit,
    Factors,
    LongestFirst,
    Scorer,
    scored_by_factors,
    scored_lists,
)


@dataclass(frozen=True)
class Offer:
    """What may be listed.

    Attributes:
        allowed: (n_items,) whether anybody may be shown the item.
        category: (n_items,) int32, -1 for none.
        max_per_category: items of a category in a list, at most; 0 for no limit. Items of no category have
            none.
    """

    allowed: NDArray[np.bool_]
    category: NDArray[np.int32]
    max_per_category: int

    @classmethod
    def everything(cls, n_items: int) -> Self:
        """Every item, and no limit."""
        return cls(np.ones(n_items, dtype=bool), np.full(n_items, -1, dtype=np.int32), 0)

    @cached_property
    def barred(self) -> NDArray[np.int32]:
        """Indexes of the items that nobody is shown."""
        return np.flatnonzero(~self.allowed).astype(np.int32)

    @property
    def limit(self) -> CategoryLimit:
        """Of the categories."""
        return CategoryLimit(self.category, self.max_per_category)

    @cached_property
    def longest_list(self) -> int:
        """How many items a list of any length can hold."""
        if not self.max_per_category:
            return int(np.count_nonzero(self.allowed))
        without, with_one = (
            self.category[self.allowed & some] for some in (self.category < 0, self.category >= 0)
        )
        return len(without) + int(np.minimum(np.bincount(with_one), self.max_per_category).sum())


class Popularity(NamedTuple):
    """What lists are filled up with.

    Attributes:
        order: the items that may be listed and that somebody had a target event with, most users first.
        share: (n_items,) share of all users who had a target event with the item.
    """

    order: NDArray[np.int32]
    share: NDArray[np.float32]

    @classmethod
    def of(cls, target_users: NDArray[np.integer], n_users: int, offer: Offer) -> Self:
        """By (n_items,) users who had a target event, of so many."""
        share = (target_users / max(n_users, 1)).astype(np.float32)
        return cls(popular_first(np.where(offer.allowed, target_users, 0)), share)

    @classmethod
    def in_model(cls, model: Model, offer: Offer) -> Self:
        """Among the users of a model."""
        return cls.of(model.target_users, len(model.users), offer)


class ByFactors(NamedTuple):
    """Scores that are products of factors.

    Attributes:
        users: (n_users, factors) float32; of other users than the model's, `_replace` them.
        items: those that may be listed, and have factors, by their length.
    """

    users: NDArray[np.float32]
    items: LongestFirst

    @classmethod
    def of(cls, factors: Factors, offer: Offer) -> Self:
        """A model, its items sorted once for all users.

        Raises:
            FloatingPointError: a factor is NaN or infinite.
        """
        factors.require_finite()
        return cls(factors.users, LongestFirst.of(factors.items, offer.allowed))

    @classmethod
    def of_cosines(cls, items: NDArray[np.float32], offer: Offer) -> Self:
        """The cosines between items with these (n_items, factors); they are its users too."""
        lengths = np.linalg.norm(items, axis=1, keepdims=True)
        unit = np.divide(items, lengths, out=np.zeros_like(items), where=lengths > 0)
        return cls.of(Factors(unit, unit), offer)


class Lists(NamedTuple):
    """Lists of k entries at most.

    Attributes:
        items: (n, k) int32 item indexes, the model's first, then the popular; NOTHING where a list ends
            early.
        scores: (n, k) float32, of the model or the share of users, to be compared within one source; 0 where
            nothing is listed.
        n_of_model: (n,) how many entries are the model's.
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    n_of_model: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) how many entries each list has."""
        lengths: NDArray[np.int64] = np.count_nonzero(self.items != NOTHING, axis=1)
        return lengths


def make_lists(
    source: ByFactors | Scorer,
    users: NDArray[np.int32],
    exclusions: Pattern,
    k: int,
    offer: Offer,
    popularity: Popularity | None = None,
) -> Lists:
    """The k best items of each user under the rules of the offer, best first, then popular ones.

    Under the limit of a category the best items are taken one after the other while their category has room.
    By factors, users and items whose factors are all 0 get nothing.

    Args:
        source: who scores.
        users: (n,) user index: row of the source and of the exclusions.
        exclusions: the interactions that exclude their item.
        k: length of the lists.
        offer: what may be listed.
        popularity: what to fill up with; None leaves short lists short.
    """
    from recsys_pipeline.core.selection import fill_up  # numba: half a second that not everybody needs

    items = np.full((len(users), k), NOTHING, dtype=np.int32)
    scores = np.zeros((len(users), k), dtype=np.float32)
    # To ask for more than can be listed would mean to look at every item in vain.
    width = min(k, offer.longest_list)
    if not width:
        return Lists(items, scores, np.zeros(len(users), dtype=np.int64))
    limit = offer.limit
    if isinstance(source, ByFactors):
        listed, of_listed = scored_by_factors(*source, users, exclusions, width, limit=limit)
    else:
        listed, of_listed = scored_lists(source, users, exclusions, width, barred=offer.barred, limit=limit)
    n_of_model = np.count_nonzero(listed != NOTHING, axis=1)
    short = np.flatnonzero(n_of_model < width)
    if popularity is not None and len(short):
        filled = listed[short]
        excluded = exclusions.indptr, exclusions.indices
        fill_up(popularity.order, users[short], *excluded, exclusions.n_items, filled, *limit)
        added = (filled != NOTHING) & (listed[short] == NOTHING)
        of_filled = of_listed[short]
        of_filled[added] = popularity.share[filled[added]]
        listed[short], of_listed[short] = filled, of_filled
    items[:, :width], scores[:, :width] = listed, of_listed
    return Lists(items, scores, n_of_model)
