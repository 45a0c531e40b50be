"""Compiled loops: compiled once, whoever starts together."""

import os
import subprocess
import sys

import pytest

from recsys_pipeline.core import compiled
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.engines.local import loops


@pytest.mark.runs
def test_processes_that_start_together_compile_once(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", loops.__name__]
    processes = [
        subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE) for _ in range(3)
    ]

    assert sorted(int(process.communicate()[0]) for process in processes) == [0, 0, 1]


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch):
    """Neither beside the source nor in the user's folder."""
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        compiled.njit(cache=True)(loops.count.py_func)

    assert compiled.compiled()(loops.count.py_func)(4) == 6
