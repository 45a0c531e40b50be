"""What is between two steps goes with the run, and after it where that was killed."""

import os
import socket
import subprocess
import sys

from recsys_pipeline.engines.spark.frames import scratch


def test_scratch_goes_with_its_block(tmp_path):
    with scratch(None, tmp_path / "scratch") as own:
        own.path("rows").mkdir()
        assert len(list((tmp_path / "scratch").glob("*/*-rows"))) == 1

    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_a_killed_run_has_left_goes_with_the_next(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    left = tmp_path / f"recsys-spark-{ended.pid}_{host}_abc"
    stay = [
        tmp_path / f"recsys-spark-{os.getpid()}_{host}_abc",
        tmp_path / f"recsys-spark-{ended.pid}_another-host_abc",
        tmp_path / "somebody else's",
    ]
    for folder in (left, *stay):
        folder.mkdir()

    with scratch(None, tmp_path):
        pass

    assert sorted(tmp_path.iterdir()) == sorted(stay)
