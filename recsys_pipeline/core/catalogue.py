"""What the shop says of its items: which may be recommended, and of which category each is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_pipeline.core.columns import CATEGORY, ITEM, REASON, RECOMMENDABLE
from recsys_pipeline.core.ids import as_mask
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.core.offer import Offer

NOT_IN_CATALOGUE = "not in the catalogue"
NOT_AVAILABLE = "not available"
NOT_ALLOWED = "not on the allow-list"
DENIED = "on the deny-list"
_MAX_PER_CATEGORY = "max_per_category"


class Listed(NamedTuple):
    """The items of a file.

    Attributes:
        ids: (n,) distinct, of the type of the model's.
        n_other: ids beside these that no item of the model can have: text where the model's are integers.
    """

    ids: pa.Array
    n_other: int

    def untouched(self, items: pa.Array) -> int:
        """How many of them are none of these items, which are all that anybody has touched."""
        known: int = pc.sum(pc.is_in(self.ids, value_set=items)).as_py() or 0
        return len(self.ids) + self.n_other - known


class Entries(NamedTuple):
    """The items of a catalogue.

    Attributes:
        listed: their ids.
        available: (n,) of each that the model could know.
        categories: (n,) of each text, null for none.
        absent: columns that no file has.
    """

    listed: Listed
    available: NDArray[np.bool_]
    categories: pa.Array
    absent: Sequence[str] = ()


def catalogue_table(
    items: pa.Array,
    entries: Entries | None,
    allowed: Listed | None,
    denied: Listed | None,
    max_per_category: int,
) -> pa.Table:
    """The table `catalogue`: a row an item of the model, in the order of its index.

    Args:
        items: (n_items,) raw ids of the model.
        entries: what the shop sells; None for everything.
        allowed: the only ones to recommend; None for all.
        denied: what is never recommended; None for nothing.
        max_per_category: in a list, at most; 0 for no limit.
    """
    reasons = np.full(len(items), "", dtype=object)
    categories = pa.nulls(len(items), pa.string())
    # The first reason counts.
    if entries is not None:
        place = pc.index_in(items, value_set=entries.listed.ids)
        reasons[as_mask(pc.is_null(place))] = NOT_IN_CATALOGUE
        unavailable = as_mask(pa.array(~entries.available).take(place))
        reasons[unavailable] = NOT_AVAILABLE
        categories = entries.categories.take(place)
    for listed, listed_is_good, reason in ((denied, False, DENIED), (allowed, True, NOT_ALLOWED)):
        if listed is not None:
            bad = as_mask(pc.is_in(items, value_set=listed.ids)) != listed_is_good
            reasons[bad & (reasons == "")] = reason
    table = pa.table(
        {
            ITEM: items,
            RECOMMENDABLE: pa.array(reasons == ""),
            REASON: pa.array(reasons, pa.string()),
            CATEGORY: categories,
        }
    )
    return with_metadata(table, {_MAX_PER_CATEGORY: max_per_category})


def offer_in(catalogue: pa.Table) -> Offer:
    """What the table `catalogue` allows to be listed."""
    encoded = catalogue[CATEGORY].combine_chunks().dictionary_encode()
    category = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    allowed = as_mask(catalogue[RECOMMENDABLE].combine_chunks())
    return Offer(allowed, category, stored_metadata(catalogue)[_MAX_PER_CATEGORY])
