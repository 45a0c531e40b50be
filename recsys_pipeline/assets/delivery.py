"""The release where the shop's systems read it."""

import time

from dagster import AssetExecutionContext, DataVersion, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline import settings
from recsys_pipeline.configuration import Knobs
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.metadata import AT_A_GLANCE, SETTINGS, WHERE_IT_IS, rounded
from recsys_pipeline.steps.step import asset_step
from recsys_pipeline.storage.delivery import deliver_current
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.locations import LOCATION_CONFIG, OptionalDatabase
from recsys_pipeline.storage.warehouse import Warehouse


class DeliveryConfig(Knobs):
    """Where the release is delivered to."""

    model_config = LOCATION_CONFIG

    database: OptionalDatabase = Field(
        default=settings.DELIVERY,
        description="URL of a PostgreSQL database, such as postgresql://host:5432/shop (RECSYS_DELIVERY); "
        "empty: nothing is delivered. User and password by PGUSER and PGPASSWORD, or by a passfile.",
    )
    lock_seconds: float = Field(
        default=600.0,
        ge=0,
        description="How long to wait for another delivery, and for transactions that began before this one "
        "and have read the tables.",
    )


@asset(deps=["release"], kinds={"postgres"})
@asset_step
def delivery(
    context: AssetExecutionContext, config: DeliveryConfig, feedback: Feedback, warehouse: Warehouse
) -> MaterializeResult[None]:
    """The tables of the current release in PostgreSQL, all replaced in one transaction.

    `recsys_release` says which release readers of the database see. To deliver it again changes nothing.
    """
    if not config.database:
        told = "nothing is delivered: RECSYS_DELIVERY is not set"
        context.log.info(told)
        return MaterializeResult(metadata={AT_A_GLANCE: told}, data_version=DataVersion("none"))
    begin = time.perf_counter()
    delivered = deliver_current(
        warehouse.root,
        config.database,
        context.log.info,
        patience_seconds=config.lock_seconds,
        # The release before may have users who are to be forgotten.
        keep_before=not feedback.forget_users,
    )
    how = "it was there already"
    if delivered.changed:
        how = "its rows were loaded" if delivered.loaded else "its rows were still there"
    told = f"release {delivered.version} is in {delivered.place}: {how}"
    context.log.info(told)
    return MaterializeResult(
        metadata={
            AT_A_GLANCE: told,
            **{f"Rows of {name}": count for name, count in delivered.rows.items()},
            "Seconds": rounded(time.perf_counter() - begin),
            "release": delivered.version,
            SETTINGS: settings_table(config),
            WHERE_IT_IS: delivered.place,
        },
        data_version=DataVersion(delivered.version),
    )
