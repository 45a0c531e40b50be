"""A trained model with all that recommending takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_pipeline.core.blending import Blend, History
from recsys_pipeline.core.columns import EXCLUDED, ITEM_INDEX, USER_INDEX, WEIGHT, count_column, fade_column
from recsys_pipeline.core.item_graph import GraphFilter, ItemGraph
from recsys_pipeline.core.lineage import Lineage
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.core.strengths import Aggregate, EventRules, combined_strengths

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Contents(NamedTuple):
    """What recommending takes beside the factors.

    Attributes:
        pattern: all interactions, so what each user already knows.
        weights: (n_interactions,) float32 weight in training; 0 for what the model was not trained on.
        excluded: (n_interactions,) whether it excludes its item from recommendation.
        counts: by event, (n_interactions,) how often it occurred.
        fades: by event, (n_interactions,) what is left of its events by the half-life of the model, see
            `faded_strengths`; empty where events do not fade.
    """

    pattern: Pattern
    weights: NDArray[np.float32]
    excluded: NDArray[np.bool_]
    counts: Mapping[str, NDArray[np.int32]]
    fades: Mapping[str, NDArray[np.float64]] = {}

    def of(self, users: NDArray[np.integer]) -> Self:
        """The interactions of these users alone; row i is that of `users[i]`."""
        rows, positions = self.pattern.interactions_of(users)
        indptr = np.zeros(len(users) + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=len(users)), out=indptr[1:])
        return type(self)(
            Pattern(indptr, self.pattern.indices[positions], self.pattern.n_items),
            self.weights[positions],
            self.excluded[positions],
            {event: counts[positions] for event, counts in self.counts.items()},
            {event: fades[positions] for event, fades in self.fades.items()},
        )

    def to_table(self) -> pa.Table:
        """A row an interaction."""
        return pa.table(
            {
                USER_INDEX: self.pattern.user_of_interaction,
                ITEM_INDEX: self.pattern.indices,
                WEIGHT: self.weights,
                EXCLUDED: self.excluded,
                **{count_column(event): counts for event, counts in self.counts.items()},
                **{fade_column(event): fades for event, fades in self.fades.items()},
            }
        )

    def history(self, target_events: Sequence[str]) -> History:
        """What a blend knows beside the factors."""
        events = {event: counts > 0 for event, counts in self.counts.items()}
        return History(self.pattern, events, target_events)

    def graph_rows(self, parameters: GraphFilter, aggregate: Aggregate) -> "csr_matrix":
        """R of the item graph, whose parameters say how strong each event is."""
        assert parameters.strengths
        strengths = combined_strengths(self.counts, parameters.strengths, aggregate)
        counted = strengths > 0
        return self.pattern.select(counted).user_items(parameters.weigh(strengths[counted]))


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        users: raw id of each row of the users' factors.
        items: raw id of each row of the items' factors.
        factors: of the model.
        contents: the interactions.
        manifest: how it was made and how good it is.
        lineage: where it comes from; None for a release, whose manifest says so.
        reopen: opens the same files in another process; None for a model that lies in none.
    """

    users: pa.Array
    items: pa.Array
    factors: Factors
    contents: Contents
    manifest: Mapping[str, Any]
    lineage: Lineage | None = None
    reopen: "Callable[[], Model] | None" = None

    @cached_property
    def exclusions(self) -> Pattern:
        """The interactions that exclude their item from recommendation."""
        return self.contents.pattern.select(self.contents.excluded)

    @property
    def history(self) -> History:
        """What a blend knows beside the factors."""
        return self.contents.history(self.manifest["target_events"])

    @property
    def blend(self) -> Blend | None:
        """The weights of its blend, where the search has fitted one."""
        return Blend.from_mapping(self.manifest["blend"]) if self.manifest.get("blend") else None

    @property
    def graph(self) -> GraphFilter | None:
        """The parameters of its item graph, where the search had one."""
        return GraphFilter.from_mapping(self.manifest["graph"]) if self.manifest.get("graph") else None

    @cached_property
    def item_graph(self) -> ItemGraph | None:
        """Its item graph, of all users; None where the search had none."""
        if not self.graph:
            return None
        return ItemGraph.of(self.contents.graph_rows(self.graph, self.aggregate), self.graph)

    @property
    def aggregate(self) -> Aggregate:
        """What several events of an interaction add up to; models from before it was a choice do not say."""
        return EventRules.from_metadata(self.manifest.get("rules", {})).aggregate

    def graph_rows(self, blend: Blend) -> "csr_matrix | None":
        """R of the blend's item graph, of all users; None where it has none."""
        return self.contents.graph_rows(blend.filter, self.aggregate) if blend.filter else None

    @cached_property
    def target_users(self) -> NDArray[np.int64]:
        """(n_items,) how many users had a target event with the item."""
        pattern, counts = self.contents.pattern, self.contents.counts
        found = np.zeros(pattern.n_items, dtype=np.int64)
        for block, _ in pattern.blocks():
            had_one = np.zeros(block.stop - block.start, dtype=bool)
            for event in self.manifest["target_events"]:
                had_one |= counts[event][block] > 0
            found += np.bincount(pattern.indices[block][had_one], minlength=pattern.n_items)
        return found
