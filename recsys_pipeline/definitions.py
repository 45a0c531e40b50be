"""The code location: the only wiring."""

from dagster import Definitions, load_asset_checks_from_package_module, load_assets_from_package_module

from recsys_pipeline import assets, checks, settings
from recsys_pipeline.attributes import with_attributes
from recsys_pipeline.automation import executor, nightly, retrain
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
_assets = with_attributes(
    load_assets_from_package_module(assets, group_name="recommender"), owners=settings.OWNERS
)
refuse_invalid(_assets, _resources)

defs = Definitions(
    assets=_assets,
    asset_checks=load_asset_checks_from_package_module(checks),
    jobs=[retrain],
    schedules=[nightly],
    resources=_resources,
    executor=executor(settings.EXECUTOR),
    loggers={"console": readable_console},
)
