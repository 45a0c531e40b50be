"""The worker processes of this machine.

Processes, not threads: on the bundled sample's 32 fits two threads took 56 s of wall and 110 s of CPU time,
where one thread takes 53 s of each, for OpenBLAS serialises the many small calls that `implicit` makes; two
processes take half the wall time at the same CPU time. A process also contains a crash or an out-of-memory
kill, and can be stopped at once.
"""

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self, TypeVar

from recsys_pipeline.core.holdout import Split
from recsys_pipeline.engines.local.worker import share
from recsys_pipeline.machine.scratch import scratch_folder

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_SHOWN_OF_STDERR = 300
_POLL_SECONDS = 0.5
_MOST_SECONDS_TO_DIE = 10


class Job(Protocol[R_co]):
    """What one worker does at a time, and how its answers are read."""

    @property
    def size(self) -> float:
        """Large jobs go first."""
        ...

    @property
    def bytes(self) -> int:
        """Memory that it takes beside what all workers share, estimated."""
        ...

    def message(self) -> Mapping[str, Any]:
        """What the worker is told, as JSON."""
        ...

    def work_until_answer(self, n_answers: int) -> float:
        """How much it does from one answer to the next, in a unit of the caller's; 0 where nobody knows."""
        ...

    def result(self, n_answers: int, message: Mapping[str, Any]) -> R_co:
        """What the next answer says, after so many."""
        ...

    def failures(self, n_answers: int, reason: str) -> Iterator[R_co]:
        """What is missing after so many answers."""
        ...


class Patience(NamedTuple):
    """How long a worker may be silent before it is ended and its job counts as failed.

    Attributes:
        multiple: of the time that its next answer should take, by the slowest answer so far.
        at_least: seconds that it may always take.
        at_most: seconds while nothing is known of how long an answer takes.
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
        self.job: Job[Any] | None = None
        self.n_answers = 0
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
        assert self.job
        return self.job.work_until_answer(self.n_answers)

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
        splits: Iterable[Split],
        n_workers: int,
        patience: Patience | None = None,
        *,
        events: bool = False,
    ) -> None:
        """Workers start when there is work for them.

        Args:
            splits: what they share; a stream of them is not kept.
            n_workers: how many at most.
            patience: how long they may be silent.
            events: whether workers need to know which events the splits leave.
        """
        self._splits, self._n_workers, self._events = splits, n_workers, events
        self._patience = patience or Patience()
        # Of the slowest answer so far, by the jobs' unit of work.
        self._seconds_per_work = 0.0
        self._workers: list[_Worker] = []
        self._n_started = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = stack.enter_context(scratch_folder())
            share(self._splits, self.folder, events=self._events)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._stack.close()

    def do(self, jobs: Sequence[Job[R]], room: float = math.inf) -> Iterator[R]:
        """Do the jobs, large ones first; yield each result as it comes.

        A job that fails, or whose worker dies, has failures for what is missing; a dead worker is replaced.

        Args:
            jobs: what to do.
            room: bytes for all that run side by side.
        """
        waiting = deque(sorted(jobs, key=lambda job: job.size, reverse=True))
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            while waiting or any(worker.job for worker in self._workers):
                while waiting and self._is_room_for(waiting[0], room) and (idle := self._idle(selector)):
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
                for worker in [worker for worker in self._workers if worker.job]:
                    silent = time.monotonic() - worker.silent_since
                    expected = self._seconds_per_work * worker.work_until_next_answer()
                    if silent > self._patience.limit(expected):
                        yield from self._end(
                            worker,
                            selector,
                            f"the worker process said nothing for {silent:.0f} s and was ended",
                        )

    def _is_room_for(self, job: Job[Any], room: float) -> bool:
        """Whether memory is enough for a job beside those that run; the first one is always tried."""
        running = [worker.job.bytes for worker in self._workers if worker.job]
        return not running or sum(running) + job.bytes <= room

    def _idle(self, selector: selectors.BaseSelector) -> _Worker | None:
        """A worker without a job, started if need be; None while all are at work."""
        for worker in [worker for worker in self._workers if worker.job is None]:
            if worker.process.poll() is None:
                return worker
            # It died since its last job, which fails none.
            list(self._end(worker, selector, ""))
        return self._start(selector) if len(self._workers) < self._n_workers else None

    def _end(self, worker: _Worker, selector: selectors.BaseSelector, reason: str) -> Iterator[Any]:
        selector.unregister(worker.output)
        self._workers.remove(worker)
        worker.stop()
        if worker.job:
            yield from worker.job.failures(worker.n_answers, reason)

    def _start(self, selector: selectors.BaseSelector) -> _Worker:
        worker = _Worker(self.folder, self._n_started)
        self._n_started += 1
        self._workers.append(worker)
        selector.register(worker.output, selectors.EVENT_READ, worker)
        return worker

    def _assign(self, worker: _Worker, job: Job[Any]) -> None:
        worker.job, worker.n_answers, worker.silent_since = job, 0, time.monotonic()
        with suppress(BrokenPipeError):  # it died; the end of its output says so
            worker.input.write(json.dumps(job.message()).encode() + b"\n")
            worker.input.flush()

    def _read(self, worker: _Worker, message: dict[str, Any]) -> Iterator[Any]:
        assert worker.job
        if "done" in message:
            worker.job = None
        elif "failure" in message:
            yield from worker.job.failures(worker.n_answers, message["failure"])
            worker.job = None
        else:
            now = time.monotonic()
            if work := worker.work_until_next_answer():
                self._seconds_per_work = max(self._seconds_per_work, (now - worker.silent_since) / work)
            worker.silent_since = now
            yield worker.job.result(worker.n_answers, message)
            worker.n_answers += 1
