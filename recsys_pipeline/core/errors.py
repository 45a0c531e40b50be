"""Errors that say what, where and how to mend it."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Data or configuration that no retry will make right; the message says what, where and the mend."""


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Let an error of the file system name the path, where the library that met it names none."""
    try:
        yield
    except OSError as error:
        # The name in an error of `symlink` is where the link would lead, relative to it.
        named = str(error.filename)
        if error.errno is None or named.startswith("/") or "://" in named:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
