"""The folder of a search goes, whatever ends the search."""

import signal
import subprocess
import sys
import tempfile
from contextlib import suppress

import numpy as np
import pytest

from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.fitting import FitPool
from recsys_pipeline.machine.scratch import scratch_folder
from recsys_pipeline_tests.worlds import pattern_of


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    tempfile.tempdir = None


def test_it_goes_with_an_error(temporary):
    with suppress(RuntimeError), scratch_folder() as folder:
        assert folder.parent == temporary
        raise RuntimeError

    assert not list(temporary.iterdir())


def test_it_goes_when_the_disk_is_full_before_any_worker_starts(temporary, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    pattern = pattern_of([[0, 1, 2]], 3)
    split = Split.leaving_out(pattern, np.ones(3), np.array([1]))
    with pytest.raises(OSError, match="No space left"):
        FitPool([split], Solver.implicit, seed=1, n_workers=1).__enter__()

    assert not list(temporary.iterdir())


HOLDER = """
import time
from recsys_pipeline.machine.scratch import scratch_folder
with scratch_folder() as folder:
    print(folder.name, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_search_left_goes_with_the_next_one_and_a_live_ones_stays(temporary):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    name = holder.stdout.readline().strip()
    with scratch_folder() as folder:
        assert {path.name for path in temporary.iterdir()} == {name, folder.name}
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (temporary / name).exists()

    with scratch_folder() as folder:
        assert [path.name for path in temporary.iterdir()] == [folder.name]


def test_a_folder_whose_process_died_before_it_could_lock_it_goes_too(temporary):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (temporary / f"recsys-search-{dead.pid}-x").mkdir()
    (temporary / "recsys-search-else").mkdir()

    with scratch_folder() as folder:
        assert {path.name for path in temporary.iterdir()} == {"recsys-search-else", folder.name}
