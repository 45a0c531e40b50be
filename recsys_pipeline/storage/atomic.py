"""Writing so that a reader sees the old file or the new one, never half, and a power cut loses neither.

On a local file system: written to a temporary name beside the target, flushed, renamed, and the folder
flushed too, without which the rename itself may be lost with the power. On an object store an object appears
whole or not at all.
"""

import errno
import fcntl
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upath import UPath
from upath.implementations.local import FilePath, PosixUPath, WindowsUPath

from recsys_pipeline.core.errors import naming

_TEMPORARY = ".tmp"
# As `tempfile` makes them; other hidden files are none of ours.
_LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")
# What is to go to an object store is staged in the temporary folder, which others use too.
_OURS_AMONG_OTHERS = ".recsys_pipeline."


def is_local(path: UPath) -> bool:
    """Whether `path` lies on a file system of this machine."""
    return isinstance(path, (PosixUPath, WindowsUPath, FilePath))


def local_path(path: UPath) -> Path:
    """The local path as the standard library knows it."""
    return Path(path.path)


@contextmanager
def atomic_file(target: UPath) -> Iterator[Path]:
    """Yield a local path to write to; it becomes `target` when the block ends without an error."""
    with _staged(target, is_folder=False) as staged:
        yield staged
        try:
            if is_local(target):
                flush(staged)
                os.replace(staged, local_path(target))
                flush(local_path(target).parent)
            else:
                target.fs.put_file(str(staged), target.path)
        except IsADirectoryError:
            # The error itself names the temporary file.
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target)) from None


@contextmanager
def staging_folder(target: UPath) -> Iterator[Path]:
    """Yield a local folder to fill, beside `target` where that is local; `put_folder` makes it `target`."""
    with _staged(target, is_folder=True) as staged:
        yield staged


def put_folder(staged: Path, target: UPath) -> None:
    """Make a filled staging folder `target`, which must not exist yet."""
    if is_local(target):
        for path in sorted(staged.rglob("*"), reverse=True):
            flush(path)
        flush(staged)
        os.rename(staged, local_path(target))
        flush(local_path(target).parent)
        return
    for file in sorted(staged.rglob("*")):
        if file.is_file():
            target.fs.put_file(str(file), f"{target.path}/{file.relative_to(staged).as_posix()}")


@contextmanager
def fetched(folder: UPath) -> Iterator[Path]:
    """Yield a folder, or a file, as one of this machine: itself, or a copy that goes when the block ends."""
    if is_local(folder):
        yield local_path(folder)
        return
    with _staged(folder, is_folder=True) as aside:
        copy = aside / folder.name
        for path in folder.fs.find(folder.path):
            target = copy / posixpath.relpath(path, folder.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.fs.get_file(path, str(target))
        try:
            yield copy
        except OSError as error:
            if not str(error.filename).startswith(str(copy)):
                raise
            of_store = str(error.filename).replace(str(copy), str(folder), 1)
            raise OSError(error.errno, error.strerror, of_store) from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in, so that a power cut does not take them back."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush(folder.parent)


def replace_link(link: Path, leads_to: str) -> None:
    """Let the symbolic link `link` lead to the relative path `leads_to`, from one moment to the next."""
    if link.is_symlink() and os.readlink(link) == leads_to:
        return
    # In a folder of its own, whose name is sure to be free.
    with _staged(UPath(link), is_folder=True) as aside:
        os.symlink(leads_to, aside / link.name)
        if link.is_dir() and not link.is_symlink():
            # A folder that an earlier version of this package wrote: nothing replaces a folder at once.
            os.rename(link, aside / "before")
        os.replace(aside / link.name, link)
    flush(link.parent)


def flush(path: Path) -> None:
    """Have a file's content, or a folder's entries, on the disk before anything points to it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, prefix: str = ".") -> None:
    """Remove what killed processes left in a folder; never what a live one still writes."""
    for leftover in folder.glob(f"{prefix}*{_TEMPORARY}"):
        # What cannot be removed, such as another user's, fails nobody's work.
        with suppress(OSError):
            if _LEFTOVER.fullmatch(leftover.name) and (owned := _own(leftover)) is not None:
                try:
                    _remove(leftover)
                finally:
                    os.close(owned)


@contextmanager
def _staged(target: UPath, *, is_folder: bool) -> Iterator[Path]:
    if is_local(target):
        parent, prefix = local_path(target).parent, "."
        make_folder(parent)
    else:
        parent, prefix = Path(tempfile.gettempdir()), _OURS_AMONG_OTHERS
    sweep(parent, prefix)
    prefix = f"{prefix}{target.name}."
    staged, owned = _make(prefix, parent, is_folder=is_folder)
    try:
        with naming(target):
            # mkstemp and mkdtemp let only the owner in; an artefact is as open as any new file.
            umask = os.umask(0)
            os.umask(umask)
            staged.chmod((0o777 if is_folder else 0o666) & ~umask)
            yield staged
    finally:
        os.close(owned)
        _remove(staged)


def _make(prefix: str, parent: Path, *, is_folder: bool) -> tuple[Path, int]:
    """A temporary file or folder and the descriptor by which this process owns it."""
    while True:
        if is_folder:
            made = Path(tempfile.mkdtemp(prefix=prefix, suffix=_TEMPORARY, dir=parent))
        else:
            descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=_TEMPORARY, dir=parent)
            os.close(descriptor)
            made = Path(name)
        try:
            owned = _own(made)
        except OSError:
            _remove(made)
            raise
        # Another process may have swept it before it was owned.
        if owned is not None and made.exists():
            return made, owned


def _own(path: Path) -> int | None:
    """The descriptor of a lock on `path`, which the kernel drops when its owner dies; None if it is taken.

    Raises:
        OSError: it cannot be locked.
    """
    # NFS grants a lock on a file only to those who may write it; a folder can only be read.
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise OSError(error.errno, error.strerror, str(path)) from error
    return descriptor


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
