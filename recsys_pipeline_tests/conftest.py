"""Small worlds in which the right answer is known."""

from pathlib import Path

import numpy as np
import pytest
from dagster import ExecuteInProcessResult
from hypothesis import settings

from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.worlds import run_graph, write_parity_feedback

# The same examples in every run, and no test depends on time.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")

PROJECT = Path(__file__).resolve().parents[1]


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


@pytest.fixture
def result(parity_csv: Path, warehouse: Warehouse) -> ExecuteInProcessResult:
    """The whole graph, materialized."""
    result = run_graph(parity_csv, warehouse, evaluate=True)
    assert result.success
    return result


@pytest.fixture(scope="session")
def sample_csv() -> Path:
    return PROJECT / "data" / "feedback_implicit.csv"
