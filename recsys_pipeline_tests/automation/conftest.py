"""The history of the materialized graph in an instance of its own, and the configuration that made it."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from dagster import AssetMaterialization, DagsterInstance, RepositoryDefinition

from recsys_pipeline.automation import jobs
from recsys_pipeline.automation.nights import Night
from recsys_pipeline.definitions import defs
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.worlds import SMALL_GRID

REPOSITORY: RepositoryDefinition = defs.get_repository_def()


class Shop(NamedTuple):
    """A shop whose graph was materialized; what a test changes is its own.

    Attributes:
        instance: that remembers it.
        warehouse: a copy.
        feed: the file that it was made from.
        run_config: of the night.
    """

    instance: DagsterInstance
    warehouse: Warehouse
    feed: Path
    run_config: dict[str, Any]

    def night(self, **ops: Any) -> Night:
        """What is stale now, with some of the configuration of the assets changed."""
        changed = {name: {"config": config} for name, config in ops.items()}
        run_config = {**self.run_config, "ops": {**self.run_config["ops"], **changed}}
        return Night.now(self.instance, REPOSITORY, run_config)


@pytest.fixture
def shop(materialized_graph, own_warehouse, tmp_path, monkeypatch):
    feed = tmp_path / "feedback.csv"
    shutil.copy2(Path(materialized_graph.warehouse.path).parent / "feedback.csv", feed)
    run_config = {
        "resources": {
            "feedback": {"config": {"path": str(feed)}},
            "warehouse": {"config": {"path": own_warehouse.path}},
        },
        "ops": {"grid_search_results": {"config": SMALL_GRID}},
    }
    # The sensor and the schedule take it from the settings.
    monkeypatch.setattr(jobs, "RUN_CONFIG", run_config)
    with DagsterInstance.ephemeral() as instance:
        for event in materialized_graph.result.get_asset_materialization_events():
            made = event.materialization
            told = AssetMaterialization(made.asset_key, metadata=made.metadata, tags=made.tags)
            instance.report_runless_asset_event(told)
        yield Shop(instance, own_warehouse, feed, run_config)
