"""All interactions as the arrays that the arithmetic works on, made from the tables of the graph."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from recsys_pipeline.core.columns import (
    EXCLUDED,
    ITEM,
    ITEM_INDEX,
    SPLIT,
    STRENGTH,
    TARGET,
    TARGET_TIMESTAMP,
    TIMESTAMP,
    USER,
    USER_INDEX,
    WEIGHT,
    count_column,
    counted_events,
    faded_column,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import faded_name
from recsys_pipeline.core.ids import shown_ids
from recsys_pipeline.core.indexing import index_ids
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.core.pattern import Pattern, row_pointers
from recsys_pipeline.core.strengths import EventRules, combined_strengths, faded_strengths

Tables = dict[str, pa.Table]
# The same, to be read by columns.
Datasets = dict[str, ds.Dataset]

# By name, strengths of the events; None stands for those that the interactions have already.
Mappings = Mapping[str, Mapping[str, float] | None]


class Fading(NamedTuple):
    """Mappings of the events, each as it is and by each half-life.

    Attributes:
        mappings: by the name under which a `Split` knows them.
        half_lives: by the same names, in days, of those that fade.
    """

    mappings: Mappings
    half_lives: Mapping[str, float]

    @classmethod
    def of(cls, mappings: Mappings, half_lives: Iterable[float]) -> Self:
        """Each of the mappings by each of the half-lives, beside the mappings as they are."""
        faded = [(name, days) for name in mappings for days in half_lives if days]
        return cls(
            {**mappings, **{faded_name(name, days): mappings[name] for name, days in faded}},
            {faded_name(name, days): days for name, days in faded},
        )


class Counts(Mapping[str, NDArray[np.int32]]):
    """By event, (n_interactions,) how often it occurred; read each time that somebody asks.

    Most assets need none of them, and few more than one at a time.
    """

    def __init__(self, table: pa.Table | ds.Dataset) -> None:
        self._table = table
        self._events = counted_events(table.schema.names)

    def __getitem__(self, event: str) -> NDArray[np.int32]:
        if event not in self._events:
            raise KeyError(event)
        return _column(self._table, count_column(event))

    def __iter__(self) -> Iterator[str]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)


class Fades(Mapping[str, NDArray[np.float64]]):
    """By event, (n_interactions,) what is left of its events by a half-life; read when somebody asks."""

    def __init__(self, table: pa.Table | ds.Dataset, half_life_days: float) -> None:
        self._table, self._half_life_days = table, half_life_days
        self._events = counted_events(table.schema.names)

    def __getitem__(self, event: str) -> NDArray[np.float64]:
        if event not in self._events:
            raise KeyError(event)
        return _column(self._table, faded_column(event, self._half_life_days))

    def __iter__(self) -> Iterator[str]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)


class EventsLeft(Mapping[str, NDArray[np.bool_]]):
    """By event, (n_interactions,) whether it is left for training; made each time that somebody asks."""

    def __init__(
        self,
        counts: Mapping[str, NDArray[np.int32]],
        held_out: NDArray[np.int64],
        left_counts: Mapping[str, NDArray[np.int32]],
        unknown_to_training: NDArray[np.int64] | None,
    ) -> None:
        """`left_counts` are those of the events that stay of what is held out."""
        self._counts, self._held_out, self._left_counts = counts, held_out, left_counts
        self._unknown_to_training = unknown_to_training

    def __getitem__(self, event: str) -> NDArray[np.bool_]:
        had = self._counts[event] > 0
        had[self._held_out] = self._left_counts[event] > 0 if event in self._left_counts else False
        if self._unknown_to_training is not None:
            had[self._unknown_to_training] = False
        return had

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


@dataclass(frozen=True)
class Interactions:
    """All interactions with what is known of them; what is not in the pattern is read when it is asked for.

    Attributes:
        users: raw id of each row.
        items: raw id of each column.
        pattern: which user touched which item.
        table: the interactions in the order of the pattern, in memory or to be read by columns.
        rules: what the events mean.
    """

    users: pa.Array
    items: pa.Array
    pattern: Pattern
    table: pa.Table | ds.Dataset
    rules: EventRules

    @classmethod
    def from_strengths(cls, feedback_strengths: pa.Table | ds.Dataset) -> Self:
        """Index the ids of `feedback_strengths`."""
        # One after the other: raw ids take more memory than all else.
        users, user_index = index_ids(_chunks(feedback_strengths, USER))
        indptr = row_pointers(user_index, len(users))
        del user_index
        items, item_index = index_ids(_chunks(feedback_strengths, ITEM))
        return cls._made(feedback_strengths, users, items, Pattern(indptr, item_index, len(items)))

    @classmethod
    def from_tables(cls, tables: Tables | Datasets) -> Self:
        """Read the tables of `bm25_matrix`."""
        pairs = tables["pairs"]
        users, items = (
            _chunks(tables[table], name).combine_chunks()
            for table, name in (("users", USER), ("items", ITEM))
        )
        indptr = row_pointers(_column(pairs, USER_INDEX), len(users))
        return cls._made(pairs, users, items, Pattern(indptr, _column(pairs, ITEM_INDEX), len(items)))

    @classmethod
    def _made(cls, table: pa.Table | ds.Dataset, users: pa.Array, items: pa.Array, pattern: Pattern) -> Self:
        pattern.require_ascending()
        return cls(users, items, pattern, table, EventRules.from_metadata(stored_metadata(table)))

    @cached_property
    def strengths(self) -> NDArray[np.float64]:
        """(n_interactions,)."""
        return _column(self.table, STRENGTH)

    @cached_property
    def counts(self) -> Mapping[str, NDArray[np.int32]]:
        """By event, (n_interactions,) how often it occurred."""
        return Counts(self.table)

    @cached_property
    def target(self) -> NDArray[np.bool_]:
        """(n_interactions,) whether it has an event that may be held out."""
        return _column(self.table, TARGET)

    @cached_property
    def excluded(self) -> NDArray[np.bool_]:
        """(n_interactions,) whether it excludes its item from recommendation."""
        return _column(self.table, EXCLUDED)

    @cached_property
    def timestamps(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """(n_interactions,) of the latest event and of the latest target event, microseconds since 1970.

        The least integer where there is none; None for feedback without timestamps.
        """
        if TIMESTAMP not in self.table.schema.names:
            return None
        long_ago = np.iinfo(np.int64).min
        latest, latest_target = (
            pc.fill_null(_chunks(self.table, name).cast(pa.int64()), long_ago).to_numpy()
            for name in (TIMESTAMP, TARGET_TIMESTAMP)
        )
        return latest, latest_target

    def to_tables(self, weights: NDArray[np.floating]) -> Tables:
        """The tables of `bm25_matrix`: pairs, users, items."""
        columns = {
            USER_INDEX: self.pattern.user_of_interaction,
            ITEM_INDEX: self.pattern.indices,
            STRENGTH: self.strengths,
            WEIGHT: weights,
            TARGET: self.target,
            EXCLUDED: self.excluded,
        }
        columns.update({count_column(event): count for event, count in self.counts.items()})
        for half_life in self.rules.half_lives:
            faded = self.fades(half_life)
            columns.update({faded_column(event, half_life): fade for event, fade in faded.items()})
        if self.timestamps is not None:
            latest, latest_target = (pa.array(values) for values in self.timestamps)
            never = pa.scalar(None, pa.int64())
            latest_target = pc.if_else(pa.array(self.target), latest_target, never)
            for name, values in ((TIMESTAMP, latest), (TARGET_TIMESTAMP, latest_target)):
                columns[name] = values.cast(pa.timestamp("us", tz="UTC"))
        n_users, n_items = self.pattern.shape
        return {
            "pairs": with_metadata(pa.table(columns), self.rules.to_metadata()),
            "users": pa.table({USER_INDEX: np.arange(n_users, dtype=np.int32), USER: self.users}),
            "items": pa.table({ITEM_INDEX: np.arange(n_items, dtype=np.int32), ITEM: self.items}),
        }

    def held_out_table(self, positions: NDArray[np.int64], number: int) -> pa.Table:
        """The rows of `leave_one_out_split` of what is held out in the split of that number."""
        users, items = self.pattern.users_at(positions), self.pattern.indices[positions]
        return pa.table(
            {
                USER: self.users.take(pa.array(users)),
                ITEM: self.items.take(pa.array(items)),
                USER_INDEX: users,
                ITEM_INDEX: items,
                SPLIT: np.full(len(positions), number, dtype=np.int32),
            }
        )

    def given_table(self, given: pa.Table, number: int) -> pa.Table:
        """The rows of `leave_one_out_split` of held-out interactions that are given by raw ids.

        Users who are not in the feedback get indexes after its last, items that are not get -1: both stay in
        the denominator, for nothing can be recommended to the one, nor the other to anyone.
        """
        user_index = pc.index_in(given[USER], self.users).combine_chunks()
        item_index = pc.index_in(given[ITEM], self.items).combine_chunks()
        strangers = pc.unique(given[USER].filter(pc.is_null(user_index)))
        beyond = pc.add(pc.index_in(given[USER], strangers), len(self.users)).combine_chunks()
        return pa.table(
            {
                USER: given[USER],
                ITEM: given[ITEM],
                USER_INDEX: pc.coalesce(user_index, beyond).cast(pa.int32()),
                ITEM_INDEX: pc.fill_null(item_index, -1).cast(pa.int32()),
                SPLIT: np.full(given.num_rows, number, dtype=np.int32),
            }
        )

    def positions_in(self, held_out: pa.Table) -> NDArray[np.int64]:
        """The distinct positions of the rows of a `leave_one_out_split` that are interactions."""
        return self._positions(held_out[USER_INDEX].to_numpy(), held_out[ITEM_INDEX].to_numpy())

    def _positions(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.int64]:
        known = (users < len(self.users)) & (items >= 0)
        positions = self.pattern.positions_of(users[known], items[known])
        return np.unique(positions[positions >= 0])

    def fades(self, half_life_days: float) -> Mapping[str, NDArray[np.float64]]:
        """By event, (n_interactions,) what is left of its events by that half-life; see `faded_strengths`.

        Raises:
            InputError: the table was made without that half-life.
        """
        if half_life_days not in self.rules.half_lives:
            raise unknown_half_life(half_life_days, self.rules.half_lives)
        return Fades(self.table, half_life_days)

    def strengths_by(
        self, strengths: Mapping[str, float] | None, half_life_days: float = 0.0
    ) -> NDArray[np.float64]:
        """(n_interactions,) the strengths by another mapping of the events, 0 where it knows none.

        Args:
            strengths: of the events; None for those of the rules.
            half_life_days: after which an event counts half; 0 for events that do not fade.

        Raises:
            InputError: the mapping leaves nothing, or the table was made without that half-life.
        """
        aggregate = self.rules.aggregate
        if half_life_days:
            strengths = self.rules.strengths if strengths is None else strengths
            combined = faded_strengths(self.fades(half_life_days), strengths, aggregate)
        elif strengths is None:
            return self.strengths
        else:
            combined = combined_strengths(self.counts, strengths, aggregate)
        if not (combined > 0).any():
            raise nothing_left(strengths, self.counts)
        return combined

    def splits(
        self,
        leave_one_out_split: pa.Table,
        mappings: Mappings,
        *,
        weigh_all: bool,
        half_lives: Mapping[str, float] | None = None,
        unknown_to_training: NDArray[np.int64] | None = None,
    ) -> Iterator[Split]:
        """What each split of the table holds out and leaves, by each mapping of the events to strengths.

        Args:
            leave_one_out_split: its metadata says whether other events of held-out interactions stay.
            mappings: one is the default.
            weigh_all: see `Split`.
            half_lives: in days, by the name of a mapping, of those that fade.
            unknown_to_training: positions that are not ranked, but that training must not know either.

        Raises:
            InputError: an event that stays would exclude the held-out item from recommendation.
        """
        keep_other_events = stored_metadata(leave_one_out_split)["keep_other_events"]
        columns = (leave_one_out_split[name].to_numpy() for name in (USER_INDEX, ITEM_INDEX, SPLIT))
        users, items, split = columns
        fading = Fading(mappings, half_lives or {})
        strengths = {
            name: self.strengths_by(mapping, fading.half_lives.get(name, 0.0))
            for name, mapping in mappings.items()
        }
        for number in range(int(split.max()) + 1):
            yield self._hold_out(
                users[split == number],
                items[split == number],
                fading,
                strengths,
                keep_other_events=keep_other_events,
                weigh_all=weigh_all,
                unknown_to_training=unknown_to_training,
            )

    def _hold_out(
        self,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        fading: Fading,
        strengths: Mapping[str, NDArray[np.float64]],
        *,
        keep_other_events: bool,
        weigh_all: bool,
        unknown_to_training: NDArray[np.int64] | None,
    ) -> Split:
        positions = self._positions(users, items)
        staying = [event for event in self.counts if event not in self.rules.target_events]
        if not keep_other_events:
            staying = []
        left_counts = {event: self.counts[event][positions] for event in staying}
        self._require_nothing_excludes(left_counts, len(positions))

        training_strengths = {}
        for name, mapping in fading.mappings.items():
            left = strengths[name].copy()
            left[positions] = 0.0
            by_event = self.rules.strengths if mapping is None else mapping
            if staying and (days := fading.half_lives.get(name)):
                fades = self.fades(days)
                left_fades = {event: fades[event][positions] for event in staying}
                left[positions] = faded_strengths(left_fades, by_event, self.rules.aggregate)
            elif staying:
                left[positions] = combined_strengths(left_counts, by_event, self.rules.aggregate)
            training_strengths[name] = left
        excluded = self.excluded.copy()
        excluded[positions] = False
        if unknown_to_training is not None:
            for array in (*training_strengths.values(), excluded):
                array[unknown_to_training] = 0
        events = EventsLeft(self.counts, positions, left_counts, unknown_to_training)
        return Split.make(
            self.pattern, users, items, strengths, training_strengths, excluded, events, weigh_all=weigh_all
        )

    def _require_nothing_excludes(
        self, left_counts: Mapping[str, NDArray[np.int32]], n_held_out: int
    ) -> None:
        excluding = np.zeros(n_held_out, dtype=bool)
        for event, counts in left_counts.items():
            if event in self.rules.seen_events:
                excluding |= counts > 0
        require_nothing_excluded(int(np.count_nonzero(excluding)))

    def require_positive(self, weights: NDArray[np.floating]) -> None:
        """Stop before ALS reads a weight at or below zero as "does not like".

        Raises:
            InputError: there is one; the message names the users and the cause.
        """
        at_fault = np.unique(self.pattern.users_at(np.flatnonzero(weights <= 0)))
        if len(at_fault):
            raise not_positive(
                int(np.count_nonzero(weights <= 0)),
                len(at_fault),
                self.pattern.n_items,
                shown_ids(self.users, at_fault),
            )


def not_positive(n_weights: int, n_users: int, n_items: int, shown: str) -> InputError:
    """What is wrong with so many weights at or below zero; `shown` are the ids of some of the users."""
    return InputError(
        f"{n_weights:,} BM25 weights are at or below zero, which ALS takes for dislikes: {n_users:,} users "
        f"touched all {n_items:,} items, or all but one, so that the idf ln(items) - ln(1 + items touched) "
        f"leaves nothing: {shown}. Leave such users out of the feedback (a crawler?), or bring more items."
    )


def unknown_half_life(half_life_days: float, known: Iterable[float]) -> InputError:
    """What is wrong with a half-life that the table was made without."""
    told = ", ".join(f"{days:g}" for days in known) or "none"
    return InputError(
        f"half_life_days {half_life_days:g} is not among the half_lives of feedback_strengths, which are "
        f"{told}: add it there and materialize feedback_strengths and what follows, or leave it out."
    )


def nothing_left(strengths: Mapping[str, float], events: Iterable[str]) -> InputError:
    """What is wrong with strengths of events that the feedback has none of."""
    return InputError(
        f"the strengths {dict(strengths)} leave no interaction: the feedback has none of these events. "
        f"It has {', '.join(events)}."
    )


def require_known_events(mappings: Mappings, known: Collection[str]) -> None:
    """Refuse mappings of events that the feedback does not have.

    Raises:
        InputError: it names them.
    """
    events = {event for mapping in mappings.values() for event in mapping or ()}
    if unknown := events - set(known):
        raise InputError(
            f"strength_mappings: the feedback has no {', '.join(sorted(unknown))}. It has {', '.join(known)}."
        )


def require_nothing_excluded(n_excluded: int) -> None:
    """Refuse a split of which so many held-out interactions are excluded by an event that stays.

    Raises:
        InputError: there are some.
    """
    if n_excluded:
        raise InputError(
            f"keep_other_events leaves events of {n_excluded:,} held-out interactions in training that "
            "are seen events, so that no model could recommend the held-out item. Name the events that "
            "exclude an item in `seen_events` of the `feedback` resource (the purchase alone, say), or "
            "set keep_other_events to false."
        )


def _chunks(table: pa.Table | ds.Dataset, name: str) -> pa.ChunkedArray:
    return table.to_table(columns=[name])[name] if isinstance(table, ds.Dataset) else table[name]


def _column(table: pa.Table | ds.Dataset, name: str) -> NDArray[Any]:
    values: NDArray[Any] = _chunks(table, name).to_numpy()
    return values


def unknown_in(held_out: pa.Table, n_users: int) -> dict[str, int]:
    """How many rows of a `leave_one_out_split` are of users and of items that the feedback does not have."""
    return {
        "users": int(np.count_nonzero(held_out[USER_INDEX].to_numpy() >= n_users)),
        "items": int(np.count_nonzero(held_out[ITEM_INDEX].to_numpy() < 0)),
    }
