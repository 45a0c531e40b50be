"""The processes of the search.

Processes, not threads: on the bundled sample's 32 fits two threads took 56 s of wall and 110 s of CPU time,
where one thread takes 53 s of each, for OpenBLAS serialises the many small calls that `implicit` makes; two
processes take half the wall time at the same CPU time. A process also contains a crash or an out-of-memory
kill, and can be stopped at once.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.ranks import unpacked_ranks
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.engines.local.methods import Task
from recsys_pipeline.engines.local.scratch import scratch_folder
from recsys_pipeline.engines.local.solvers import Solver
from recsys_pipeline.engines.local.training import Fit
from recsys_pipeline.engines.local.worker import share

_STATES = "states"
_SHOWN_OF_STDERR = 300
_POLL_SECONDS = 0.5
_MOST_SECONDS_TO_DIE = 10


class Patience(NamedTuple):
    """How long a worker may be silent before it is ended and its trials count as failed.

    Attributes:
        multiple: of the time that its next answer should take, by the slowest answer so far.
        at_least: seconds that it may always take.
        at_most: seconds before anything is known of how long a fit takes.
    """

    multiple: float = 20.0
    at_least: float = 300.0
    at_most: float = 4 * 3600.0

    def limit(self, expected: float) -> float:
        """Seconds of silence for an answer that should take so many; 0 where nothing is known yet."""
        return max(self.at_least, self.multiple * expected) if expected else self.at_most


class _Worker:
    def __init__(self, folder: Path, number: int) -> None:
        self.errors = folder / f"stderr{number}"
        environment = {
            **os.environ,
            **dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
        }
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "recsys_pipeline.engines.local.worker", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        self._unfinished = b""
        self.task: Task | None = None
        self.answered: set[int] = set()
        self.silent_since = time.monotonic()

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

    def work_until_next_answer(self) -> float:
        """Factors times iterations until it should say something."""
        assert self.task
        done = max(self.answered, default=0)
        coming = [n for n in self.task.fit.checkpoints if n > done]
        return float(self.task.fit.longest.width * ((coming or [done + 1])[0] - done))

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
        # A process that waits for a dead disk ends when that answers, not before.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_MOST_SECONDS_TO_DIE)
        self.output.close()
        with suppress(BrokenPipeError):
            self.input.close()


class WorkerPool:
    """Worker processes around one copy of the data; a context manager that leaves none behind."""

    def __init__(
        self,
        splits: Sequence[Split],
        solver: Solver,
        seed: int,
        n_workers: int,
        patience: Patience | None = None,
        fits_at_once: Callable[[Hyperparameters], int] | None = None,
    ) -> None:
        """Workers start when there is work for them.

        `fits_at_once` says how many fits as wide as a trial the memory is enough for; by default for all.
        """
        self._fits_at_once = fits_at_once or (lambda _: n_workers)
        self._splits, self._solver, self._seed, self._n_workers = splits, solver, seed, n_workers
        self._patience = patience or Patience()
        # Of the slowest answer so far, by factors times iterations.
        self._seconds_per_work = 0.0
        self._workers: list[_Worker] = []
        self._n_started = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = stack.enter_context(scratch_folder())
            (self._folder / _STATES).mkdir()
            share(self._splits, self._folder)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._stack.close()

    def forget(self, fit: Fit) -> None:
        """Remove the state that was kept of a fit."""
        self._state_of(fit).unlink(missing_ok=True)

    def run(self, tasks: Sequence[Task]) -> Iterator[TrialResult]:
        """Do the fits, large ones first; yield the result of each trial as it comes.

        A trial that fails, or whose worker dies, is a result without scores; a dead worker is replaced.
        """
        waiting = deque(sorted(tasks, key=_size, reverse=True))
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            while waiting or any(worker.task for worker in self._workers):
                while self._has_memory_for(waiting) and (idle := self._idle(selector)):
                    self._assign(idle, waiting.popleft())
                # Dagster terminates a run by a signal from a thread of the run's own process, which wakes
                # no other thread, so we poll.
                for key, _ in selector.select(_POLL_SECONDS):
                    worker = key.data
                    lines = worker.read_lines()
                    if lines is None:
                        yield from self._end(worker, selector, worker.cause_of_death())
                        continue
                    for line in lines:
                        yield from self._read(worker, json.loads(line))
                for worker in [worker for worker in self._workers if worker.task]:
                    silent = time.monotonic() - worker.silent_since
                    expected = self._seconds_per_work * worker.work_until_next_answer()
                    if silent > self._patience.limit(expected):
                        yield from self._end(
                            worker,
                            selector,
                            f"the worker process said nothing for {silent:.0f} s and was ended",
                        )

    def _has_memory_for(self, waiting: Sequence[Task]) -> bool:
        """Whether there is something to do, and one more fit of the widest that waits or runs has room."""
        if not waiting:
            return False
        running = [worker.task for worker in self._workers if worker.task]
        widest = max((task.fit.longest for task in (*waiting, *running)), key=lambda trial: trial.width)
        return len(running) < self._fits_at_once(widest)

    def _idle(self, selector: selectors.BaseSelector) -> _Worker | None:
        """A worker without a task, started if need be; None while all are at work."""
        for worker in [worker for worker in self._workers if worker.task is None]:
            if worker.process.poll() is None:
                return worker
            # It died since its last task, which fails no trial.
            list(self._end(worker, selector, ""))
        return self._start(selector) if len(self._workers) < self._n_workers else None

    def _end(self, worker: _Worker, selector: selectors.BaseSelector, reason: str) -> Iterator[TrialResult]:
        selector.unregister(worker.output)
        self._workers.remove(worker)
        worker.stop()
        yield from _failed(worker, reason)

    def _start(self, selector: selectors.BaseSelector) -> _Worker:
        worker = _Worker(self._folder, self._n_started)
        self._n_started += 1
        self._workers.append(worker)
        selector.register(worker.output, selectors.EVENT_READ, worker)
        return worker

    def _state_of(self, fit: Fit) -> Path:
        name = "-".join(str(value) for value in fit.trial(0).as_dict().values())
        return self._folder / _STATES / f"{name.replace('/', '')}.npz"

    def _assign(self, worker: _Worker, task: Task) -> None:
        worker.task, worker.answered, worker.silent_since = task, set(), time.monotonic()
        state = self._state_of(task.fit)
        message = {
            "trial": task.fit.longest.as_dict(),
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
            now = time.monotonic()
            pace = (now - worker.silent_since) / worker.work_until_next_answer()
            self._seconds_per_work = max(self._seconds_per_work, pace)
            worker.silent_since = now
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
