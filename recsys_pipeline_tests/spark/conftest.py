"""A cluster for all tests of the module, and the engine on it."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from recsys_pipeline_tests.ports import free_port
from recsys_pipeline_tests.s3.conftest import _server, bucket, server  # noqa: F401  # fixtures
from recsys_pipeline_tests.spark.cluster import Cluster, missing_packages

# Pieces as small as the data, and no time spent on compiling or verifying what runs once.
JAVA_OPTIONS = [
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-BytecodeVerificationRemote",
]
CONF = (
    "spark.sql.codegen.wholeStage=false;spark.sql.codegen.factoryMode=NO_CODEGEN;"
    "spark.sql.shuffle.partitions=2;spark.executor.memory=700m;spark.driver.host=127.0.0.1;"
    "spark.cores.max=2;spark.driver.maxResultSize=200k"
)

# Modules that import PySpark fail before their mark can leave them out of `make test`.
LACKS = missing_packages()
collect_ignore_glob = ["test_*.py"] if LACKS else []


def pytest_report_header() -> str | None:
    return f"`make spark` installs {' and '.join(LACKS)}; without, no test is found here" if LACKS else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these are run by `make spark`."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.spark)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master and two workers, with room for two applications side by side; they know the server of S3."""
    request.getfixturevalue("_server")
    with Cluster(
        tmp_path_factory.mktemp("cluster"), cores=2, memory="2g", java_options=JAVA_OPTIONS
    ) as cluster:
        os.environ.update(cluster.environment)
        yield cluster


@pytest.fixture(scope="session")
def connect_url() -> str:
    """That of the Connect server in the driver of the engine, whose JVM and executors are warm."""
    return f"sc://127.0.0.1:{free_port()}"


@pytest.fixture(scope="session")
def engine(cluster: Cluster, connect_url: str, tmp_path_factory: pytest.TempPathFactory):
    """The Spark engine, connected to the master; its driver answers by Connect too."""
    from recsys_pipeline.engines.spark.engine import SparkEngine, SparkSettings
    from recsys_pipeline.engines.spark.session import connected

    host, port = urlsplit(connect_url).netloc.split(":")
    conf = (
        f"{CONF};spark.plugins=org.apache.spark.sql.connect.SparkConnectPlugin;"
        f"spark.connect.grpc.binding.address={host};spark.connect.grpc.binding.port={port}"
    )
    folder: Path = tmp_path_factory.mktemp("scratch")
    yield SparkEngine(SparkSettings(cluster.master, conf, folder, search_users=0))
    connected(cluster.master, conf).stop()
    connected.cache_clear()
