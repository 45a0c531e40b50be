"""What the shop says of its items: which may be recommended, and of which category each is."""

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


class Entries(NamedTuple):
    """The items of a catalogue that the model could know.

    Attributes:
        ids: (n,) distinct, of the type of the model's.
        available: (n,).
        categories: (n,) text, null for none.
        n_other: ids beside these that no item of the model can have: text where the model's are integers.
    """

    ids: pa.Array
    available: NDArray[np.bool_]
    categories: pa.Array
    n_other: int


def catalogue_table(
    items: pa.Array,
    entries: Entries | None,
    allowed: pa.Array | None,
    denied: pa.Array | None,
    max_per_category: int,
) -> pa.Table:
    """The table `catalogue`: a row an item of the model, in the order of its index.

    Args:
        items: (n_items,) raw ids of the model.
        entries: what the shop sells; None for everything.
        allowed: ids, the only ones to recommend; None for all.
        denied: ids that are never recommended; None for none.
        max_per_category: in a list, at most; 0 for no limit.
    """
    reasons = np.full(len(items), "", dtype=object)
    categories = pa.nulls(len(items), pa.string())
    # The first reason counts.
    if entries is not None:
        place = pc.index_in(items, value_set=entries.ids)
        reasons[as_mask(pc.is_null(place))] = NOT_IN_CATALOGUE
        unavailable = as_mask(pa.array(~entries.available).take(place))
        reasons[unavailable] = NOT_AVAILABLE
        categories = entries.categories.take(place)
    for ids, listed_is_good, reason in ((denied, False, DENIED), (allowed, True, NOT_ALLOWED)):
        if ids is not None:
            bad = as_mask(pc.is_in(items, value_set=ids)) != listed_is_good
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


def untouched(items: pa.Array, entries: Entries) -> int:
    """How many items of the catalogue no user of the model has touched."""
    return entries.n_other + len(entries.ids) - (pc.sum(pc.is_in(entries.ids, value_set=items)).as_py() or 0)


def offer_in(catalogue: pa.Table) -> Offer:
    """What the table `catalogue` allows to be listed."""
    encoded = catalogue[CATEGORY].combine_chunks().dictionary_encode()
    category = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    allowed = as_mask(catalogue[RECOMMENDABLE].combine_chunks())
    return Offer(allowed, category, stored_metadata(catalogue)[_MAX_PER_CATEGORY])
