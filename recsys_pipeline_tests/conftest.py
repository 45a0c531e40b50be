"""Small worlds in which the right answer is known."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from dagster import ExecuteInProcessResult
from hypothesis import settings

from recsys_pipeline import settings as package_settings
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.storage.postgres import PostgresServer, missing_packages
from recsys_pipeline_tests.worlds import run_graph, write_parity_feedback

# The same examples in every run, and no test depends on time.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")

PROJECT = Path(__file__).resolve().parents[1]


def _take_a_core_of_its_own() -> None:
    """Let tests that run side by side not compete for each other's cores.

    A search starts as many workers as there are cores: two tests at once would start four, each of which
    takes longer to start than a tiny model takes to train.
    """
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if number and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(number) % len(cores)]})


_take_a_core_of_its_own()


class MaterializedGraph(NamedTuple):
    """The whole graph on the feed of `parity_csv`, and where it lies."""

    result: ExecuteInProcessResult
    warehouse: Warehouse


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the materialized graph has pictures, and who asks for them: they cost more than a tiny model."""
    monkeypatch.setattr(package_settings, "PICTURES", False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "warehouse"))


@pytest.fixture
def parity_csv(tmp_path: Path) -> Path:
    """Even users like even items, odd users odd ones."""
    return write_parity_feedback(tmp_path / "feedback.csv")


@pytest.fixture(scope="session")
def materialized_graph(tmp_path_factory: pytest.TempPathFactory) -> MaterializedGraph:
    """Made once a process; a test that changes anything takes a copy (`own_warehouse`)."""
    folder = tmp_path_factory.mktemp("materialized")
    warehouse = Warehouse(path=str(folder / "warehouse"))
    result = run_graph(write_parity_feedback(folder / "feedback.csv"), warehouse, evaluate=True)
    assert result.success
    return MaterializedGraph(result, warehouse)


@pytest.fixture(scope="session")
def shared_result(materialized_graph: MaterializedGraph) -> ExecuteInProcessResult:
    """What the materialized graph said."""
    return materialized_graph.result


@pytest.fixture(scope="session")
def shared_warehouse(materialized_graph: MaterializedGraph) -> Warehouse:
    """The warehouse of the materialized graph, for reading."""
    return materialized_graph.warehouse


@pytest.fixture
def own_warehouse(shared_warehouse: Warehouse, warehouse: Warehouse) -> Warehouse:
    """A copy of the warehouse of the materialized graph, for a test that changes it."""
    shutil.copytree(shared_warehouse.path, warehouse.path, symlinks=True)
    return warehouse


@pytest.fixture(scope="session")
def sample_csv() -> Path:
    return PROJECT / "data" / "feedback_implicit.csv"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make postgres` is to run: whatever needs the server."""
    for item in items:
        # Those of S3 have a server of their own.
        if "server" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("s3"):
            item.add_marker(pytest.mark.postgres)


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server, where the packages for it are installed."""
    if missing := missing_packages():
        pytest.skip(f"make postgres installs {' and '.join(missing)}")
    with PostgresServer() as server:
        yield server


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database."""
    name = server.new_database()
    yield server.url(name)
    server.drop_database(name)
