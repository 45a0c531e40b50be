"""What each split leaves for training, and what its interactions weigh by every setting that is tried."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyspark.sql.functions as sf
from pyspark.sql.types import BinaryType, StructField, StructType

from recsys_pipeline.core.columns import (
    EXCLUDED,
    ITEM,
    ITEM_INDEX,
    SPLIT,
    STRENGTH,
    TIMESTAMP,
    USER,
    USER_INDEX,
    count_column,
    counted_events,
    faded_column,
)
from recsys_pipeline.core.hyperparameters import BM25, Hyperparameters
from recsys_pipeline.core.interactions import (
    Fading,
    not_positive,
    nothing_left,
    require_nothing_excluded,
    unknown_half_life,
)
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.scale import Weighting
from recsys_pipeline.core.strengths import EventRules
from recsys_pipeline.core.weighting import inverse_document_frequency, length_norms, saturated
from recsys_pipeline.engines.spark.frames import (
    Kept,
    Scratch,
    as_bytes,
    collected,
    first_row,
    frame_of,
    known_here,
)
from recsys_pipeline.engines.spark.preparation import combined, combined_fades, has_one_of
from recsys_pipeline.engines.spark.vectors import Vectors

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_HELD = "is_held_out"
_UNKNOWN = "is_unknown"
_SHOWN_IDS = 5


class Weighed(NamedTuple):
    """Interactions with what they weigh by several settings.

    Attributes:
        pairs: user_index, item_index, what is carried along, and `weights`, a float32 each setting as bytes;
            NaN for what it does not train on.
        weightings: the settings, in that order.
        n_users: rows of the matrix.
        n_items: columns.
    """

    pairs: Kept
    weightings: Sequence[Weighting]
    n_users: int
    n_items: int


class SplitFrames:
    """The tables of `bm25_matrix` on the cluster.

    Attributes:
        scratch: where the rest is kept.
        pairs: the interactions.
        users: index and raw id.
        items: the same.
        rules: what the events mean.
        n_users: rows of the matrix.
        n_items: columns.
        n_interactions: in it.
        user_type: of the raw ids.
        item_type: the same.
        has_times: whether the interactions have timestamps.
    """

    def __init__(self, scratch: Scratch, bm25_matrix: Mapping[str, pa.Table | ds.Dataset]) -> None:
        self.scratch = scratch
        self.pairs, self.users, self.items = (
            frame_of(scratch, bm25_matrix[name]) for name in ("pairs", "users", "items")
        )
        pairs = bm25_matrix["pairs"]
        self.rules = EventRules.from_metadata(stored_metadata(pairs))
        self.events = counted_events(pairs.schema.names)
        self.has_times = TIMESTAMP in pairs.schema.names
        self.n_interactions, self.n_users, self.n_items = (
            _n_rows(bm25_matrix[name]) for name in ("pairs", "users", "items")
        )
        self.user_type, self.item_type = (
            bm25_matrix[table].schema.field(name).type for table, name in (("users", USER), ("items", ITEM))
        )

    def positions(self, held_out: pa.Table, name: str) -> "DataFrame":
        """The distinct pairs of a `leave_one_out_split`, with a column of that name that is true."""
        known = held_out.select([USER_INDEX, ITEM_INDEX]).group_by([USER_INDEX, ITEM_INDEX]).aggregate([])
        return known_here(self.scratch, known.append_column(name, pa.array(np.ones(known.num_rows, bool))))

    def strengths(self, mapping: Mapping[str, float] | None, half_life_days: float = 0.0) -> "Column":
        """As `core.interactions.Interactions.strengths_by`.

        Raises:
            InputError: the table was made without that half-life.
        """
        if mapping is None and not half_life_days:
            return sf.col(STRENGTH)
        return self._strengths_of(self.events, mapping, half_life_days)

    def _strengths_of(
        self, events: Iterable[str], mapping: Mapping[str, float] | None, half_life_days: float
    ) -> "Column":
        by_event = self.rules.strengths if mapping is None else mapping
        if not half_life_days:
            counts = {event: sf.col(count_column(event)) for event in events}
            return combined(counts, by_event, self.rules.aggregate)
        if half_life_days not in self.rules.half_lives:
            raise unknown_half_life(half_life_days, self.rules.half_lives)
        fades = {event: sf.col(faded_column(event, half_life_days)) for event in events}
        return combined_fades(fades, by_event, self.rules.aggregate)

    def require_something_left(self, mappings: Mapping[str, Mapping[str, float] | None]) -> None:
        """Refuse strengths that leave no interaction.

        Raises:
            InputError: some do.
        """
        asked = {name: mapping for name, mapping in mappings.items() if mapping is not None}
        if not asked:
            return
        found = first_row(
            self.pairs.agg(
                *(sf.max(self.strengths(mapping)).alias(f"m{n}") for n, mapping in enumerate(asked.values()))
            )
        )
        for n, mapping in enumerate(asked.values()):
            if not (found[f"m{n}"] or 0) > 0:
                raise nothing_left(mapping, self.events)

    def require_positive_weights(self) -> None:
        """Refuse interactions whose BM25 weight is at or below zero: of users of all items, or all but one.

        Raises:
            InputError: there are some.
        """
        degrees = self.pairs.groupBy(USER_INDEX).agg(sf.count(sf.lit(1)).alias("n"))
        at_fault = degrees.filter(sf.col("n") >= self.n_items - 1)
        found = first_row(at_fault.agg(sf.count(sf.lit(1)).alias("users"), sf.sum("n").alias("pairs")))
        if not found["users"]:
            return
        some = collected(at_fault.orderBy(USER_INDEX).limit(_SHOWN_IDS).join(self.users, USER_INDEX))
        ids = ", ".join(repr(each) for each in some.sort_by(USER_INDEX)[USER].to_pylist())
        more = ", ..." if found["users"] > _SHOWN_IDS else ""
        raise not_positive(found["pairs"], found["users"], self.n_items, ids + more)

    def _marked(self, held: pa.Table, unknown_to_training: pa.Table | None) -> "DataFrame":
        """The interactions with two columns: held out, and not known to training either."""
        pairs = self.pairs.join(self.positions(held, _HELD), [USER_INDEX, ITEM_INDEX], "left")
        if unknown_to_training is None:
            pairs = pairs.withColumn(_UNKNOWN, sf.lit(False))
        else:
            later = self.positions(unknown_to_training, _UNKNOWN)
            pairs = pairs.join(later, [USER_INDEX, ITEM_INDEX], "left")
        no = sf.lit(False)
        return pairs.withColumns({name: sf.coalesce(sf.col(name), no) for name in (_HELD, _UNKNOWN)})

    def _staying(self, leave_one_out_split: pa.Table) -> list[str]:
        """The events of held-out interactions that stay in training."""
        if not stored_metadata(leave_one_out_split)["keep_other_events"]:
            return []
        return [event for event in self.events if event not in self.rules.target_events]

    def target_pairs(
        self, leave_one_out_split: pa.Table, number: int, unknown_to_training: pa.Table | None = None
    ) -> "DataFrame":
        """The interactions with a target event among the events that a split leaves."""
        marked = self._marked(of_split(leave_one_out_split, number), unknown_to_training)
        staying = [event for event in self._staying(leave_one_out_split) if event in self.rules.target_events]
        had, left = (has_one_of(events) for events in (self.rules.target_events, staying))
        return marked.filter(~sf.col(_UNKNOWN) & sf.when(sf.col(_HELD), left).otherwise(had))

    def training_pairs(
        self, leave_one_out_split: pa.Table, number: int, unknown_to_training: pa.Table | None = None
    ) -> tuple["DataFrame", "DataFrame"]:
        """What the split of that number holds out, and the interactions that it leaves for training.

        Raises:
            InputError: an event that stays would exclude the held-out item from recommendation.
        """
        held = of_split(leave_one_out_split, number)
        staying = self._staying(leave_one_out_split)
        marked = self._marked(held, unknown_to_training)
        if seen := [event for event in staying if event in self.rules.seen_events]:
            require_nothing_excluded(marked.filter(sf.col(_HELD) & has_one_of(seen)).count())
        left = self._left_strength(staying, None, 0.0)
        return known_here(self.scratch, held), marked.filter(left > 0)

    def _left_strength(
        self, staying: Sequence[str], mapping: Mapping[str, float] | None, half_life_days: float
    ) -> "Column":
        """The strength that is left for training."""
        of_held = self._strengths_of(staying, mapping, half_life_days) if staying else sf.lit(0.0)
        left = sf.when(sf.col(_HELD), of_held).otherwise(self.strengths(mapping, half_life_days))
        return sf.when(sf.col(_UNKNOWN), sf.lit(0.0)).otherwise(left)

    def exclusions(self, held: pa.Table, unknown_to_training: pa.Table | None = None) -> "DataFrame":
        """Of each user of whom something is held out, the items that are not recommended, sorted."""
        marked = self._marked(held, unknown_to_training)
        users = known_here(self.scratch, held.select([USER_INDEX]).group_by(USER_INDEX).aggregate([]))
        excluded = marked.filter(sf.col(EXCLUDED) & ~sf.col(_HELD) & ~sf.col(_UNKNOWN))
        of_user = excluded.select(USER_INDEX, ITEM_INDEX).join(users, USER_INDEX)
        return of_user.groupBy(USER_INDEX).agg(sf.sort_array(sf.collect_list(ITEM_INDEX)).alias("excluded"))

    def weighed(
        self,
        trials: Iterable[Hyperparameters],
        fading: Fading,
        leave_one_out_split: pa.Table | None,
        number: int = 0,
        *,
        weigh_all: bool = False,
        unknown_to_training: pa.Table | None = None,
        carried: Mapping[str, "Column"] | None = None,
    ) -> Weighed:
        """What a split leaves, weighed as the trials weigh it; without a split everything.

        What none of them trains on is left out. But where further columns are carried along, by name, all
        interactions stay, in their order.
        """
        weightings = list(dict.fromkeys(Weighting.of(trial) for trial in trials))
        names = list(dict.fromkeys(each.trial().strengths_name for each in weightings))
        if leave_one_out_split is None:
            staying: list[str] = []
            marked = self.pairs.withColumns({_HELD: sf.lit(False), _UNKNOWN: sf.lit(False)})
        else:
            staying = self._staying(leave_one_out_split)
            marked = self._marked(of_split(leave_one_out_split, number), unknown_to_training)
        columns: dict[str, Column] = {}
        for place, name in enumerate(names):
            mapping, days = fading.mappings[name], fading.half_lives.get(name, 0.0)
            columns[f"t{place}"] = self._left_strength(staying, mapping, days)
            columns[f"s{place}"] = self.strengths(mapping, days) if weigh_all else columns[f"t{place}"]
        further = carried or {}
        pairs = marked.select(
            USER_INDEX,
            ITEM_INDEX,
            *(column.alias(name) for name, column in {**further, **columns}.items()),
        )
        known = range(len(names))
        per_user = pairs.groupBy(USER_INDEX).agg(
            *(sf.count(sf.when(sf.col(f"s{n}") > 0, 1)).alias(f"n{n}") for n in known)
        )
        lengths = [sf.sum(sf.greatest(sf.col(f"s{n}"), sf.lit(0.0))).alias(f"l{n}") for n in known]
        per_item = pairs.groupBy(ITEM_INDEX).agg(*lengths)
        of_users, of_items = (
            Vectors.of_columns(self.scratch, frame, [f"{letter}{n}" for n in known], index, n_rows, kind)
            for frame, letter, index, n_rows, kind in (
                (per_user, "n", USER_INDEX, self.n_users, "int64"),
                (per_item, "l", ITEM_INDEX, self.n_items, "float64"),
            )
        )
        sums = first_row(pairs.agg(*lengths))
        mean_lengths = [float(sums[f"l{n}"]) / self.n_items for n in known]
        if not further:
            pairs = pairs.filter(" OR ".join(f"t{n} > 0" for n in known))
        place_of = {name: place for place, name in enumerate(names)}
        told = [(each, place_of[each.trial().strengths_name]) for each in weightings]
        weigh = _weigher(told, of_users, of_items, mean_lengths, list(further))
        kept = pairs.select(USER_INDEX, ITEM_INDEX, *further, *(f"t{n}" for n in known))
        schema = StructType([*kept.schema.fields[: 2 + len(further)], StructField("weights", BinaryType())])
        weighed = self.scratch.kept(kept.mapInArrow(weigh, schema), "weighed")
        for used in (of_users, of_items):
            used.remove()
        return Weighed(weighed, weightings, self.n_users, self.n_items)


def _weigher(
    weightings: Sequence[tuple[Weighting, int]],
    of_users: Vectors,
    of_items: Vectors,
    mean_lengths: Sequence[float],
    carried: Sequence[str],
) -> Any:
    """Weighs interactions of which it looks up the users' numbers of interactions and the items' lengths."""

    def weigh(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if not batch.num_rows:
                continue
            n_interactions = of_users.take(batch[USER_INDEX].to_numpy())
            lengths = of_items.take(batch[ITEM_INDEX].to_numpy())
            weights = np.empty((batch.num_rows, len(weightings)), dtype=np.float32)
            for place, (weighting, n) in enumerate(weightings):
                left = batch[f"t{n}"].to_numpy()
                if weighting.weighting == BM25:
                    norms = length_norms(lengths[:, n], mean_lengths[n], weighting.bm25_B)
                    idf = inverse_document_frequency(n_interactions[:, n], of_items.n_rows)
                    weights[:, place] = saturated(left, norms, weighting.bm25_K1) * idf
                else:
                    weights[:, place] = left
                weights[left <= 0, place] = np.nan
            names = [USER_INDEX, ITEM_INDEX, *carried]
            columns = [*(batch[name] for name in names), as_bytes(weights)]
            yield pa.record_batch(columns, names=[*names, "weights"])

    return weigh


def of_split(leave_one_out_split: pa.Table, number: int) -> pa.Table:
    """The rows of the split of that number, in their order."""
    return leave_one_out_split.filter(pa.array(leave_one_out_split[SPLIT].to_numpy() == number))


def _n_rows(table: pa.Table | ds.Dataset) -> int:
    return int(table.num_rows if isinstance(table, pa.Table) else table.count_rows())
