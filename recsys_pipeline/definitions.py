"""The code location: the only wiring."""

from dagster import (
    Definitions,
    load_asset_checks_from_package_module,
    load_assets_from_package_module,
    map_asset_specs,
)

from recsys_pipeline import assets, checks, settings
from recsys_pipeline.attributes import with_attributes
from recsys_pipeline.automation.alerts import alert
from recsys_pipeline.automation.freshness import with_freshness
from recsys_pipeline.automation.jobs import executor, retrain
from recsys_pipeline.automation.nights import readers_are_served
from recsys_pipeline.automation.schedules import nightly
from recsys_pipeline.automation.sensors import source
from recsys_pipeline.configuration import refuse_invalid
from recsys_pipeline.reporting.console import readable_console
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.io_manager import WarehouseIOManager
from recsys_pipeline.storage.warehouse import Warehouse

_warehouse = Warehouse.configure_at_launch()
_resources = {
    "feedback": Feedback.configure_at_launch(),
    "warehouse": _warehouse,
    "io_manager": WarehouseIOManager(warehouse=_warehouse),
}
# One group: with more, the UI draws boxes instead of the graph.
_assets = map_asset_specs(
    with_freshness,
    with_attributes(
        load_assets_from_package_module(assets, group_name="recommender"), owners=settings.OWNERS
    ),
)
refuse_invalid(_assets, _resources)

defs = Definitions(
    assets=_assets,
    asset_checks=[*load_asset_checks_from_package_module(checks), readers_are_served],
    jobs=[retrain],
    schedules=[nightly],
    sensors=[source, alert],
    resources=_resources,
    executor=executor(settings.EXECUTOR),
    loggers={"console": readable_console},
)
