"""The whole graph with the engine of Spark, as a run does it, through a Connect server."""

import os
import subprocess
import sys

import yaml

from recsys_pipeline import load_model
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.spark.conftest import CONF
from recsys_pipeline_tests.worlds import N_USERS, write_parity_feedback

OPS = {
    "grid_search_results": {
        "config": {"factors": [8], "regularization": [0.05], "alpha": [2.0], "iterations": [2],
                   "bm25_K1": [10.0], "bm25_B": [0.5]}
    },
    "evaluation": {"config": {"seeds": 1, "compare_with": []}},
    "baselines": {"config": {"families": ["popularity"]}},
    "release": {"config": {"must_beat_popularity": False}},
}  # fmt: skip


def test_a_run_through_connect_ends_in_a_release(engine, connect_url, tmp_path):
    """The checks of a run and the promises of a release are those of the local engine."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"ops": OPS}))
    home = tmp_path / "home"
    home.mkdir()
    with engine._scratch():
        pass  # the server is in its driver
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "RECSYS_ENGINE": "spark",
        "RECSYS_SPARK": connect_url,
        "RECSYS_SPARK_CONF": CONF,
        "RECSYS_FEEDBACK": str(write_parity_feedback(tmp_path / "feedback.csv")),
        "RECSYS_WAREHOUSE": str(tmp_path / "warehouse"),
        "RECSYS_PICTURES": "off",
    }
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "*"]
    done = subprocess.run(
        [*command, "-m", "recsys_pipeline.definitions", "-c", str(tmp_path / "config.yaml")],
        env=environment, cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    model = load_model(tmp_path / "warehouse")
    assert len(model.users) == N_USERS
    assert len(model.recommend(model.users[0])) == 10
    # Even users like even items.
    best = model.recommend(model.users[2])["item"].tolist()[:3]
    assert {int(item) % 2 for item in best} == {model.users[2] % 2}
    assert not list((tmp_path / "warehouse" / ".spark").iterdir())
