"""The released model, ready to recommend."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from upath import UPath

from recsys_pipeline.core.blending import Blend, BlendedItems
from recsys_pipeline.core.catalogue import offer_in
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.exports import cosines
from recsys_pipeline.core.folding import Events, FoldIn
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.implicit_model import trained_model
from recsys_pipeline.core.item_graph import ItemGraph
from recsys_pipeline.core.model import Contents, Model
from recsys_pipeline.core.offer import ByFactors, Lists, Offer, Popularity, make_lists
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING, LongestFirst, Scorer
from recsys_pipeline.core.sources import ALS, BLEND, GRAPH, POPULAR
from recsys_pipeline.storage.releases import (
    ReleaseFolder,
    current_release,
    has_table,
    read_release,
    read_table,
)

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

RawId: TypeAlias = int | str
# A product and what happened to it.
Event: TypeAlias = tuple[RawId, str]

_OF_ONE = ("item", "score", "already_liked", "source")
_USERS_AT_ONCE = 1024
_SHOWN_IDS = 5


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
            model = read_release(release)
            return Recommender(model, _offer_of(release, model))
        except InputError:
            # Replaced and removed while it was read? Then there is a newer one.
            newer = current_release(path_or_warehouse)
            if newer == release:
                raise
            release = newer


def _offer_of(release: ReleaseFolder, model: Model) -> Offer | None:
    """What the shop let be listed when it was released; releases from before catalogues say nothing."""
    if not has_table(model.manifest, "catalogue"):
        return None
    return offer_in(read_table(release, model.manifest, "catalogue"))


class Recommender:
    """Recommends by raw ids, under the shop's rules.

    Tables of recommendations have the columns `item` (raw id), `score`, `already_liked` (the user touched it)
    and `source`: who put the item there, `als`, `blend`, or `popular` where a list was filled up. The score
    of a popular item is the share of users with a target event; scores of different sources do not compare.

    Attributes:
        model: the `implicit` model itself; row i of its factors is `users[i]` and `items[i]`. It may be
            fitted further; the files and the recommendations stay as they are.
        manifest: how the model was made and how good it is.
    """

    model: "AlternatingLeastSquares"
    manifest: Mapping[str, Any]

    def __init__(self, release: Model, offer: Offer | None = None) -> None:
        """`offer` says what the shop lets be listed: everything by default."""
        self.model = trained_model(
            Hyperparameters.from_mapping(release.manifest["hyperparameters"]),
            release.manifest["seed"],
            release.factors,
        )
        self.manifest = release.manifest
        self._release = release
        self._offer = offer or Offer.everything(len(release.items))

    @cached_property
    def users(self) -> pd.Index:
        """Raw id of each user index."""
        return _index(self._release.users)

    @cached_property
    def items(self) -> pd.Index:
        """Raw id of each item index."""
        return _index(self._release.items)

    @cached_property
    def user_items(self) -> "csr_matrix":
        """The weighted users x items matrix that it was trained on."""
        contents = self._release.contents
        trained = contents.weights > 0
        return contents.pattern.select(trained).user_items(contents.weights[trained])

    @cached_property
    def excluded(self) -> "csr_matrix":
        """Users x items, what is not recommended to each user."""
        exclusions = self._release.exclusions
        return exclusions.user_items(np.ones(exclusions.n_interactions, dtype=np.float32))

    def recommend(
        self,
        user_id: RawId,
        n: int = 10,
        *,
        filter_already_liked_items: bool = True,
        blend: bool | None = None,
        fill_up: bool = False,
    ) -> pd.DataFrame:
        """The best items for a user, best first; among equal scores in the order of `items`.

        Args:
            user_id: raw id.
            n: at most so many. Fewer come back when the user has not that many items left, or the shop's
                rules leave fewer, and none when the model was trained on nothing of this user.
            filter_already_liked_items: leave out what the user's seen events exclude (`seen_events` in
                the manifest; by default all that the user touched).
            blend: score by the blend of ALS score, item graph, own history and popularity that the search
                has fitted, or by ALS alone; None as the release's own lists are scored (`scorer` in the
                manifest).
            fill_up: continue a list that is shorter than `n` with popular items, under the same rules.

        Returns:
            Columns `item`, `score`, `already_liked`, `source`: see the class.

        Raises:
            KeyError: the model does not know the user.
            ValueError: `n` is below 1, or there is no blend.
        """
        wanted = self._wanted(n, filter_already_liked_items, blend, fill_up)
        return self._list_of_one(self._known([user_id]), wanted)

    def recommend_many(
        self,
        user_ids: Iterable[RawId],
        n: int = 10,
        *,
        filter_already_liked_items: bool = True,
        blend: bool | None = None,
        fill_up: bool = False,
    ) -> pd.DataFrame:
        """What `recommend` gives each of these users, in one table, and in much less time.

        Args:
            user_ids: raw ids; in this order their rows come back.
            n: see `recommend`, as all others.
            filter_already_liked_items: see there.
            blend: see there.
            fill_up: see there.

        Returns:
            Columns `user` (raw id), `rank` (from 1), `item`, `score`, `already_liked`, `source`; no row for a
            user with nothing to recommend.

        Raises:
            KeyError: the model does not know one of the users.
            ValueError: `n` is below 1, or there is no blend.
        """
        wanted = self._wanted(n, filter_already_liked_items, blend, fill_up)
        users = _positions(self.users, user_ids, "user")
        blocks = (users[first : first + _USERS_AT_ONCE] for first in range(0, len(users), _USERS_AT_ONCE))
        return self._table((self._people(block) for block in blocks), self.users[users], wanted)

    def recommend_for(
        self,
        events: Iterable[Event],
        n: int = 10,
        *,
        user_id: RawId | None = None,
        filter_already_liked_items: bool = True,
        blend: bool | None = None,
        fill_up: bool = True,
        skip_unknown: bool = True,
    ) -> pd.DataFrame:
        """The best items for somebody whom the model has not seen, or who came back since: no training.

        The factors are those that are best for these events with all items as they are. The events count as
        in training: their strengths, BM25 weights and which of them exclude an item.

        Args:
            events: pairs of a product (raw id) and the name of an event, in any order; one a repetition.
            n: at most so many.
            user_id: the user whom the model knows already and whose events since the training these are; None
                for somebody new.
            filter_already_liked_items: leave out what the seen events exclude.
            blend: score by the blend, with these events as the own history, or by ALS alone; None as the
                release's own lists are scored.
            fill_up: continue a short list with popular items. By default, because a page for somebody new has
                to show something: without an event of a product that the model knows, all items are popular.
            skip_unknown: do as if events of products that the model does not know were not there, such as of
                those that are newer than it; else they are an error.

        Returns:
            Columns `item`, `score`, `already_liked`, `source`: see the class. Its `attrs["unknown_products"]`
            lists the products that were skipped.

        Raises:
            KeyError: the model does not know the user, or a product and `skip_unknown` is false.
            ValueError: the model knows no event of that name, something is no pair, `n` is below 1, or there
                is no blend.
        """
        wanted = self._wanted(n, filter_already_liked_items, blend, fill_up)
        people, unknown = self._folded_in([events], [user_id], skip_unknown)
        table = self._list_of_one(people, wanted)
        table.attrs["unknown_products"] = unknown
        return table

    def recommend_for_many(
        self,
        histories: Iterable[Iterable[Event]],
        n: int = 10,
        *,
        user_ids: Iterable[RawId | None] | None = None,
        filter_already_liked_items: bool = True,
        blend: bool | None = None,
        fill_up: bool = True,
        skip_unknown: bool = True,
    ) -> pd.DataFrame:
        """What `recommend_for` gives each of these people, in one table, and in much less time.

        Args:
            histories: the events of each; in this order their rows come back.
            n: see `recommend_for`, as all others.
            user_ids: `user_id` of each.
            filter_already_liked_items: see there.
            blend: see there.
            fill_up: see there.
            skip_unknown: see there.

        Returns:
            Columns `user` (the place among `histories`, from 0), `rank` (from 1), `item`, `score`,
            `already_liked`, `source`; `attrs` as there.

        Raises:
            KeyError: see `recommend_for`.
            ValueError: see `recommend_for`; or there are not as many user ids as histories.
        """
        wanted = self._wanted(n, filter_already_liked_items, blend, fill_up)
        histories = list(histories)
        known = [None] * len(histories) if user_ids is None else list(user_ids)
        if len(known) != len(histories):
            raise ValueError(f"{len(histories)} histories and {len(known)} user ids; one belongs to each")
        unknown: dict[RawId, None] = {}

        def people() -> Iterator[_People]:
            for first in range(0, len(histories), _USERS_AT_ONCE):
                block = slice(first, first + _USERS_AT_ONCE)
                found, not_found = self._folded_in(histories[block], known[block], skip_unknown)
                unknown.update(dict.fromkeys(not_found))
                yield found

        table = self._table(people(), pd.RangeIndex(len(histories)), wanted)
        table.attrs["unknown_products"] = list(unknown)
        return table

    def similar_items(self, product_code: RawId, n: int = 10) -> pd.DataFrame:
        """The items most like this one, as the release's own lists have them: best first, without the item.

        These are the items whose factors point most nearly the same way or, where the release took the item
        graph (`similar_items_scorer` in the manifest), its strongest neighbours there. Fewer than `n` where
        the shop's rules leave fewer, and none for an item that nobody was trained on, or that shares no user
        with another.

        Returns:
            Columns `item` (raw id) and `score`: the cosine, or the weight of the edge.

        Raises:
            KeyError: the model does not know the item.
            ValueError: `n` is below 1.
        """
        item = _positions(self.items, [product_code], "item")
        itself = Pattern(np.array([0, 1]), item, len(self.items))
        source: ByFactors | Scorer
        by_graph = self.manifest.get("similar_items_scorer") == GRAPH
        if by_graph:
            source = self._of_item(int(item[0]))
        else:
            source = self._by_cosine._replace(users=self._by_cosine.users[item])
        k = _at_most(n, len(self.items))
        lists = make_lists(source, np.zeros(1, dtype=np.int32), itself, k, self._offer)
        listed = lists.items[0] != NOTHING
        scores = lists.scores[0, listed] if by_graph else cosines(lists.scores[0, listed])
        return pd.DataFrame({"item": self.items[lists.items[0, listed]], "score": scores})

    def was_trained_on(self, user_id: RawId) -> bool:
        """Whether the model was trained on any interaction of the user.

        Raises:
            KeyError: the model does not know the user.
        """
        return bool((self._known([user_id]).contents.weights > 0).any())

    # --- Who is recommended to ---

    def _known(self, user_ids: Iterable[RawId]) -> "_People":
        return self._people(_positions(self.users, user_ids, "user"))

    def _people(self, users: NDArray[np.int32]) -> "_People":
        return _People(self._release.factors.users[users], self._release.contents.of(users), users)

    def _folded_in(
        self, histories: Sequence[Iterable[Event]], user_ids: Sequence[RawId | None], skip_unknown: bool
    ) -> "tuple[_People, list[RawId]]":
        """The people, and the products that were skipped."""
        names = {name: number for number, name in enumerate(self._fold_in.events)}
        rows, products, events = [], [], []
        for row, history in enumerate(histories):
            for pair in history:
                product, event = _pair(pair)
                if event not in names:
                    raise InputError(
                        f"the model knows no event {event!r} (of product {product!r}). It knows "
                        f"{', '.join(names)}; leave out what is none of them, or give it a strength in "
                        "`feedback` and train again."
                    )
                rows.append(row)
                products.append(product)
                events.append(names[event])
        position = {product: _place(self.items, product) for product in dict.fromkeys(products)}
        unknown = [product for product, place in position.items() if place == NOTHING]
        if unknown and not skip_unknown:
            raise _unknown(self.items, unknown, "item")
        items = np.array([position[product] for product in products], dtype=np.int64)
        known = items != NOTHING
        given = Events(
            np.array(rows, dtype=np.int64)[known], items[known], np.array(events, dtype=np.int64)[known]
        )
        is_known = np.array([user_id is not None for user_id in user_ids], dtype=bool)
        users = np.full(len(user_ids), NOTHING, dtype=np.int32)
        users[is_known] = _positions(self.users, (each for each in user_ids if each is not None), "user")
        contents = self._fold_in.contents(given, self._before(users))
        return _People(self._fold_in.factors(contents), contents, users), unknown

    def _before(self, users: NDArray[np.int32]) -> Contents:
        """What the model knows of people; nothing of those who are no user."""
        is_known = users != NOTHING
        contents = self._release.contents.of(users[is_known])
        indptr = np.zeros(len(users) + 1, dtype=np.int64)
        indptr[1:][is_known] = contents.pattern.interactions_per_user
        np.cumsum(indptr, out=indptr)
        return contents._replace(pattern=Pattern(indptr, contents.pattern.indices, len(self.items)))

    @cached_property
    def _fold_in(self) -> FoldIn:
        return FoldIn(self._release)

    # --- The lists ---

    def _wanted(
        self, n: int, filter_already_liked_items: bool, blend: bool | None, fill_up: bool
    ) -> "_Wanted":
        """What is asked for; refused before anything is computed."""
        if blend is None:
            blend = self.manifest.get("scorer") == BLEND
        return _Wanted(
            _at_most(n, len(self.items)),
            filter_already_liked_items,
            self._blend if blend else None,
            self._popularity if fill_up else None,
        )

    def _table(self, people: "Iterable[_People]", labels: pd.Index, wanted: "_Wanted") -> pd.DataFrame:
        """The lists of all these people, one below the other; `labels` are theirs."""
        tables, n_before = [], 0
        for some in people:
            columns = self._columns(some, wanted)
            first = {"user": labels[n_before + columns.pop("row")], "rank": columns.pop("rank")}
            tables.append(pd.DataFrame(first | columns))
            n_before += len(some.factors)
        if not tables:
            return self._table([self._people(np.empty(0, dtype=np.int32))], labels, wanted)
        return pd.concat(tables, ignore_index=True)

    def _list_of_one(self, person: "_People", wanted: "_Wanted") -> pd.DataFrame:
        columns = self._columns(person, wanted)
        return pd.DataFrame({name: columns[name] for name in _OF_ONE})

    def _columns(self, people: "_People", wanted: "_Wanted") -> dict[str, Any]:
        """The entries of all lists, list after list."""
        lists, contents = self._lists(people, wanted), people.contents
        rows, places = np.nonzero(lists.items != NOTHING)
        items = lists.items[rows, places]
        found = contents.pattern.positions_of(rows.astype(np.int32), items)
        liked = found >= 0
        liked[liked] = contents.weights[found[liked]] > 0
        of_model = places < lists.n_of_model[rows]
        return {
            "row": rows,
            "rank": (places + 1).astype(np.int32),
            "item": self.items[items],
            "score": lists.scores[rows, places],
            "already_liked": liked,
            "source": np.where(of_model, BLEND if wanted.blend else ALS, POPULAR),
        }

    def _lists(self, people: "_People", wanted: "_Wanted") -> Lists:
        pattern = people.contents.pattern
        if wanted.without_excluded:
            exclusions = pattern.select(people.contents.excluded)
        else:
            exclusions = Pattern.empty(*pattern.shape)
        source: ByFactors | Scorer
        if wanted.blend:
            history = people.contents.history(self.manifest["target_events"])
            parameters, aggregate = wanted.blend.filter, self._release.aggregate
            rows = people.contents.graph_rows(parameters, aggregate) if parameters else None
            terms = self._blended_items.terms(people.factors, history, rows, people.users)
            source = terms.scorer(wanted.blend)
        else:
            source = self._by_factors._replace(users=people.factors)
        users = np.arange(pattern.n_users, dtype=np.int32)
        return make_lists(source, users, exclusions, wanted.n, self._offer, wanted.popularity)

    @cached_property
    def _by_factors(self) -> ByFactors:
        # `ByFactors.of` would read the factors of all users.
        factors = self._release.factors
        return ByFactors(factors.users, LongestFirst.of(factors.items, self._offer.allowed))

    @cached_property
    def _by_cosine(self) -> ByFactors:
        return ByFactors.of_cosines(self._release.factors.items, self._offer)

    def _of_item(self, item: int) -> Scorer:
        """The neighbours of one item in the graph; it is the scorer's only user."""
        neighbours = self._neighbours
        return lambda rows: neighbours(np.full(len(rows), item, dtype=np.int32))

    @cached_property
    def _neighbours(self) -> Scorer:
        graph = self._release.item_graph
        if not graph:
            raise InputError("the release says that its similar items are by an item graph, and has none")
        return graph.neighbours()

    @cached_property
    def _blend(self) -> Blend:
        blend = self._release.blend
        if not blend:
            raise ValueError(
                "this model has no blend: set `blend` of grid_search_results to true and materialize it and "
                "best_model again"
            )
        return blend

    @cached_property
    def _blended_items(self) -> BlendedItems:
        release, parameters = self._release, self._blend.filter
        if parameters is None or parameters == release.graph:
            # The same graph is not kept twice.
            graph = release.item_graph if parameters else None
        else:
            graph = ItemGraph.of(release.contents.graph_rows(parameters, release.aggregate), parameters)
        return BlendedItems.of(release.factors.items, graph, release.history)

    @cached_property
    def _popularity(self) -> Popularity:
        return Popularity.in_model(self._release, self._offer)


class _People(NamedTuple):
    """Some people to recommend to.

    Attributes:
        factors: (n, width) float32.
        contents: their interactions alone, a row each.
        users: (n,) the user of the model who each of them is; NOTHING for nobody.
    """

    factors: NDArray[np.float32]
    contents: Contents
    users: NDArray[np.int32]


class _Wanted(NamedTuple):
    """What lists are asked for.

    Attributes:
        n: length.
        without_excluded: whether the own items that seen events exclude are left out.
        blend: its weights; None for the factors alone.
        popularity: what to fill up with; None for nothing.
    """

    n: int
    without_excluded: bool
    blend: Blend | None
    popularity: Popularity | None


def _pair(event: Event) -> Event:
    # A string of two letters would do as a pair.
    if isinstance(event, (str, bytes)) or not isinstance(event, Sequence) or len(event) != 2:
        raise InputError(
            f"{event!r} is no event: give pairs of a product and an event, such as ('A1', 'view')"
        )
    product, name = event
    return product, name


def _index(ids: pa.Array) -> pd.Index:
    index: pd.Index = pd.Index(ids.to_pandas())
    return index


def _place(index: pd.Index, raw_id: RawId) -> int:
    """Of an id; NOTHING for one that is not there."""
    try:
        return int(index.get_loc(raw_id))  # type: ignore[arg-type]  # ids are distinct
    except KeyError:
        return NOTHING


def _positions(index: pd.Index, raw_ids: Iterable[RawId], kind: str) -> NDArray[np.int32]:
    raw_ids = list(raw_ids)
    places = np.array([_place(index, raw_id) for raw_id in raw_ids], dtype=np.int32)
    if (places == NOTHING).any():
        raise _unknown(index, [raw_ids[place] for place in np.flatnonzero(places == NOTHING)], kind)
    return places


def _unknown(index: pd.Index, raw_ids: Sequence[RawId], kind: str) -> KeyError:
    shown = ", ".join(map(repr, raw_ids[:_SHOWN_IDS])) + (", ..." if len(raw_ids) > _SHOWN_IDS else "")
    ids = "integers" if pd.api.types.is_integer_dtype(index.dtype) else "strings"
    return KeyError(f"the model knows no {kind} {shown}; its {len(index):,} {kind} ids are {ids}")


def _at_most(n: int, available: int) -> int:
    if n < 1:
        raise ValueError(f"n is {n}; ask for at least 1")
    return min(n, available)
