"""The code location: the only wiring."""

from dagster import Definitions, load_asset_checks_from_modules, load_assets_from_package_module

from recsys_pipeline import assets, checks, settings
from recsys_pipeline.automation.jobs import executor, retrain
from recsys_pipeline.automation.schedules import nightly
from recsys_pipeline.reporting.console import readable_console
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.io_manager import WarehouseIOManager
from recsys_pipeline.storage.warehouse import Warehouse

_warehouse = Warehouse.configure_at_launch()

defs = Definitions(
    # One group: with more, the UI draws boxes instead of the graph.
    assets=load_assets_from_package_module(assets, group_name="recommender"),
    asset_checks=load_asset_checks_from_modules([checks]),
    jobs=[retrain],
    schedules=[nightly],
    resources={
        "feedback": Feedback.configure_at_launch(),
        "warehouse": _warehouse,
        "io_manager": WarehouseIOManager(warehouse=_warehouse),
    },
    executor=executor(settings.EXECUTOR),
    loggers={"console": readable_console},
)
