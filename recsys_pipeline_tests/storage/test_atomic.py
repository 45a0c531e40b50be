"""A reader sees the old file or the new one, never half."""

import os
import signal
import subprocess
import sys
import time
import uuid

import pytest
from upath import UPath

from recsys_pipeline.storage.atomic import atomic_file, is_local, new_folder


@pytest.fixture(params=["local", "object store"])
def root(request, tmp_path):
    if request.param == "local":
        yield UPath(tmp_path)
    else:
        store = UPath(f"memory://{uuid.uuid4().hex}")
        yield store
        store.fs.rm(store.path, recursive=True) if store.exists() else None


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replaces_the_file_when_all_went_well(root):
    for content in ("old", "new"):
        with atomic_file(root / "a" / "table") as staged:
            staged.write_text(content)

    assert (root / "a" / "table").read_text() == "new"
    assert listing(root / "a") == ["table"]


def test_keeps_the_old_file_when_something_failed(root):
    with atomic_file(root / "table") as staged:
        staged.write_text("old")

    def fail_half_way():
        with atomic_file(root / "table") as staged:
            staged.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert (root / "table").read_text() == "old"
    assert listing(root) == ["table"]


def test_a_folder_appears_whole(root):
    with new_folder(root / "v1") as staged:
        (staged / "x").write_text("x")
        if is_local(root):
            assert "v1" not in listing(root)

    assert (root / "v1" / "x").read_text() == "x"
    assert listing(root) == ["v1"]


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    target = tmp_path / "table"
    target.write_text("old")
    script = (
        "import sys, time; from upath import UPath; from recsys_pipeline.storage.atomic import atomic_file\n"
        "with atomic_file(UPath(sys.argv[1])) as staged:\n"
        "    staged.write_text('half'); print('written', flush=True); time.sleep(600)"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"written\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()

    assert target.read_text() == "old"


def test_what_a_killed_writer_left_is_swept_away_after_a_day(tmp_path):
    fresh, stale = tmp_path / ".table.fresh.tmp", tmp_path / ".table.stale.tmp"
    for leftover in (fresh, stale):
        leftover.write_text("half")
    two_days_ago = time.time() - 2 * 86400
    os.utime(stale, (two_days_ago, two_days_ago))

    with atomic_file(UPath(tmp_path / "table")) as staged:
        staged.write_text("new")

    assert listing(tmp_path) == [".table.fresh.tmp", "table"]
