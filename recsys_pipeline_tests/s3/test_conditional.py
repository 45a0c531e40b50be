"""Of two writers of a small object one wins, and the other knows: S3 decides, not a look before."""

import pytest
from upath import UPath

from recsys_pipeline.storage.conditional import Seen, replace_if_as_seen, see

pytestmark = pytest.mark.s3


@pytest.fixture
def path(bucket):
    return bucket / "warehouse" / "current.json"


def test_what_is_as_it_was_seen_is_replaced(path):
    assert see(path) == Seen(None)
    for content in (b"first", b"second", b""):
        assert replace_if_as_seen(path, content, see(path))
        assert see(path).content == path.read_bytes() == content


def test_what_is_not_stays(path):
    nothing = see(path)
    assert replace_if_as_seen(path, b"theirs", nothing)
    theirs = see(path)
    assert not replace_if_as_seen(path, b"ours", nothing)
    assert path.read_bytes() == b"theirs"

    path.unlink()
    assert not replace_if_as_seen(path, b"ours", theirs)
    assert not path.exists()


@pytest.mark.parametrize("before", [None, b"before"], ids=["new", "replaced"])
def test_a_write_between_the_last_look_and_our_own_wins(path, server, before):
    if before:
        path.write_bytes(before)
    seen = see(path)

    def overtake(method, _, headers):
        if method == "PUT" and ("IF_MATCH" in headers or "IF_NONE_MATCH" in headers):
            server.before = lambda *_: None
            UPath(str(path)).write_bytes(b"theirs")

    server.before = overtake
    assert not replace_if_as_seen(path, b"ours", seen)
    assert path.read_bytes() == b"theirs"


def test_an_object_that_vanishes_between_the_last_look_and_our_write_is_not_made_again(path, server):
    path.write_bytes(b"before")
    seen = see(path)

    def remove(method, _, headers):
        if method == "PUT" and "IF_MATCH" in headers:
            server.before = lambda *_: None
            UPath(str(path)).unlink()

    server.before = remove
    assert not replace_if_as_seen(path, b"ours", seen)
    assert not path.exists()


def test_what_is_seen_is_one_object_also_while_it_is_replaced(path, server):
    path.write_bytes(b"before")
    etag = see(path).etag

    def replace(method, *_):
        if method == "GET":
            server.before = lambda *_: None
            UPath(str(path)).write_bytes(b"longer than before")

    server.before = replace
    seen = see(path)
    assert seen.content == b"longer than before"
    assert seen.etag not in (None, etag)
    assert replace_if_as_seen(path, b"after", seen)


def test_a_list_of_yesterday_does_not_hide_what_others_wrote(path):
    path.write_bytes(b"before")
    assert [each.name for each in path.parent.iterdir()] == ["current.json"]
    other_process = type(path.fs)(skip_instance_cache=True)
    other_process.pipe_file(path.path, b"theirs, longer")

    assert see(path).content == b"theirs, longer"


def test_a_write_whose_answer_was_lost_counts(path, server):
    path.write_bytes(b"before")

    def lose(method, _, headers):
        if method == "PUT" and "IF_MATCH" in headers:
            server.after = lambda *_: None
            return 500
        return None

    server.after = lose
    # It is sent again by itself, and refused, since the object is no longer the one that was seen.
    assert replace_if_as_seen(path, b"ours", see(path))
    assert path.read_bytes() == b"ours"


def test_a_store_that_knows_no_conditions_is_written_after_a_look(path, server):
    path.write_bytes(b"before")
    seen = see(path)
    server.before = lambda method, _, headers: 501 if method == "PUT" and "IF_MATCH" in headers else None

    assert replace_if_as_seen(path, b"ours", seen)
    assert not replace_if_as_seen(path, b"theirs", seen)
    assert path.read_bytes() == b"ours"


def test_an_error_is_no_refusal(path, server):
    with pytest.raises(FileNotFoundError):
        replace_if_as_seen(UPath("s3://no-such-bucket/current.json"), b"ours", Seen(None))

    server.before = lambda method, *_: 403 if method == "PUT" else None
    with pytest.raises(PermissionError):
        replace_if_as_seen(path, b"ours", Seen(None))
    assert not path.exists()


def test_other_objects_below_the_same_name_are_no_content(path):
    (path / "below").write_bytes(b"x")

    assert see(path) == Seen(None)
    assert replace_if_as_seen(path, b"ours", Seen(None))
    assert see(path).content == b"ours"
