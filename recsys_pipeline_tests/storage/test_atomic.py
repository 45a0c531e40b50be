"""A reader sees the old file or the new one, never half."""

import errno
import fcntl
import os
import stat
import tempfile
import uuid

import pytest
from upath import UPath

from recsys_pipeline.storage.atomic import atomic_file, flush, put_folder, replace_link, staging_folder, sweep
from recsys_pipeline_tests.storage.killing import alive_inside, die, killed


@pytest.fixture(params=["local", "object store"])
def root(request, tmp_path):
    return UPath(tmp_path) if request.param == "local" else UPath(f"memory://{uuid.uuid4().hex}")


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def write(target, content):
    with atomic_file(target) as staged:
        staged.write_text(content)


def write_folder(target, **files):
    with staging_folder(target) as staged:
        for name, content in files.items():
            (staged / name).write_text(content)
        put_folder(staged, target)


def test_replaces_the_file_when_all_went_well(root):
    for content in ("old", "new"):
        write(root / "a" / "table", content)

    assert (root / "a" / "table").read_text() == "new"
    assert listing(root / "a") == ["table"]


def test_keeps_the_old_file_when_something_failed(root):
    write(root / "table", "old")

    def fail_half_way():
        with atomic_file(root / "table") as staged:
            staged.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert (root / "table").read_text() == "old"
    assert listing(root) == ["table"]


def test_a_folder_appears_whole(root):
    with staging_folder(root / "v1") as staged:
        (staged / "inner").mkdir()
        (staged / "inner" / "x").write_text("x")
        assert not (root / "v1").exists()
        put_folder(staged, root / "v1")

    assert (root / "v1" / "inner" / "x").read_text() == "x"
    assert listing(root) == ["v1"]


def test_a_folder_that_was_not_put_is_gone(tmp_path):
    with staging_folder(UPath(tmp_path / "v1")) as staged:
        (staged / "x").write_text("x")

    assert listing(tmp_path) == []


def test_what_is_written_is_as_open_as_any_new_file(tmp_path):
    (tmp_path / "by hand").touch()
    (tmp_path / "folder by hand").mkdir()
    write(UPath(tmp_path / "table"), "new")
    write_folder(UPath(tmp_path / "folder"), x="x")

    def mode(name):
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    assert mode("table") == mode("by hand")
    assert mode("folder") == mode("folder by hand")


def test_a_folder_in_place_of_the_file_is_named(root):
    (root / "table").mkdir(parents=True)

    with pytest.raises(IsADirectoryError) as raised:
        write(root / "table", "new")
    assert raised.value.errno == errno.EISDIR
    assert raised.value.filename == str(root / "table")
    assert listing(root) == ["table"]


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    target, done = tmp_path / "table", []

    def note(name, path_of):
        real = getattr(os, name)

        def noting(*arguments):
            real(*arguments)
            done.append((name, path_of(arguments)))

        monkeypatch.setattr(os, name, noting)

    note("fsync", lambda arguments: os.fstat(arguments[0]).st_ino)
    note("replace", lambda arguments: str(arguments[1]))
    write(UPath(target), "new")

    assert done == [
        ("fsync", target.stat().st_ino),
        ("replace", str(target)),
        ("fsync", tmp_path.stat().st_ino),
    ]


# --- Killed writers ---


def dies_while_writing(target):
    def work():
        with atomic_file(target) as staged:
            staged.write_text("half")
            die()

    return work


def dies_while_filling(target):
    def work():
        with staging_folder(target) as staged:
            (staged / "x").write_text("half")
            die()

    return work


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    target = UPath(tmp_path / "table")
    write(target, "old")

    assert killed(dies_while_writing(target))
    assert target.read_text() == "old"


@pytest.mark.parametrize("dies", [dies_while_writing, dies_while_filling], ids=["file", "folder"])
def test_what_a_killed_writer_left_is_swept_by_the_next_writer_in_the_folder(tmp_path, dies):
    assert killed(dies(UPath(tmp_path / "a")))
    assert len(listing(tmp_path)) == 1
    write(UPath(tmp_path / "b"), "new")

    assert listing(tmp_path) == ["b"]


@pytest.mark.parametrize("dies", [dies_while_writing, dies_while_filling], ids=["file", "folder"])
def test_so_is_what_was_on_its_way_to_an_object_store(tmp_path, monkeypatch, dies):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = UPath(f"memory://{uuid.uuid4().hex}")
    assert killed(dies(store / "a"))
    assert len(listing(tmp_path)) == 1
    write(store / "b", "new")

    assert listing(tmp_path) == []


@pytest.mark.parametrize("staging", [atomic_file, staging_folder], ids=["file", "folder"])
def test_what_a_live_writer_owns_stays_however_old_it_is(tmp_path, staging):
    with alive_inside(staging(UPath(tmp_path / "slow"))):
        (staged,) = tmp_path.iterdir()
        os.utime(staged, (0, 0))
        write(UPath(tmp_path / "quick"), "new")

        assert staged.exists()
    assert "quick" in listing(tmp_path)


@pytest.mark.parametrize("name", [".DS_Store", ".notes.tmp", "table.abcdefgh.tmp", ".table.abcdefgh"])
def test_no_other_file_is_swept(tmp_path, name):
    (tmp_path / name).touch()
    sweep(tmp_path)

    assert listing(tmp_path) == [name]


def test_a_leftover_that_is_a_pipe_stops_nobody(tmp_path):
    os.mkfifo(tmp_path / ".table.abcdefgh.tmp")
    write(UPath(tmp_path / "table"), "new")

    assert "table" in listing(tmp_path)


def test_a_file_system_without_locks_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match=r"No locks available: '.*table"):
        write(UPath(tmp_path / "table"), "new")
    assert listing(tmp_path) == []


# --- Links ---


@pytest.fixture
def states(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    return tmp_path


def test_a_link_is_replaced(states):
    for name in ("a", "b", "b"):
        replace_link(states / "link", name)
        assert (states / "link" / "x").read_text() == name

    assert listing(states) == ["a", "b", "link"]


def test_a_link_takes_the_place_of_a_file(states):
    (states / "link").write_text("of an earlier version")
    replace_link(states / "link", "a/x")

    assert (states / "link").read_text() == "a"
    assert listing(states) == ["a", "b", "link"]


def test_a_link_takes_the_place_of_a_folder_and_of_what_is_in_it(states):
    (states / "link" / "inner").mkdir(parents=True)
    replace_link(states / "link", "a")

    assert listing(states / "link") == ["x"]
    assert listing(states) == ["a", "b", "link"]


def test_a_disk_that_cannot_flush_is_named(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        flush(tmp_path)
    assert caught.value.filename == str(tmp_path)
