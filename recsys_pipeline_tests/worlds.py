"""What several tests set up: a tiny shop, random matrices, a small run of the graph."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    AssetSelection,
    DagsterInstance,
    ExecuteInProcessResult,
    materialize,
)
from hypothesis import strategies as st
from upath import UPath

from recsys_pipeline.core.factors import FactorTables, factor_table
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.model import Contents, Model
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.definitions import defs
from recsys_pipeline.recommender import Recommender
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.io_manager import WarehouseIOManager
from recsys_pipeline.storage.models import write_model
from recsys_pipeline.storage.publishing import Retention, publish
from recsys_pipeline.storage.releases import see_pointer
from recsys_pipeline.storage.states import States
from recsys_pipeline.storage.warehouse import Warehouse

N_USERS, N_ITEMS = 40, 60

SMALL_GRID = {
    "factors": [4],
    "regularization": [0.01, 0.1],
    "alpha": [10.0],
    "iterations": [3, 6],
    "bm25_K1": [100.0],
    "bm25_B": [0.8],
}
# For a whole run in which what others than the tuned model are worth is not the question.
TUNED_ALONE = {
    "baselines": {"config": {"families": ["popularity"], "workers": 1}},
    "evaluation": {"config": {"compare_with": [], "seeds": 1, "workers": 1}},
}


def item_code(item: int) -> str:
    return f"00{item:03d}"


def write_parity_feedback(path: Path, n_users: int = N_USERS) -> Path:
    """Users 0 to 39, or more, each touch 10 of the 30 items of their parity, some of them twice."""
    rng = np.random.default_rng(1)
    lines = ["UserID,ProductCode,Event"]
    for user in range(n_users):
        liked = rng.choice(np.arange(user % 2, N_ITEMS, 2), size=10, replace=False)
        lines += [f"{user},{item_code(item)},view" for item in liked]
        lines += [f"{user},{item_code(item)},click" for item in liked[:4]]
    path.write_text("\n".join(lines) + "\n")
    return path


def pattern_of(rows: list[list[int]], n_items: int) -> Pattern:
    """The pattern of users who touched the given items."""
    users = np.repeat(np.arange(len(rows), dtype=np.int32), [len(set(row)) for row in rows])
    items = np.concatenate([np.array(sorted(set(row)), dtype=np.int32) for row in rows] or [[]])
    return Pattern.from_coordinates(users, items.astype(np.int32), (len(rows), n_items))


@st.composite
def patterns(draw: st.DrawFn, max_users: int = 8, max_items: int = 12) -> Pattern:
    """Patterns of any shape, users without interactions included."""
    n_items = draw(st.integers(2, max_items))
    rows = draw(
        st.lists(st.lists(st.integers(0, n_items - 1), max_size=n_items), min_size=1, max_size=max_users)
    )
    return pattern_of(rows, n_items)


def run_graph(
    feedback: Path | str,
    warehouse: Warehouse,
    *,
    ops: dict[str, Any] | None = None,
    selection: AssetSelection | None = None,
    evaluate: bool = False,
    instance: DagsterInstance | None = None,
    **feedback_config: Any,
) -> ExecuteInProcessResult:
    """Materialize the spine, or all of the graph, checks included, with a small grid."""
    # Dagster refuses configuration for what is not selected.
    config = {} if selection else {"grid_search_results": {"config": SMALL_GRID}}
    if not selection and not evaluate:
        config["baselines"] = {"config": {"families": ["popularity"], "workers": 1}}
    if not selection:
        selection = AssetSelection.all() if evaluate else AssetSelection.assets("best_model").upstream()
    return materialize(
        [*defs.assets, *defs.asset_checks],
        selection=selection,
        resources={
            "feedback": Feedback(path=str(feedback), **feedback_config),
            "warehouse": warehouse,
            "io_manager": WarehouseIOManager(warehouse=warehouse),
        },
        run_config={"ops": {**config, **(ops or {})}},
        instance=instance,
        raise_on_error=False,
    )


def publish_model(
    warehouse: UPath,
    rows: list[list[int]],
    factors: Factors,
    users: Sequence[Any],
    items: Sequence[Any],
    *,
    weights: Sequence[float] | None = None,
    blend: dict[str, Any] | None = None,
    keep: int = 7,
    hyperparameters: Hyperparameters | None = None,
    **told: Any,
) -> UPath:
    """A model with these factors, of users who viewed the given items; each view excludes its item.

    `told` is what its manifest also says.
    """
    pattern = pattern_of(rows, len(items))
    everywhere = np.ones(pattern.n_interactions)
    contents = Contents(
        pattern,
        weights=np.asarray(everywhere if weights is None else weights, np.float32),
        excluded=everywhere.astype(bool),
        counts={"view": everywhere.astype(np.int32)},
    )
    hyperparameters = hyperparameters or Hyperparameters(
        factors=factors.items.shape[1],
        regularization=0.1,
        alpha=2.0,
        iterations=1,
        bm25_K1=100.0,
        bm25_B=0.8,
    )
    manifest = {
        "hyperparameters": hyperparameters.as_dict(),
        "seed": 1,
        "solver": "implicit",
        "strengths": {"view": 1.0},
        "target_events": ["view"],
        "seen_events": ["view"],
        "blend": blend,
        "metrics": {},
        "counts": {},
        "inputs": {},
        **told,
    }
    tables = FactorTables(
        factor_table("UserID", pa.array(users), factors.users),
        factor_table("ProductCode", pa.array(items), factors.items),
        fit_seconds=0.0,
    )
    return publish_written(warehouse, tables, contents, manifest, retention=Retention(keep))


def publish_written(
    warehouse: UPath,
    tables: FactorTables,
    contents: Contents,
    manifest: dict[str, Any],
    **options: Any,
) -> UPath:
    """Write a model as `best_model` does, and publish that."""
    seen = see_pointer(warehouse)
    with States(warehouse, "best_model").replacing() as folder:
        write_model(folder, tables, contents.to_table(), manifest)
    files = States(warehouse, "best_model").files(States(warehouse, "best_model").current())
    del files["model.json"]
    manifest = {"versions": {}, **manifest}
    return publish(warehouse, files, {}, manifest, **{"seen": seen, "retention": Retention(), **options})


def alone(*assets: str) -> AssetSelection:
    """These assets and nothing else."""
    return AssetSelection.assets(*assets)


def made_model(warehouse: Warehouse) -> Recommender:
    """What `best_model` made, released or not."""
    return Recommender(warehouse.open_model("best_model"))


def failure_of(result: ExecuteInProcessResult) -> str:
    """The message of the step that failed."""
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data
    return data.user_failure_data.description if data.user_failure_data else data.error.message


def failed_checks_of(result: ExecuteInProcessResult) -> dict[str, AssetCheckEvaluation]:
    """The claims that do not hold, by name."""
    return {check.check_name: check for check in result.get_asset_check_evaluations() if not check.passed}


def metadata_of(result: ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """What the materialization of an asset says."""
    (event,) = [
        event for event in result.get_asset_materialization_events() if event.asset_key == AssetKey(asset)
    ]
    return {key: value.value for key, value in event.materialization.metadata.items()}


def model_of(
    rows: list[list[int]],
    factors: Factors,
    users: Sequence[Any],
    items: Sequence[Any],
    *,
    bought: Sequence[Sequence[int]] | None = None,
    blend: dict[str, Any] | None = None,
) -> Model:
    """A model in memory, of users who viewed the given items and bought some of them.

    Each view excludes its item; the target event is `buy`, or `view` where nothing is bought.
    """
    pattern = pattern_of(rows, len(items))
    everywhere = np.ones(pattern.n_interactions)
    counts = {"view": everywhere.astype(np.int32)}
    if bought is not None:
        touched = zip(pattern.user_of_interaction.tolist(), pattern.indices.tolist(), strict=True)
        counts["buy"] = np.array([int(item in bought[user]) for user, item in touched], np.int32)
    return Model(
        pa.array(users),
        pa.array(items),
        factors,
        Contents(pattern, everywhere.astype(np.float32), everywhere.astype(bool), counts),
        {"target_events": ["view" if bought is None else "buy"], "blend": blend},
    )
