"""Compiled loops, made ready once: whoever comes first compiles, all others read what it has kept."""

import fcntl
import functools
import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@functools.cache
def ready(module: str) -> ModuleType:
    """A module of compiled loops, imported and compiled; its `compile_all` does that, or reads machine code.

    Processes that start together wait for the first of them, for numba itself would compile in each.
    """
    with _alone():
        loops = importlib.import_module(module)
        loops.compile_all()
    return loops


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process of this user compiles; the kernel lets go of the lock of one that dies."""
    path = Path(tempfile.gettempdir()) / f"recsys-compiling-{os.getuid()}.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
