"""Processes whose n-th file operation fails, by a library that is preloaded into them."""

import ctypes
import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntFlag
from pathlib import Path
from typing import Any, NamedTuple

_SOURCE = Path(__file__).with_name("shim.c")
_MOST_SECONDS = 120


class Operations(IntFlag):
    """Kinds of file operations, as in shim.c."""

    none = 0
    grows = 1
    changes = 2
    reads = 4


class Kind(NamedTuple):
    """A kind of fault.

    Attributes:
        name: of it.
        action: the error, or, negative, the signal.
        operations: which are at fault.
        and_after: whether all that follow are too.
    """

    name: str
    action: int
    operations: Operations
    and_after: bool = False

    @property
    def ends_by(self) -> int | None:
        """The signal that ends the process; None for an error."""
        return -self.action if self.action < 0 else None


_WRITES = Operations.grows | Operations.changes
KILLED = Kind("kill -9", -signal.SIGKILL, _WRITES)
TERMINATED = Kind("SIGTERM", -signal.SIGTERM, _WRITES)
INTERRUPTED = Kind("SIGINT", -signal.SIGINT, _WRITES)
STOPPED = Kind("stopped for a while", -signal.SIGSTOP, _WRITES | Operations.reads)
DISK_FULL = Kind("disk full", errno.ENOSPC, Operations.grows, and_after=True)
READ_ONLY = Kind("read-only", errno.EROFS, _WRITES, and_after=True)
IO_ERROR = Kind("one I/O error", errno.EIO, _WRITES | Operations.reads)
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


def in_fork(work: Callable[[], Any], below: Path, kind: Kind = COUNTED, at: int = 0) -> Outcome:
    """What comes of `work` in a process of its own, whose `at`-th file operation below a folder is at fault.

    Raises:
        TimeoutError: it does not end.
        RuntimeError: it crashed, which is not what it was to do.
    """
    return Fork(work, below, kind, at).outcome()


def must(outcome: Outcome) -> Any:
    """What a process returned that nothing should disturb."""
    problem = outcome.value if not outcome.was_killed else "killed"
    if outcome.was_killed or (isinstance(problem, dict) and {"failed", "unforeseen"} & set(problem)):
        raise RuntimeError(f"an undisturbed process failed: {problem}")
    return outcome.value


class Fork:
    """Some work in a process of its own, whose `at`-th file operation below a folder is at fault."""

    def __init__(self, work: Callable[[], Any], below: Path, kind: Kind = COUNTED, at: int = 0) -> None:
        self._kind, self._at = kind, at
        self._reading, writing = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._reading)
            _perform(work, writing, below, kind, at)
        os.close(writing)

    def ends_within(self, seconds: float) -> bool:
        """Whether the process is at its end by then."""
        return bool(select.select([self._reading], [], [], seconds)[0])

    def wait_until_stopped(self) -> None:
        """Wait until the process has come to its fault, which stops it; or has answered, without any."""
        with self._within(_MOST_SECONDS):
            os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def go_on(self) -> None:
        """Let a process that was stopped go on."""
        os.kill(self._pid, signal.SIGCONT)

    def outcome(self) -> Outcome:
        """What came of it.

        Raises:
            TimeoutError: it does not end.
            RuntimeError: it crashed, which is not what it was to do.
        """
        with os.fdopen(self._reading, "rb") as answers, self._within(_MOST_SECONDS):
            content = answers.read()
            _, status = os.waitpid(self._pid, 0)
        if os.WIFSIGNALED(status):
            if os.WTERMSIG(status) != self._kind.ends_by:
                raise RuntimeError(f"the process crashed: {signal.Signals(os.WTERMSIG(status)).name}")
            return Outcome(True, None, self._at)
        answer = json.loads(content)
        return Outcome(False, answer["value"], answer["operations"])

    @contextmanager
    def _within(self, seconds: int) -> Iterator[None]:
        """Wait no longer for the process; whoever uses this module lets SIGALRM raise `TimeoutError`."""
        signal.alarm(seconds)
        try:
            yield
        except TimeoutError:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            told = f"{self._kind.name} at operation {self._at}: the process does not end"
            raise TimeoutError(told) from None
        finally:
            signal.alarm(0)


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    operations = shim.faults_counted()
    shim.faults_arm(b"", 0, 0, 0, 0)
    os.write(writing, json.dumps({"value": value, "operations": operations}).encode())
    os._exit(0)


def temporary_files_in(folder: Path) -> None:
    """Let this process, and those it starts, keep temporary files there."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = str(folder)
