"""Replacing a small file only if it still is what was seen: of two writers one wins, and the other knows.

On a local file system the caller holds a lock around it (`lock.exclusive`). S3 writes on the condition that
the object is the very one that was compared. Other object stores compare a moment before they write.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from upath import UPath

from recsys_pipeline.core.errors import InputError, naming
from recsys_pipeline.storage.atomic import atomic_file, is_local
from recsys_pipeline.storage.verified import MOST_SMALL_BYTES, damaged, read_small

_ATTEMPTS = 5
# How S3, and stores that speak like it, say that a condition does not hold, and that they know no conditions.
_REFUSALS = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409"}
_UNKNOWN = {"NotImplemented", "501"}


class Seen(NamedTuple):
    """What somebody saw of a small file.

    Attributes:
        content: None where there was no such file, or nothing that can be read.
        etag: of the object with this content, where a store writes on the condition that it is still there.
    """

    content: bytes | None
    etag: str | None = None


def see(path: UPath) -> Seen:
    """What the file says now; something else in its place, such as a pipe, says nothing."""
    if not is_local(path):
        # Another process may have written what a list of yesterday does not show.
        path.fs.invalidate_cache()
        if _is_s3(path):
            return _seen_on_s3(path)
    try:
        return Seen(read_small(path))
    except InputError:
        return Seen(None)


def replace_if_as_seen(path: UPath, content: bytes, seen: Seen) -> bool:
    """Replace the file, if it still says what was seen.

    Returns:
        Whether it did; if not, it is as it was.
    """
    for attempt in range(_ATTEMPTS):
        now = see(path)
        if attempt and now.content == content:
            # The answer to our own write was lost; it was sent again, and that write refused it.
            return True
        if now.content != seen.content:
            return False
        if not is_local(path) and _is_s3(path):
            if _put_on_s3(path, content, now.etag):
                return True
            continue
        with atomic_file(path) as staged:
            staged.write_bytes(content)
        return True
    return False


def _is_s3(path: UPath) -> bool:
    return hasattr(path.fs, "call_s3")


def _seen_on_s3(path: UPath) -> Seen:
    for _ in range(_ATTEMPTS):
        try:
            with naming(path), path.fs.open(path.path, "rb") as file:
                if file.details["type"] != "file":
                    return Seen(None)
                # Of this ETag or not at all: on that condition s3fs asks for the content.
                content, etag = file.read(MOST_SMALL_BYTES + 1), file.details["ETag"]
        except FileNotFoundError:
            return Seen(None)
        except OSError as error:
            if _REFUSALS.isdisjoint(_told_by(error)):
                raise
            path.fs.invalidate_cache()
        else:
            return Seen(content if len(content) <= MOST_SMALL_BYTES else None, etag)
    raise damaged(path, "is being replaced again and again")


def _put_on_s3(path: UPath, content: bytes, etag: str | None) -> bool:
    """Write on the condition that the object has this ETag, or is not there; whether the store took it."""
    bucket, key, _ = path.fs.split_path(path.path)
    condition: dict[str, Any] = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    try:
        with naming(path):
            path.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
    except OSError as error:
        told = set(_told_by(error))
        if told & _REFUSALS:
            return False
        if not told & _UNKNOWN:
            raise
        # It was compared a moment ago, and such a store can do no more.
        path.write_bytes(content)
    finally:
        path.fs.invalidate_cache()
    return True


def _told_by(error: BaseException | None) -> Iterator[str]:
    """What the store itself said, by the names and numbers of errors, of which this one was made."""
    while error is not None:
        response = getattr(error, "response", None)
        with suppress(KeyError, TypeError):
            yield str(response["Error"]["Code"])  # type: ignore[index]
        error = error.__cause__
