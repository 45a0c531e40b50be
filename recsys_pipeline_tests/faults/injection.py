"""Processes whose n-th file operation fails, by a library that is preloaded into them."""

import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from enum import IntFlag
from pathlib import Path
from typing import Any, NamedTuple

_SOURCE = Path(__file__).with_name("shim.c")
_KILL = -1


class Operations(IntFlag):
    """Kinds of file operations, as in shim.c."""

    none = 0
    grows = 1
    changes = 2
    reads = 4


class Kind(NamedTuple):
    """A kind of fault."""

    name: str
    action: int
    operations: Operations
    and_after: bool = False


KILLED = Kind("kill -9", _KILL, Operations.grows | Operations.changes)
DISK_FULL = Kind("disk full from here on", errno.ENOSPC, Operations.grows, and_after=True)
IO_ERROR = Kind("one I/O error", errno.EIO, Operations.grows | Operations.changes | Operations.reads)
COUNTED = Kind("none", 0, Operations.none)


class Outcome(NamedTuple):
    """How a process ended: what it returned, the operations it counted; killed processes return nothing."""

    was_killed: bool
    value: Any
    operations: int


def compiler() -> list[str] | None:
    """The C compiler of this machine, or that of the package `ziglang`; None where there is neither."""
    if found := shutil.which("cc"):
        return [found]
    try:
        import ziglang  # noqa: F401
    except ImportError:
        return None
    return [sys.executable, "-m", "ziglang", "cc"]


def preload() -> None:
    """Start this program again with the library loaded, if it is not."""
    if hasattr(ctypes.CDLL(None), "faults_arm"):
        # Loaded, it needs its file no more.
        shutil.rmtree(Path(os.environ.pop("LD_PRELOAD")).parent)
        return
    if sys.platform != "linux":
        sys.exit("faults are injected by LD_PRELOAD, which Linux alone has")
    compile_with = compiler()
    if compile_with is None:
        sys.exit("no C compiler: install one, or `pip install ziglang`")
    library = Path(tempfile.mkdtemp(prefix="faults-shim-")) / "shim.so"
    subprocess.run(
        [*compile_with, "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"], check=True
    )
    arguments = [sys.executable, "-m", "recsys_pipeline_tests.faults", *sys.argv[1:]]
    os.execve(sys.executable, arguments, {**os.environ, "LD_PRELOAD": str(library)})


def in_fork(
    work: Callable[[], Any], below: Path, kind: Kind = COUNTED, at: int = 0, seconds: float = 120.0
) -> Outcome:
    """What comes of `work` in a process of its own, whose `at`-th file operation below a folder is at fault.

    Raises:
        TimeoutError: it does not end.
        RuntimeError: it crashed, which is not what it was to do.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        _perform(work, writing, below, kind, at)
    os.close(writing)
    content = b""
    with os.fdopen(reading, "rb") as answers:
        signal.alarm(int(seconds))
        try:
            content = answers.read()
            _, status = os.waitpid(pid, 0)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError(f"{kind.name} at operation {at}: the process does not end") from None
        finally:
            signal.alarm(0)
    if os.WIFSIGNALED(status):
        if kind is not KILLED or os.WTERMSIG(status) != signal.SIGKILL:
            raise RuntimeError(f"the process crashed: {signal.Signals(os.WTERMSIG(status)).name}")
        return Outcome(True, None, at)
    answer = json.loads(content)
    return Outcome(False, answer["value"], answer["operations"])


def _perform(work: Callable[[], Any], writing: int, below: Path, kind: Kind, at: int) -> None:
    """Work, answer, and end without whatever the parent process would do at its end."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    shim = ctypes.CDLL(None)
    try:
        shim.faults_arm(str(below).encode(), at, kind.action, int(kind.operations), int(kind.and_after))
        value = work()
    except BaseException:
        value = {"unforeseen": traceback.format_exc()}
    operations = shim.faults_counted()
    shim.faults_arm(b"", 0, 0, 0, 0)
    os.write(writing, json.dumps({"value": value, "operations": operations}).encode())
    os._exit(0)


def temporary_files_in(folder: Path) -> None:
    """Let this process, and those it starts, keep temporary files there."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = str(folder)
