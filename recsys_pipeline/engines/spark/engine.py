"""The engine of an Apache Spark cluster."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds

from recsys_pipeline.core.baseline_tuning import BaselineResult
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.interactions import Datasets, Mappings, Tables
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.offer import Offer
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.scale import Scale, Weighting
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.core.strengths import EventRules
from recsys_pipeline.engines.engine import (
    BaselinePlan,
    Evaluated,
    EvaluationPlan,
    ExportPlan,
    HeldOut,
    HoldOutPlan,
    Matrix,
    Noted,
    PreparedSearch,
    Refitted,
    SearchPlan,
    StrengthsFacts,
    Window,
)
from recsys_pipeline.engines.local.solvers import nearest_solvable
from recsys_pipeline.engines.spark import evaluating, exporting, preparation, refitting
from recsys_pipeline.engines.spark.frames import Scratch, in_parts
from recsys_pipeline.engines.spark.frames import scratch as scratch_in
from recsys_pipeline.engines.spark.holding_out import hold_out
from recsys_pipeline.engines.spark.sampling import sampled
from recsys_pipeline.engines.spark.scaling import scales
from recsys_pipeline.engines.spark.searching import SparkSearch
from recsys_pipeline.engines.spark.session import connected, told
from recsys_pipeline.engines.spark.side_by_side import each


class SparkSettings(NamedTuple):
    """Where the cluster is, and how it is used.

    Attributes:
        url: of a master or of a Connect server.
        conf: settings of Spark, see `session.connected`.
        scratch: a folder that the run and all workers reach by the same path.
        search_users: search on this machine, on the interactions of so many users; 0 searches on the cluster.
    """

    url: str
    conf: str
    scratch: Path
    search_users: int


class SparkEngine:
    """Interactions, users and items stay on the cluster; this process has the plan, and what is held out."""

    def __init__(self, settings: SparkSettings) -> None:
        """Nothing is connected before something is to be computed."""
        self._settings = settings

    def _scratch(self) -> AbstractContextManager[Scratch]:
        return scratch_in(connected(self._settings.url, self._settings.conf), self._settings.scratch)

    def each(self, work: Callable[[str], Iterable[Noted]], parts: Sequence[str]) -> Iterator[Iterable[Noted]]:
        """See `recsys_pipeline.engines.engine.Engine`; a task a part."""
        with told(), self._scratch() as scratch:
            yield from each(scratch, work, parts)

    def strengths(self, raw_feedback: ds.Dataset, rules: EventRules, most_bytes: int) -> pa.RecordBatchReader:  # noqa: ARG002
        """See `recsys_pipeline.engines.engine.Engine`; the memory is that of the cluster."""
        schema = preparation.strengths_schema(raw_feedback, rules)

        def rows() -> Iterator[pa.RecordBatch]:
            with told(), self._scratch() as scratch:
                frame = preparation.strengths_frame(scratch, raw_feedback, rules)
                yield from scratch.kept(frame, "strengths").batches(schema)

        return in_parts(rows(), schema)

    def window(self, raw_feedback: ds.Dataset, window_days: float, most_bytes: int) -> Window:  # noqa: ARG002
        """See `recsys_pipeline.engines.engine.Engine`."""
        with told(), self._scratch() as scratch:
            return preparation.window(scratch, raw_feedback, window_days)

    def events_of_days(self, raw_feedback: ds.Dataset) -> dict[str, dict[date, int]]:
        """See `recsys_pipeline.engines.engine.Engine`."""
        with told(), self._scratch() as scratch:
            return preparation.events_of_days(scratch, raw_feedback)

    def strengths_facts(self, feedback_strengths: ds.Dataset) -> StrengthsFacts:
        """See `recsys_pipeline.engines.engine.Engine`."""
        with told(), self._scratch() as scratch:
            return preparation.strengths_facts(scratch, feedback_strengths)

    def matrix(self, feedback_strengths: ds.Dataset, k1: float, b: float) -> Matrix:
        """See `recsys_pipeline.engines.engine.Engine`."""
        with ExitStack() as until_read:
            scratch = until_read.enter_context(self._scratch())
            with told():
                matrix, indexed = preparation.matrix(scratch, feedback_strengths, k1, b)
            until_read = until_read.pop_all()
        last = list(indexed.tables)[-1]

        def rows(name: str) -> Iterator[pa.RecordBatch]:
            try:
                yield from indexed.tables[name].batches(indexed.schemas[name])
            finally:
                if name == last:
                    until_read.close()

        return matrix._replace(
            tables={name: in_parts(rows(name), schema) for name, schema in indexed.schemas.items()}
        )

    def hold_out(self, bm25_matrix: Tables | Datasets, plan: HoldOutPlan) -> HeldOut:
        """See `recsys_pipeline.engines.engine.Engine`."""
        with told(), self._scratch() as scratch:
            return hold_out(scratch, bm25_matrix, plan)

    def nearest_solvable(self, solver: Solver, trial: Hyperparameters) -> Hyperparameters:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return nearest_solvable(solver, trial)

    def scales(
        self, bm25_matrix: Tables | Datasets, mappings: Mappings, weightings: Iterable[Weighting]
    ) -> Mapping[Weighting, Scale]:
        """See `recsys_pipeline.engines.engine.Engine`."""
        with told(), self._scratch() as scratch:
            return scales(scratch, bm25_matrix, mappings, weightings)

    def search(
        self, bm25_matrix: Tables | Datasets, leave_one_out_split: pa.Table, plan: SearchPlan
    ) -> PreparedSearch:
        """See `recsys_pipeline.engines.engine.Engine`."""
        if self._settings.search_users:
            with told(), self._scratch() as scratch:
                of_sample = sampled(scratch, bm25_matrix, leave_one_out_split, self._settings.search_users)
            from recsys_pipeline.engines.local.engine import LocalEngine

            return LocalEngine().search(*of_sample, plan)
        return SparkSearch(self._scratch, bm25_matrix, leave_one_out_split, plan)

    def baselines(
        self,
        bm25_matrix: Tables | Datasets,
        leave_one_out_split: pa.Table,
        plan: BaselinePlan,
        report: Callable[[str], None],
    ) -> list[BaselineResult]:
        """See `recsys_pipeline.engines.engine.Engine`; popularity alone is measured."""
        with told(), self._scratch() as scratch:
            return evaluating.baselines(scratch, bm25_matrix, leave_one_out_split, plan, report)

    def refit(self, bm25_matrix: Tables | Datasets, winner: Winner) -> Refitted:
        """See `recsys_pipeline.engines.engine.Engine`."""
        with ExitStack() as until_read:
            scratch = until_read.enter_context(self._scratch())
            with told():
                refitted, of_interactions = refitting.refit(scratch, bm25_matrix, winner)
            until_read = until_read.pop_all()

        def rows() -> Iterator[pa.RecordBatch]:
            """Those that are read last."""
            try:
                yield from of_interactions
            finally:
                until_read.close()

        return refitted._replace(interactions=in_parts(rows(), of_interactions.schema))

    def evaluate(
        self,
        bm25_matrix: Tables | Datasets,
        held_out: pa.Table,
        plan: EvaluationPlan,
        report: Callable[[str], None],
    ) -> Evaluated:
        """See `recsys_pipeline.engines.engine.Engine`."""
        with told(), self._scratch() as scratch:
            return evaluating.evaluate(scratch, bm25_matrix, held_out, plan, report)

    def recommendations(self, model: Model, offer: Offer, plan: ExportPlan) -> pa.RecordBatchReader:
        """See `recsys_pipeline.engines.engine.Engine`."""
        schema = exporting.schema_of(model, of_similar_items=False)

        def rows() -> Iterator[pa.RecordBatch]:
            with told(), self._scratch() as scratch:
                yield from exporting.recommendations(scratch, model, offer, plan).batches(schema)

        return in_parts(rows(), schema)

    def similar_items(self, model: Model, offer: Offer, plan: ExportPlan) -> pa.RecordBatchReader:
        """See `recsys_pipeline.engines.engine.Engine`."""
        schema = exporting.schema_of(model, of_similar_items=True)

        def rows() -> Iterator[pa.RecordBatch]:
            with told(), self._scratch() as scratch:
                yield from exporting.similar_items(scratch, model, offer, plan).batches(schema)

        return in_parts(rows(), schema)
