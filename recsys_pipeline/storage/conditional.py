"""Replacing a small file only if it still is what was seen: of two writers one wins, and the other knows.

On a local file system the caller holds a lock around it (`lock.exclusive`). S3 is asked to compare the
object's ETag itself. Other object stores compare a moment before they write.
"""

from typing import Any, NamedTuple

from upath import UPath

from recsys_pipeline.core.errors import InputError, naming
from recsys_pipeline.storage.atomic import atomic_file, is_local
from recsys_pipeline.storage.verified import damaged, read_small

_ATTEMPTS = 5
# As S3 and stores that speak like it refuse a conditional write, by the name of the error and its status.
_REFUSALS = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class Seen(NamedTuple):
    """What somebody saw of a small file.

    Attributes:
        content: None where there was no such file, or nothing that can be read.
        etag: by which an object store tells versions of the file apart; None where it has none.
    """

    content: bytes | None
    etag: str | None = None


def see(path: UPath) -> Seen:
    """What the file says now; something else in its place, such as a pipe, says nothing."""
    if is_local(path):
        return Seen(_content(path))
    for _ in range(_ATTEMPTS):
        before, content, after = _etag(path), _content(path), _etag(path)
        if before == after:
            return Seen(content, after)
    raise damaged(path, "is being replaced again and again")


def replace_if_as_seen(path: UPath, content: bytes, seen: Seen) -> bool:
    """Replace the file, if it still is as it was seen.

    Returns:
        Whether it was; if not, it is as it was.
    """
    if not is_local(path) and hasattr(path.fs, "call_s3"):
        return _put_on_s3(path, content, seen)
    if see(path).content != seen.content:
        return False
    with atomic_file(path) as staged:
        staged.write_bytes(content)
    return True


def _put_on_s3(path: UPath, content: bytes, seen: Seen) -> bool:
    bucket, key, _ = path.fs.split_path(path.path)
    condition: dict[str, Any] = {"IfMatch": seen.etag} if seen.etag else {"IfNoneMatch": "*"}
    try:
        with naming(path):
            path.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
    except Exception as error:
        response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
        told = (
            response.get("Error", {}).get("Code"),
            response.get("ResponseMetadata", {}).get("HTTPStatusCode"),
        )
        if _REFUSALS.isdisjoint(map(str, told)):
            raise
        return False
    finally:
        path.fs.invalidate_cache()
    return True


def _content(path: UPath) -> bytes | None:
    try:
        return read_small(path)
    except InputError:
        return None


def _etag(path: UPath) -> str | None:
    path.fs.invalidate_cache()
    try:
        etag = path.fs.info(path.path).get("ETag")
    except FileNotFoundError:
        return None
    return str(etag) if etag else None
