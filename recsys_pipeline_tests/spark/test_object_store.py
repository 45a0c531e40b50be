"""A warehouse in an object store: its tables are copied to where the workers are, who open its model."""

import numpy as np
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.offer import Offer
from recsys_pipeline.core.results import Winner
from recsys_pipeline.engines import chosen
from recsys_pipeline.engines.engine import ExportPlan
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.storage.models import write_model
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.spark.test_parity import RULES, TRIAL, events, hold_out_plan, manifest_of


@pytest.fixture(scope="module")
def rows():
    return events(np.random.default_rng(3))


def test_what_the_cluster_makes_of_it_is_the_same(engine, bucket, rows):
    warehouse, local = Warehouse(path=str(bucket / "warehouse")), LocalEngine()
    warehouse.write_tables("raw_feedback", {"raw_feedback": rows})
    of_spark, of_local = (
        each.strengths(warehouse.open_table("raw_feedback"), RULES, 1 << 30).read_all()
        for each in (engine, local)
    )
    assert of_spark.equals(of_local)

    warehouse.write_tables(
        "feedback_strengths", {"feedback_strengths": with_metadata(of_local, RULES.to_metadata())}
    )
    of_spark, of_local = (
        each.matrix(warehouse.open_table("feedback_strengths"), 30.0, 0.6) for each in (engine, local)
    )
    for name, table in of_local.tables.items():
        assert of_spark.tables[name].read_all().equals(table, check_metadata=True)

    warehouse.write_tables("bm25_matrix", of_local.tables)
    matrix = warehouse.open_tables("bm25_matrix")
    of_spark, of_local = (each.hold_out(matrix, hold_out_plan()) for each in (engine, local))
    assert of_spark.table.equals(of_local.table, check_metadata=True)


def test_the_lists_of_its_model_are_the_same(engine, bucket, rows):
    warehouse, local = Warehouse(path=str(bucket / "warehouse")), LocalEngine()
    warehouse.write_tables("raw_feedback", {"raw_feedback": rows})
    strengths = local.strengths(warehouse.open_table("raw_feedback"), RULES, 1 << 30)
    warehouse.write_tables(
        "feedback_strengths", {"feedback_strengths": with_metadata(strengths, RULES.to_metadata())}
    )
    tables = local.matrix(warehouse.open_table("feedback_strengths"), 100.0, 0.8).tables
    refitted = local.refit(tables, Winner(TRIAL, 7, "batched", None, {}, None))
    with warehouse.replacing("best_model") as folder:
        write_model(folder, refitted.factors, refitted.interactions, manifest_of(TRIAL))
    model = warehouse.open_model("best_model")
    offer = Offer(np.ones(len(model.items), bool), np.zeros(len(model.items), np.int32), 0)

    of_spark, of_local = (
        each.recommendations(model, offer, ExportPlan(6)).read_all() for each in (engine, local)
    )

    assert of_spark.equals(of_local)
    assert of_spark.num_rows > 0


def test_without_a_folder_for_the_workers_it_is_refused(monkeypatch):
    for name, value in {"ENGINE": "spark", "SPARK": "spark://host:7077", "SPARK_SCRATCH": ""}.items():
        monkeypatch.setattr(f"recsys_pipeline.settings.{name}", value)
    monkeypatch.setattr("recsys_pipeline.settings.WAREHOUSE", "s3://bucket/warehouse")

    with pytest.raises(InputError, match="set RECSYS_SPARK_SCRATCH to such a folder"):
        chosen.chosen_engine()
