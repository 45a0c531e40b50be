"""What the benchmarks start from, prepared by the project's own steps."""

import json
import resource
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from dagster import AssetSelection, DagsterInstance, materialize
from upath import UPath

from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, Hyperparameters
from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.definitions import defs
from recsys_pipeline.engines.engine import SearchMethod, SearchPlan
from recsys_pipeline.engines.local.aggregation import interaction_strengths
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.ingest import ingest
from recsys_pipeline.storage.io_manager import WarehouseIOManager
from recsys_pipeline.storage.models import DESCRIPTION
from recsys_pipeline.storage.publishing import Retention, publish
from recsys_pipeline.storage.releases import see_pointer
from recsys_pipeline.storage.states import States
from recsys_pipeline.storage.warehouse import Warehouse

# The events of the public logs that the benchmarks are run on, besides the notebook's.
STRENGTHS = {
    "view": 1.0,
    "query_search": 2.0,
    "click": 3.0,
    "compare": 4.0,
    "cart": 2.0,
    "buy": 3.0,
    "checkin": 1.0,
}


def held_out_interactions(feedback: str, warehouse: str) -> tuple[Interactions, np.ndarray]:
    """All interactions of a feed, and the positions of the held-out ones."""
    source, store = Feedback(path=feedback, strengths=STRENGTHS), Warehouse(path=warehouse)
    ingest(source, store, "raw_feedback", "rejected_feedback")
    strengths = interaction_strengths(store.open_table("raw_feedback"), source.strengths)
    interactions = Interactions.from_strengths(strengths.read_all())
    return interactions, leave_one_out(interactions.pattern, seed=42, min_interactions=3)


def materialize_quietly(
    selection: AssetSelection, warehouse: Warehouse, feedback: Feedback, ops: Mapping[str, Any]
) -> None:
    """Materialize assets, without their checks."""
    materialize(
        [*defs.assets],
        selection=selection,
        resources={
            "feedback": feedback,
            "warehouse": warehouse,
            "io_manager": WarehouseIOManager(warehouse=warehouse),
        },
        run_config={"ops": ops, "loggers": {"console": {"config": {"log_level": "WARNING"}}}},
        instance=DagsterInstance.ephemeral(),
    )


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def plan_of(trials: Sequence[Hyperparameters], seed: int) -> SearchPlan:
    """Every trial once, by `batched`, on all cores."""
    return SearchPlan(
        trials=list(dict.fromkeys(trials)),
        mappings={DEFAULT_STRENGTHS: None},
        solver="batched",
        seed=seed,
        method=SearchMethod.grid,
        course=None,
        most_steps=0,
        first_rung=1,
        workers=0,
        most_silent_seconds=3600.0,
    )


def publish_made(root: UPath) -> UPath:
    """Release what `best_model` made, whatever it is worth; the folder of the release."""
    seen, states = see_pointer(root), States(root, "best_model")
    write_id = states.current()
    assert write_id
    files = states.files(write_id)
    manifest = json.loads(files.pop(DESCRIPTION).read_text())
    return publish(root, files, {}, manifest, seen=seen, retention=Retention())
