"""Claims about the catalogue and the lists that shops read."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from dagster import AssetCheckResult

from recsys_pipeline.checks.claims import batches, claim, claims, n_not, n_true
from recsys_pipeline.core.columns import ITEM, RANK, REASON, RECOMMENDABLE, SCORE, SIMILAR, USER
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.model import Model

_COMPLETE = "the_catalogue_has_every_item_and_offers_some"
_RANKED = "every_list_is_ranked_from_1_on"
_OFFERED = "only_what_is_offered_is_listed"
_OF_LISTS = {
    _RANKED: "The ranks of each list go from 1 on without a gap, are no more than `n`, and their scores are "
    "finite.",
    _OFFERED: "Every item that is listed may be recommended, says the catalogue.",
}


@claims(
    "catalogue",
    {
        _COMPLETE: "Each item of the model has a row, in its order, with a reason if it may not be "
        "recommended; some may be."
    },
    inputs=["catalogue", "best_model"],
    blocking=[_COMPLETE],
)
def claims_of_catalogue(catalogue: pa.Table, best_model: Model) -> Iterator[AssetCheckResult]:
    """The items beside those of the model."""
    n_offered = n_true(catalogue[RECOMMENDABLE])
    agrees = catalogue[ITEM].combine_chunks().equals(best_model.items)
    n_odd = n_true(pc.equal(catalogue[RECOMMENDABLE], pc.not_equal(catalogue[REASON], "")))
    yield claim(
        _COMPLETE,
        agrees and n_offered > 0 and n_odd == 0,
        f"{len(catalogue):,} items, {n_offered:,} of them on offer; they are {'' if agrees else 'not '}the "
        f"{len(best_model.items):,} of the model in their order; {n_odd:,} have a reason although they are "
        "on offer, or none.",
        metadata={"items on offer": n_offered},
    )


@claims("recommendations", _OF_LISTS, inputs=["recommendations", "catalogue"], blocking=[*_OF_LISTS])
def claims_of_recommendations(recommendations: ds.Dataset, catalogue: pa.Table) -> Iterator[AssetCheckResult]:
    """A list a user."""
    yield from _of_lists(recommendations, USER, ITEM, catalogue)


@claims("similar_items", _OF_LISTS, inputs=["similar_items", "catalogue"], blocking=[*_OF_LISTS])
def claims_of_similar_items(similar_items: ds.Dataset, catalogue: pa.Table) -> Iterator[AssetCheckResult]:
    """A list an item."""
    yield from _of_lists(similar_items, ITEM, SIMILAR, catalogue)


@claims("popular_items", _OF_LISTS, inputs=["popular_items", "catalogue"], blocking=[*_OF_LISTS])
def claims_of_popular_items(popular_items: ds.Dataset, catalogue: pa.Table) -> Iterator[AssetCheckResult]:
    """One list."""
    yield from _of_lists(popular_items, None, ITEM, catalogue)


def _of_lists(
    table: ds.Dataset, key: str | None, listed: str, catalogue: pa.Table
) -> Iterator[AssetCheckResult]:
    """The rows as a stream; of the batch before only the last row is known."""
    offered = catalogue.filter(catalogue[RECOMMENDABLE])[ITEM].combine_chunks()
    most = stored_metadata(table)["n"]
    n_rows = n_lists = n_out_of_rank = n_not_finite = n_not_offered = 0
    key_before, rank_before = None, 0
    for batch in batches(table, [*([key] if key else []), RANK, listed, SCORE]):
        if not len(batch):
            continue
        ranks = batch[RANK].to_numpy()
        begins = np.ones(len(batch), bool) if key else np.zeros(len(batch), bool)
        if key:
            begins[1:] = pc.not_equal(batch[key][1:], batch[key][:-1]).to_numpy(zero_copy_only=False)
            begins[0] = batch[key][0].as_py() != key_before
            key_before = batch[key][-1].as_py()
        else:
            begins[0] = n_rows == 0
        due = np.where(begins, 1, np.concatenate([[rank_before], ranks[:-1]]) + 1)
        rank_before = int(ranks[-1])
        n_rows += len(batch)
        n_lists += int(np.count_nonzero(begins))
        n_out_of_rank += int(np.count_nonzero((ranks != due) | (ranks > most)))
        n_not_finite += n_not(pc.is_finite(batch[SCORE]))
        n_not_offered += n_not(pc.is_in(batch[listed], value_set=offered))
    yield claim(
        _RANKED,
        n_rows > 0 and n_out_of_rank == n_not_finite == 0,
        f"{n_rows:,} rows of {n_lists:,} lists of {most:,} at most; {n_out_of_rank:,} are out of rank, and "
        f"{n_not_finite:,} have a score that is not finite.",
        metadata={"rows out of rank": n_out_of_rank, "scores that are not finite": n_not_finite},
    )
    yield claim(
        _OFFERED,
        n_not_offered == 0,
        f"{n_rows:,} rows list {len(offered):,} items on offer; {n_not_offered:,} list another.",
        metadata={"rows that list another item": n_not_offered},
    )
