"""Errors that say what, where and how to mend it."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class InputError(ValueError):
    """Data or configuration that no retry will make right; the message says what, where and the mend.

    Attributes:
        facts: what else helps to mend it, by name: numbers, sentences, paths, and counts by what is counted.
    """

    def __init__(self, message: str, facts: Mapping[str, Any] | None = None) -> None:
        """A message, and facts that are shown beside it."""
        super().__init__(message)
        self.facts: Mapping[str, Any] = facts or {}


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Let an error of the file system name the path, where the library that met it names none."""
    try:
        yield
    except OSError as error:
        # The name in an error of `symlink` is where the link would lead, relative to it.
        named = str(error.filename)
        if (code := code_of(error)) is None or named.startswith("/") or "://" in named:
            raise
        raise OSError(code, error.strerror or str(error), str(path)) from error


def code_of(error: OSError) -> int | None:
    """The number of an error, also of the one that object stores raise without: a lack of permission."""
    return errno.EACCES if error.errno is None and isinstance(error, PermissionError) else error.errno
