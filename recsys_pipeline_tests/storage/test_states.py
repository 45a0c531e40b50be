"""Whoever reads an asset gets all its files as one run wrote them, or is told what is wrong."""

import fcntl
import os
import shutil
import tempfile
import threading
import uuid
from datetime import timedelta

import pytest
from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage import states as module
from recsys_pipeline.storage.atomic import is_local
from recsys_pipeline.storage.states import States
from recsys_pipeline_tests.storage.bucket import new_bucket
from recsys_pipeline_tests.storage.killing import killed_everywhere

NAMES = ("items", "pairs", "users")


@pytest.fixture(params=["local", "object store"])
def root(request, tmp_path, monkeypatch):
    return UPath(tmp_path) if request.param == "local" else new_bucket(monkeypatch)


@pytest.fixture
def states(root, monkeypatch):
    # Nobody is busy with an upload.
    monkeypatch.setattr(module, "_LONGEST_UPLOAD", timedelta(0))
    return States(root, "matrix")


@pytest.fixture
def local(tmp_path):
    return States(UPath(tmp_path), "matrix")


def write(states, content, names=NAMES):
    """A state in which every file has the same content, so that two runs in one are seen at once."""
    with states.replacing() as folder:
        for name in names:
            (folder / f"{name}.parquet").write_text(content)


def contents(folder, names):
    return {name: (folder / f"{name}.parquet").read_text() for name in names}


def read(states):
    return states.read(contents)[0]


def whole(content):
    return dict.fromkeys(NAMES, content)


def folder_of(states):
    return states._folder / states.current()


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


# --- Old or new ---


def test_the_last_state_is_read(states):
    for content in ("old", "new", "new", "old"):
        write(states, content)
        assert read(states) == whole(content)


def test_the_same_content_is_the_same_state_and_written_once(states):
    write(states, "a")
    of_a, kept = states.current(), folder_of(states) / "items.parquet"
    written = kept.stat().st_mtime
    write(states, "b")
    of_b = states.current()
    write(states, "a")

    assert of_a != of_b
    assert states.current() == of_a
    assert kept.stat().st_mtime == written


def test_a_failed_replacement_keeps_the_old_state_and_leaves_nothing(states):
    write(states, "old")
    before = listing(states._folder)

    def fail_half_way():
        with states.replacing() as folder:
            (folder / "items.parquet").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert read(states) == whole("old")
    assert listing(states._folder) == before


def test_one_reader_gets_one_state_while_a_writer_replaces_it(local):
    write(local, "0")
    seen, done = [], threading.Event()

    def read_on():
        while not done.is_set():
            seen.append(read(local))

    reader = threading.Thread(target=read_on)
    reader.start()
    for number in range(1, 40):
        write(local, str(number))
    done.set()
    reader.join()

    numbers = [int(state["items"]) for state in seen]
    assert seen == [whole(str(number)) for number in numbers]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 5


def test_a_state_stays_for_its_readers_until_the_second_replacement(states):
    write(states, "0")
    replacements = []

    def replaced_meanwhile(folder, names):
        first = contents(folder, names[:1])
        for content in replacements:
            write(states, content)
        replacements.clear()
        return {**first, **contents(folder, names[1:])}

    replacements[:] = ["1"]
    assert states.read(replaced_meanwhile)[0] == whole("0")
    # The files are gone, so that the newest state is read instead; of an object store there is a copy.
    replacements[:] = ["2", "3"]
    assert states.read(replaced_meanwhile)[0] == whole("3" if is_local(states._folder) else "1")


def test_of_an_object_store_a_copy_is_read_and_errors_name_the_store(tmp_path, monkeypatch):
    states = States(new_bucket(monkeypatch), "matrix")
    write(states, "old")
    folder = folder_of(states)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert read(states) == whole("old")

    (folder / "pairs.parquet").write_text("altered")
    with pytest.raises(InputError, match=f"^{folder}/pairs.parquet is not what was written"):
        read(states)
    (folder / "pairs.parquet").unlink()
    with pytest.raises(InputError, match=f"lacks {folder}/pairs.parquet"):
        read(states)
    assert list(tmp_path.iterdir()) == []


def test_what_another_run_uploads_to_an_object_store_is_not_removed(monkeypatch):
    bucket = new_bucket(monkeypatch)
    slow, fast = States(bucket, "matrix"), States(bucket, "matrix")
    uploaded = module.put_folder

    def overtaken(staged, target):
        uploaded(staged, target)
        monkeypatch.setattr(module, "put_folder", uploaded)
        write(fast, "1")
        write(fast, "2")

    monkeypatch.setattr(module, "put_folder", overtaken)
    write(slow, "0")

    assert fast.read(contents)[0] == whole("0")


def test_writers_at_the_same_time_leave_the_state_of_one_of_them(local):
    def write_on(writer):
        for number in range(5):
            write(local, f"{writer}{number}")

    writers = [threading.Thread(target=write_on, args=[writer]) for writer in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert read(local) in (whole("a4"), whole("b4"))
    assert len(listing(local._folder)) == 3  # the link, the state and the one before


def test_while_a_state_takes_its_place_no_other_writer_may_touch_the_asset(local, monkeypatch):
    write(local, "old")
    replace, replaced = os.replace, []

    def replace_alone(source, target):
        folder = os.open(local._folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(folder)
        replaced.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_alone)
    write(local, "new")

    assert [target.name for target in replaced] == ["current"]


# --- Killed ---


def test_a_kill_before_any_change_of_the_disk_leaves_one_whole_state_and_what_it_left_goes(local, tmp_path):
    write(local, "0")
    plain, n_kills = tmp_path / "matrix", 0
    for fatal in killed_everywhere(lambda: write(local, "killed")):
        n_kills += 1
        found = read(local)
        assert found in (whole("0"), whole("killed")), fatal
        assert contents(plain.resolve(), NAMES) == found
        write(local, "0")
        assert read(local) == whole("0")
        assert listing(tmp_path) == [".tables", "matrix"]
        # The link, the state and, where the killed writer had got so far, the one before.
        assert len(listing(local._folder)) <= 3

    assert n_kills > 15


def test_nor_does_a_killed_first_run_leave_anything(tmp_path):
    root = tmp_path / "warehouse"
    states = States(UPath(root), "matrix")
    for fatal in killed_everywhere(lambda: write(states, "killed", ["users"])):
        if states.exists():
            assert read(states) == {"users": "killed"}, fatal
        write(states, "0", ["users"])
        assert read(states) == {"users": "0"}
        assert listing(root) == [".tables", "matrix"]
        shutil.rmtree(root)


# --- Plain paths ---


def test_plain_paths_of_several_tables_lead_into_a_folder_called_as_the_asset(local, tmp_path):
    for content in ("old", "new"):
        write(local, content)
        assert (tmp_path / "matrix" / "users.parquet").read_text() == content

    assert local.plain_path() == UPath(tmp_path / "matrix")
    assert local.plain_path("users") == UPath(tmp_path / "matrix" / "users.parquet")


def test_a_table_called_as_its_asset_lies_in_the_warehouse_itself_and_others_beside_it(local, tmp_path):
    for content in ("old", "new"):
        write(local, content, ("matrix", "ranks"))
        assert (tmp_path / "matrix.parquet").read_text() == content
        assert (tmp_path / "ranks.parquet").read_text() == content

    assert listing(tmp_path) == [".tables", "matrix.parquet", "ranks.parquet"]
    assert local.plain_path() == UPath(tmp_path / "matrix.parquet")
    assert local.plain_path("ranks") == UPath(tmp_path / "ranks.parquet")


@pytest.mark.parametrize("names", [NAMES, ("matrix", "ranks")])
def test_plain_paths_in_an_object_store_are_those_of_the_current_state(names, monkeypatch):
    states = States(new_bucket(monkeypatch), "matrix")
    write(states, "old", names)

    assert states.plain_path(names[1]).read_text() == "old"
    assert states.plain_path().exists()


def test_a_plain_folder_of_an_earlier_version_becomes_the_link(local, tmp_path):
    (tmp_path / "matrix").mkdir()
    (tmp_path / "matrix" / "pairs.parquet").write_text("before")
    (tmp_path / "matrix" / "gone.parquet").write_text("before")
    write(local, "new")

    assert contents(tmp_path / "matrix", NAMES) == whole("new")
    assert listing(tmp_path / "matrix") == sorted(["manifest.json", *(f"{name}.parquet" for name in NAMES)])
    assert listing(tmp_path) == [".tables", "matrix"]


def test_so_does_a_plain_file(local, tmp_path):
    (tmp_path / "matrix.parquet").write_text("before")
    write(local, "new", ["matrix"])

    assert (tmp_path / "matrix.parquet").read_text() == "new"


def test_a_warehouse_that_was_copied_without_its_links_says_so_and_heals(local, tmp_path):
    write(local, "old")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("copy"))
    states = States(UPath(copy), "matrix")

    with pytest.raises(InputError, match=r"current .*: materialize the asset `matrix` again"):
        read(states)
    write(states, "new")
    assert read(states) == whole("new")
    assert contents((copy / "matrix").resolve(), NAMES) == whole("new")
    assert listing(copy) == [".tables", "matrix"]


# --- Verified ---


@pytest.mark.parametrize("name", [*(f"{name}.parquet" for name in NAMES), "manifest.json"])
def test_any_flipped_bit_is_noticed_and_its_file_named(states, name):
    write(states, "content")
    file = folder_of(states) / name
    good = file.read_bytes()
    for position in range(len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        with pytest.raises(
            InputError, match=rf"{name} is not what was written.*Materialize the asset `matrix` again"
        ):
            read(states)

    file.write_bytes(good)
    assert read(states) == whole("content")


@pytest.mark.parametrize("name", ["users.parquet", "manifest.json"])
def test_a_missing_file_is_named(states, name):
    write(states, "content")
    (folder_of(states) / name).unlink()

    with pytest.raises(InputError, match=rf"lacks .*{name}: materialize the asset `matrix` again"):
        read(states)


@pytest.mark.parametrize("name", ["users.parquet", "manifest.json"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_regular_file_counts_as_missing(local, name, make):
    write(local, "content")
    file = folder_of(local) / name
    file.unlink()
    make(file)

    with pytest.raises(InputError, match=rf"lacks .*{name}: materialize the asset `matrix` again"):
        read(local)


@pytest.mark.parametrize("name", ["extra.parquet", "users.parquet.bak"])
def test_an_additional_file_is_named(states, name):
    write(states, "content")
    (folder_of(states) / name).write_text("?")

    with pytest.raises(InputError, match=rf"{name} was put there by another program.*the asset `matrix`"):
        read(states)


@pytest.mark.parametrize("name", [".DS_Store", "_SUCCESS"])
def test_what_every_reader_skips_may_lie_there(states, name):
    write(states, "content")
    (folder_of(states) / name).write_text("?")

    assert read(states) == whole("content")


def test_a_state_that_is_gone_is_named(states):
    write(states, "content")
    folder = folder_of(states)
    folder.fs.rm(folder.path, recursive=True)

    with pytest.raises(InputError, match=r"lacks .*: materialize the asset `matrix` again"):
        read(states)


def flip(folder):
    (folder / "users.parquet").write_text("flipped")


def lose(folder):
    (folder / "users.parquet").unlink()


def add(folder):
    (folder / "extra.parquet").write_text("?")


@pytest.mark.parametrize("damage", [flip, lose, add])
def test_to_materialize_the_same_again_mends_it(states, damage):
    write(states, "content")
    damage(folder_of(states))
    write(states, "content")

    assert read(states) == whole("content")


def test_an_asset_that_was_never_written_says_so(states):
    assert not states.exists()
    assert states.current() is None
    with pytest.raises(InputError, match=r"matrix does not exist: materialize the asset `matrix` again"):
        read(states)


def test_a_folder_of_part_files_is_one_table_of_which_each_part_is_verified(states):
    def parts(folder, names):
        return names, [path.name for path in sorted((folder / "pairs.parquet").iterdir())]

    with states.replacing() as folder:
        (folder / "pairs.parquet").mkdir()
        for name in ("part-0.parquet", "part-1.parquet", "_SUCCESS"):
            (folder / "pairs.parquet" / name).write_text(name)
    part = folder_of(states) / "pairs.parquet" / "part-1.parquet"

    assert states.read(parts)[0] == (["pairs"], ["_SUCCESS", "part-0.parquet", "part-1.parquet"])
    part.write_text("flipped")
    with pytest.raises(InputError, match=r"pairs.parquet/part-1.parquet is not what was written"):
        states.read(parts)
    part.unlink()
    with pytest.raises(InputError, match=r"lacks .*pairs.parquet/part-1.parquet"):
        states.read(parts)
    part.write_text("part-1.parquet")
    (folder_of(states) / "pairs.parquet" / "part-2.parquet").write_text("of another run")
    with pytest.raises(InputError, match=r"part-2.parquet was put there by another program"):
        states.read(parts)


# --- What names the current state ---


@pytest.mark.parametrize(
    "content",
    ["", "x", "[]", "{}", '{"write_id": 5}', '{"write_id": null}', '{"write_id": "../../x"}', "\udcff"],
)
def test_a_damaged_pointer_says_so_and_heals(content, monkeypatch):
    states = States(new_bucket(monkeypatch), "matrix")
    write(states, "old")
    (states._folder / "current.json").write_text(content, errors="surrogateescape")

    with pytest.raises(InputError, match=r"current.json .*: materialize the asset `matrix` again"):
        read(states)
    write(states, "new")
    assert read(states) == whole("new")


def test_a_pointer_that_is_a_folder_says_so():
    states = States(UPath(f"memory://{uuid.uuid4().hex}"), "matrix")
    (states._folder / "current.json").mkdir(parents=True)

    with pytest.raises(InputError, match=r"current.json .*: materialize the asset `matrix` again"):
        read(states)


@pytest.mark.parametrize("target", ["../../../outside", "0" * 32, "/dev"])
def test_a_link_that_leads_elsewhere_reads_nothing_there_and_heals(local, tmp_path, target):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "manifest.json").write_text("{}")
    write(local, "old")
    link = tmp_path / ".tables" / "matrix" / "current"
    link.unlink()
    link.symlink_to(target)

    with pytest.raises(InputError, match="materialize the asset `matrix` again"):
        read(local)
    write(local, "new")
    assert read(local) == whole("new")


# --- Housekeeping ---


def test_older_states_go_and_whatever_else_lies_there_stays(states):
    for content in ("1", "2"):
        write(states, content)
    (states._folder / "notes.txt").write_text("mine")
    (states._folder / ".DS_Store").write_text("")
    for content in ("3", "4"):
        write(states, content)

    names = [path.name for path in states._folder.iterdir()]
    assert {"notes.txt", ".DS_Store", states.current()} < set(names)
    assert len(names) == 5  # with the state before and what names the current one
