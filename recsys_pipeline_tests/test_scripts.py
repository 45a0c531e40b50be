"""What make leans on: one of many sets up, and what is started together ends together."""

import os
import signal
import subprocess
import sys
import time

import pytest

from recsys_pipeline_tests.conftest import PROJECT

ALONE = [sys.executable, PROJECT / "scripts" / "alone.py"]
WHOLE = [sys.executable, PROJECT / "scripts" / "whole.py"]
# For a machine that hangs.
SECONDS = 60


def count(folder):
    """A command that takes its time, and notes that it ran and whether another ran beside it."""
    code = (
        "import os, time; from pathlib import Path; folder = Path('.'); (folder / 'busy').mkdir(); "
        "time.sleep(0.2); (folder / 'busy').rmdir(); (folder / 'ran').open('a').write('x')"
    )
    return [*ALONE, folder, folder / "made", folder / "source", "--", sys.executable, "-c", code]


def test_of_many_that_want_a_file_one_makes_it_and_the_others_wait(tmp_path):
    (tmp_path / "source").touch()
    started = [subprocess.Popen(count(tmp_path), cwd=tmp_path, stderr=subprocess.DEVNULL) for _ in range(4)]

    assert [process.wait(SECONDS) for process in started] == [0] * 4
    assert (tmp_path / "ran").read_text() == "x"


def test_it_is_made_again_when_what_it_is_made_from_has_changed(tmp_path):
    (tmp_path / "source").touch()
    subprocess.run(count(tmp_path), cwd=tmp_path, check=True)
    later = (tmp_path / "made").stat().st_mtime + 10
    os.utime(tmp_path / "source", (later, later))
    subprocess.run(count(tmp_path), cwd=tmp_path, check=True)

    assert (tmp_path / "ran").read_text() == "xx"


def test_a_command_that_fails_makes_nothing(tmp_path):
    command = [*ALONE, tmp_path, tmp_path / "made", "--", sys.executable, "-c", "raise SystemExit(3)"]

    assert subprocess.run(command, check=False).returncode == 3
    assert not (tmp_path / "made").exists()


PARENT = """import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_however_it_is_ended_no_process_of_the_command_lives_on(number):
    whole = subprocess.Popen([*WHOLE, sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert whole.stdout
    grandchild = int(whole.stdout.readline())
    whole.send_signal(number)

    assert whole.wait(SECONDS) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    # All of them hold this pipe, which ends with the last.
    assert whole.stdout.read() == ""
    # An orphan is there until init has noticed.
    deadline = time.monotonic() + SECONDS
    while lives(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(grandchild)


def lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_nor_does_a_child_outlive_a_command_that_dies_and_its_status_is_told():
    code = PARENT.replace("time.sleep(600)", "sys.exit(7)").replace("sys.exit(7)", "time.sleep(600)", 1)
    done = subprocess.run(
        [*WHOLE, sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=SECONDS
    )

    assert done.returncode == 7
