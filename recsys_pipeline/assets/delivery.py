"""The release where the shop's systems read it."""

import time

from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline import settings
from recsys_pipeline.reporting.metadata import rounded
from recsys_pipeline.steps import asset_step
from recsys_pipeline.storage.delivery import deliver_current
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.locations import LOCATION_CONFIG, OptionalDatabase
from recsys_pipeline.storage.warehouse import Warehouse


class DeliveryConfig(Config):
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
        return MaterializeResult(metadata={"delivered": "nothing: RECSYS_DELIVERY is not set"})
    begin = time.perf_counter()
    delivered = deliver_current(
        warehouse.root,
        config.database,
        context.log.info,
        patience_seconds=config.lock_seconds,
        # The release before may have users who are to be forgotten.
        keep_before=not feedback.forget_users,
    )
    told = "nothing: it was there already"
    if delivered.changed:
        told = "loaded" if delivered.loaded else "switched back to it: its rows were still there"
    return MaterializeResult(
        metadata={
            "delivered": told,
            "version": delivered.version,
            "changed": delivered.changed,
            "place": delivered.place,
            "seconds": rounded(time.perf_counter() - begin),
            **{f"rows of {name}": count for name, count in delivered.rows.items()},
        }
    )
