"""The release where a team looks at its experiments."""

import time
from collections.abc import Callable

from dagster import AssetExecutionContext, DataVersion, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline import settings
from recsys_pipeline.configuration import Knobs
from recsys_pipeline.history import past_materializations
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.metadata import AT_A_GLANCE, SETTINGS, WHERE_IT_IS, rounded
from recsys_pipeline.steps.step import asset_step
from recsys_pipeline.storage.locations import LOCATION_CONFIG, OptionalTracker
from recsys_pipeline.storage.tracking import log_current
from recsys_pipeline.storage.warehouse import Warehouse


class MlflowConfig(Knobs):
    """Where the release is logged, and what of it."""

    model_config = LOCATION_CONFIG

    uri: OptionalTracker = Field(
        default=settings.MLFLOW,
        description="The MLflow tracking server, such as https://mlflow.example.org, or a folder, such as "
        "file:///srv/mlruns (RECSYS_MLFLOW); empty: nothing is logged. User and password by "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, a token by MLFLOW_TRACKING_TOKEN.",
    )
    experiment: str = Field(
        default="recsys_pipeline", min_length=1, description="The experiment; it is made if there is none."
    )
    tables: bool = Field(
        default=False,
        description="Whether the factors and lists are logged too. They are as large as the release.",
    )


@asset(deps=["release"], kinds={"mlflow"})
@asset_step
def mlflow_run(
    context: AssetExecutionContext, config: MlflowConfig, warehouse: Warehouse
) -> MaterializeResult[None]:
    """The run in MLflow that says what the current release is: figures, parameters, card and manifest.

    Each release has one run, which is found again by its tags. To log it again changes nothing.
    """
    if not config.uri:
        told = "nothing is logged: RECSYS_MLFLOW is not set"
        context.log.info(told)
        return MaterializeResult(metadata={AT_A_GLANCE: told}, data_version=DataVersion("none"))
    begin = time.perf_counter()
    logged = log_current(
        warehouse.root,
        config.uri,
        config.experiment,
        _run_that_made(context),
        context.log.info,
        with_tables=config.tables,
    )
    told = f"release {logged.version} is run {logged.run_id} of the experiment {config.experiment}"
    if not logged.changed:
        told = f"nothing to log: {told} already"
    context.log.info(told)
    return MaterializeResult(
        metadata={
            AT_A_GLANCE: told,
            "Seconds": rounded(time.perf_counter() - begin),
            "files": ", ".join(logged.files) or "none: they were there already",
            "metrics": str(logged.metrics),
            "release": logged.version,
            SETTINGS: settings_table(config),
            WHERE_IT_IS: _address(config.uri, logged.experiment_id, logged.run_id),
        },
        data_version=DataVersion(logged.version),
    )


def _run_that_made(context: AssetExecutionContext) -> Callable[[str], str]:
    """The run of Dagster that released a version, as far as the history says; else this one."""

    def run_that_made(version: str) -> str:
        releases = past_materializations(context.instance, "release")
        made = (past.run_id for past in reversed(releases) if version in past.metadata.values())
        return next(made, context.run.run_id)

    return run_that_made


def _address(uri: str, experiment_id: str, run_id: str) -> str:
    """Where a person looks at it."""
    if uri.startswith("file:"):
        return f"{uri.rstrip('/')}/{experiment_id}/{run_id}"
    return f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
