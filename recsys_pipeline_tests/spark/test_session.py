"""What goes wrong with a cluster is said in a sentence."""

import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from recsys_pipeline import settings
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.engines import chosen
from recsys_pipeline.engines.engine import SearchMethod, SearchPlan
from recsys_pipeline.engines.spark import session
from recsys_pipeline.engines.spark.engine import SparkEngine, SparkSettings
from recsys_pipeline_tests.ports import free_port


@pytest.mark.parametrize("scheme", ["spark", "sc"])
def test_nobody_at_the_address(scheme):
    with pytest.raises(InputError, match=r"nobody answers there.*Start the cluster, or correct the address"):
        session.connected(f"{scheme}://127.0.0.1:{free_port()}", "")


def test_no_java(monkeypatch, tmp_path):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"spark://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        with pytest.raises(InputError, match=r"there is no Java here.*JAVA_HOME.*Connect"):
            session.connected(url, "")


def test_a_java_that_is_too_old(monkeypatch, tmp_path):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(InputError, match="is Java 11, and Spark needs Java 17 or later"):
        session._require_java()


def test_another_version_of_spark():
    with pytest.raises(InputError, match=r"the cluster runs Spark 3\.5\.1 .*pyspark==3\.5\.1"):
        session._require_same_version("3.5.1", "4.3.0")
    session._require_same_version("4.3.2", "4.3.0")


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ("spark.executor.memory", "is no setting of Spark"),
        ("executor.memory=2g", "is no setting of Spark"),
        ("spark.hadoop.fs.s3a.secret.key=abc", "is a secret"),
    ],
)
def test_settings_of_spark_that_are_refused(conf, told):
    with pytest.raises(InputError, match=told) as caught:
        session.configured(conf)
    assert "abc" not in str(caught.value)


def test_settings_of_spark():
    assert session.configured(" spark.a=1; spark.b = x=y ;") == {"spark.a": "1", "spark.b": "x=y"}


def test_the_package_is_not_installed(monkeypatch):
    monkeypatch.setattr(settings, "ENGINE", "spark")
    monkeypatch.setattr(session, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[spark\]'"):
        chosen.chosen_engine()


def test_no_address_is_set(monkeypatch):
    monkeypatch.setattr(settings, "ENGINE", "spark")
    monkeypatch.setattr(settings, "SPARK", "")
    with pytest.raises(InputError, match="needs RECSYS_SPARK, the address of the cluster"):
        chosen.chosen_engine()


def test_no_jvm_starts_and_nothing_of_spark_is_loaded_with_the_definitions(tmp_path):
    code = "import sys, recsys_pipeline.definitions; print({'pyspark', 'py4j'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"RECSYS_ENGINE": "spark", "RECSYS_SPARK": "spark://nowhere:1", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip

    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("asked", [{"blend": True}, {"method": SearchMethod.halving}], ids=str)
def test_what_a_search_on_the_cluster_does_not_do_is_refused_before_it_begins(asked):
    plan = SearchPlan([], {}, "batched", 7, SearchMethod.grid, None, 0, 1, 1, 600.0)
    engine = SparkEngine(SparkSettings("spark://nowhere:1", "", Path("nowhere"), 0))
    with pytest.raises(InputError, match=r"the Spark engine .* set `(blend|strategy)` to"):
        engine.search({}, pa.table({}), plan._replace(**asked))
