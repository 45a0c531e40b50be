"""The code location: the only wiring."""

from typing import cast

from dagster import (
    AssetsDefinition,
    Definitions,
    load_asset_checks_from_modules,
    load_assets_from_package_module,
    map_asset_specs,
)

from recsys_pipeline import assets, checks, settings
from recsys_pipeline.automation.alerts import alert
from recsys_pipeline.automation.freshness import with_freshness
from recsys_pipeline.automation.jobs import executor, retrain
from recsys_pipeline.automation.nights import readers_are_served
from recsys_pipeline.automation.schedules import nightly
from recsys_pipeline.automation.sensors import source
from recsys_pipeline.reporting.console import readable_console
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.io_manager import WarehouseIOManager
from recsys_pipeline.storage.warehouse import Warehouse

_warehouse = Warehouse.configure_at_launch()

defs = Definitions(
    # One group: with more, the UI draws boxes instead of the graph.
    assets=map_asset_specs(
        with_freshness,
        cast("list[AssetsDefinition]", load_assets_from_package_module(assets, group_name="recommender")),
    ),
    asset_checks=[*load_asset_checks_from_modules([checks]), readers_are_served],
    jobs=[retrain],
    schedules=[nightly],
    sensors=[source, alert],
    resources={
        "feedback": Feedback.configure_at_launch(),
        "warehouse": _warehouse,
        "io_manager": WarehouseIOManager(warehouse=_warehouse),
    },
    executor=executor(settings.EXECUTOR),
    loggers={"console": readable_console},
)
