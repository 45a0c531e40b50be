"""The processes of the search.

Processes, not threads: on the bundled sample's 32 fits two threads took 56 s of wall and 110 s of CPU time,
where one thread takes 53 s of each, for OpenBLAS serialises the many small calls that `implicit` makes; two
processes take half the wall time at the same CPU time. A process also contains a crash or an out-of-memory
kill, and can be stopped at once.
"""

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.ranks import unpacked_ranks
from recsys_pipeline.core.search import SearchData, TrialResult
from recsys_pipeline.core.strategies import Task
from recsys_pipeline.core.trials import Fit
from recsys_pipeline.engines.solvers import Solver
from recsys_pipeline.engines.worker import share

_STATES = "states"
_SHOWN_OF_STDERR = 300
_LOOK_UP_SECONDS = 0.5


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    def __init__(self, folder: Path, number: int) -> None:
        self.errors = folder / f"stderr{number}"
        environment = {
            **os.environ,
            **dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
        }
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "recsys_pipeline.engines.worker", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        self._unfinished = b""
        self.task: Task | None = None
        self.answered: set[int] = set()

    @property
    def input(self) -> IO[bytes]:
        assert self.process.stdin
        return self.process.stdin

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout
        return self.process.stdout

    def read_lines(self) -> list[bytes] | None:
        """The lines that are there, without waiting for more; None once there will be no more."""
        content = os.read(self.output.fileno(), 1 << 16)
        if not content:
            return None
        *lines, self._unfinished = (self._unfinished + content).split(b"\n")
        return lines

    def cause_of_death(self) -> str:
        code = self.process.wait()
        cause = f"ended with code {code}"
        if code < 0:
            cause = f"was killed by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                cause += " (out of memory?)"
        last_words = self.errors.read_text(encoding="utf-8", errors="replace").strip()
        return f"the worker process {cause}. {last_words[-_SHOWN_OF_STDERR:]}".strip()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.output.close()
        with suppress(BrokenPipeError):
            self.input.close()


class WorkerPool:
    """Worker processes around one copy of the data; a context manager that leaves none behind."""

    def __init__(self, data: SearchData, solver: Solver, seed: int, n_workers: int) -> None:
        """Workers start when there is work for them."""
        self._solver, self._seed, self._n_workers = solver, seed, n_workers
        self._folder = Path(tempfile.mkdtemp(prefix="recsys-search-"))
        (self._folder / _STATES).mkdir()
        self._workers: list[_Worker] = []
        self._n_started = 0
        share(data, self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, tasks: Sequence[Task]) -> Iterator[TrialResult]:
        """Do the fits, large ones first; yield the result of each trial as it comes.

        A trial that fails, or whose worker dies, is a result without scores; a dead worker is replaced.
        """
        waiting = deque(sorted(tasks, key=_size, reverse=True))
        with selectors.DefaultSelector() as selector:
            idle = [worker for worker in self._workers if worker.task is None]
            for worker in self._workers:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            while waiting or any(worker.task for worker in self._workers):
                while waiting and (idle or len(self._workers) < self._n_workers):
                    worker = idle.pop() if idle else self._start(selector)
                    self._assign(worker, waiting.popleft())
                # Dagster terminates a run by a signal from a thread of the run's own process, which wakes
                # no other thread: whoever waits for the workers must look up now and then.
                for key, _ in selector.select(_LOOK_UP_SECONDS):
                    worker = key.data
                    lines = worker.read_lines()
                    if lines is None:
                        selector.unregister(worker.output)
                        self._workers.remove(worker)
                        yield from _failed(worker, worker.cause_of_death())
                        worker.stop()
                        continue
                    for line in lines:
                        yield from self._read(worker, json.loads(line))
                        if worker.task is None:
                            idle.append(worker)

    def _start(self, selector: selectors.BaseSelector) -> _Worker:
        worker = _Worker(self._folder, self._n_started)
        self._n_started += 1
        self._workers.append(worker)
        selector.register(worker.output, selectors.EVENT_READ, worker)
        return worker

    def _state_of(self, fit: Fit) -> Path:
        name = "-".join(str(value) for value in fit.trial(0))
        return self._folder / _STATES / f"{name.replace('/', '')}.npz"

    def _assign(self, worker: _Worker, task: Task) -> None:
        worker.task, worker.answered = task, set()
        state = self._state_of(task.fit)
        message = {
            "id": self._n_started,
            "trial": task.fit.longest._asdict(),
            "checkpoints": task.fit.checkpoints,
            "seed": self._seed,
            "solver": self._solver.value,
            "resume": str(state) if task.resume and state.exists() else None,
            "keep": str(state) if task.keep else None,
        }
        with suppress(BrokenPipeError):  # it died; the end of its output says so
            worker.input.write(json.dumps(message).encode() + b"\n")
            worker.input.flush()

    def _read(self, worker: _Worker, message: dict[str, Any]) -> Iterator[TrialResult]:
        assert worker.task
        if "done" in message:
            worker.task = None
        elif "failure" in message:
            yield from _failed(worker, message["failure"])
            worker.task = None
        else:
            worker.answered.add(message["iterations"])
            trial = worker.task.fit.trial(message["iterations"])
            ranks = unpacked_ranks(message["ranks"])
            yield TrialResult(trial, Scores(**message["scores"]), message["fit_seconds"], ranks=ranks)


def _size(task: Task) -> int:
    return task.fit.longest.width * len(task.fit.checkpoints)


def _failed(worker: _Worker, reason: str) -> Iterator[TrialResult]:
    """The trials of the worker's task that have no answer yet, as failures."""
    if worker.task:
        for iterations in worker.task.fit.checkpoints:
            if iterations not in worker.answered:
                yield TrialResult(worker.task.fit.trial(iterations), None, float("nan"), reason)
