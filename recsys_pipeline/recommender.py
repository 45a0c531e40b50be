"""The released model, ready to recommend."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import csr_matrix
from upath import UPath

from recsys_pipeline.core.blending import Blend, History, by_blend
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING, Scorer, best_lists
from recsys_pipeline.engines.local.implicit_als import trained_model
from recsys_pipeline.storage.releases import current_release, read_release

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares


def load_model(path_or_warehouse: str | Path | UPath) -> "Recommender":
    """The released model, its files verified against the SHA-256 in its manifest.

    The factors are mapped, not read: what is used of them comes from the disk when it is first used, also
    after the version has been replaced and removed.

    Args:
        path_or_warehouse: folder of one release, or a warehouse, of which the current release is taken.

    Raises:
        InputError: there is no model, or one of its files is missing or altered.
    """
    release = current_release(path_or_warehouse)
    while True:
        try:
            return Recommender(read_release(release))
        except InputError:
            # Replaced and removed while it was read? Then there is a newer one.
            newer = current_release(path_or_warehouse)
            if newer == release:
                raise
            release = newer


class Recommender:
    """Recommends by raw ids.

    Attributes:
        model: the `implicit` model itself; row i of its factors is `users[i]` and `items[i]`. It may be
            fitted further; the files stay as they are.
        manifest: how the model was made and how good it is.
    """

    model: "AlternatingLeastSquares"
    manifest: Mapping[str, Any]

    def __init__(self, release: Model) -> None:
        self.model = trained_model(
            Hyperparameters.from_mapping(release.manifest["hyperparameters"]),
            release.manifest["seed"],
            release.factors,
        )
        self.manifest = release.manifest
        self._release = release

    @cached_property
    def users(self) -> pd.Index:
        """Raw id of each user index."""
        return _index(self._release.users)

    @cached_property
    def items(self) -> pd.Index:
        """Raw id of each item index."""
        return _index(self._release.items)

    @cached_property
    def user_items(self) -> csr_matrix:
        """The weighted users x items matrix that it was trained on."""
        contents = self._release.contents
        trained = contents.weights > 0
        return contents.pattern.select(trained).user_items(contents.weights[trained])

    @cached_property
    def excluded(self) -> csr_matrix:
        """Users x items, what is not recommended to each user."""
        contents = self._release.contents
        exclusions = contents.pattern.select(contents.excluded)
        return exclusions.user_items(np.ones(exclusions.n_interactions, dtype=np.float32))

    def recommend(
        self,
        user_id: int | str,
        n: int = 10,
        *,
        filter_already_liked_items: bool = True,
        blend: bool = False,
    ) -> pd.DataFrame:
        """The best items for a user, best first; among equal scores in the order of `items`.

        Args:
            user_id: raw id.
            n: at most so many; fewer come back when the user has not that many items left, and none when
                the model was trained on nothing of this user.
            filter_already_liked_items: leave out what the user's seen events exclude (`seen_events` in
                the manifest; by default all that the user touched).
            blend: score by the blend of ALS score, own history and popularity that the search has fitted.

        Returns:
            Columns `item` (raw id), `score`, `already_liked` (the user touched it in training).

        Raises:
            KeyError: the model does not know the user.
            ValueError: `n` is below 1, or there is no blend.
        """
        position = _position(self.users, user_id, "user")
        scorer = self._blended if blend else self._by_factors
        scores = scorer(np.array([position], dtype=np.int32))
        pattern, contents = self._release.contents.pattern, self._release.contents
        own = slice(pattern.indptr[position], pattern.indptr[position + 1])
        touched = pattern.indices[own]
        excluded = touched[contents.excluded[own]] if filter_already_liked_items else touched[:0]
        # Of this user alone: the one row of a matrix.
        exclusions = Pattern(np.array([0, len(excluded)]), excluded, len(self.items))
        first = np.zeros(1, dtype=np.int32)
        (listed,) = best_lists(lambda _: scores, first, exclusions, _at_most(n, len(self.items)))
        ids = listed[listed != NOTHING]
        already_liked = np.isin(ids, touched[contents.weights[own] > 0])
        return pd.DataFrame(
            {"item": self.items[ids], "score": scores[0, ids], "already_liked": already_liked}
        )

    def was_trained_on(self, user_id: int | str) -> bool:
        """Whether the model was trained on any interaction of the user.

        Raises:
            KeyError: the model does not know the user.
        """
        indptr = self._release.contents.pattern.indptr
        position = _position(self.users, user_id, "user")
        return bool((self._release.contents.weights[indptr[position] : indptr[position + 1]] > 0).any())

    @cached_property
    def _by_factors(self) -> Scorer:
        return self._release.factors.scorer()

    @cached_property
    def _blended(self) -> Scorer:
        release = self._release
        if not release.manifest.get("blend"):
            raise ValueError(
                "this model has no blend: set `blend` of grid_search_results to true and materialize it and "
                "best_model again"
            )
        events = {event: counts > 0 for event, counts in release.contents.counts.items()}
        return by_blend(
            Blend.from_mapping(release.manifest["blend"]),
            release.factors,
            History(release.contents.pattern, events, release.manifest["target_events"]),
        )

    def similar_items(self, product_code: int | str, n: int = 10) -> pd.DataFrame:
        """The items whose factors point most nearly the same way, best first, without the item itself.

        Returns:
            Columns `item` (raw id) and `score`, the cosine.

        Raises:
            KeyError: the model does not know the item.
            ValueError: `n` is below 1.
        """
        item = _position(self.items, product_code, "item")
        ids, scores = self.model.similar_items(item, N=_at_most(n, len(self.items) - 1) + 1)
        others = np.flatnonzero(ids != item)[:n]
        return pd.DataFrame({"item": self.items[ids[others]], "score": scores[others]})


def _index(ids: pa.Array) -> pd.Index:
    index: pd.Index = pd.Index(ids.to_pandas())
    return index


def _position(index: pd.Index, raw_id: int | str, kind: str) -> int:
    try:
        return int(index.get_loc(raw_id))  # type: ignore[arg-type]  # ids are distinct
    except KeyError:
        ids = "integers" if pd.api.types.is_integer_dtype(index.dtype) else "strings"
        raise KeyError(
            f"the model knows no {kind} {raw_id!r}; its {len(index):,} {kind} ids are {ids}"
        ) from None


def _at_most(n: int, available: int) -> int:
    if n < 1:
        raise ValueError(f"n is {n}; ask for at least 1")
    return min(n, available)
