"""A sample of what `make faults` does in full: kills, disks that fill up, reads and writes that fail."""

import subprocess
import sys

import pytest

from recsys_pipeline_tests.faults.injection import compiler


@pytest.mark.skipif(sys.platform != "linux" or compiler() is None, reason="preloads a library made with cc")
def test_a_sample_of_faults_is_survived():
    command = [sys.executable, "-m", "recsys_pipeline_tests.faults", "--every", "60"]
    run = subprocess.run([*command, "--assets", "bm25_matrix"], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    injected, survived = run.stdout.splitlines()[-1].split(" faults injected, ")
    assert int(injected) >= 5
    assert survived.startswith(f"{injected} survived")
