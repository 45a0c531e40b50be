"""Who may write a warehouse: one run at a time.

Locks are the kernel's (`flock`), so that a dead owner holds nothing, whatever killed it. They work between
the processes of a machine and on NFS 4; an object store has none, and there the lineage of the tables alone
keeps the work of two runs apart.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage.atomic import is_local, local_path, make_folder

_LOCK = ".lock"
_MOST_BYTES = 4096
_POLL_SECONDS = 1.0


@contextmanager
def exclusive(folder: UPath) -> Iterator[None]:
    """Let no other process change a local folder for a moment."""
    if not is_local(folder):
        yield
        return
    descriptor = os.open(local_path(folder), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def held_by_run(
    warehouse: UPath, run_id: str, patience_seconds: float, log: Callable[[str], None]
) -> Iterator[None]:
    """Hold the warehouse for a run; its steps, which may be processes of their own, hold it together.

    Args:
        warehouse: its root.
        run_id: of the run.
        patience_seconds: how long to wait for another run.
        log: told whom this run waits for.

    Raises:
        InputError: another run still holds it; the message says which.
    """
    if not is_local(warehouse):
        yield
        return
    root = local_path(warehouse)
    lock = _opened(root)
    try:
        _wait_for(lock, root, run_id, patience_seconds, log)
        yield
    finally:
        os.close(lock)


def _wait_for(
    lock: int, root: Path, run_id: str, patience_seconds: float, log: Callable[[str], None]
) -> None:
    deadline = time.monotonic() + patience_seconds
    waiting = False
    while not _taken_or_refused(lock, root, run_id):
        holder = _holder(lock)
        if time.monotonic() >= deadline:
            raise InputError(
                f"{root} is in use by {holder}. Wait until it has finished, end it, or let this run "
                "wait longer (`lock_seconds` of the `warehouse` resource)."
            )
        if not waiting:
            log(f"{root} is in use by {holder}: waiting for it")
            waiting = True
        time.sleep(_POLL_SECONDS)


def _opened(root: Path) -> int:
    """A descriptor of the lock file."""
    try:
        make_folder(root)
        return os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _cannot_lock(root, error) from error


def _taken_or_refused(lock: int, root: Path, run_id: str) -> bool:
    try:
        return _taken(lock, run_id)
    except OSError as error:
        raise _cannot_lock(root, error) from error


def _cannot_lock(root: Path, error: OSError) -> InputError:
    return InputError(
        f"{root} cannot be locked for this run: {os.strerror(error.errno or 0)} ({root / _LOCK}). Let the "
        "user of this process write there, free some space if there is none, or choose another "
        "RECSYS_WAREHOUSE."
    )


def _taken(lock: int, run_id: str) -> bool:
    """Whether this run holds the lock now: nobody else did, or another step of the same run does."""
    # Exclusively for the moment of writing who holds it, then shared with the other steps of the run.
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        told = {"run": run_id, "pid": os.getpid(), "host": socket.gethostname(), "since": now}
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(told).encode(), 0)
    except BlockingIOError:
        if _read(lock).get("run") != run_id:
            return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # To go from exclusive to shared is no single step: another run may have come between.
    return _read(lock).get("run") == run_id


def _holder(lock: int) -> str:
    told = _read(lock)
    if not told:
        return "another run"
    return (
        f"run {told.get('run')} (process {told.get('pid')} on {told.get('host')}, since {told.get('since')})"
    )


def _read(lock: int) -> dict[str, object]:
    try:
        told = json.loads(os.pread(lock, _MOST_BYTES, 0))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
