"""Writing so that a reader sees the old file or the new one, never half."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upath import UPath
from upath.implementations.local import FilePath, PosixUPath, WindowsUPath

# What a killed process left behind is swept away once nobody can still be writing it.
_ABANDONED_AFTER_SECONDS = 24 * 3600


def is_local(path: UPath) -> bool:
    """Whether `path` lies on a file system of this machine."""
    return isinstance(path, (PosixUPath, WindowsUPath, FilePath))


def local_path(path: UPath) -> Path:
    """The local path as the standard library knows it."""
    return Path(path.path)


@contextmanager
def atomic_file(target: UPath) -> Iterator[Path]:
    """Yield a local path to write to; it becomes `target` when the block ends without an error.

    On an object store, where an object appears whole or not at all, the finished file is uploaded.
    """
    with _staged(target, is_folder=False) as staged:
        yield staged
        if is_local(target):
            _flush(staged)
            os.replace(staged, local_path(target))
        else:
            target.fs.put_file(str(staged), target.path)


@contextmanager
def new_folder(target: UPath) -> Iterator[Path]:
    """Yield a local folder to fill; it becomes `target`, which must not exist yet, when the block ends."""
    with _staged(target, is_folder=True) as staged:
        yield staged
        if is_local(target):
            for file in staged.iterdir():
                _flush(file)
            os.rename(staged, local_path(target))
        else:
            for file in sorted(staged.iterdir()):
                target.fs.put_file(str(file), f"{target.path}/{file.name}")


@contextmanager
def _staged(target: UPath, *, is_folder: bool) -> Iterator[Path]:
    prefix = f".{target.name}."
    if is_local(target):
        parent = local_path(target).parent
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent, prefix)
    else:
        parent = None
    if is_folder:
        staged = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=parent))
    else:
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=parent)
        os.close(descriptor)
        staged = Path(name)
    try:
        # mkstemp and mkdtemp let only the owner in; an artefact is as open as any new file.
        umask = os.umask(0)
        os.umask(umask)
        staged.chmod((0o777 if is_folder else 0o666) & ~umask)
        yield staged
    finally:
        if staged.is_dir():
            shutil.rmtree(staged)
        else:
            staged.unlink(missing_ok=True)


def _sweep(parent: Path, prefix: str) -> None:
    for leftover in parent.glob(f"{prefix}*.tmp"):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER_SECONDS:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _flush(file: Path) -> None:
    """Have the content on the disk before the name points to it, or a power cut leaves an empty file."""
    with file.open("rb") as written:
        os.fsync(written.fileno())
