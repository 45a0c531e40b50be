"""Files that somebody else may have changed: opened if regular, taken if their SHA-256 is the stated one."""

import hashlib
import json
import os
import stat
import tempfile
from typing import Any, BinaryIO

from upath import UPath

from recsys_pipeline.core.errors import InputError, naming
from recsys_pipeline.storage.atomic import is_local, local_path

# A manifest is some kilobytes; nothing of the size of a model is read as JSON.
MOST_SMALL_BYTES = 1 << 20
_CHUNK = 1 << 20


def damaged(path: UPath, what: str) -> InputError:
    """The error that says so, and how to mend it."""
    return InputError(
        f"{path} {what}. Restore it from a backup, roll back to another release, or materialize the "
        "assets again."
    )


def shown(value: object) -> str:
    """A value from a file that may be anything, cut to a readable length."""
    return repr(value)[:80]


def verified(path: UPath, digest: str, *, mapped: bool) -> BinaryIO:
    """The open file, after it has been hashed; where it is to be mapped, it lies on this machine.

    Raises:
        InputError: it is missing, is no regular file, or has another SHA-256.
    """
    file = on_this_machine(path) if mapped else open_regular(path)
    try:
        with naming(path):
            found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            file.seek(0)
        if found != digest:
            raise damaged(path, "is not the file that was published: its SHA-256 differs")
    except BaseException:
        file.close()
        raise
    return file


def sha256_of(path: UPath) -> str:
    """Of a regular file.

    Raises:
        InputError: it is missing, or no regular file.
    """
    with open_regular(path) as file, naming(path):
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def on_this_machine(path: UPath) -> BinaryIO:
    """A regular file, opened; of an object store a copy without a name, which goes when it is closed.

    Raises:
        InputError: it is missing, or no regular file.
    """
    file = open_regular(path)
    if is_local(path):
        return file
    with file, naming(path):
        with naming(tempfile.gettempdir()):
            copy = tempfile.TemporaryFile()  # noqa: SIM115  # for the caller to close
        try:
            while chunk := file.read(_CHUNK):
                with naming(tempfile.gettempdir()):
                    copy.write(chunk)
            with naming(tempfile.gettempdir()):
                copy.seek(0)
        except BaseException:
            copy.close()
            raise
    return copy


def open_regular(path: UPath) -> BinaryIO:
    """A file that is no folder, no device, and no pipe that never ends.

    Raises:
        InputError: it is missing, or something else.
    """
    try:
        if not path.is_file():
            raise damaged(path, "is no regular file" if path.exists() else "is missing")
        if not is_local(path):
            with naming(path):
                remote: BinaryIO = path.open("rb")
            return remote
        # What it was a moment ago need not be what is opened.
        descriptor = os.open(local_path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise damaged(path, "is missing") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise damaged(path, "is no regular file")
    return os.fdopen(descriptor, "rb")


def read_small(path: UPath) -> bytes:
    """The content of a small file.

    Raises:
        InputError: it is missing, no regular file, or too large.
    """
    with open_regular(path) as file, naming(path):
        content = file.read(MOST_SMALL_BYTES + 1)
    if len(content) > MOST_SMALL_BYTES:
        raise damaged(path, "is too large to be what it should be")
    return content


def parsed(path: UPath, content: bytes) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        InputError: it holds none.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise damaged(path, "is not JSON") from None
    if not isinstance(found, dict):
        raise damaged(path, "is not a JSON object")
    return found
