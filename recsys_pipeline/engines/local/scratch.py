"""The temporary folder of a search, which the next search removes if nobody is left to do so."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "recsys-search-"
_LOCK = "owner.lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that goes when the block ends, however it ends; abandoned ones of killed searches go first."""
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        # The kernel lets go of the lock when this process dies, whatever kills it.
        with (folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except FileNotFoundError:
        # Killed before it could lock, or about to: the process in its name tells.
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        return pid.isdecimal() and not _is_alive(int(pid))
    except OSError:
        return False  # another user's


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
