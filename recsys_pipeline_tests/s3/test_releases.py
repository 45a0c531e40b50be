"""Releases on S3: whole or not at all, one winner of two, nothing lost to a kill, and old ones gone."""

import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import pytest
from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.storage import publishing
from recsys_pipeline.storage.publishing import resume, roll_back
from recsys_pipeline.storage.releases import current_release, problems_of, read_pointer, read_release
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import publish_model

pytestmark = pytest.mark.s3

N_WRITERS = 3
WRITES = ("PUT", "POST", "DELETE")


@pytest.fixture
def root(bucket):
    return bucket / "warehouse"


def factors_of(number):
    return Factors(np.full((2, 2), number, np.float32), np.full((3, 2), number, np.float32))


def publish_number(root, number, **options):
    """A model all of whose factors are `number`."""
    return publish_model(root, [[0], [1, 2]], factors_of(number), [10, 20], ["00a", "b", "c"], **options)


def loaded_number(root):
    release = current_release(UPath(str(root)))
    model = read_release(release)
    (number,) = {*model.factors.users.ravel(), *model.factors.items.ravel()}
    return int(number)


def versions(root):
    return sorted(path.name for path in (root / "releases").iterdir() if path.name.endswith("Z"))


def test_what_was_published_is_loaded_rolled_back_and_resumed(root):
    for number in (1, 2):
        release = publish_number(root, number)
        assert loaded_number(root) == number
        assert list(problems_of(current_release(root))) == []
    (release / "item_factors.arrow").write_bytes(b"changed")
    (problem,) = problems_of(current_release(root))
    assert "item_factors.arrow is not the file that was published" in problem

    roll_back(root, None, "changed")
    assert loaded_number(root) == 1
    assert resume(root).hold is None


def test_old_releases_are_gone_with_all_their_objects(root):
    for number in range(4):
        publish_number(root, number, keep=1)

    assert versions(root) == read_pointer(root).published
    assert len(versions(root)) == 2  # with the one before, for a way back
    there = root.fs.find((root / "releases").path)
    assert {name.split("/")[-2] for name in there} == {"releases", *versions(root)}


def test_every_file_is_copied_by_the_store_and_read_back_once(root, server):
    publish_number(root, 1)
    reads, copies, sent = [], [], []

    def note(method, path, headers):
        if path.endswith(".arrow"):
            if method == "GET":
                reads.append(path)
            elif method == "PUT":
                (copies if "X_AMZ_COPY_SOURCE" in headers else sent).append(path)

    server.before = note
    folder = publish_number(root, 1)

    files = sorted(f"/{folder.path}/{name}.arrow" for name in ("item_factors", "user_factors", "user_items"))
    assert sorted(copies) == files
    assert sent == []  # the state of `best_model` is there already
    assert sorted(path for path in reads if "/releases/" in path) == files


@pytest.mark.parametrize("before", [[], [0]], ids=["the first release", "a later one"])
def test_of_those_who_write_at_the_same_time_one_wins_and_the_others_are_told(root, server, before):
    names = [publish_number(root, number).name for number in before]
    all_would_point = threading.Barrier(N_WRITERS)
    done = threading.Event()
    released, told, loaded, errors = [], [], set(), []

    def meet(method, path, _):
        if method == "PUT" and path.endswith("/releases/current.json"):
            all_would_point.wait(60)

    def write(number):
        try:
            released.append(publish_number(UPath(str(root)), number).name)
        except InputError as error:
            told.append(str(error))

    def read():
        while not done.is_set():
            try:
                loaded_number(root)
                loaded.add(current_release(root).path.name)
            except InputError as error:
                errors.append(str(error))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(1, N_WRITERS + 1)]
    reader = threading.Thread(target=read)
    server.before = meet
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()

    (winner,) = released
    assert len(told) == N_WRITERS - 1
    for error in told:
        assert f"was moved by another run or a rollback meanwhile and names {winner} now" in error
    assert current_release(root).path.name == winner
    assert list(problems_of(current_release(root))) == []
    assert loaded <= {*names, winner}
    assert all("holds no release" in error and not before for error in errors)
    # Of those who lost nothing is left.
    assert versions(root) == [*names, winner]


def test_two_who_would_write_a_release_of_the_same_name_do_not_mix(root, monkeypatch):
    first = publish_number(root, 1)
    monkeypatch.setattr(publishing, "_later_than", lambda *_: first.name)
    with pytest.raises(InputError, match=rf"{first.name} is being written by another run"):
        publish_number(root, 2)

    assert loaded_number(root) == 1
    assert list(problems_of(current_release(root))) == []


RELEASE_AGAIN = """
import sys
from upath import UPath
from recsys_pipeline.storage.publishing import Retention, publish
from recsys_pipeline.storage.releases import current_release, read_manifest, see_pointer
from recsys_pipeline.storage.states import States
root, states = UPath(sys.argv[1]), States(UPath(sys.argv[1]), "best_model")
files = states.files(states.current())
del files["model.json"]
made = dict(read_manifest(current_release(root)))
del made["version"], made["created"], made["files"]
publish(root, files, {"card.md": b"card"}, made, seen=see_pointer(root), retention=Retention())
"""


def release_again(root):
    command = [sys.executable, "-c", RELEASE_AGAIN, str(root)]
    return subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True)


def test_a_kill_at_any_write_leaves_a_whole_release_and_what_it_left_goes(bucket, server, monkeypatch):
    # Manifest, document, three files, pointer.
    roots = {n: bucket / f"killed_at_write_{n}" for n in range(1, 7)}
    undisturbed = bucket / "undisturbed"
    for root in (*roots.values(), undisturbed):
        publish_number(root, 1)
    writes = {root.path: [] for root in (*roots.values(), undisturbed)}
    processes = {}

    def kill(method, path, _):
        if method in WRITES:
            (root,) = (root for root in writes if path.startswith(f"/{root}/"))
            writes[root].append(path)
            if root in processes and f"killed_at_write_{len(writes[root])}" in root:
                processes[root].send_signal(signal.SIGKILL)
                return 500
        return None

    with all_started(server, kill):
        processes.update({root.path: release_again(root) for root in roots.values()})
        last = release_again(undisturbed)
    assert last.communicate()[1] == ""
    assert len(writes[undisturbed.path]) == len(roots)
    for process in processes.values():
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    server.before = lambda *_: None

    for root in roots.values():
        assert versions(root)[0] == current_release(root).path.name
        assert loaded_number(root) == 1
        publish_number(root, 2)
        assert loaded_number(root) == 2
        assert list(problems_of(current_release(root))) == []
        # What may be another run's upload stays for a day.
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "_LONGEST_UPLOAD", timedelta(0))
            publish_number(root, 3)
        assert versions(root) == read_pointer(root).published
        assert len(versions(root)) == 3


@contextmanager
def all_started(server, hook):
    """No request is served before the block has ended."""
    started = threading.Event()
    server.before = lambda *request: started.wait() and hook(*request)
    yield
    started.set()
