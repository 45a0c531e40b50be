"""The tables of `bm25_matrix` and the arrays that the arithmetic works on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_pipeline.core.blending import History
from recsys_pipeline.core.columns import (
    ITEM,
    ITEM_INDEX,
    SEEN,
    STRENGTH,
    TARGET,
    TARGET_TIMESTAMP,
    TIMESTAMP,
    USER,
    USER_INDEX,
    WEIGHT,
    count_column,
    counted_events,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.holdout import Holdout
from recsys_pipeline.core.indexing import index_ids
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.strengths import Aggregate, combined_strengths
from recsys_pipeline.storage.tables import notes_of, with_notes

Tables = dict[str, pa.Table]


class EventRules(NamedTuple):
    """What the events mean; travels in the Parquet footer of the tables.

    Attributes:
        strengths: strength of each event.
        aggregate: what several events of a pair add up to.
        target_events: events that may be held out.
        seen_events: events that hide the item from recommendation.
    """

    strengths: Mapping[str, float]
    aggregate: Aggregate
    target_events: Sequence[str]
    seen_events: Sequence[str]

    def to_notes(self) -> dict[str, Any]:
        """As JSON."""
        return {**self._asdict(), "aggregate": self.aggregate.value}

    @classmethod
    def from_notes(cls, notes: Mapping[str, Any]) -> Self:
        """From what `to_notes` gave; of a table without notes: nothing is known."""
        return cls(
            notes.get("strengths", {}),
            Aggregate(notes.get("aggregate", Aggregate.sum.value)),
            notes.get("target_events", []),
            notes.get("seen_events", []),
        )


@dataclass(frozen=True)
class Pairs:
    """All pairs with what is known of them.

    Attributes:
        users: raw id of each row.
        items: raw id of each column.
        pattern: which user touched which item.
        strengths: (n_pairs,) float64.
        counts: (n_pairs,) how often each event occurred.
        target: (n_pairs,) whether the pair has an event that may be held out.
        seen: (n_pairs,) whether the pair hides its item from recommendation.
        timestamps: (n_pairs,) of the latest event and of the latest target event, microseconds since
            1970, or None.
        rules: what the events mean.
    """

    users: pa.Array
    items: pa.Array
    pattern: Pattern
    strengths: NDArray[np.float64]
    counts: dict[str, NDArray[np.int32]]
    target: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    timestamps: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    rules: EventRules

    @classmethod
    def from_strengths(cls, feedback_strengths: pa.Table) -> Self:
        """Index the ids of `feedback_strengths`."""
        users, user_index = index_ids(feedback_strengths[USER])
        items, item_index = index_ids(feedback_strengths[ITEM])
        return cls._from_columns(feedback_strengths, users, items, user_index, item_index)

    @classmethod
    def from_tables(cls, tables: Tables) -> Self:
        """Read the tables of `bm25_matrix`."""
        pairs = tables["pairs"]
        return cls._from_columns(
            pairs,
            tables["users"][USER].combine_chunks(),
            tables["items"][ITEM].combine_chunks(),
            pairs[USER_INDEX].to_numpy(),
            pairs[ITEM_INDEX].to_numpy(),
        )

    @classmethod
    def _from_columns(
        cls,
        table: pa.Table,
        users: pa.Array,
        items: pa.Array,
        user_index: NDArray[np.int32],
        item_index: NDArray[np.int32],
    ) -> Self:
        timestamps = None
        if TIMESTAMP in table.schema.names:
            long_ago = np.iinfo(np.int64).min
            latest, latest_target = (
                pc.fill_null(table[name].cast(pa.int64()), long_ago).to_numpy()
                for name in (TIMESTAMP, TARGET_TIMESTAMP)
            )
            timestamps = latest, latest_target
        return cls(
            users=users,
            items=items,
            pattern=Pattern.from_coordinates(user_index, item_index, (len(users), len(items))),
            strengths=table[STRENGTH].to_numpy(),
            counts={
                event: table[count_column(event)].to_numpy() for event in counted_events(table.schema.names)
            },
            target=table[TARGET].to_numpy(),
            seen=table[SEEN].to_numpy(),
            timestamps=timestamps,
            rules=EventRules.from_notes(notes_of(table)),
        )

    def to_tables(self, weights: NDArray[np.float64]) -> Tables:
        """The tables of `bm25_matrix`: pairs, users, items."""
        columns = {
            USER_INDEX: self.pattern.user_of_pair,
            ITEM_INDEX: self.pattern.indices,
            STRENGTH: self.strengths,
            WEIGHT: weights,
            TARGET: self.target,
            SEEN: self.seen,
        }
        columns.update({count_column(event): count for event, count in self.counts.items()})
        if self.timestamps is not None:
            latest, latest_target = (pa.array(values) for values in self.timestamps)
            never = pa.scalar(None, pa.int64())
            latest_target = pc.if_else(pa.array(self.target), latest_target, never)
            for name, values in ((TIMESTAMP, latest), (TARGET_TIMESTAMP, latest_target)):
                columns[name] = values.cast(pa.timestamp("us", tz="UTC"))
        n_users, n_items = self.pattern.shape
        return {
            "pairs": with_notes(pa.table(columns), self.rules.to_notes()),
            "users": pa.table({USER_INDEX: np.arange(n_users, dtype=np.int32), USER: self.users}),
            "items": pa.table({ITEM_INDEX: np.arange(n_items, dtype=np.int32), ITEM: self.items}),
        }

    def strengths_by(self, strengths: Mapping[str, float] | None) -> NDArray[np.float64]:
        """(n_pairs,) the strengths by another mapping of the events, 0 where it knows none.

        Args:
            strengths: of the events; None for the strengths as they are.

        Raises:
            InputError: the mapping leaves nothing.
        """
        if strengths is None:
            return self.strengths
        combined = combined_strengths(self.counts, strengths, self.rules.aggregate)
        if not (combined > 0).any():
            raise InputError(
                f"the strengths {dict(strengths)} leave no pair: the feedback has none of these events. "
                f"It has {', '.join(self.counts)}."
            )
        return combined

    def hold_out(
        self,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        mappings: Mapping[str, Mapping[str, float] | None],
        *,
        keep_other_events: bool,
    ) -> Holdout:
        """What is left for training, by each mapping, when the target events of these pairs are held out.

        Args:
            users: (n,) user index; from `len(self.users)` on for users who are not known.
            items: (n,) item index; -1 for an item that is not known.
            mappings: strengths of the events by the name of the mapping; None stands for those of the pairs.
            keep_other_events: leave what else the user did with the item in training.

        Raises:
            InputError: an event that stays would hide the held-out item from recommendation.
        """
        known = np.flatnonzero((users < len(self.users)) & (items >= 0))
        positions = self.pattern.positions_of(users[known], items[known])
        positions = np.unique(positions[positions >= 0])
        staying = [event for event in self.counts if event not in self.rules.target_events]
        if not keep_other_events:
            staying = []
        left_counts = {event: self.counts[event][positions] for event in staying}
        hiding = sum(
            (left_counts[event] > 0 for event in staying if event in self.rules.seen_events),
            start=np.zeros(len(positions), dtype=bool),
        )
        if n_hidden := np.count_nonzero(hiding):
            raise InputError(
                f"keep_other_events leaves events of {n_hidden:,} held-out pairs in training that are seen "
                "events, so that no model could recommend the held-out item. Name the events that hide an "
                "item in `seen_events` of the `feedback` resource (such as the purchase alone), or set "
                "keep_other_events to false."
            )
        full = {name: self.strengths_by(strengths) for name, strengths in mappings.items()}
        left = {}
        for name, strengths in mappings.items():
            left[name] = full[name].copy()
            mapping = self.rules.strengths if strengths is None else strengths
            left[name][positions] = (
                combined_strengths(left_counts, mapping, self.rules.aggregate) if staying else 0.0
            )
        seen = self.seen.copy()
        seen[positions] = False
        events = {event: counts > 0 for event, counts in self.counts.items()}
        for event, had in events.items():
            had[positions] = left_counts[event] > 0 if event in left_counts else False
        return Holdout(users, items, full, left, seen, events)

    def history(self, events: Mapping[str, NDArray[np.bool_]]) -> History:
        """The pairs with the events that are left of them."""
        return History(self.pattern, events, list(self.rules.target_events))

    def without_signal(self, weights: NDArray[np.float64]) -> pa.Array:
        """Raw ids of the users who have a weight at or below zero."""
        return self.users.take(pa.array(np.unique(self.pattern.user_of_pair[weights <= 0])))

    def require_no_dislikes(self, weights: NDArray[np.float64]) -> None:
        """Stop before ALS reads a weight at or below zero as "does not like".

        Raises:
            InputError: there is one; the message names the users and the cause.
        """
        if culprits := self.without_signal(weights).to_pylist():
            shown = ", ".join(str(user) for user in culprits[:5]) + (", ..." if len(culprits) > 5 else "")
            raise InputError(
                f"{np.count_nonzero(weights <= 0):,} BM25 weights are at or below zero, which ALS takes for "
                f"dislikes: {len(culprits):,} users touched all {self.pattern.n_items:,} items, or all but "
                f"one, so that the idf ln(items) - ln(1 + items touched) leaves nothing: {shown}. "
                "Leave such users out of the feedback (a crawler?), or bring more items."
            )
