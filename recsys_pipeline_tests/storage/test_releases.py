"""What is loaded is what was published; pointer and manifest are input like any other."""

import errno
import hashlib
import io
import json
import mmap
import os
import shutil
import tempfile
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.factors import FactorTables, factor_table
from recsys_pipeline.core.model import Contents
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.storage import atomic, models
from recsys_pipeline.storage.mapped import write_mappable
from recsys_pipeline.storage.publishing import Retention, adopt_former, resume, roll_back, write_pickle
from recsys_pipeline.storage.releases import (
    Pointer,
    current_release,
    problems_of,
    read_manifest,
    read_pointer,
    read_release,
    see_pointer,
)
from recsys_pipeline_tests.storage.bucket import new_bucket
from recsys_pipeline_tests.storage.killing import killed_everywhere
from recsys_pipeline_tests.worlds import pattern_of, publish_written

PATTERN = pattern_of([[0], [0, 2]], 3)
BM25 = {"bm25_K1": 100.0, "bm25_B": 0.8}
MANIFEST = {
    "hyperparameters": {"factors": 2, "regularization": 0.1, "alpha": 1.0, "iterations": 1} | BM25,
    "seed": 1,
    "solver": "implicit",
    "strengths": {"view": 1.0},
    "target_events": ["view"],
    "seen_events": ["view"],
    "metrics": {},
    "counts": {},
    "versions": {},
    "inputs": {"bm25_matrix": "0123"},
}
FILES = ("user_factors.arrow", "item_factors.arrow", "user_items.arrow")


def factors_of(number, n):
    return np.full((n, 2), number, np.float32)


def publish_number(root, number, keep=7, **options):
    """A model all of whose factors are `number`."""
    factors = FactorTables(
        users=factor_table("UserID", pa.array([10, 20]), factors_of(number, 2)),
        items=factor_table("ProductCode", pa.array(["00a", "b", "c"]), factors_of(number, 3)),
        fit_seconds=0.0,
    )
    contents = Contents(
        PATTERN,
        weights=np.array([0.5, 1, 0], np.float32),
        excluded=np.array([True, False, True]),
        counts={"view": np.array([1, 2, 3], np.int32)},
    )
    return publish_written(root, factors, contents, MANIFEST, **{"retention": Retention(keep), **options})


def load(root):
    return read_release(current_release(root))


def loaded_number(root):
    release = load(root)
    (number,) = {*release.factors.users.ravel(), *release.factors.items.ravel()}
    return int(number)


def versions(root):
    return sorted(path.name for path in (root / "releases").iterdir() if path.name.endswith("Z"))


def listing(root):
    return sorted(path.name for path in (root / "releases").iterdir())


@pytest.fixture(params=["local", "object store"])
def root(request, tmp_path, monkeypatch):
    return UPath(tmp_path) if request.param == "local" else new_bucket(monkeypatch)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    publish_number(UPath(root), 1)
    return root


@pytest.fixture
def store(published, tmp_path):
    """A local release store with one version."""
    shutil.copytree(published, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "releases"


@pytest.fixture
def version(store):
    (version,) = (path for path in store.iterdir() if path.is_dir())
    return version


def test_what_was_published_is_loaded(root):
    folder = publish_number(root, 1)
    release = load(root)

    assert release.users.to_pylist() == [10, 20]
    assert release.items.to_pylist() == ["00a", "b", "c"]
    assert release.factors.users.tolist() == [[1, 1]] * 2
    assert release.factors.items.tolist() == [[1, 1]] * 3
    contents = release.contents
    assert contents.pattern.user_items(contents.weights).toarray().tolist() == [[0.5, 0, 0], [1, 0, 0]]
    assert contents.excluded.tolist() == [True, False, True]
    assert {event: counts.tolist() for event, counts in contents.counts.items()} == {"view": [1, 2, 3]}
    assert release.manifest.items() >= MANIFEST.items()
    assert release.manifest["version"] == folder.name
    assert set(release.manifest["files"]) == set(FILES)


# --- Versions ---


def test_the_newest_versions_stay(root):
    names = [publish_number(root, number, keep=2).name for number in range(4)]

    assert versions(root) == names[-2:]
    assert loaded_number(root) == 3


def test_with_one_to_keep_the_one_before_stays_too_for_a_way_back(root):
    names = [publish_number(root, number, keep=1).name for number in range(3)]

    assert versions(root) == names[1:]
    assert loaded_number(root) == 2


def test_versions_stay_in_order_when_the_clock_goes_back(root):
    of_the_future = publish_number(root, 1)
    renamed = of_the_future.parent / "29991231T235959999999Z"
    of_the_future.fs.mv(of_the_future.path, renamed.path, recursive=True)
    pointer = root / "releases" / "current.json"
    told = json.loads((renamed / "manifest.json").read_bytes())
    content = json.dumps({**told, "version": renamed.name}).encode()
    (renamed / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    pointer.write_bytes(Pointer(renamed.name, digest, [renamed.name]).to_bytes())
    assert loaded_number(root) == 1
    publish_number(root, 2)

    assert versions(root) == ["29991231T235959999999Z", "30000101T000000000000Z"]
    assert loaded_number(root) == 2


def test_whatever_else_lies_in_the_store_stays(root):
    publish_number(root, 1, keep=1)
    for name in (".DS_Store", "notes.txt"):
        (root / "releases" / name).write_text("mine")
    publish_number(root, 2, keep=1)

    assert set(listing(root)) == {".DS_Store", "notes.txt", "current.json", *versions(root)}


def test_an_old_version_that_cannot_be_removed_does_not_fail_the_new_one(tmp_path, version, monkeypatch):
    # fsspec refuses to remove the folder that the process is in.
    monkeypatch.chdir(version)
    publish_number(UPath(tmp_path), 2, keep=1)

    assert version.exists()
    assert loaded_number(tmp_path) == 2


def test_what_is_too_old_goes_but_for_the_current_one_and_the_one_before(root):
    names = [publish_number(root, number).name for number in range(3)]
    publish_written_again = publish_number(root, 3, retention=Retention(7, most_days=1e-9)).name

    assert versions(root) == [names[-1], publish_written_again]


def test_a_release_that_was_rolled_back_to_stays_while_it_is_current_or_the_one_before(root):
    first, *_ = [publish_number(root, number).name for number in range(3)]
    roll_back(root, first, "")
    resume(root)
    publish_number(root, 3, keep=1)

    assert first in versions(root)
    assert read_pointer(root).previous == first


# --- Back ---


def test_a_rollback_takes_effect_at_once_and_goes_to_the_release_before(root):
    names = [publish_number(root, number).name for number in range(3)]
    roll_back(root, None, "")

    assert loaded_number(root) == 1
    assert read_pointer(root).version == names[1]
    assert versions(root) == names


def test_a_rollback_goes_to_any_release_that_is_kept(root):
    names = [publish_number(root, number).name for number in range(3)]
    roll_back(root, names[0], "lists are stale")

    assert loaded_number(root) == 0
    hold = read_pointer(root).hold
    assert (hold.rolled_back_from, hold.reason) == (names[2], "lists are stale")


def test_a_rollback_can_be_rolled_back(root):
    for number in range(3):
        publish_number(root, number)
    roll_back(root, None, "")
    roll_back(root, None, "")

    assert loaded_number(root) == 2


def test_a_hold_stays_until_somebody_resumes(root):
    for number in range(2):
        publish_number(root, number)
    roll_back(root, None, "")
    assert read_pointer(root).hold
    resume(root)

    assert read_pointer(root).hold is None
    assert loaded_number(root) == 0


@pytest.mark.parametrize(
    ("to", "message"),
    [
        pytest.param(
            "20200101T000000000000Z", "holds no release '20200101T000000000000Z'; there are: 2", id="gone"
        ),
        pytest.param("../../etc", "holds no release '../../etc'", id="no version"),
        pytest.param("current", "is the current release already", id="the current one"),
    ],
)
def test_a_rollback_to_what_is_no_other_release_changes_nothing(root, to, message):
    for number in range(2):
        publish_number(root, number)
    before = see_pointer(root)
    with pytest.raises(InputError, match=message):
        roll_back(root, read_pointer(root).version if to == "current" else to, "")

    assert see_pointer(root) == before


@pytest.mark.parametrize("kept", [2, 1])
def test_a_flipped_bit_in_the_manifest_of_a_release_that_is_not_current_is_noticed_too(root, kept):
    manifest = publish_number(root, 1) / "manifest.json"
    for number in range(kept):
        publish_number(root, number)
    manifest.write_bytes(manifest.read_bytes().replace(b'"seed": 1', b'"seed": 3'))
    with pytest.raises(
        InputError, match=r"is not whole.*manifest.json is not the manifest that was published"
    ):
        roll_back(root, manifest.parent.name, "")


def test_the_first_release_has_none_to_roll_back_to(root):
    publish_number(root, 1)
    with pytest.raises(InputError, match="holds no release before"):
        roll_back(root, None, "")


def test_who_says_again_what_was_done_changes_nothing(root):
    first, _ = [publish_number(root, number).name for number in range(2)]
    told = roll_back(root, first, "lists are stale")

    assert roll_back(root, first, "") == told == read_pointer(root)


@pytest.mark.parametrize("content", [None, b"", b'{"published": 5}'])
def test_a_damaged_pointer_is_no_obstacle_to_a_rollback_to_a_release_that_is_named(root, content):
    first, second = [publish_number(root, number).name for number in range(2)]
    pointer = root / "releases" / "current.json"
    pointer.unlink() if content is None else pointer.write_bytes(content)
    with pytest.raises(InputError, match=f"These releases are there, and can be named: {first}, {second}"):
        roll_back(root, None, "")
    roll_back(root, first, "")

    assert loaded_number(root) == 0
    assert read_pointer(root).published == [first, second]
    assert read_pointer(root).hold.rolled_back_from == "a damaged pointer"


def test_a_rollback_to_a_damaged_release_changes_nothing_and_names_the_file(root):
    first = publish_number(root, 1)
    publish_number(root, 2)
    (first / "item_factors.arrow").write_bytes(b"other")
    with pytest.raises(
        InputError, match=r"is not whole, so nothing was changed: .*item_factors.arrow is not"
    ):
        roll_back(root, None, "")

    assert loaded_number(root) == 2


# --- Two at once ---


def test_of_two_who_saw_the_same_pointer_one_wins_and_the_other_is_told(root):
    publish_number(root, 1)
    seen = see_pointer(root)
    publish_number(root, 2, seen=seen)
    with pytest.raises(InputError, match=r"current.json was moved by another run or a rollback meanwhile"):
        publish_number(root, 3, seen=seen)

    assert loaded_number(root) == 2
    assert len(versions(root)) == 2


def test_who_saw_no_pointer_does_not_replace_one(root):
    seen = see_pointer(root)
    publish_number(root, 1)
    with pytest.raises(InputError, match="was moved"):
        publish_number(root, 2, seen=seen)

    assert loaded_number(root) == 1


def test_a_rollback_in_the_middle_of_a_run_is_not_undone(root):
    for number in range(2):
        publish_number(root, number)
    seen = see_pointer(root)
    roll_back(root, None, "")
    with pytest.raises(InputError, match="was moved"):
        publish_number(root, 2, seen=seen)

    assert loaded_number(root) == 0


# --- Verified ---


def test_a_release_as_it_was_published_has_no_problems(root):
    publish_number(root, 1)

    assert list(problems_of(current_release(root))) == []


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_every_changed_byte_and_missing_file_is_a_problem(root, name):
    file = publish_number(root, 1) / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (problem,) = problems_of(current_release(root))
    assert f"{name} is not the" in problem

    file.unlink()
    (problem,) = problems_of(current_release(root))
    assert f"{name} is missing" in problem


def test_so_is_a_file_that_another_program_put_there(root):
    (publish_number(root, 1) / "notes.txt").write_text("mine")
    (problem,) = problems_of(current_release(root))

    assert problem.endswith("notes.txt is not of the release: another program put it there.")


# --- Nothing twice ---


def test_a_release_shares_its_files_with_the_state_that_it_was_made_from(tmp_path):
    folder = publish_number(UPath(tmp_path), 1)

    for name in FILES:
        assert os.path.samefile(folder / name, tmp_path / ".tables" / "best_model" / "current" / name)


def test_where_nothing_can_be_linked_it_is_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    publish_number(UPath(tmp_path), 1)

    assert loaded_number(tmp_path) == 1


def test_the_notebooks_file_is_that_of_the_current_release_alone(root):
    version = publish_number(root, 1).name
    write_pickle(root, version, {"a": "model"})
    assert "implicit_recommender_model.pkl" in listing(root)
    write_pickle(root, version, None)

    assert "implicit_recommender_model.pkl" not in listing(root)


def test_who_comes_too_late_leaves_the_notebooks_file_to_whoever_moved_the_pointer(root):
    first, second = [publish_number(root, number).name for number in range(2)]
    write_pickle(root, second, "of the second")
    before = (root / "releases" / "implicit_recommender_model.pkl").read_bytes()
    write_pickle(root, first, "of the first")

    assert (root / "releases" / "implicit_recommender_model.pkl").read_bytes() == before


# --- Before there were releases ---


@pytest.fixture
def former(store, tmp_path):
    """A store as versions of this package before releases wrote it."""
    shutil.rmtree(tmp_path / ".tables")
    (tmp_path / "best_model").unlink()
    store.rename(tmp_path / "best_model")
    pointer = tmp_path / "best_model" / "current.json"
    told = json.loads(pointer.read_text())
    pointer.write_text(json.dumps({name: told[name] for name in ("version", "manifest_sha256", "published")}))
    return tmp_path


def test_what_was_published_before_there_were_releases_is_still_loaded(former):
    assert loaded_number(former) == 1


def test_and_becomes_the_release_before_the_first_one(former):
    adopt_former(UPath(former))
    assert loaded_number(former) == 1
    publish_number(UPath(former), 2)

    assert loaded_number(former) == 2
    roll_back(UPath(former), None, "")
    assert loaded_number(former) == 1


# --- Killed ---


@pytest.mark.runs
def test_a_kill_before_any_change_of_the_disk_leaves_a_whole_model_and_what_it_left_goes(tmp_path):
    root, published = UPath(tmp_path), 0
    publish_number(root, published)
    for fatal in killed_everywhere(lambda: publish_number(root, -1, keep=2)):
        assert loaded_number(root) in (published, -1), fatal
        published += 1
        publish_number(root, published, keep=2)
        assert loaded_number(root) == published
        assert listing(root) == [*versions(root), "current.json"]
        assert len(versions(root)) == 2

    assert published > 15


def test_a_version_that_readers_were_never_pointed_to_is_none_of_those_that_stay(tmp_path):
    root = UPath(tmp_path)
    first = publish_number(root, 1)
    shutil.copytree(first, first.parent / "29990101T000000000000Z")
    second = publish_number(root, 2)

    assert second.name > "29990101T000000000000Z"
    assert versions(root) == [first.name, second.name]


# --- Opened, not read ---


def test_what_is_loaded_stays_when_its_version_is_removed(tmp_path):
    root = UPath(tmp_path)
    folder = publish_number(root, 1)
    release = load(root)
    for number in (2, 3):
        publish_number(root, number, keep=1)

    assert not folder.exists()
    assert (release.factors.users == 1).all()
    assert (release.factors.items == 1).all()


def test_what_is_mapped_is_the_file_that_was_hashed(tmp_path, version, monkeypatch):
    """Another file takes its name in between."""
    other = publish_number(UPath(tmp_path / "other"), 2)
    parse = models.ColumnArrays.mapped

    def overtaken(file):
        for name in FILES:
            shutil.copy(other / name, tmp_path / name)
            os.replace(tmp_path / name, version / name)
        return parse(file)

    monkeypatch.setattr(models.ColumnArrays, "mapped", overtaken)
    assert loaded_number(tmp_path) == 1


def test_of_an_object_store_nothing_stays_on_this_machine(tmp_path, monkeypatch):
    root = new_bucket(monkeypatch)
    publish_number(root, 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    assert loaded_number(root) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_the_store_made_wrong_is_not_released(monkeypatch):
    root = new_bucket(monkeypatch)
    publish_number(root, 1)
    copy = MemoryFileSystem.cp_file

    def alter(fs, source, target, **options):
        copy(fs, source, target, **options)
        if target.endswith("item_factors.arrow"):
            fs.pipe_file(target, fs.cat_file(target)[:-1] + b"x")

    monkeypatch.setattr(MemoryFileSystem, "cp_file", alter)
    with pytest.raises(InputError, match=r"item_factors.arrow is not the file that was published"):
        publish_number(root, 2)

    assert loaded_number(root) == 1
    assert len(versions(root)) == 1


@pytest.mark.parametrize("name", FILES)
def test_an_altered_or_missing_file_of_an_object_store_is_refused(monkeypatch, name):
    root = new_bucket(monkeypatch)
    file = publish_number(root, 1) / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=f"{name} is not the file that was published"):
        load(root)

    file.unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        load(root)


def test_a_machine_without_room_for_the_mapping_is_no_damage(tmp_path, version, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(InputError, match="does not fit into the memory") as raised:
        load(tmp_path)
    assert str(version / "user_factors.arrow") in str(raised.value)


@pytest.mark.usefixtures("store")
def test_factors_may_be_written_to_and_the_files_stay_as_they_are(tmp_path):
    release = load(tmp_path)
    release.factors.users[:] = 5
    release.factors.items[:] = 5

    assert loaded_number(tmp_path) == 1


def test_to_load_and_to_publish_take_no_memory_of_the_size_of_the_factors(tmp_path):
    width, n = 100, 20_000
    factors = np.ones((n, width), np.float32)
    tables = FactorTables(
        factor_table("UserID", pa.array(range(n)), factors),
        factor_table("ProductCode", pa.array(["00a", "b", "c"]), factors[:3]),
        fit_seconds=0.0,
    )
    pattern = Pattern(np.zeros(n + 1, np.int32), np.empty(0, np.int32), 3)
    nothing = np.empty(0, np.float32)
    contents = Contents(pattern, nothing, nothing.astype(bool), {"view": nothing.astype(np.int32)})
    manifest = {**MANIFEST, "hyperparameters": {**MANIFEST["hyperparameters"], "factors": width}}
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    publish_written(UPath(tmp_path), tables, contents, manifest, retention=Retention(1))
    release = load(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert release.factors.users.shape == (n, width)
    assert peak < factors.nbytes / 4
    assert pa.total_allocated_bytes() - before < factors.nbytes / 4


# --- The former format ---


def rewrite_as_format_3(version):
    """Tables in Parquet, as it was before they were mapped."""
    for name in FILES:
        with pa.ipc.open_file((version / name).read_bytes()) as reader:
            table = reader.read_all()
        pq.write_table(table, (version / name).with_suffix(".parquet"), compression="zstd")
        (version / name).unlink()
    names = [path.name for path in version.iterdir() if path.name != "manifest.json"]
    files = {name: hashlib.sha256((version / name).read_bytes()).hexdigest() for name in names}
    forge_fields(version, {"format": 3, "files": files})


def test_a_version_of_the_former_format_is_loaded_as_before(tmp_path, version):
    now = load(tmp_path)
    rewrite_as_format_3(version)
    before = load(tmp_path)

    assert {path.suffix for path in version.iterdir()} == {".parquet", ".json"}
    assert before.users.equals(now.users)
    assert before.items.equals(now.items)
    assert np.array_equal(before.factors.users, now.factors.users)
    assert np.array_equal(before.factors.items, now.factors.items)
    before.factors.users[:] = 0  # implicit needs arrays that it may write to
    for name in ("weights", "excluded"):
        assert np.array_equal(getattr(before.contents, name), getattr(now.contents, name))
    assert np.array_equal(before.contents.counts["view"], now.contents.counts["view"])


def test_and_stays_beside_those_of_the_present_one(tmp_path, version):
    rewrite_as_format_3(version)
    publish_number(UPath(tmp_path), 2)

    assert loaded_number(tmp_path) == 2
    assert load(version).factors.users.tolist() == [[1, 1]] * 2


def test_a_damaged_file_of_the_former_format_is_noticed(tmp_path, version):
    rewrite_as_format_3(version)
    file = version / "user_factors.parquet"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(InputError, match=r"user_factors.parquet is not the file that was published"):
        load(tmp_path)


# --- Damaged ---


def flips(content, step=1):
    """The content with one bit flipped, once for each of its bytes, or every few of them."""
    for position in range(0, len(content), step):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        yield bytes(flipped)


def test_any_flipped_bit_of_the_manifest_is_noticed(tmp_path, version):
    file = version / "manifest.json"
    for flipped in flips(file.read_bytes(), step=7):
        file.write_bytes(flipped)
        with pytest.raises(
            InputError, match=r"manifest.json is not the manifest that was published.*the assets again"
        ):
            read_manifest(current_release(tmp_path))


def test_a_flipped_bit_of_the_pointer_is_noticed_or_changes_nothing_of_what_it_says(tmp_path, store):
    root, path = UPath(tmp_path), store / "current.json"
    publish_number(root, 2)
    roll_back(root, None, "lists are stale")
    pointer = read_pointer(root)
    messages = []
    for flipped in flips(path.read_bytes()):
        path.write_bytes(flipped)
        try:
            assert read_pointer(root) == pointer
        except InputError as error:
            messages.append(str(error))

    assert all(message.startswith(str(store)) and "the assets again" in message for message in messages)
    # All but the spaces between the fields, and the name of the field with the digest.
    assert len(messages) > len(json.dumps(json.loads(pointer.to_bytes()))) - 40


def replace_by_folder(path):
    path.mkdir()


def replace_by_pipe(path):
    os.mkfifo(path)


def replace_by_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("replace", [replace_by_folder, replace_by_pipe, replace_by_device])
@pytest.mark.parametrize("name", ["current.json", "manifest.json", *FILES])
def test_what_is_no_regular_file_is_not_read(tmp_path, store, version, name, replace):
    path = store / name if name == "current.json" else version / name
    path.unlink()
    replace(path)

    with pytest.raises(InputError, match=f"{name} is no regular file.*the assets again"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b" " * (1 << 20) + b"{}", b"[" * 100_000, b"[]", b"\xff"])
@pytest.mark.parametrize("name", ["current.json", "manifest.json"])
def test_what_is_no_small_json_object_is_not_taken_for_one(tmp_path, store, version, name, content):
    if name == "current.json":
        (store / name).write_bytes(content)
    else:
        forge_manifest(version, content)

    with pytest.raises(
        InputError, match=rf"{name} is (too large|not JSON|not a JSON object).*the assets again"
    ):
        load(tmp_path)


# --- Hostile: whoever writes the manifest can write its SHA-256 too ---


def forge_manifest(version, content):
    (version / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    pointer = {"version": version.name, "manifest_sha256": digest, "published": [version.name]}
    (version.parent / "current.json").write_text(json.dumps(pointer))


def forge_fields(version, fields):
    manifest = {**json.loads((version / "manifest.json").read_bytes()), **fields}
    kept = {name: value for name, value in manifest.items() if value is not MISSING}
    forge_manifest(version, json.dumps(kept).encode())


MISSING = object()


@pytest.mark.parametrize(
    "name",
    [
        *("../../outside", "/outside", "..", "", "20260101T000000000000Z/..", "x" * 100_000),
        *("\u0662\u0660260101T000000000000Z", None, 5, [], {}),
    ],
)
def test_a_pointer_to_anything_but_a_version_is_refused(tmp_path, store, version, name):
    shutil.copytree(version, tmp_path / "outside")
    if name == "/outside":
        name = str(tmp_path / "outside")
    pointer = json.loads((store / "current.json").read_bytes())
    (store / "current.json").write_text(json.dumps({**pointer, "version": name}))

    with pytest.raises(InputError, match=r"current.json names no version.*the assets again") as refusal:
        load(tmp_path)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("name", ["../../outside", "/outside", "", "20200101T000000000000Z"])
def test_a_manifest_that_names_another_release_is_refused(tmp_path, version, name):
    forge_fields(version, {"version": name})

    with pytest.raises(InputError, match=r"manifest.json is that of another release"):
        load(tmp_path)


@pytest.mark.parametrize("digest", [None, 5, "", "0" * 63, "z" * 64, MISSING])
def test_a_pointer_without_a_digest_is_refused(tmp_path, store, digest):
    pointer = {**json.loads((store / "current.json").read_bytes()), "manifest_sha256": digest}
    told = {name: value for name, value in pointer.items() if value is not MISSING}
    (store / "current.json").write_text(json.dumps(told))

    with pytest.raises(InputError, match=r"current.json holds no SHA-256 of the manifest"):
        load(tmp_path)


@pytest.mark.parametrize(
    "name", ["/dev/zero", "../outside.parquet", "a/b.parquet", "pipe", "model.sh", ".parquet", "x.arrow\n"]
)
def test_a_file_under_no_plain_name_is_not_read(tmp_path, version, name):
    (version.parent / "outside.parquet").write_bytes(b"")
    os.mkfifo(version / "pipe")
    listed = json.loads((version / "manifest.json").read_bytes())["files"]
    forge_fields(version, {"files": {**listed, name: hashlib.sha256(b"").hexdigest()}})

    with pytest.raises(InputError, match=r"manifest.json lists a file under no plain name"):
        load(tmp_path)


def test_nor_from_a_folder_that_was_named_by_hand(version):
    forge_fields(version, {"files": {"/dev/zero": "0" * 64}})

    with pytest.raises(InputError, match=r"manifest.json lists a file under no plain name"):
        load(version)


@pytest.mark.parametrize("digest", [None, 5, "", "0" * 63, ["0" * 64]])
def test_a_file_without_a_digest_is_not_read(tmp_path, version, digest):
    listed = json.loads((version / "manifest.json").read_bytes())["files"]
    forge_fields(version, {"files": {**listed, "user_items.arrow": digest}})

    with pytest.raises(InputError, match="lists a file"):
        load(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_manifest_that_lacks_a_file_is_refused(tmp_path, version, name):
    listed = json.loads((version / "manifest.json").read_bytes())["files"]
    del listed[name]
    forge_fields(version, {"files": listed})

    with pytest.raises(InputError, match=f"manifest.json does not list {name}"):
        load(tmp_path)


@pytest.mark.parametrize("value", [MISSING, None, 1.5])
@pytest.mark.parametrize("field", ["version", "created", *MANIFEST, "versions", "files"])
def test_a_missing_or_wrongly_typed_field_is_named(tmp_path, version, field, value):
    forge_fields(version, {field: value})

    with pytest.raises(InputError, match=f"manifest.json has no valid field '{field}'.*the assets again"):
        load(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"hyperparameters": {}},
        {"hyperparameters": {**MANIFEST["hyperparameters"], "factors": "many"}},
        {"hyperparameters": {**MANIFEST["hyperparameters"], "factors": [2]}},
        {"blend": "popularity"},
    ],
)
def test_so_are_hyperparameters_and_a_blend_that_are_none(tmp_path, version, fields):
    forge_fields(version, fields)

    with pytest.raises(InputError, match=f"manifest.json has no valid field '{next(iter(fields))}'"):
        load(tmp_path)


def forge_table(version, name, table):
    """Put another table in the place of a file, under its right SHA-256."""
    file = io.BytesIO()
    write_mappable(table, file)
    forge_file(version, name, file.getvalue())


def forge_file(version, name, content):
    listed = json.loads((version / "manifest.json").read_bytes())["files"]
    (version / name).write_bytes(content)
    forge_fields(version, {"files": {**listed, name: hashlib.sha256(content).hexdigest()}})


def user_items(**columns):
    table = {
        "user_index": pa.array([0, 1], pa.int32()),
        "item_index": pa.array([0, 2], pa.int32()),
        "weight": pa.array([0.5, 1], pa.float32()),
        "excluded": pa.array([True, False]),
        "count_view": pa.array([1, 1], pa.int32()),
    }
    return pa.table({**table, **columns})


def test_a_forged_table_that_is_one_is_read(tmp_path, version):
    forge_table(version, "user_items.arrow", user_items())

    assert load(tmp_path).contents.pattern.indptr.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item_index": pa.array([0, 3], pa.int32())}, "item_index leads beyond the factors"),
        ({"item_index": pa.array([0, -1], pa.int32())}, "item_index leads beyond the factors"),
        ({"user_index": pa.array([0, 2], pa.int32())}, "user_index leads beyond the factors"),
        ({"user_index": pa.array([-1, 0], pa.int32())}, "user_index leads beyond the factors"),
        ({"user_index": pa.array([1, 0], pa.int32())}, "must be sorted by user"),
        ({"weight": pa.array([0.5, None], pa.float32())}, "weight has nulls"),
        ({"count_view": pa.array([1, 1], pa.int64())}, "count_view is of type int64"),
    ],
)
def test_interactions_that_lead_elsewhere_are_refused(tmp_path, version, columns, message):
    forge_table(version, "user_items.arrow", user_items(**columns))

    with pytest.raises(InputError, match=rf"user_items.arrow is no table of a model: .*{message}"):
        load(tmp_path)


def test_factors_of_another_width_than_the_model_are_refused(tmp_path, version):
    """`implicit` would read beyond the end of them."""
    wider = factor_table("ProductCode", pa.array(["00a", "b", "c"]), np.ones((3, 4), np.float32))
    forge_table(version, "item_factors.arrow", wider)

    with pytest.raises(InputError, match=r"item_factors.arrow is no table of a model: .*factors is of type"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"PAR1" * 100, b"\0" * 1000], ids=repr)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_table_at_all_is_refused(tmp_path, version, name, content):
    forge_file(version, name, content)

    with pytest.raises(InputError, match=rf"{name} is no table of a model.*the assets again"):
        load(tmp_path)


# --- Publishing over a damaged pointer ---


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"published": 5}', b"\xff"])
def test_a_new_version_mends_a_damaged_pointer_and_loses_no_version(tmp_path, store, version, content):
    (store / "current.json").unlink()
    if content is not None:
        (store / "current.json").write_bytes(content)
    publish_number(UPath(tmp_path), 2)

    assert loaded_number(tmp_path) == 2
    assert versions(tmp_path)[0] == version.name


def test_a_pipe_in_place_of_the_pointer_stops_nobody(tmp_path, store):
    (store / "current.json").unlink()
    os.mkfifo(store / "current.json")
    publish_number(UPath(tmp_path), 2)

    assert loaded_number(tmp_path) == 2


def test_an_error_after_the_pointer_was_replaced_leaves_the_version_that_it_names(
    tmp_path, store, monkeypatch
):
    flush, pointer = atomic.flush, store / "current.json"
    before = pointer.read_bytes()

    def failing(path):
        if path == store and pointer.read_bytes() != before:
            raise OSError(errno.EIO, "Input/output error")
        flush(path)

    monkeypatch.setattr(atomic, "flush", failing)
    with pytest.raises(OSError, match="Input/output error"):
        publish_number(UPath(tmp_path), 2)

    assert loaded_number(tmp_path) == 2


def test_a_folder_in_place_of_the_pointer_is_named(tmp_path, store):
    (store / "current.json").unlink()
    (store / "current.json").mkdir()
    before = versions(tmp_path)

    with pytest.raises(IsADirectoryError) as raised:
        publish_number(UPath(tmp_path), 2)
    assert raised.value.filename == str(store / "current.json")
    # What nobody was pointed to does not stay.
    assert versions(tmp_path) == before
