"""Which engine computes: whoever asks for one does not know."""

from pathlib import Path

from recsys_pipeline import settings
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.engines.engine import Engine


def chosen_engine() -> Engine:
    """The engine that this pipeline runs on.

    Raises:
        InputError: the settings of the Spark engine are no good, or its package is not installed.
    """
    # Imported here: what computes takes a while to load, and the definitions need none of it.
    if settings.ENGINE == "spark":
        from recsys_pipeline.engines.spark.session import require_package

        require_package()
        from recsys_pipeline.engines.spark.engine import SparkEngine, SparkSettings

        if not settings.SPARK:
            raise InputError(
                "RECSYS_ENGINE=spark needs RECSYS_SPARK, the address of the cluster: spark://host:7077 of a "
                "master, or sc://host:15002 of a Connect server."
            )
        if "://" in settings.WAREHOUSE and not settings.SPARK_SCRATCH:
            raise InputError(
                "RECSYS_ENGINE=spark needs a folder that the run and all workers reach by the same path, and "
                "RECSYS_WAREHOUSE is an object store: set RECSYS_SPARK_SCRATCH to such a folder."
            )
        scratch = Path(settings.SPARK_SCRATCH or Path(settings.WAREHOUSE) / ".spark").absolute()
        return SparkEngine(
            SparkSettings(settings.SPARK, settings.SPARK_CONF, scratch, settings.SPARK_SEARCH_USERS)
        )
    from recsys_pipeline.engines.local.engine import LocalEngine

    return LocalEngine()
